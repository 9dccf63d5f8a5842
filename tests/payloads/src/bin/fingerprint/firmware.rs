//! Firmware: PSCI (Arm DEN0022), the SMC Calling Convention (DEN0028), random
//! numbers (DEN0098), stolen time (DEN0057), and what KVM adds.

use core::fmt::{self, Write};

use kedge_payloads::devicetree::DeviceTree;
use kedge_payloads::smccc::{Answer, call};

const PSCI_VERSION: u32 = 0x8400_0000;
const PSCI_FEATURES: u32 = 0x8400_000a;
const SMCCC_VERSION: u32 = 0x8000_0000;
const ARCH_FEATURES: u32 = 0x8000_0001;
const TRNG_FEATURES: u32 = 0x8400_0051;
const TRNG_RND32: u32 = 0x8400_0053;
const TRNG_RND64: u32 = 0xc400_0053;
const PV_TIME_FEATURES: u32 = 0xc500_0020;
const PV_TIME_ST: u32 = 0xc500_0021;
const PTP: u32 = 0x8600_0001;

/// No CPU has this affinity.
const NO_CPU: u64 = 0xff_00ff_ffff;
/// Types that PSCI reserves: with them a machine is neither reset nor turned off.
const RESERVED_RESET: u64 = 1;
const RESERVED_OFF: u64 = 2;

/// What the SMC Calling Convention has of its own, and a few ids between.
const ARCHITECTURE: [u32; 13] = [
    SMCCC_VERSION,
    ARCH_FEATURES,
    0x8000_0002, // SMCCC_ARCH_SOC_ID
    0xc000_0002,
    0x8000_0003, // SMCCC_ARCH_FEATURE_AVAILABILITY
    0xc000_0003,
    0x8000_0004, // SMCCC_ARCH_WORKAROUND_4
    0x8000_0005,
    0x8000_3fff, // SMCCC_ARCH_WORKAROUND_3
    0x8000_7fff, // SMCCC_ARCH_WORKAROUND_2
    0x8000_8000, // SMCCC_ARCH_WORKAROUND_1
    PV_TIME_FEATURES,
    PSCI_VERSION,
];

const TRNG: [u32; 7] =
    [0x8400_0050, TRNG_FEATURES, 0x8400_0052, TRNG_RND32, TRNG_RND64, 0xc400_0050, 0x8400_0054];

/// Functions that do nothing but answer, with an argument.
#[rustfmt::skip]
const QUERIES: &[(u32, u64)] = &[
    (PSCI_VERSION, 0),
    (0x8400_0003, NO_CPU), (0xc400_0003, NO_CPU), // CPU_ON
    (0x8400_0004, NO_CPU), (0xc400_0004, NO_CPU), // AFFINITY_INFO
    (0x8400_0005, NO_CPU), (0xc400_0005, NO_CPU), // MIGRATE
    (0x8400_0006, 0),                             // MIGRATE_INFO_TYPE
    (0x8400_0007, 0), (0xc400_0007, 0),           // MIGRATE_INFO_UP_CPU
    (0x8400_000d, NO_CPU), (0xc400_000d, NO_CPU), // NODE_HW_STATE
    (0x8400_000f, 0),                             // PSCI_SET_SUSPEND_MODE
    (0x8400_0010, NO_CPU), (0xc400_0010, NO_CPU), // PSCI_STAT_RESIDENCY
    (0x8400_0011, NO_CPU), (0xc400_0011, NO_CPU), // PSCI_STAT_COUNT
    (0x8400_0012, RESERVED_RESET), (0xc400_0012, RESERVED_RESET), // SYSTEM_RESET2
    (0x8400_0013, 0),                             // MEM_PROTECT
    (0x8400_0014, 0), (0xc400_0014, 0),           // MEM_PROTECT_CHECK_RANGE
    (0x8400_0015, RESERVED_OFF), (0xc400_0015, RESERVED_OFF), // SYSTEM_OFF2
    // PSCI 0.1 as KVM numbers it, without CPU_OFF.
    (0x95c1_ba5e, 0), (0x95c1_ba60, NO_CPU), (0x95c1_ba61, NO_CPU),
    // Architecture.
    (SMCCC_VERSION, 0), (0x8000_0002, 0), (0x8000_0002, 1), (0xc000_0002, 2), (0x8000_0003, 0),
    (0x8000_3fff, 0), (0x8000_7fff, 1), (0x8000_8000, 0),
    // TRNG: VERSION, FEATURES, UUID, and more random bits than there are.
    (0x8400_0050, 0), (TRNG_FEATURES, 0x8400_0053), (0x8400_0052, 0), (TRNG_RND32, 97), (TRNG_RND64, 193),
    // Stolen time.
    (PV_TIME_FEATURES, 0xc500_0020), (PV_TIME_FEATURES, 0xc500_0021), (PV_TIME_FEATURES, 0xc500_0022),
    (0x8500_0020, 0xc500_0020), (0xc500_0022, 0),
    // KVM's own: its UID, its features, time that is neither of the guest's counters,
    // implementations that it may run on.
    (0x8600_ff01, 0), (0x8600_0000, 0), (PTP, 2), (0xc600_0040, 0), (0xc600_0041, 0),
    (0xc600_0041, u64::MAX), (0x8600_0040, 0), (0xc600_0042, 0), (0x8600_007f, 0),
    // What KVM gives protected guests.
    (0xc600_0002, 0), (0xc600_0003, 0), (0xc600_0004, 0), (0xc600_0007, 0),
    // Ids that nobody has, of each owner.
    (0x8000_fff0, 0), (0xc000_fff0, 0), (0x8100_0000, 0), (0xc100_0000, 0), (0x8200_0000, 0),
    (0xc200_0000, 0), (0x8300_0000, 0), (0xc300_0000, 0), (0x8400_0020, 0), (0xc400_0020, 0),
    (0x8400_0054, 0), (0x8400_0063, 0), (0x8400_fff0, 0), (0xc400_fff0, 0), (0x8500_0000, 0),
    (0xc500_0000, 0), (0x8500_ff00, 0), (0x8500_ff01, 0), (0x8600_0002, 0), (0x8600_ff00, 0),
    (0x8600_ff03, 0), (0x8600_fff0, 0), (0xc600_fff0, 0), (0x8700_0000, 0), (0xc700_0000, 0),
    (0xb000_0000, 0), (0xf000_0000, 0), (0xb200_0000, 0), (0xbf00_ff01, 0), (0xff00_0000, 0),
    // Calls that may be interrupted, and no call at all.
    (0x0000_0000, 0), (0x0400_0000, 0), (0x4600_0000, 0), (0xffff_ffff, 0),
];

