//! Guest ABI profiles for tests, as the files that kedge is given.

use std::ffi::OsStr;
use std::io::Write;

use anyhow::Context;
use kedge_firmware::{
    ARM64_V1, FilterAction, FilterRange, Firmware, FwReg, GuestAbi, Hex, builtin,
};
use tempfile::NamedTempFile;

use crate::kedge::Kedge;

/// A profile in a file.
pub(crate) struct Profile(NamedTempFile);

impl Profile {
    /// A profile of its own: this one, changed.
    ///
    /// # Errors
    /// There is no such profile, or no room for the file.
    pub(crate) fn like(name: &str, change: impl FnOnce(&mut GuestAbi)) -> anyhow::Result<Self> {
        let mut abi = builtin(name).with_context(|| format!("no profile {name}"))?;
        "a-test".clone_into(&mut abi.name);
        change(&mut abi);
        Self::of(&serde_json::to_string_pretty(&abi)?)
    }

    /// The default one with these services in a bitmap. Of some services KVM only tells a
    /// guest; kedge answers these.
    ///
    /// # Errors
    /// There is no room for the file.
    pub(crate) fn offering(reg: FwReg, services: u64) -> anyhow::Result<Self> {
        let on = reg.spec().domain.symbols().iter().filter(|bit| services & bit.value != 0);
        let told = on.filter(|_| reg == FwReg::VendorHypBmap2);
        let forward = |function: &u32| FilterRange {
            base: Hex((*function).into()),
            count: 1,
            action: FilterAction::Forward,
        };
        Self::like(ARM64_V1, |abi| {
            abi.firmware.set(Firmware::Known(reg), services);
            abi.machine.smccc_filter = told.flat_map(|bit| bit.opens).map(forward).collect();
        })
    }

    /// A file of this text.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn of(text: &str) -> anyhow::Result<Self> {
        let mut file = NamedTempFile::with_suffix(".json")?;
        file.write_all(text.as_bytes())?;
        Ok(Self(file))
    }

    /// kedge with this profile.
    pub(crate) fn given_to(&self, kedge: Kedge) -> Kedge {
        kedge.with([OsStr::new("--guest-abi"), self.0.path().as_os_str()])
    }
}
