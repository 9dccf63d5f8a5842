//! Guests that stand still for a while, by the library's example.

use anyhow::{Context, ensure};

use crate::host::{Host, Need};
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite};

/// How long they stand still, in milliseconds: longer than a busy host keeps a guest
/// from its CPU.
const PAUSE: u64 = 4000;
/// What is the host's doing, not the pause's.
const NOISE: u64 = PAUSE / 2;

/// The first kernel with `KVM_ARM_SET_COUNTER_OFFSET`.
const BOTH_STAND_STILL: &[Need] = &[Need::Kernel(6, 4)];
const VIRTUAL_STANDS_STILL: &[Need] = &[Need::OlderThan(6, 4)];

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("pause::time_stands_still", BOTH_STAND_STILL, |host| {
        for profile in ["arm64-v1", "host"] {
            let jumps = pause(host, "stop", profile)?;
            ensure!(jumps.iter().flatten().all(|ms| *ms < NOISE), "{profile}: {jumps:?}");
        }
        Ok(())
    });
    suite.every_host("pause::the_virtual_counter_stands_still", VIRTUAL_STANDS_STILL, |host| {
        let jumps = pause(host, "stop", "arm64-v0")?;
        ensure!(jumps.iter().all(|[ms, _]| *ms < NOISE), "{jumps:?}");
        ensure!(jumps.iter().any(|[_, ms]| *ms >= PAUSE), "Linux has learned it: {jumps:?}");
        Ok(())
    });
    suite.every_host("pause::time_passes_when_it_is_to", &[], |host| {
        let jumps = pause(host, "advance", "arm64-v0")?;
        ensure!(jumps.iter().any(|[ms, physical]| *ms >= PAUSE && *physical >= PAUSE), "{jumps:?}");
        Ok(())
    });
}

/// Pauses a guest that looks at its counters. By how many milliseconds they jumped, the
/// virtual and the physical one.
fn pause(host: &Host, clock: &str, profile: &str) -> anyhow::Result<Vec<[u64; 2]>> {
    let ended = Kedge::embedded("pause")
        .with([host.payload("ticks")])
        .with([&PAUSE.to_string(), clock, profile])
        .finish()?
        .with_status(0)?;
    ensure_stood_still(&ended.stdout)?;
    let jumps = ended.stdout.lines().filter_map(|line| line.trim_end().strip_prefix("TICKS jump "));
    jumps.map(|jump| numbers(jump).with_context(|| format!("`{jump}` is no jump"))).collect()
}

/// The guest went on where it was: not a letter of what it says is lost.
fn ensure_stood_still(said: &str) -> Outcome {
    let (before, rest) = said.split_once("\nmeanwhile:\n").context("no pause")?;
    let (meanwhile, after) = rest.split_once("\nafter:\n").context("no end of the pause")?;
    let before = before.strip_prefix("before:\n").unwrap_or(before);
    ensure!(meanwhile.is_empty(), "it said `{meanwhile}` while it was paused");
    let guest = [before, after].concat();
    let whole = |line: &str| {
        let line = line.trim_end();
        let known = ["TICKS start", "TICKS beat", "ended: Stopped", ""];
        known.contains(&line) || line.starts_with("TICKS jump ") || "TICKS beat".starts_with(line)
    };
    ensure!(guest.lines().all(whole), "the guest said:\n{guest}");
    ensure!(after.contains("TICKS beat"), "the guest did not go on:\n{said}");
    Ok(())
}

fn numbers(jump: &str) -> Option<[u64; 2]> {
    let (first, second) = jump.split_once(' ')?;
    Some([first.parse().ok()?, second.parse().ok()?])
}
