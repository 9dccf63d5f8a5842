//! What a guest is promised for life: the guest ABI profile, a named JSON document.
//!
//! A promise that is absent is not made: the guest gets what its host gives. Every
//! register is named as in the table or by its id; every 64-bit value is a text in
//! hexadecimal, or in the register's own words.

mod builtin;
mod contradiction;
mod cpu;
mod cpu_config;
mod diff;
mod document;
mod form;
mod machine;
mod overlay;
mod promises;
mod read;

use serde::{Deserialize, Serialize};

pub use builtin::{ARM64_V0, ARM64_V1, HOST, builtin, builtin_names};
pub use contradiction::Contradiction;
pub use cpu::{CpuAbi, IdPromise, Implementation, ImplementationIds, Varying};
pub use cpu_config::{CpuConfig, OverlayError};
pub use diff::Difference;
pub use document::{BadDocument, Fault, Place};
pub use machine::{CounterPolicy, FilterAction, FilterRange, MachineAbi, TimerPpis};
pub use promises::Promises;

/// What a guest is promised for life. It never changes once a guest was born with it: a
/// different promise has another name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestAbi {
    /// The version of this document's format: [`GuestAbi::FORMAT`].
    pub format: u32,
    /// Its name: letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What it is for, as a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The firmware registers whose value is promised: versions and bitmaps.
    #[serde(default)]
    pub firmware: Promises,
    /// The lowest level that the host's mitigations must have. No host can be given a
    /// lower one than it has, so these ask and set nothing.
    #[serde(default)]
    pub levels: Promises,
    /// What becomes of firmware registers that neither `firmware` nor `levels` names.
    #[serde(default)]
    pub unknown_firmware: UnknownFirmware,
    /// The vCPUs.
    #[serde(default)]
    pub cpu: CpuAbi,
    /// What no register shows.
    #[serde(default)]
    pub machine: MachineAbi,
}

impl GuestAbi {
    /// The format that this release reads and writes.
    pub const FORMAT: u32 = 1;
}

/// What becomes of firmware registers that a profile does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFirmware {
    /// Bitmaps are emptied before the first run, so that a guest is not offered what it
    /// may lose on another host; of other registers no neutral value is known, they are
    /// left as they are.
    #[default]
    Neutralise,
    /// They stay as the host has them.
    Adopt,
}

#[cfg(test)]
mod tests;
