//! Why a machine does not do what a client asks for, in the words that clients know.

use kedge_api::http::Response;
use kedge_diag::{Fix, Trouble, one_line};
use kedge_vmm::{ControlError, PlugError};

use crate::awaited::LoadError;
use crate::clone::CloneError;
use crate::firecracker::{BadSetting, NoMachine};
use crate::machine::MachineError;
use crate::metering::Unwritten;

/// Why a machine does not do what a client asks for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// It is too early for that.
    #[error("there is no machine yet")]
    NotStarted,
    /// What is said of it cannot be.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// What is said of it makes no machine.
    #[error(transparent)]
    NoMachine(#[from] NoMachine),
    /// It cannot be built or run.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A snapshot cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The machine says no.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Saving needs a machine that stands still.
    #[error("the machine runs, and can be saved only while it is paused")]
    Runs,
    /// There are no clones.
    #[error(transparent)]
    Clone(#[from] CloneError),
    /// There is no plan.
    #[error(transparent)]
    Check(Trouble),
    /// It is too late for that.
    #[error("the machine has started already")]
    Started,
    /// Metrics cannot be written.
    #[error(transparent)]
    Metrics(#[from] Unwritten),
}

impl OrderError {
    /// What the client is told who asked for it, where messages about that begin with
    /// `about`.
    pub(super) fn response(&self, about: &str) -> Response {
        Response::fault(&format!("{}{}", self.prefix(about), one_line(self)))
    }

    /// What a message about it begins with, where those about what was asked for begin with
    /// `about` (FIRECRACKER_API.md, 2).
    fn prefix(&self, about: &str) -> String {
        match self {
            Self::NotStarted => {
                "The requested operation is not supported before starting the microVM. ".to_owned()
            }
            Self::Started => {
                "The requested operation is not supported after starting the microVM. ".to_owned()
            }
            Self::Setting(error) => format!("{about}{}", error.prefix()),
            Self::Load(error) => format!("{about}{}", error.prefix()),
            Self::NoMachine(error) => format!("{about}{}", error.prefix()),
            Self::Control(ControlError::Plug(error)) => format!("{about}{}", known_as(error)),
            Self::Control(_)
            | Self::Runs
            | Self::Clone(_)
            | Self::Machine(_)
            | Self::Check(_)
            | Self::Metrics(_) => about.to_owned(),
        }
    }
}

impl Fix for OrderError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Setting(source) => source.fix(),
            Self::NoMachine(source) => source.fix(),
            Self::Machine(source) => source.fix(),
            Self::Load(source) => source.fix(),
            Self::Control(source) => source.fix(),
            Self::Clone(source) => source.fix(),
            Self::Check(source) => source.fix(),
            Self::Metrics(source) => source.fix(),
            Self::Runs => Some("pause it first: PATCH /vm {\"state\": \"Paused\"}".to_owned()),
            Self::NotStarted => Some(
                "start it: PUT /actions {\"action_type\": \"InstanceStart\"}; or load a snapshot: \
                 PUT /snapshot/load"
                    .to_owned(),
            ),
            Self::Started => Some("ask a machine for it that has not started".to_owned()),
        }
    }
}

/// How clients know why a device does not come or go (FIRECRACKER_API.md, 6).
fn known_as(error: &PlugError) -> &'static str {
    match error {
        PlugError::NoPci => "PCI is not enabled. ",
        PlugError::NoSlots | PlugError::Full => {
            "Could not find an available device slot on the PCI bus. "
        }
        PlugError::InUse { .. } => "Device ID in use. ",
        PlugError::NoSuch { .. } => "Device not found. ",
        PlugError::Stays { leads: true, .. } => "Cannot unplug root device. ",
        PlugError::Root { .. } => "A root block device already exists! ",
        PlugError::Device(_)
        | PlugError::Unshared { .. }
        | PlugError::InKernel { .. }
        | PlugError::Host { .. }
        | PlugError::Stays { leads: false, .. }
        | PlugError::Paused { .. }
        | PlugError::Asked { .. }
        | PlugError::Kept { .. }
        | PlugError::Over { .. } => "",
    }
}
