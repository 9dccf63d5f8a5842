//! What guests found on recorded hosts. With one profile and one processor, it is the
//! same on every kernel.
//!
//! `guest-tests --record NAME` prints a recording as this host has it; which kernel
//! that host has must not matter:
//! `cargo xtask host --cpu neoverse-n1 -- guest-tests --record neoverse-n1.arm64-v1`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use kedge_firmware::{ARM64_V0, ARM64_V1, GuestAbi, Varying};
use kedge_ids::RegId;
use tempfile::TempDir;

use super::{Fingerprint, differences};
use crate::host::{Host, Need};
use crate::kedge::Kedge;
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
    profile: Promised,
    /// The bits that no kernel of some host of the baseline can set as others have them.
    may_vary: &'static [(RegId, u64)],
    text: &'static str,
}

/// What the guest is promised.
#[derive(Clone, Copy)]
enum Promised {
    /// Its firmware, by a profile of this name.
    Firmware(&'static str),
    /// All that it can see, by the baseline of these hosts: name and probe of each.
    Everything(&'static [(&'static str, &'static str)]),
}

const ID_AA64DFR0_EL1: RegId = RegId::system(3, 0, 0, 5, 0);
const ID_AA64MMFR1_EL1: RegId = RegId::system(3, 0, 0, 7, 1);
/// Who made the monitors, in `PMCR_EL0`: nobody can choose.
const MONITORS_MAKER: (RegId, u64) = (RegId::system(3, 3, 9, 12, 0), 0xffff_0000);
const N1: Need = Need::Cpu("neoverse-n1");
const MAX: Need = Need::Cpu("max");

macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../../../resources/fingerprints/", $name, ".txt"))
    };
}

