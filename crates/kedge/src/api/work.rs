//! Asking the machine for what takes time: one thing after another, in the order in which
//! it was asked for.

use std::sync::mpsc::Receiver;

use kedge_api::call::{Call, WantedState};
use kedge_api::http::{Reply, Response};
use kedge_diag::{Fix, one_line};
use kedge_vmm::{Clock, ControlError, Handle};

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
    /// There is no such thing yet.
    #[error("Create snapshot error: kedge does not save machines yet")]
    NoSnapshots,
    /// It is too late for that.
    #[error("The requested operation is not supported after starting the microVM.")]
    Started,
}

impl Fix for OrderError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Control(source) => source.fix(),
            Self::NoSnapshots => None,
            Self::Started => Some("ask a machine for it that has not started".to_owned()),
        }
    }
}

/// Works until nobody is left to give orders.
pub(super) fn run(handle: &Handle, orders: &Receiver<Order>) {
    for Order { call, deprecated, reply } in orders {
        let response = match obey(handle, &call) {
            Ok(()) => Response::done(),
            Err(error) => Response::fault(&one_line(&error)),
        };
        reply.send(if deprecated { response.deprecated() } else { response });
    }
}

fn obey(handle: &Handle, call: &Call) -> Result<(), OrderError> {
    match call {
        Call::SetState(WantedState::Paused) => Ok(handle.pause()?),
        Call::SetState(WantedState::Resumed) => Ok(handle.resume(Clock::default())?),
        Call::LoadSnapshot(_) => Err(OrderError::Started),
        Call::CreateSnapshot(_) => Err(OrderError::NoSnapshots),
        Call::Describe | Call::Version => Ok(()),
    }
}
