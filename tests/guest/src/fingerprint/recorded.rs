//! What guests found on recorded hosts. With one profile and one processor, it is the
//! same on every kernel.
//!
//! `guest-tests --record NAME` prints a recording as this host has it; which kernel
//! that host has must not matter:
//! `cargo xtask host --cpu neoverse-n1 -- guest-tests --record neoverse-n1.arm64-v1`.

use anyhow::{Context, ensure};
use kedge_firmware::{ARM64_V0, ARM64_V1};

use super::{Fingerprint, differences};
use crate::host::{Host, Need};
use crate::suite::{Outcome, Suite};

/// What is recorded.
#[derive(Clone, Copy)]
struct Recording {
    /// The processor, as QEMU names it, and the profile.
    name: &'static str,
    /// The test.
    test: &'static str,
    /// On which hosts it holds.
    needs: &'static [Need],
    /// The profile.
    profile: &'static str,
    text: &'static str,
}

const N1: Need = Need::Cpu("neoverse-n1");
const MAX: Need = Need::Cpu("max");

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../../../resources/fingerprints/", $name, ".txt"))
    };
}

const RECORDINGS: [Recording; 3] = [
    Recording {
        name: "neoverse-n1.arm64-v1",
        test: "row_30_arm64_v1_is_the_same_firmware_on_every_kernel",
        needs: &[N1, Need::GicV3, Need::Kernel(5, 19)],
        profile: ARM64_V1,
        text: recorded!("neoverse-n1.arm64-v1"),
    },
    Recording {
        name: "max.arm64-v1",
        test: "row_30_arm64_v1_is_the_same_firmware_on_every_kernel_of_max",
        needs: &[MAX, Need::GicV3, Need::Kernel(5, 19)],
        profile: ARM64_V1,
        text: recorded!("max.arm64-v1"),
    },
    Recording {
        name: "neoverse-n1.arm64-v0",
        test: "row_43_arm64_v0_is_the_same_firmware_on_every_kernel",
        needs: &[N1, Need::GicV3],
        profile: ARM64_V0,
        text: recorded!("neoverse-n1.arm64-v0"),
    },
];

pub(super) fn tests(suite: &mut Suite) {
    for recording in RECORDINGS {
        let name = format!("fingerprint::{}", recording.test);
        suite.every_host(&name, recording.needs, move |host| matches(host, recording));
    }
}

/// What a recording is on this host.
///
/// # Errors
/// There is no such recording, or it cannot be made here.
pub(crate) fn record(host: &Host, name: &str) -> anyhow::Result<String> {
    let recording = RECORDINGS.into_iter().find(|recording| recording.name == name);
    recording.with_context(|| format!("no recording is called `{name}`"))?.seen(host)
}

fn matches(host: &Host, recording: Recording) -> Outcome {
    let found = recording.seen(host)?;
    let wrong = differences(recording.text, &found);
    let file = recording.name;
    ensure!(wrong.is_empty(), "{file}: recorded (-) and found (+):\n{}", wrong.join("\n"));
    Ok(())
}

impl Recording {
    /// What a guest sees of what it is promised.
    fn seen(self, host: &Host) -> anyhow::Result<String> {
        let guest = Fingerprint::take(host, &format!("--guest-abi {}", self.profile))?;
        Ok(guest.part("firmware"))
    }
}
