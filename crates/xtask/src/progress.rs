//! What the developer commands say while they work: one line per long step, on standard error.

use std::{
    fmt::Display,
    io::{IsTerminal, Write, stderr},
    time::Instant,
};

/// Does `step`, whose `name` reads like "fetch kernel 6.12", and says how long it took.
///
/// # Errors
/// `step`'s.
pub(crate) fn step<T>(
    name: impl Display,
    step: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let on_terminal = stderr().is_terminal();
    if on_terminal {
        // Overwritten by the line that says it is done.
        eprint!("xtask: {name} ...");
        let _ = stderr().flush();
    }
    let start = Instant::now();
    let done = step();
    let seconds = start.elapsed().as_secs_f64();
    let lead = if on_terminal { "\r\x1b[K" } else { "" };
    match &done {
        Ok(_) => eprintln!("{lead}xtask: {name} ({seconds:.1} s)"),
        Err(_) => eprintln!("{lead}xtask: {name}: failed after {seconds:.1} s"),
    }
    done
}

/// Says one line about what was found or chosen.
pub(crate) fn note(text: impl Display) {
    eprintln!("xtask: {text}");
}
