//! Why a machine cannot be restored.

use std::path::PathBuf;

use kedge_arch::features::AbsentFeature;
use kedge_arch::gic_state;
use kedge_bus::RestoreError as DeviceError;
use kedge_diag::{Fix, Trouble};
use kedge_firmware::{MissingFeatures, Plan, PlanError, RestoreError as RegisterError};
use kedge_guest_memory::PageServerError;
use kedge_hv::HvError;
use kedge_saved_state::{FileError, SnapshotId};

use super::WorkingSetError;
use crate::build::BuildError;
use crate::own_device::is_saved_name;
use crate::run::DevicesError;

/// Why a machine cannot be restored. Nothing of it is left, and the snapshot is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The state file is damaged, or this release does not know all of it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The guest is of another architecture.
    #[error("the machine is of architecture `{found}`, and this host of `aarch64`")]
    Architecture {
        /// The machine's.
        found: String,
    },
    /// The host's pages have another size.
    #[error(
        "the machine was saved on a host with pages of {saved} bytes, and this one's have {here}"
    )]
    PageSize {
        /// Where it was saved.
        saved: u32,
        /// Here.
        here: u32,
    },
    /// The memory file holds only what was written since another snapshot.
    #[error("the snapshot is a difference to the snapshot {of}")]
    Difference {
        /// The other snapshot.
        of: SnapshotId,
    },
    /// There is no such device in the machine.
    #[error("the saved machine has no {noun} `{id}`")]
    NoDevice {
        /// What it would be.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// Something was changed that the guest knows.
    #[error("the {what} of a saved machine cannot be changed: {saved} was saved, {here} asked for")]
    Changed {
        /// What was changed.
        what: &'static str,
        /// As it was saved.
        saved: String,
        /// As it was asked for.
        here: String,
    },
    /// A device's configuration cannot be read.
    #[error("the saved configuration of `{id}` of `{kind}` cannot be read")]
    Device {
        /// The key of its kind.
        kind: String,
        /// Its name.
        id: String,
        /// Why not.
        source: Trouble,
    },
    /// The guest would find something elsewhere.
    #[error("the guest found {saved}; here it would find {here}")]
    Layout {
        /// What it found, and where.
        saved: String,
        /// What it would find.
        here: String,
    },
    /// A vCPU feature that the host lacks.
    #[error(transparent)]
    Features(#[from] AbsentFeature),
    /// vCPU features that a recorded host lacks.
    #[error(transparent)]
    Missing(#[from] MissingFeatures),
    /// The host cannot be what the guest was saved on.
    #[error("this host cannot give the guest what it was saved with:{}", list(.0))]
    Refused(Plan),
    /// There is no plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Registers cannot be restored.
    #[error(transparent)]
    Registers(#[from] RegisterError),
    /// The interrupt controller cannot be restored.
    #[error(transparent)]
    Gic(#[from] gic_state::RestoreError),
    /// A device cannot be restored.
    #[error(transparent)]
    DeviceState(DeviceError),
    /// Nobody serves the guest's memory.
    #[error(transparent)]
    PageServer(#[from] PageServerError),
    /// Memory that another process shares is there from the start.
    #[error(
        "the {noun} `{id}` is served by another process, which shares the guest's memory: that \
         cannot {what}"
    )]
    Shared {
        /// What the device is.
        noun: &'static str,
        /// Its name.
        id: String,
        /// What was asked for.
        what: &'static str,
    },
    /// Pages come from a page server, and the kernel would wait for them, for good where
    /// the server ends.
    #[error(
        "the host's kernel serves the {noun} `{id}` (`vhost`): guest memory cannot come from a \
         page server then"
    )]
    InKernel {
        /// What the device is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// Pages of a file are not the host's pool's.
    #[error("a memory file cannot be mapped on huge pages of 2 MiB")]
    HugeFile,
    /// The pages that the guest needs first cannot be had.
    #[error(transparent)]
    WorkingSet(#[from] WorkingSetError),
    /// Who serves it has ended.
    #[error("the page server ended before the guest was restored")]
    PageServerEnded,
    /// The memory file has become shorter, or cannot be read any more.
    #[error("the guest's memory at {address:#x} is gone: its memory file was changed or is lost")]
    MemoryLost {
        /// The guest physical address.
        address: u64,
    },
    /// Read-only memory has changed since.
    #[error("the read-only memory `{}` is not the one that the guest knows", path.display())]
    Rom {
        /// Its file.
        path: PathBuf,
    },
    /// The machine cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
}

fn list(plan: &Plan) -> String {
    plan.refusals().map(|line| format!("\n  {line}")).collect()
}

impl From<HvError> for RestoreError {
    fn from(error: HvError) -> Self {
        Self::Build(error.into())
    }
}

impl From<DevicesError> for RestoreError {
    fn from(error: DevicesError) -> Self {
        match error {
            DevicesError::File(error) => Self::File(error),
            DevicesError::Device(error) => Self::DeviceState(error),
        }
    }
}

impl Fix for RestoreError {
    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::File(source) => return source.fix(),
            Self::Device { source, .. } => return source.fix(),
            Self::Features(source) => return source.fix(),
            Self::Missing(source) => return source.fix(),
            Self::Plan(source) => return source.fix(),
            Self::Registers(source) => return source.fix(),
            Self::Gic(source) => return source.fix(),
            Self::DeviceState(source) => return source.fix(),
            Self::PageServer(source) => return source.fix(),
            Self::WorkingSet(source) => return source.fix(),
            Self::Build(source) => return source.fix(),
            Self::Refused(plan) => return Some(cure(plan)),
            Self::Architecture { .. } => "load it on a host of its own architecture",
            Self::PageSize { .. } => "load it on a host whose kernel has pages of that size",
            Self::Difference { .. } => "merge it with that one first: `kedge snapshot rebase`",
            Self::NoDevice { .. } => "name a device that is there: `kedge snapshot inspect`",
            Self::Changed { .. } => "leave it as it was saved",
            Self::Layout { saved, here } if is_saved_name(saved) || is_saved_name(here) => {
                "load it in a program with the same devices, in the same order"
            }
            Self::Layout { .. } => "load it with the release that saved it",
            Self::Shared { .. } => {
                "load it from its memory file alone, all of which is read at once then"
            }
            Self::InKernel { id, .. } => {
                return Some(format!(
                    "load it from its memory file, or with `--net id={id},vhost=off`"
                ));
            }
            Self::HugeFile => "have a page server fill them, or ask for transparent ones",
            Self::PageServerEnded => "see why it ended, and keep it running while guests do",
            Self::MemoryLost { .. } => {
                "leave the memory files of snapshots alone while guests are loaded from them"
            }
            Self::Rom { .. } => "name the file that it had when it was saved",
        };
        Some(text.to_owned())
    }
}

fn cure(plan: &Plan) -> String {
    const ELSEWHERE: &str = "restore it on a host that can";
    // Of what no register shows, nothing can be let differ.
    if plan.refusals().any(|line| line.subject.id().is_none()) {
        return ELSEWHERE.to_owned();
    }
    let names: Vec<_> = plan.refusals().map(|line| line.subject.to_string()).collect();
    format!("{ELSEWHERE}, or let these differ with `--allow {}`", names.join(","))
}
