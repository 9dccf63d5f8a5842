//! A guest without an operating system that says all that it can find out, waits for
//! somebody to type, and says it all again.

use std::time::Duration;

use anyhow::{Context, ensure};
use kedge_firmware::Varying;

use crate::fingerprint::{Fingerprint, differences, is_of_nothing, promised};
use crate::host::Host;
use crate::kedge::Kedge;
use crate::suite::{Outcome, after};

const WAITS: &str = "fingerprint waits ";
const WOKE: &str = "fingerprint woke ";
const DONE: &str = "fingerprint done\n";
/// What a counter may have gone on for besides the time that was measured, in seconds.
const SLACK: f64 = 1.0;

/// What the guest finds at one time.
pub(super) struct Finding {
    /// Its virtual counter.
    count: u64,
    facts: Fingerprint,
}

/// kedge with the guest.
pub(super) fn guest(host: &Host) -> Kedge {
    Fingerprint::guest(host).cmdline("wait")
}

/// What it has said, all of it, when it has begun to wait.
pub(super) fn waits(said: &str) -> bool {
    said.split_once(WAITS).is_some_and(|(_, rest)| rest.contains('\n'))
}

impl Finding {
    /// Before it waited.
    ///
    /// # Errors
    /// It does not wait yet.
    pub(super) fn before(said: &str) -> anyhow::Result<Self> {
        let (facts, _) = said.split_once(WAITS).with_context(|| format!("no wait in:\n{said}"))?;
        Ok(Self { count: after(said, WAITS)?.parse()?, facts: Fingerprint::new(facts) })
    }

    /// After it waited.
    ///
    /// # Errors
    /// It has not come to its end.
    pub(super) fn after(said: &str) -> anyhow::Result<Self> {
        let count = after(said, WOKE)?;
        let facts = said.split_once(&format!("{WOKE}{count}\n")).map(|(_, facts)| facts);
        let facts = facts.and_then(|facts| facts.strip_suffix(DONE));
        let facts = facts.with_context(|| format!("the guest did not come to its end:\n{said}"))?;
        Ok(Self { count: count.parse()?, facts: Fingerprint::new(facts) })
    }

    /// Whether its processor says that it has no performance monitors.
    ///
    /// # Errors
    /// The guest could not read it.
    pub(super) fn has_no_monitors(&self) -> anyhow::Result<bool> {
        let version = self.facts.id("ID_AA64DFR0_EL1")? >> 8 & 0xf;
        Ok(version == 0 || version == 0xf)
    }

    /// Fails unless a guest that found this and then ran for `ran` finds in `later` what
    /// it is promised to find, and that no more time has passed. Lines that contain one of
    /// `otherwise` are to be others.
    ///
    /// # Errors
    /// The guest noticed something.
    pub(super) fn goes_on_in(&self, later: &Self, ran: Duration, expected: &Expected) -> Outcome {
        let [before, after] =
            [self, later].map(|finding| promised(&finding.facts, expected.varying));
        let differences = differences(&before, &after);
        let is_expected = |line: &String| {
            let is_allowed = expected.otherwise.iter().any(|part| line.contains(part));
            is_allowed || is_of_nothing(&self.facts, line)
        };
        let noticed: Vec<_> = differences.into_iter().filter(|line| !is_expected(line)).collect();
        ensure!(noticed.is_empty(), "before (-) and after (+):\n{}", noticed.join("\n"));
        ensure!(later.count > self.count, "counted to {}, then to {}", self.count, later.count);
        let ticks = u32::try_from(later.count - self.count).map_or(f64::MAX, f64::from);
        let frequency = f64::from(u32::try_from(self.facts.id("CNTFRQ_EL0")?)?);
        let (counted, ran) = (ticks / frequency, ran.as_secs_f64());
        ensure!(counted < ran + SLACK, "it ran for {ran:.2} s, and counted {counted:.2} s");
        Ok(())
    }
}

/// What may be otherwise after a move.
#[derive(Clone, Copy, Default)]
pub(super) struct Expected<'a> {
    /// Fields of registers of which the profile promises nothing.
    pub(super) varying: &'a [Varying],
    /// Parts of lines that the operator has allowed to be others.
    pub(super) otherwise: &'a [&'a str],
}
