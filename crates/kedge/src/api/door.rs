//! What becomes of a request: an answer at once, or an order for the machine.

use kedge_api::call::{Call, Instance, Logger, OPENAPI, Parsed};
use kedge_api::http::{Door, Reply, Request, Response};
use kedge_diag::{Fix, Trouble, one_line};
use kedge_vmm::Lifecycle;
use serde_json::json;

use super::work::{Order, Way};
use crate::firecracker::FIRECRACKER_VERSION;
use crate::logging::Control as LogControl;

/// Who a machine says it is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its name.
    pub(crate) id: String,
    /// What its program is called.
    pub(crate) program: &'static str,
}

/// Where clients come in.
pub(super) struct MachineDoor {
    identity: Identity,
    way: Way,
    log: Option<LogControl>,
}

impl MachineDoor {
    pub(super) fn new(identity: Identity, way: Way, log: Option<LogControl>) -> Self {
        Self { identity, way, log }
    }

    fn describe(&self) -> Response {
        let state = match self.way.status() {
            Lifecycle::Configured => "Not started",
            Lifecycle::Running => "Running",
            Lifecycle::Paused | Lifecycle::Stopped => "Paused",
        };
        let instance = Instance {
            id: &self.identity.id,
            state,
            vmm_version: FIRECRACKER_VERSION,
            app_name: self.identity.program,
            kedge_version: env!("CARGO_PKG_VERSION"),
        };
        Response::with(&instance.to_json())
    }

    fn version(&self) -> Response {
        Response::with(&json!({
            "firecracker_version": FIRECRACKER_VERSION,
            "kedge_version": env!("CARGO_PKG_VERSION"),
        }))
    }

    fn set_logger(&self, logger: &Logger) -> Response {
        let done = match &self.log {
            Some(log) => log.change(logger).map_err(Trouble::new),
            None => Err(Trouble::new(NotYours)),
        };
        match done {
            Ok(()) => Response::done(),
            Err(error) => Response::fault(&format!("Logger error: {}", one_line(&error))),
        }
    }
}

/// What can be asked for.
fn openapi() -> Response {
    match serde_json::from_str(OPENAPI) {
        Ok(document) => Response::with(&document),
        Err(error) => Response::fault(&error.to_string()),
    }
}

/// The log is not the clients' to change.
#[derive(Debug, thiserror::Error)]
#[error("this machine's log is not its clients' to change")]
struct NotYours;

impl Fix for NotYours {
    fn fix(&self) -> Option<String> {
        Some("start it by Firecracker's command line, or choose with `--log-level`".to_owned())
    }
}

impl Door for MachineDoor {
    fn enter(&mut self, request: Request, reply: Reply) {
        let Parsed { call, deprecated } = match Parsed::read(&request) {
            Ok(parsed) => parsed,
            Err(fault) => return reply.send(&Response::fault(&fault.message())),
        };
        let response = match call {
            Call::Describe => self.describe(),
            Call::Version => self.version(),
            Call::OpenApi => openapi(),
            Call::ShowMachine => Response::with(&self.way.shown().machine()),
            Call::ShowConfig => Response::with(&self.way.shown().whole()),
            Call::SetLogger(logger) => self.set_logger(&logger),
            call => return self.way.give(Order::new(call, deprecated, reply)),
        };
        reply.send(&if deprecated { response.deprecated() } else { response });
    }
}
