//! What a request asks for, in kedge's terms: Firecracker's resources and bodies
//! (FIRECRACKER_API.md, 3), and kedge's own fields beside them.
//!
//! Each resource is a row of a table; its body is a type of its own, with the fields,
//! defaults and spelling of the interface.

mod body;
mod change;
mod clone;
mod snapshot;
mod state;

use kedge_devices::virtio::change::Change;
use serde_json::Value;

pub use body::Fault;
pub use clone::{BadClones, CloneMachine};
pub use snapshot::{
    Clock, CreateSnapshot, DriveOverride, HugePages, LoadSnapshot, MemoryBackend, NetworkOverride,
    SerialOverride, SnapshotType, VsockOverride,
};
pub use state::WantedState;

use crate::http::{Method, Request};

/// Something asked of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET /`: who it is, and how it is.
    Describe,
    /// `GET /version`.
    Version,
    /// `PATCH /vm`: stand still, or go on.
    SetState(WantedState),
    /// `PUT /snapshot/create`.
    CreateSnapshot(CreateSnapshot),
    /// `PUT /snapshot/load`.
    LoadSnapshot(LoadSnapshot),
    /// `PUT /clone`, kedge's own.
    Clone(Box<CloneMachine>),
    /// `PATCH /drives/{id}` and its like.
    Change(Change),
}

/// A call as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// What is asked for.
    pub call: Call,
    /// Whether it is asked for in a way that will go away: the answer says so.
    pub deprecated: bool,
}

impl From<Call> for Parsed {
    fn from(call: Call) -> Self {
        Self { call, deprecated: false }
    }
}

/// A resource and what can be done with it.
struct Route {
    method: Method,
    /// Its first words, without slashes. What follows is ignored, as Firecracker does.
    path: &'static [&'static str],
    read: Reader,
}

/// How a request is understood.
enum Reader {
    /// It has no body.
    Bare(fn() -> Call),
    /// Its body says more.
    Body(fn(&[u8]) -> Result<Parsed, Fault>),
}

const ROUTES: &[Route] = &[
    Route { method: Method::Get, path: &["version"], read: Reader::Bare(|| Call::Version) },
    Route { method: Method::Get, path: &[], read: Reader::Bare(|| Call::Describe) },
    Route { method: Method::Patch, path: &["vm"], read: Reader::Body(state::read) },
    Route {
        method: Method::Put,
        path: &["snapshot", "create"],
        read: Reader::Body(snapshot::read_create),
    },
    Route {
        method: Method::Put,
        path: &["snapshot", "load"],
        read: Reader::Body(snapshot::read_load),
    },
    Route { method: Method::Put, path: &["clone"], read: Reader::Body(clone::read) },
];

impl Parsed {
    /// What `request` asks for.
    ///
    /// # Errors
    /// There is no such resource, or its body is not right: what the client is told.
    pub fn read(request: &Request) -> Result<Self, Fault> {
        let Request { method, path, body, .. } = request;
        let words: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        if let Some(change) = change::read(request, &words) {
            return change;
        }
        let fits = |route: &&Route| route.method == *method && route.fits(&words);
        let Some(route) = ROUTES.iter().find(fits) else {
            return Err(Fault::NoRoute { method: *method, path: path.clone() });
        };
        match (&route.read, body.is_empty()) {
            (Reader::Bare(call), true) => Ok(call().into()),
            (Reader::Bare(_), false) => Err(Fault::Surplus(*method)),
            (Reader::Body(_), true) => Err(Fault::Empty(*method)),
            (Reader::Body(read), false) => read(body),
        }
    }
}

impl Route {
    /// Whether a path of `words` begins as this one. The root stands for itself alone.
    fn fits(&self, words: &[&str]) -> bool {
        match self.path {
            [] => words == [""],
            path => words.starts_with(path),
        }
    }
}

/// `GET /`'s answer (FIRECRACKER_API.md, 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance<'a> {
    /// The machine's name.
    pub id: &'a str,
    /// `Not started`, `Running` or `Paused`.
    pub state: &'a str,
    /// The release whose interface is answered.
    pub vmm_version: &'a str,
    /// What the program is called there.
    pub app_name: &'a str,
    /// kedge's own release.
    pub kedge_version: &'a str,
}

impl Instance<'_> {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        let Self { id, state, vmm_version, app_name, kedge_version } = self;
        serde_json::json!({
            "id": id,
            "state": state,
            "vmm_version": vmm_version,
            "app_name": app_name,
            "kedge_version": kedge_version,
        })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn request(method: Method, path: &str, body: &str) -> Request {
        Request { method, path: path.to_owned(), body: body.as_bytes().to_vec(), last: false }
    }

    fn call(method: Method, path: &str) -> Result<Call, Fault> {
        Parsed::read(&request(method, path, "")).map(|parsed| parsed.call)
    }

    fn fault(method: Method, path: &str, body: &str, expected: &Expect) {
        let fault = Parsed::read(&request(method, path, body)).unwrap_err();
        expected.assert_eq(&fault.message());
    }

    #[test]
    fn a_path_is_looked_at_as_far_as_a_resource_needs() {
        assert_eq!(call(Method::Get, "/"), Ok(Call::Describe));
        assert_eq!(call(Method::Get, "/version/"), Ok(Call::Version));
        assert_eq!(call(Method::Get, "/version/anything"), Ok(Call::Version));
        assert!(call(Method::Get, "/versions").is_err());
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        let nowhere = expect!["Invalid request method and/or path: PUT /vmm."];
        fault(Method::Put, "/vmm", "{}", &nowhere);
        fault(Method::Get, "/", "{}", &expect!["GET request cannot have a body."]);
        fault(Method::Patch, "/vm", "", &expect!["Empty PATCH request."]);
        let wrong = expect![
            "An error occurred when deserializing the json body of a request: unknown field `stat`, expected `state` at line 1 column 7; fix: write `state`"
        ];
        fault(Method::Patch, "/vm", r#"{"stat": "Paused"}"#, &wrong);
        let wrong = expect![
            "An error occurred when deserializing the json body of a request: unknown variant `Pause`, expected `Paused` or `Resumed` at line 1 column 17; fix: write `Paused`"
        ];
        fault(Method::Patch, "/vm", r#"{"state": "Pause"}"#, &wrong);
    }
}
