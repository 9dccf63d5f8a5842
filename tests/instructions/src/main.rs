//! `instructions SUBJECT COUNT`: a device does so many requests, or takes so many packets, one at a time, and says
//! nothing. What it does from a doorbell to its interrupt happens within `driver::a_turn_of_the_loop`, which
//! callgrind is told to count: `cargo xtask bench` does.
//!
//! Disks and networks are of memory, so that what is counted is kedge's own.

mod block;
mod driver;
mod net;
mod rng;
mod vsock;

use std::process::ExitCode;

use anyhow::{Context, bail};

/// What is done, by name: so often.
type Subject = (&'static str, fn(u32) -> anyhow::Result<()>);

#[rustfmt::skip]
const SUBJECTS: &[Subject] = &[
    ("read-4k",       |count| block::read(4 << 10, count)),
    ("read-128k",     |count| block::read(128 << 10, count)),
    ("write-4k",      |count| block::write(4 << 10, count)),
    ("receive-64",    |count| net::receive(64, count)),
    ("receive-1500",  |count| net::receive(1500, count)),
    ("send-64",       |count| net::send(64, count)),
    ("send-1500",     |count| net::send(1500, count)),
    ("vsock-to-host", vsock::to_host),
    ("vsock-to-guest", vsock::to_guest),
    ("rng-64",        rng::request),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let (Some(subject), Some(count)) = (words.next(), words.next()) else {
        let names: Vec<_> = SUBJECTS.iter().map(|(name, _)| *name).collect();
        bail!("usage: instructions SUBJECT COUNT, with SUBJECT one of {}", names.join(", "));
    };
    let count = count.parse().context("COUNT is not a number")?;
    let found = SUBJECTS.iter().find(|(name, _)| *name == subject);
    let (_, measure) = found.with_context(|| format!("there is no subject `{subject}`"))?;
    measure(count)
}
