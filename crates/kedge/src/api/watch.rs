//! A request from when it comes in until it is answered: what is counted and measured of
//! it, and what the log says in the words that Firecracker's clients look for
//! (FIRECRACKER_API.md, 12).

use std::thread;
use std::time::Instant;

use kedge_api::call::{Fault, Parsed, Route};
use kedge_api::http::{Afterwards, Request, Response};
use kedge_vmm::metrics::Outcome;
use serde_json::Value;
use tracing::{Level, enabled, error, info};

use crate::metering::{Act, Metering};

/// What requests are called that are for nothing that there is.
const OTHER: &str = "other";

/// A request that is not answered yet.
pub(super) struct Watch {
    began: Instant,
    kind: String,
    act: Option<Act>,
    /// The request, where the log is to say of it only when it is answered.
    untold: Option<Request>,
    voice: Voice,
    metering: Metering,
}

/// How the log says that a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// As an error, which Firecracker's clients look for.
    Firecracker,
    /// As the client's own affair.
    Own,
}

impl Watch {
    /// What `request` asks for, and the watch over it. The log says that it is there: at
    /// once, but for what takes less time than a line of the log.
    pub(super) fn read(
        request: Request,
        voice: Voice,
        metering: &Metering,
    ) -> (Result<Parsed, Fault>, Self) {
        let began = Instant::now();
        let (kind, parsed) = match Route::find(request.method, &request.path) {
            Ok((route, id)) => (
                [route.method.name(), " ", &route.path].concat(),
                route.read(id.as_deref(), &request.body),
            ),
            Err(fault) => (OTHER.to_owned(), Err(fault)),
        };
        let act = parsed.as_ref().ok().and_then(|parsed| Act::of(&parsed.call));
        let untold = match act.is_some_and(|act| act.is_quick()) {
            true => Some(request),
            false => {
                log_received(&request);
                None
            }
        };
        if parsed.as_ref().is_ok_and(|parsed| parsed.deprecated) {
            metering.deprecated();
        }
        (parsed, Self { began, kind, act, untold, voice, metering: metering.clone() })
    }

    /// It is answered: what is to be said of that in the log, for which nobody is to wait.
    pub(super) fn end(self, response: &Response) -> Afterwards {
        let Self { began, kind, act, untold, voice, metering } = self;
        let (took, refused) = (began.elapsed(), response.status() >= 400);
        metering.asked(kind, took, if refused { Outcome::Failed } else { Outcome::Done });
        let act = act.filter(|_| !refused);
        act.into_iter().for_each(|act| metering.answered(act, took));
        Box::new(move |response| {
            // Who has waited for the answer goes first, where there is one processor for all.
            thread::yield_now();
            untold.iter().for_each(log_received);
            act.filter(|act| act.is_quick()).into_iter().for_each(|act| act.log_done(took));
            match (refused, voice) {
                (false, _) => info!(
                    "The request was executed successfully. Status code: {}.",
                    status(response.status())
                ),
                (true, Voice::Firecracker) => error!("{}", Refusal(response)),
                (true, Voice::Own) => info!("{}", Refusal(response)),
            }
            act.into_iter().for_each(|act| act.log_answered(took));
        })
    }
}

fn log_received(request: &Request) {
    info!("The API server received a {}.", described(request));
}

/// What becomes of a request that is refused.
struct Refusal<'r>(&'r Response);

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = self.0.body().and_then(|body| serde_json::from_str::<Value>(body).ok());
        let message = body.as_ref().and_then(|body| body["fault_message"].as_str());
        let (status, message) = (status(self.0.status()), message.unwrap_or_default());
        write!(f, "Received Error. Status code: {status}. Message: {message}")
    }
}

/// A status with its words.
fn status(code: u16) -> &'static str {
    match code {
        200 => "200 OK",
        204 => "204 No Content",
        413 => "413 Payload too large",
        _ => "400 Bad Request",
    }
}

/// Bytes of a body that the log shows.
const SHOWN: usize = 4096;

/// A request, with its body, where that is nobody's secret and no more than the log takes.
fn described(request: &Request) -> String {
    let Request { method, path, body, .. } = request;
    let plain = format!("{method:?} request on {path:?}");
    let is_shown = match path.trim_matches('/') {
        "mmds" => false,
        "cpu-config" => enabled!(Level::DEBUG),
        _ => !body.is_empty(),
    };
    let body = String::from_utf8_lossy(body.get(..SHOWN).unwrap_or(body));
    match is_shown {
        true => format!("{plain} with body {body:?}"),
        false => plain,
    }
}

#[cfg(test)]
mod tests {
    use kedge_api::http::Method;

    use super::*;

    fn request(method: Method, path: &str, body: &str) -> String {
        let (path, body) = (path.to_owned(), body.as_bytes().to_vec());
        described(&Request { method, path, body, last: false })
    }

    #[test]
    fn a_request_is_described_as_clients_look_for_it() {
        assert_eq!(request(Method::Get, "/version", ""), "Get request on \"/version\"");
        assert_eq!(
            request(Method::Put, "/actions", "{\"action_type\": \"FlushMetrics\"}\n"),
            r#"Put request on "/actions" with body "{\"action_type\": \"FlushMetrics\"}\n""#
        );
    }

    #[test]
    fn what_is_for_guests_alone_is_not_told_nor_all_of_a_long_body() {
        for path in ["/mmds", "mmds/", "/cpu-config"] {
            let told = request(Method::Patch, path, "{\"secret\": 1}");
            assert_eq!(told, format!("Patch request on {path:?}"));
        }
        let long = request(Method::Put, "/vsock", &"ä".repeat(50_000));
        assert_eq!(long.chars().filter(|char| *char == 'ä').count(), 2048);
    }

    #[test]
    fn a_refusal_has_its_message_and_its_status() {
        let told = Refusal(&Response::fault("no \"such\" thing")).to_string();
        assert_eq!(
            told,
            "Received Error. Status code: 400 Bad Request. Message: no \"such\" thing"
        );
        let told = Refusal(&Response::too_large("too much")).to_string();
        assert!(told.starts_with("Received Error. Status code: 413 Payload too large. "));
    }
}
