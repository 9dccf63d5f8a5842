//! Asking the machine for what takes time: one thing after another, in the order in which
//! it was asked for.

use std::sync::mpsc::Receiver;

use kedge_api::call::{Call, CreateSnapshot, SnapshotType, WantedState};
use kedge_api::http::{Reply, Response};
use kedge_diag::{Fix, one_line};
use kedge_saved_state::Durability;
use kedge_vmm::{Clock, ControlError, Handle, Lifecycle, SaveOrder, Then};

/// Something to ask the machine for.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) call: Call,
    /// Whether it was asked for in a way that will go away.
    pub(super) deprecated: bool,
    pub(super) reply: Reply,
}

/// Why a machine does not do what a client asks for.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    /// The machine says no.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Saving needs a machine that stands still.
    #[error("the machine runs, and can be saved only while it is paused")]
    Runs,
    /// Not yet.
    #[error("kedge does not save differences yet")]
    Difference,
    /// It is too late for that.
    #[error("the machine has started already")]
    Started,
}

impl Fix for OrderError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Control(source) => source.fix(),
            Self::Runs => Some("pause it first: PATCH /vm {\"state\": \"Paused\"}".to_owned()),
            Self::Difference => Some("save all: \"snapshot_type\": \"Full\"".to_owned()),
            Self::Started => Some("ask a machine for it that has not started".to_owned()),
        }
    }
}

/// Works until nobody is left to give orders.
pub(super) fn run(handle: &Handle, orders: &Receiver<Order>) {
    for Order { call, deprecated, reply } in orders {
        let response = match obey(handle, &call) {
            Ok(()) => Response::done(),
            Err(error) => Response::fault(&message(&call, &error)),
        };
        reply.send(if deprecated { response.deprecated() } else { response });
    }
}

/// What a client is told: it begins as Firecracker's clients expect
/// (FIRECRACKER_API.md, 2).
fn message(call: &Call, error: &OrderError) -> String {
    let begin = match (error, call) {
        (OrderError::Started, _) => {
            "The requested operation is not supported after starting the microVM: "
        }
        (_, Call::CreateSnapshot(_)) => "Create snapshot error: ",
        _ => "",
    };
    format!("{begin}{}", one_line(error))
}

fn obey(handle: &Handle, call: &Call) -> Result<(), OrderError> {
    match call {
        Call::SetState(WantedState::Paused) => Ok(handle.pause()?),
        Call::SetState(WantedState::Resumed) => Ok(handle.resume(Clock::default())?),
        Call::LoadSnapshot(_) => Err(OrderError::Started),
        Call::CreateSnapshot(create) => save(handle, create),
        Call::Describe | Call::Version => Ok(()),
    }
}

fn save(handle: &Handle, create: &CreateSnapshot) -> Result<(), OrderError> {
    if create.snapshot_type == SnapshotType::Diff {
        return Err(OrderError::Difference);
    }
    if handle.status() == Lifecycle::Running {
        return Err(OrderError::Runs);
    }
    let order = SaveOrder {
        durability: if create.sync { Durability::Synced } else { Durability::Cached },
        then: if create.resume_vm { Then::Resume(Clock::default()) } else { Then::StayPaused },
        ..SaveOrder::new(&create.snapshot_path, &create.mem_file_path)
    };
    Ok(handle.save(order).map(drop)?)
}
