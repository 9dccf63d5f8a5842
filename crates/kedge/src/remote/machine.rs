//! Which machine a command is about, and speaking to it.

use std::path::PathBuf;

use clap::{Arg, ArgMatches};
use kedge_api::call::CreateSnapshot;
use kedge_api::http::{CallError, Method, call};
use kedge_diag::Fix;
use serde_json::{Value, json};

use crate::flags::{file, path, text};
use crate::machines;

/// A machine's socket.
#[derive(Debug)]
pub(crate) struct Machine(PathBuf);

/// Why a machine does not do what is asked of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// It said no, or nothing.
    #[error("the machine cannot be {done}")]
    Call {
        /// What was asked of it, as a participle.
        done: &'static str,
        /// What it said.
        source: CallError,
    },
    /// A path that JSON cannot hold.
    #[error("a path is not UTF-8, and the machine's API takes no other")]
    Path(#[source] serde_json::Error),
}

impl Fix for RemoteError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Call { source, .. } => source.fix(),
            Self::Path(_) => Some("rename the file or its folder".to_owned()),
        }
    }
}

impl Machine {
    /// The flags by which a machine is named.
    pub(crate) fn flags() -> [Arg; 2] {
        [
            Arg::new("machine")
                .value_name("ID")
                .required_unless_present("api-sock")
                .conflicts_with("api-sock")
                .help("The machine's name: what it was given with --id"),
            file("api-sock").help("The machine's API socket, instead of its name"),
        ]
    }

    /// The machine that `flags` name.
    pub(crate) fn of(flags: &ArgMatches) -> Self {
        let socket = path(flags, "api-sock");
        Self(socket.unwrap_or_else(|| machines::socket_of(text(flags, "machine"))))
    }

    /// Whether it runs, or stands still.
    pub(crate) fn runs(&self) -> Result<bool, RemoteError> {
        let failed = |source| RemoteError::Call { done: "asked how it is", source };
        let answer = call(&self.0, Method::Get, "/", None).map_err(failed)?;
        Ok(answer["state"] == "Running")
    }

    /// Makes it stand still.
    pub(crate) fn pause(&self) -> Result<(), RemoteError> {
        self.ask("paused", Method::Patch, "/vm", &json!({ "state": "Paused" }))
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> Result<(), RemoteError> {
        self.ask("resumed", Method::Patch, "/vm", &json!({ "state": "Resumed" }))
    }

    /// Saves it as `order` says; it stands still.
    pub(crate) fn save(&self, order: &CreateSnapshot) -> Result<(), RemoteError> {
        let body = serde_json::to_value(order).map_err(RemoteError::Path)?;
        self.ask("saved", Method::Put, "/snapshot/create", &body)
    }

    fn ask(
        &self,
        done: &'static str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(), RemoteError> {
        let answer = call(&self.0, method, path, Some(body));
        answer.map(drop).map_err(|source| RemoteError::Call { done, source })
    }
}
