//! Guests that are saved and go on elsewhere, by the library's example.

use anyhow::ensure;
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, ensure_contains};

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("snapshot::a_guest_goes_on_where_it_was_saved", &[Need::MmuAtFirst], go_on);
}

/// Whether the virtual counter was far ahead at once: the physical one is the host's own
/// before Linux 6.4.
fn jumped(said: &str) -> bool {
    const FAR_MS: u64 = 1000;
    let jumps = said.lines().filter_map(|line| line.strip_prefix("TICKS jump "));
    let virtual_ms = jumps.filter_map(|jump| jump.split(' ').next()?.parse::<u64>().ok());
    virtual_ms.into_iter().any(|ms| ms > FAR_MS)
}

/// Saves a guest that watches its time, and lets it go on three times from there.
fn go_on(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let files = ["state", "memory"].map(|name| folder.path().join(name));
    let saved = Kedge::embedded("snapshot")
        .with(["save".as_ref(), host.payload("ticks").as_os_str()])
        .with(&files)
        .with(["arm64-v0"])
        .finish()?
        .with_status(0)?;
    ensure_contains(&saved.stdout, &["TICKS start", "TICKS beat", "\nsaved "])?;
    for _ in 0..3 {
        let loaded = Kedge::embedded("snapshot").with(["load"]).with(&files).finish()?;
        let said = loaded.with_status(0)?.stdout;
        ensure_contains(&said, &["TICKS beat", "\nwent on from "])?;
        ensure!(!said.contains("TICKS start"), "it began anew:\n{said}");
        ensure!(!jumped(&said), "its time did not stand still:\n{said}");
    }
    Ok(())
}
