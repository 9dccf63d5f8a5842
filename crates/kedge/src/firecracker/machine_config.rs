//! The `machine-config` object (FIRECRACKER_API.md, 3.2).

use kedge_api::call::{MachineConfig, NONE};
use kedge_diag::Fix;

const MIB: u64 = 1 << 20;
const MOST_VCPUS: u8 = 32;

/// The one template that Firecracker has for arm64: it makes a Neoverse V1 look like a
/// Neoverse N1.
const V1N1: &str = "V1N1";

/// CPUs and memory, and what is noted of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// vCPUs.
    pub(crate) cpus: u32,
    /// RAM in bytes.
    pub(crate) memory: u64,
    /// Whether what the guest changes is noted, so that differences can be saved.
    pub(crate) notes_changes: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self { cpus: 1, memory: 128 * MIB, notes_changes: false }
    }
}

/// A value that kedge has no machine for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadMachine {
    /// Too few CPUs, or too many.
    #[error("`vcpu_count` cannot be {0}")]
    VcpuCount(u8),
    /// No memory, or more than there is.
    #[error("`mem_size_mib` cannot be {0}")]
    Memory(u64),
    /// Arm's processors have none.
    #[error("`smt` cannot be true on arm64")]
    Smt,
    /// A profile does that, and every host has one.
    #[error("kedge does not have the CPU template \"{0}\"")]
    Template(String),
    /// kedge does not have it yet.
    #[error("`{key}` cannot be {value} yet")]
    NotYet {
        /// The key.
        key: &'static str,
        /// Its value, as it is written.
        value: String,
        /// What it can be.
        instead: &'static str,
    },
}

impl Fix for BadMachine {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::VcpuCount(_) => format!("write a number from 1 to {MOST_VCPUS}"),
            Self::Memory(_) => "write how many MiB of memory the guest gets, from 1".to_owned(),
            Self::Smt => "leave it out or write false".to_owned(),
            Self::Template(_) => "make a profile that all your hosts can keep, with `kedge abi \
                                  baseline`, and name its file: \"guest-abi\": \"FILE\""
                .to_owned(),
            Self::NotYet { instead, .. } => format!("leave it out or write {instead}"),
        })
    }
}

/// The size of the machine in `config`, provided that kedge has such machines.
///
/// # Errors
/// It has not.
pub(crate) fn check(config: &MachineConfig) -> Result<Size, BadMachine> {
    // No `..`: a field added must be decided on here.
    let MachineConfig {
        vcpu_count,
        mem_size_mib,
        smt,
        cpu_template,
        track_dirty_pages,
        huge_pages,
    } = config;
    if !(1..=MOST_VCPUS).contains(vcpu_count) {
        return Err(BadMachine::VcpuCount(*vcpu_count));
    }
    if *smt {
        return Err(BadMachine::Smt);
    }
    if cpu_template.as_deref() == Some(V1N1) {
        return Err(BadMachine::Template(V1N1.to_owned()));
    }
    none_only("cpu_template", cpu_template.as_deref())?;
    none_only("huge_pages", Some(huge_pages))?;
    let memory = mem_size_mib.checked_mul(MIB).filter(|&memory| memory > 0);
    let memory = memory.ok_or(BadMachine::Memory(*mem_size_mib))?;
    Ok(Size { cpus: u32::from(*vcpu_count), memory, notes_changes: *track_dirty_pages })
}

fn none_only(key: &'static str, value: Option<&str>) -> Result<(), BadMachine> {
    match value {
        None | Some(NONE) => Ok(()),
        Some(value) => {
            Err(BadMachine::NotYet { key, value: format!("\"{value}\""), instead: "\"None\"" })
        }
    }
}
