//! A tap interface of the host for one test, gone with it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::ensure;

use crate::tap_ioctl::{self, Lasting};

/// An interface with an address.
pub(crate) struct Tap {
    name: String,
    open: fn(&str) -> anyhow::Result<File>,
}

impl Tap {
    /// Makes it.
    ///
    /// # Errors
    /// The host has no taps, or somebody has it.
    pub(crate) fn new(name: impl Into<String>) -> anyhow::Result<Self> {
        Self::make(name, tap_ioctl::open_tap)
    }

    /// Makes one that can have several queues.
    ///
    /// # Errors
    /// The host has no taps, or somebody has it.
    pub(crate) fn with_queues(name: impl Into<String>) -> anyhow::Result<Self> {
        Self::make(name, tap_ioctl::open_tap_queue)
    }

    fn make(
        name: impl Into<String>,
        open: fn(&str) -> anyhow::Result<File>,
    ) -> anyhow::Result<Self> {
        let name = name.into();
        tap_ioctl::set_lasting(&open(&name)?, Lasting::Yes)?;
        Ok(Self { name, open })
    }

    /// How many queues whoever has it open uses; 1 where nobody has.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn queues(&self) -> anyhow::Result<usize> {
        let queues = fs::read_dir(Path::new("/sys/class/net").join(&self.name).join("queues"))?;
        let names = queues.filter_map(|queue| queue.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.starts_with("rx-")).count())
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
        if let Ok(open) = (self.open)(&self.name) {
            let _ = tap_ioctl::set_lasting(&open, Lasting::No);
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
