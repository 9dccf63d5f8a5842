//! What the clients have in common: what they are told, and a guest whose output tells
//! whether it runs. The guest says `COUNTERS` once, and then `COUNT` and a number for ever.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// How long anything may take.
const SOON: Duration = Duration::from_secs(60);
/// How long a guest that stands still is looked at.
const A_WHILE: Duration = Duration::from_millis(300);

/// What a client is told on its command line.
#[derive(Debug)]
pub struct Told {
    /// The program to drive.
    pub firecracker: PathBuf,
    /// The guest that counts.
    pub kernel: PathBuf,
    /// Where files may be made.
    pub folder: PathBuf,
}

impl Told {
    /// What it was told.
    ///
    /// # Errors
    /// It was told something else.
    pub fn read() -> anyhow::Result<Self> {
        let mut words = env::args_os().skip(1).map(PathBuf::from);
        let mut next = || words.next().context("usage: CLIENT FIRECRACKER KERNEL FOLDER");
        Ok(Self { firecracker: next()?, kernel: next()?, folder: next()? })
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// What the guest has said, in a file.
#[derive(Debug)]
pub struct Said<'a>(pub &'a Path);

impl Said<'_> {
    fn count(&self, word: &str) -> usize {
        let said = fs::read_to_string(self.0).unwrap_or_default();
        said.lines().filter(|line| line.split_whitespace().next() == Some(word)).count()
    }

    /// Waits until it has counted further.
    ///
    /// # Errors
    /// It does not.
    pub fn goes_on(&self) -> anyhow::Result<()> {
        let (before, deadline) = (self.count("COUNT"), Instant::now() + SOON);
        while self.count("COUNT") < before + 3 {
            ensure!(Instant::now() < deadline, "the guest does not count");
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Looks whether it stands still.
    ///
    /// # Errors
    /// It counts.
    pub fn stands_still(&self) -> anyhow::Result<()> {
        // What it had said is on its way.
        thread::sleep(A_WHILE);
        let before = self.count("COUNT");
        thread::sleep(A_WHILE);
        ensure!(self.count("COUNT") == before, "a paused guest counts");
        Ok(())
    }

    /// That it has begun so often.
    ///
    /// # Errors
    /// It has not.
    pub fn began(&self, times: usize) -> anyhow::Result<()> {
        let began = self.count("COUNTERS");
        ensure!(began == times, "the guest began {began} times, not {times}");
        Ok(())
    }
}
