//! A file of the host as a block device, for one test.

use std::path::Path;
use std::process::Command;

use crate::tap::run;

/// A device of the host over a file; gone when dropped.
pub(crate) struct Loop(String);

impl Loop {
    /// Makes it.
    ///
    /// # Errors
    /// The host has none left.
    pub(crate) fn over(file: &Path) -> anyhow::Result<Self> {
        let device = Command::new("losetup").arg("-f").output()?.stdout;
        let device = String::from_utf8(device)?.trim().to_owned();
        run("losetup", &[&device, &file.display().to_string()])?;
        Ok(Self(device))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // It may be gone.
        let _ = run("losetup", &["-d", &self.0]);
    }
}
