//! What kedge asks of KVM, seen from outside: every access to a register, and what
//! else says when it happened.

mod process;

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, ensure};

use crate::kedge::Kedge;

/// Something asked of KVM, in the order in which it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The list of a vCPU's registers.
    List,
    /// A register's value was read: the value, or the error's number.
    Get {
        /// The file of the vCPU.
        vcpu: u64,
        /// The register.
        id: u64,
        /// The value's bytes.
        value: Result<Vec<u8>, i32>,
    },
    /// A register's value was written.
    Set {
        /// The file of the vCPU.
        vcpu: u64,
        /// The register.
        id: u64,
        /// The value's bytes.
        value: Vec<u8>,
        /// The error's number, if KVM refused it.
        result: Result<(), i32>,
    },
    /// Guest memory was mapped, or, with a size of 0, no longer is.
    Memory {
        /// In bytes.
        size: u64,
    },
    /// A vCPU ran.
    Run,
}

/// A run of kedge. Each exit of its guest costs a lot: only for guests that say little.
pub(crate) struct Trace {
    events: Vec<Event>,
}

impl Trace {
    /// Runs this command to its end, which is to be a good one.
    ///
    /// # Errors
    /// It cannot be traced, or fails.
    pub(crate) fn of(kedge: Kedge) -> anyhow::Result<Self> {
        let (trace, status, stderr) = Self::of_any(kedge)?;
        ensure!(status.success(), "{status}:\n{stderr}");
        Ok(trace)
    }

    /// Runs this command to its end, which is to be an error.
    ///
    /// # Errors
    /// It cannot be traced, or does not fail.
    pub(crate) fn of_failure(kedge: Kedge) -> anyhow::Result<Self> {
        let (trace, status, stderr) = Self::of_any(kedge)?;
        ensure!(status.code() == Some(1), "{status}:\n{stderr}");
        Ok(trace)
    }

    /// Runs this command; how it ended, and what it complained about.
    fn of_any(kedge: Kedge) -> anyhow::Result<(Self, ExitStatus, String)> {
        let mut stderr = tempfile::tempfile()?;
        let mut command = kedge.into_command();
        command.stdout(Stdio::null()).stderr(stderr.try_clone()?);
        let (status, events) = process::trace(command)?;
        Ok((Self { events }, status, text(&mut stderr)?))
    }

    /// Everything that was asked.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }

    /// What was asked before any vCPU ran.
    pub(crate) fn before_the_first_run(&self) -> &[Event] {
        let first = self.events.iter().position(|event| *event == Event::Run);
        self.events.split_at(first.unwrap_or(self.events.len())).0
    }

    /// The values written to the register, as numbers.
    pub(crate) fn written(&self, id: u64) -> Vec<u64> {
        let written = self.events.iter().filter_map(|event| match event {
            Event::Set { id: of, value, .. } if *of == id => Some(number(value)),
            _ => None,
        });
        written.collect()
    }

    /// Which registers were written, each as often as it was.
    pub(crate) fn writes(&self) -> impl Iterator<Item = u64> {
        self.events.iter().filter_map(|event| match event {
            Event::Set { id, .. } => Some(*id),
            _ => None,
        })
    }

    /// Which registers were read or written, each as often as it was.
    pub(crate) fn touched(&self) -> impl Iterator<Item = u64> {
        self.events.iter().filter_map(|event| match event {
            Event::Set { id, .. } | Event::Get { id, .. } => Some(*id),
            _ => None,
        })
    }
}

/// For whom a test fails: a line for each event.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.events.iter().try_for_each(|event| match event {
            Event::Get { vcpu, id, value: Ok(value) } => {
                writeln!(f, "{vcpu}: get {id:#x}: {:#x}", number(value))
            }
            Event::Get { vcpu, id, value: Err(errno) } => {
                writeln!(f, "{vcpu}: get {id:#x}: error {errno}")
            }
            Event::Set { vcpu, id, value, result } => {
                writeln!(f, "{vcpu}: set {id:#x}: {:#x} {result:?}", number(value))
            }
            other => writeln!(f, "{other:?}"),
        })
    }
}

/// The value's first 64 bits.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn text(file: &mut File) -> anyhow::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text).context("what a program wrote")?;
    Ok(text)
}
