//! Guest ABI profiles for tests, as the files that kedge is given.

use std::ffi::OsStr;
use std::io::Write;

use anyhow::Context;
use kedge_firmware::{GuestAbi, builtin};
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
