//! A profile made of another one and a few promises more. It is another profile, so it
//! has another name, which follows from what is promised.

use super::GuestAbi;
use super::form::LONGEST_NAME;
use crate::digest::digest;
use crate::register::{Domain, Firmware};

impl GuestAbi {
    /// The profile with `value` promised of `firmware`, whatever it promised before. Its
    /// name says so: `arm64-v1+psci_version=1.0`. A promise that was there already
    /// changes nothing.
    ///
    /// Whether the register can have the value, [`GuestAbi::validate`] tells.
    #[must_use]
    pub fn with(&self, firmware: Firmware, value: u64) -> Self {
        let mut abi = self.clone();
        let level = firmware.spec().is_some_and(|spec| matches!(spec.domain, Domain::Level(_)));
        let promises = if level { &mut abi.levels } else { &mut abi.firmware };
        if promises.get(firmware) == Some(value) {
            return abi;
        }
        promises.set(firmware, value);
        let words = firmware.format(value).replace(',', "_");
        abi.rename(self, &format!("{firmware}={words}"));
        abi
    }

    /// Calls the profile, which is made from `base`, `base+suffix`; or, where that is too long,
    /// by a number that follows from what it promises.
    pub(super) fn rename(&mut self, base: &Self, suffix: &str) {
        self.about = format!("{}, and more promised.", base.name);
        let name = format!("{}+{suffix}", base.name);
        self.name = if name.len() <= LONGEST_NAME {
            name
        } else {
            let digest = self.digest();
            let room = LONGEST_NAME.saturating_sub(digest.len() + 1);
            let start: String = base.name.chars().take(room).collect();
            format!("{start}+{digest}")
        };
    }

    /// Eight digits that follow from what is promised, and not from name and remark.
    pub(super) fn digest(&self) -> String {
        let nameless = Self { name: String::new(), about: String::new(), ..self.clone() };
        let hash = digest(&nameless.to_json());
        format!("{:08x}", (hash >> 32 ^ hash) & 0xffff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{ARM64_V1, builtin};
    use crate::register::FwReg;

    const PSCI: Firmware = Firmware::Known(FwReg::PsciVersion);

    #[test]
    fn one_promise_more_is_in_the_name() {
        let abi = builtin(ARM64_V1).unwrap().with(PSCI, 0x1_0000);
        assert_eq!(abi.name, "arm64-v1+psci_version=1.0");
        assert_eq!(abi.firmware.get(PSCI), Some(0x1_0000));
        let abi = abi.with(Firmware::Known(FwReg::VendorHypBmap), 0);
        assert_eq!(abi.name, "arm64-v1+psci_version=1.0+vendor_hyp_bmap=none");
        assert_eq!(abi.validate(), Ok(()));
    }

    #[test]
    fn a_promise_that_is_there_makes_no_other_profile() {
        let abi = builtin(ARM64_V1).unwrap();
        assert_eq!(abi.with(PSCI, 0x1_0001), abi);
    }

    #[test]
    fn a_level_is_asked_for() {
        let reg = Firmware::Known(FwReg::Workaround1);
        let abi = builtin(ARM64_V1).unwrap().with(reg, 1);
        assert_eq!((abi.levels.get(reg), abi.firmware.get(reg)), (Some(1), None));
    }

    #[test]
    fn a_name_too_long_is_cut_and_numbered() {
        let base = GuestAbi { name: "x".repeat(128), ..builtin(ARM64_V1).unwrap() };
        let [one, other] = [0x1_0000, 0x1_0003].map(|value| base.with(PSCI, value));
        assert_eq!((one.name.len(), one.validate()), (128, Ok(())));
        assert_ne!(one.name, other.name);
        assert_eq!(one.name, base.with(PSCI, 0x1_0000).name);
    }
}