/// What the device tree says of it.
pub(crate) fn in_the_tree(out: &mut dyn Write, tree: DeviceTree) {
    tree.each(|property| {
        if property.node == "psci" {
            let strings = Strings(property.value);
            let _ = writeln!(out, "firmware tree psci {} {strings}", property.name);
        }
    });
}

/// Everything that can be asked.
pub(crate) fn ask(out: &mut dyn Write) {
    for number in 0..32 {
        for function in [0x8400_0000 + number, 0xc400_0000 + number] {
            feature(out, "psci_features", PSCI_FEATURES, function);
        }
    }
    feature(out, "psci_features", PSCI_FEATURES, SMCCC_VERSION);
    feature(out, "psci_features", PSCI_FEATURES, TRNG_RND32);
    ARCHITECTURE.iter().for_each(|id| feature(out, "arch_features", ARCH_FEATURES, *id));
    TRNG.iter().for_each(|id| feature(out, "trng_features", TRNG_FEATURES, *id));
    for &(function, argument) in QUERIES {
        let answer = call(function, [argument, 0, 0]);
        let _ = writeln!(out, "firmware call {function:#010x} {argument:#x} {answer}");
    }
    // Whether they answer is the guest's firmware; what they answer is chance and time.
    for (function, argument) in [(TRNG_RND32, 32), (TRNG_RND64, 64), (PTP, 0), (PTP, 1)] {
        let status = call(function, [argument, 0, 0]).status();
        let answer = Succeeds(status);
        let _ = writeln!(out, "firmware call {function:#010x} {argument:#x} {answer}");
    }
    let stolen_time = call(PV_TIME_ST, [0; 3]);
    let _ = writeln!(out, "firmware call {PV_TIME_ST:#010x} 0x0 {stolen_time} per-cpu");
}

fn feature(out: &mut dyn Write, how: &str, by: u32, function: u32) {
    let answer = call(by, [function.into(), 0, 0]);
    let _ = writeln!(out, "firmware {how} {function:#010x} {answer}");
}

/// A status of which only the errors matter.
struct Succeeds(i64);

impl fmt::Display for Succeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // PTP answers with seconds, random numbers with zero.
            0.. => f.write_str("succeeds"),
            status => write!(f, "{}", Answer([status.cast_unsigned(), 0, 0, 0])),
        }
    }
}

/// The strings of a property, a space between; cells in hexadecimal.
struct Strings(&'static [u8]);

impl fmt::Display for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = core::str::from_utf8(self.0).ok();
        let text = text.and_then(|text| text.strip_suffix('\0')).filter(|text| !text.is_empty());
        match text {
            Some(text) => text.split('\0').enumerate().try_for_each(|(index, word)| {
                f.write_str(if index > 0 { " " } else { "" })?;
                f.write_str(word)
            }),
            None => self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}
