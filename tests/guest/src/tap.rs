//! A tap interface of the host for one test, gone with it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::ensure;

use crate::sys::{self, Lasting};

/// An interface with an address.
pub(crate) struct Tap {
    name: String,
}

impl Tap {
    /// Makes it.
    ///
    /// # Errors
    /// The host has no taps, or somebody has it.
    pub(crate) fn new(name: impl Into<String>) -> anyhow::Result<Self> {
        let name = name.into();
        let open = sys::open_tap(&name)?;
        sys::set_lasting(&open, Lasting::Yes)?;
        Ok(Self { name })
    }

    /// Gives it an address and brings it up.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn with_address(self, address: &str) -> anyhow::Result<Self> {
        run("ip", &["addr", "add", address, "dev", &self.name])?;
        self.up()
    }

    /// Brings it up, with the address that it gives itself.
    ///
    /// # Errors
    /// The host refuses.
    pub(crate) fn up(self) -> anyhow::Result<Self> {
        run("ip", &["link", "set", "dev", &self.name, "up"])?;
        Ok(self)
    }

    /// Its number, by which an address that several interfaces have is told apart.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn index(&self) -> anyhow::Result<u32> {
        let path = Path::new("/sys/class/net").join(&self.name).join("ifindex");
        Ok(fs::read_to_string(path)?.trim_end().parse()?)
    }

    /// What the host says of it.
    pub(crate) fn state(&self) -> Vec<String> {
        let folder = Path::new("/sys/class/net").join(&self.name);
        let values = ["tun_flags", "owner", "group", "flags", "mtu", "address"];
        let read = |value| fs::read_to_string(folder.join(value)).unwrap_or_default();
        values.map(read).into()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // What is left is found by the check that follows every test.
        if let Ok(open) = sys::open_tap(&self.name) {
            let _ = sys::set_lasting(&open, Lasting::No);
        }
    }
}

/// Runs a program of the host.
///
/// # Errors
/// It cannot be run or fails.
pub(crate) fn run(program: &str, words: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {}\n{text}{errors}",
        words.join(" "),
        output.status
    );
    Ok(text)
}
