//! The profiles that every release of kedge has.

use super::{CpuAbi, GuestAbi, MachineAbi, Promises, UnknownFirmware};
use crate::register::FwReg;

/// The default: PSCI 1.1 and the hypercalls of Linux 5.19 (2022).
pub const ARM64_V1: &str = "arm64-v1";
/// PSCI 1.0 and none of the hypercalls that came after Linux 5.10.
pub const ARM64_V0: &str = "arm64-v0";
/// Whatever the host gives: nothing is written.
pub const HOST: &str = "host";

/// The names of the built-in profiles, the default first.
pub const fn builtin_names() -> [&'static str; 3] {
    [ARM64_V1, ARM64_V0, HOST]
}

/// The built-in profile of this name.
pub fn builtin(name: &str) -> Option<GuestAbi> {
    match name {
        ARM64_V1 => Some(arm64_v1()),
        ARM64_V0 => Some(arm64_v0()),
        HOST => Some(host()),
        _ => None,
    }
}

fn arm64_v1() -> GuestAbi {
    let firmware = [
        (FwReg::PsciVersion, 0x1_0001),
        (FwReg::StdBmap, 0x1),
        (FwReg::StdHypBmap, 0x1),
        (FwReg::VendorHypBmap, 0x3),
        (FwReg::VendorHypBmap2, 0x0),
    ];
    GuestAbi {
        machine: MachineAbi {
            system_suspend: Some(true),
            pv_time: Some(true),
            gicd_revision: Some(3),
            ..MachineAbi::default()
        },
        ..profile(
            ARM64_V1,
            "PSCI 1.1 and the hypercalls of 2022: for hosts with Linux 5.19 or later.",
            Promises::of(firmware),
        )
    }
}

fn arm64_v0() -> GuestAbi {
    let firmware = [
        (FwReg::PsciVersion, 0x1_0000),
        (FwReg::StdBmap, 0x0),
        (FwReg::StdHypBmap, 0x1),
        (FwReg::VendorHypBmap, 0x0),
        (FwReg::VendorHypBmap2, 0x0),
    ];
    GuestAbi {
        machine: MachineAbi {
            system_suspend: Some(false),
            pv_time: Some(true),
            gicd_revision: Some(2),
            ..MachineAbi::default()
        },
        ..profile(
            ARM64_V0,
            "PSCI 1.0 and no hypercall younger than stolen time: for any host, Linux 5.10 too.",
            Promises::of(firmware),
        )
    }
}

fn host() -> GuestAbi {
    GuestAbi {
        unknown_firmware: UnknownFirmware::Adopt,
        ..profile(
            HOST,
            "Whatever the host gives: nothing is written, nothing is promised.",
            Promises::default(),
        )
    }
}

fn profile(name: &str, about: &str, firmware: Promises) -> GuestAbi {
    GuestAbi {
        format: GuestAbi::FORMAT,
        name: name.to_owned(),
        about: about.to_owned(),
        firmware,
        levels: Promises::default(),
        unknown_firmware: UnknownFirmware::Neutralise,
        cpu: CpuAbi::default(),
        machine: MachineAbi::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_profile_of_that_name() {
        for name in builtin_names() {
            assert_eq!(builtin(name).unwrap().name, name);
        }
    }

    #[test]
    fn a_profile_survives_json() {
        for abi in builtin_names().map(|name| builtin(name).unwrap()) {
            let json = serde_json::to_string(&abi).unwrap();
            assert_eq!(serde_json::from_str::<GuestAbi>(&json).unwrap(), abi);
        }
    }
}
