//! What becomes of a request: an answer at once, or an order for the machine.

use kedge_api::call::{Call, Instance, Logger, Metrics, OPENAPI, Parsed};
use kedge_api::http::{Door, Reply, Request, Response};
use kedge_diag::{Fix, Trouble, one_line};
use kedge_vmm::Lifecycle;
use kedge_vmm::metadata::StoreError;
use serde_json::json;

use super::OrderError;
use super::watch::{Voice, Watch};
use super::work::{Order, Way};
use crate::companions::Companions;
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
    companions: Companions,
}

impl MachineDoor {
    pub(super) fn new(
        identity: Identity,
        way: Way,
        log: Option<LogControl>,
        companions: Companions,
    ) -> Self {
        Self { identity, way, log, companions }
    }

    /// What the machine is at, in Firecracker's words.
    fn state(&self) -> &'static str {
        match self.way.status() {
            Lifecycle::Configured => "Not started",
            Lifecycle::Running => "Running",
            Lifecycle::Paused | Lifecycle::Stopped => "Paused",
        }
    }

    fn describe(&self) -> Response {
        let instance = Instance {
            id: &self.identity.id,
            state: self.state(),
            vmm_version: FIRECRACKER_VERSION,
            app_name: self.identity.program,
            kedge_version: env!("CARGO_PKG_VERSION"),
            operation: self.way.operation(),
        };
        Response::with(&instance.to_json())
    }

    fn version(&self) -> Response {
        Response::with(&json!({
            "firecracker_version": FIRECRACKER_VERSION,
            "kedge_version": env!("CARGO_PKG_VERSION"),
        }))
    }

    /// What guests may read. There is nothing to be read before somebody has put it there,
    /// which is an error once the machine runs and has no service either.
    fn show_metadata(&self) -> Response {
        let waits = self.way.status() == Lifecycle::Configured;
        match self.companions.metadata().document() {
            Some(document) => Response::with(&document),
            None if waits || self.way.shown().has_metadata() => Response::with(&json!({})),
            None => refused(&StoreError::NotInitialized),
        }
    }

    /// Once the machine has started, it is too late to say where metrics go.
    fn set_metrics(&self, metrics: &Metrics) -> Response {
        if self.way.status() != Lifecycle::Configured {
            return OrderError::Started.response("");
        }
        match self.companions.metering.open(metrics) {
            Ok(()) => Response::done(),
            Err(error) => {
                Response::fault(&format!("Metrics error: {}{}", error.prefix(), one_line(&error)))
            }
        }
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

/// The text form of Prometheus.
const PROMETHEUS: &str = "text/plain; version=0.0.4";

/// What can be asked for.
fn openapi() -> Response {
    match serde_json::from_str(OPENAPI) {
        Ok(document) => Response::with(&document),
        Err(error) => Response::fault(&error.to_string()),
    }
}

/// What came of metadata that somebody wrote.
fn taken(outcome: Result<(), StoreError>) -> Response {
    match outcome {
        Ok(()) => Response::done(),
        Err(error) => refused(&error),
    }
}

/// Why it was not taken: it begins as Firecracker's clients expect (FIRECRACKER_API.md, 2).
fn refused(error: &StoreError) -> Response {
    let known = error.known_as().map_or_else(String::new, |known| format!("{known} "));
    let message = |about| format!("{about} error: {known}{}", one_line(error));
    match error {
        StoreError::TooLarge { .. } => Response::too_large(&message("MMDS limit exceeded")),
        _ => Response::fault(&message("MMDS")),
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
        let metering = &self.companions.metering;
        let voice = if self.log.is_some() { Voice::Firecracker } else { Voice::Own };
        let (parsed, watch) = Watch::read(request, voice, metering);
        let reply = reply.heard_by(move |response| watch.end(response));
        let Parsed { call, deprecated } = match parsed {
            Ok(parsed) => parsed,
            Err(fault) => return reply.send(&Response::fault(&fault.message())),
        };
        let response = match call {
            Call::Describe => self.describe(),
            Call::Version => self.version(),
            Call::OpenApi => openapi(),
            Call::ShowMachine => Response::with(&self.way.shown().machine()),
            Call::ShowConfig => Response::with(&self.way.shown().whole()),
            Call::ShowMetadata => self.show_metadata(),
            Call::PutMetadata(data) => taken(self.companions.metadata().put(data)),
            Call::PatchMetadata(change) => taken(self.companions.metadata().patch(change)),
            Call::SetLogger(logger) => self.set_logger(&logger),
            Call::SetMetrics(metrics) => self.set_metrics(&metrics),
            Call::ShowMetrics => Response::text(PROMETHEUS, metering.prometheus()),
            Call::Listen => return self.companions.events.listen(reply, || self.state()),
            call => return self.way.give(Order::new(call, deprecated, reply)),
        };
        reply.send(&if deprecated { response.deprecated() } else { response });
    }
}
