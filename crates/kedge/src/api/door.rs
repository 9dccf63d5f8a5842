//! What becomes of a request: an answer at once, or an order for the machine.

use kedge_api::call::{Call, Instance, Parsed};
use kedge_api::http::{Door, Reply, Request, Response};
use kedge_vmm::Lifecycle;
use serde_json::json;

use super::work::{Order, Way};
use crate::firecracker::FIRECRACKER_VERSION;

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
}

impl MachineDoor {
    pub(super) fn new(identity: Identity, way: Way) -> Self {
        Self { identity, way }
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
}

impl Door for MachineDoor {
    fn enter(&mut self, request: Request, reply: Reply) {
        match Parsed::read(&request) {
            Err(fault) => reply.send(&Response::fault(&fault.message())),
            Ok(Parsed { call: Call::Describe, .. }) => reply.send(&self.describe()),
            Ok(Parsed { call: Call::Version, .. }) => {
                reply.send(&Response::with(&json!({ "firecracker_version": FIRECRACKER_VERSION })));
            }
            Ok(Parsed { call, deprecated }) => {
                self.way.give(Order::new(call, deprecated, reply));
            }
        }
    }
}