macro_rules! hosts {
    ($($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../../../resources/hosts/", $name, ".json")))),*]
    };
}

const RECORDINGS: [Recording; 6] = [
    Recording {
        name: "neoverse-n1.arm64-v1",
        test: "row_30_arm64_v1_is_the_same_firmware_on_every_kernel",
        needs: &[N1, Need::GicV3, Need::Kernel(5, 19)],
        profile: Promised::Firmware(ARM64_V1),
        may_vary: &[],
        text: recorded!("neoverse-n1.arm64-v1"),
    },
    Recording {
        name: "max.arm64-v1",
        test: "row_30_arm64_v1_is_the_same_firmware_on_every_kernel_of_max",
        needs: &[MAX, Need::GicV3, Need::Kernel(5, 19)],
        profile: Promised::Firmware(ARM64_V1),
        may_vary: &[],
        text: recorded!("max.arm64-v1"),
    },
    Recording {
        name: "neoverse-n1.arm64-v0",
        test: "row_43_arm64_v0_is_the_same_firmware_on_every_kernel",
        needs: &[N1, Need::GicV3],
        profile: Promised::Firmware(ARM64_V0),
        may_vary: &[],
        text: recorded!("neoverse-n1.arm64-v0"),
    },
    Recording {
        name: "neoverse-n1.from-6.1",
        test: "row_24_a_baseline_is_the_same_machine_on_every_kernel",
        needs: &[N1, Need::GicV3, Need::Kernel(6, 1)],
        profile: Promised::Everything(hosts!(
            "neoverse-n1-6.1",
            "neoverse-n1-6.12",
            "neoverse-n1-7.2"
        )),
        may_vary: &[],
        text: recorded!("neoverse-n1.from-6.1"),
    },
    Recording {
        name: "max.from-6.1",
        test: "row_24_a_baseline_is_the_same_machine_on_every_kernel_of_max",
        needs: &[MAX, Need::GicV3, Need::NoSve, Need::Kernel(6, 1)],
        profile: Promised::Everything(hosts!("max-6.1", "max-6.12", "max-7.2")),
        // Linux 6.1 hides HCX, and none before 6.18 lets it be hidden.
        may_vary: &[(ID_AA64MMFR1_EL1, 0xf << 40)],
        text: recorded!("max.from-6.1"),
    },
    Recording {
        name: "neoverse-n1.from-5.10",
        test: "row_24_a_baseline_with_linux_5_10_is_the_same_machine_but_for_two_fields",
        needs: &[N1, Need::GicV3],
        profile: Promised::Everything(hosts!(
            "neoverse-n1-5.10",
            "neoverse-n1-6.1",
            "neoverse-n1-6.12",
            "neoverse-n1-7.2"
        )),
        // PMUVer and DebugVer: Linux 5.10 neither sets nor hides them.
        may_vary: &[(ID_AA64DFR0_EL1, 0xf0f)],
        text: recorded!("neoverse-n1.from-5.10"),
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
        let hosts = match self.profile {
            Promised::Firmware(name) => {
                let guest = Fingerprint::take(host, &format!("--guest-abi {name}"))?;
                return Ok(guest.part("firmware"));
            }
            Promised::Everything(hosts) => hosts,
        };
        let folder = TempDir::new()?;
        let profile = baseline(&folder, hosts)?;
        let abi: GuestAbi = serde_json::from_slice(&fs::read(&profile)?)?;
        for Varying { id, name, mask, reason } in &abi.cpu.varying {
            let mut may = self.may_vary.iter().chain(&[MONITORS_MAKER]);
            let may = may.any(|(of, bits)| of == id && mask.0 & !bits == 0);
            ensure!(may, "{name}, {mask:?} may not vary: {reason}");
        }
        let kedge = Fingerprint::guest(host).with(["--guest-abi".as_ref(), profile.as_os_str()]);
        Ok(promised(&Fingerprint::of(kedge)?, &abi.cpu.varying))
    }
}

/// The greatest profile of these hosts, name and probe of each, in a file.
///
/// # Errors
/// They have none.
pub(crate) fn baseline(folder: &TempDir, hosts: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let mut kedge = Kedge::new(["abi", "baseline"]);
    for (name, probe) in hosts {
        let file = folder.path().join(format!("{name}.json"));
        fs::write(&file, probe)?;
        kedge = kedge.with([file]);
    }
    let profile = folder.path().join("fleet.json");
    kedge.with(["--output".as_ref(), profile.as_os_str()]).finish()?.with_status(0)?;
    Ok(profile)
}

/// All that a guest found, without the bits of which nothing is promised.
pub(crate) fn promised(found: &Fingerprint, varying: &[Varying]) -> String {
    let line = |line: &str| {
        let [id, encoding, name, value] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        let id = (id == "id").then(|| register(encoding))??;
        let mask = varying.iter().filter(|varying| varying.id == id);
        let mask = mask.fold(0, |mask, varying| mask | varying.mask.0);
        let value = u64::from_str_radix(value.strip_prefix("0x")?, 16).ok()?;
        Some(format!("id {encoding} {name} {:#x}\n", value & !mask))
    };
    found.whole().lines().map(|text| line(text).unwrap_or_else(|| format!("{text}\n"))).collect()
}

/// Registers that belong to a feature: each with the register and the lowest bit of the field
/// that says whether a guest has it. Where it has not, the register is not there (Arm ARM,
/// `SMIDR_EL1`), and nobody reads it: on a processor with SME, Linux 7.2 tells a
/// guest without so, and kernels before it let it read zero.
const OF_A_FEATURE: [(&str, &str, u32); 1] = [("SMIDR_EL1", "ID_AA64PFR1_EL1", 24)];

/// Whether this line tells of a register of a feature that the guest has not.
pub(crate) fn is_of_nothing(found: &Fingerprint, line: &str) -> bool {
    let name = line.split(' ').nth(2);
    let of = OF_A_FEATURE.iter().find(|(register, ..)| name == Some(register));
    of.is_some_and(|(_, says, bit)| found.id(says).is_ok_and(|value| value >> bit & 0xf == 0))
}

/// The register `S3_0_C0_C5_0`.
fn register(encoding: &str) -> Option<RegId> {
    let mut parts = encoding
        .strip_prefix('S')?
        .split('_')
        .map(|part| part.trim_start_matches('C').parse().ok());
    let mut part = || parts.next()?;
    Some(RegId::system(part()?, part()?, part()?, part()?, part()?))
}
