//! Which machine a command is about, and speaking to it.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches};
use kedge_api::call::CreateSnapshot;
use kedge_api::http::{CallError, Method, call, show};
use kedge_diag::Fix;
use rustix::net::sockopt::socket_peercred;
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::flags::{file, path, text};
use crate::machines;

/// How long a machine may take to say how it is: that is never the machine's work.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// Nobody says which process it is.
    #[error("cannot find the process of the machine at `{socket}`")]
    Process {
        /// Its socket.
        socket: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A path that JSON cannot hold.
    #[error("a path is not UTF-8, and the machine's API takes no other")]
    Path(#[source] serde_json::Error),
}

impl Fix for RemoteError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Call { source, .. } => source.fix(),
            Self::Process { .. } => Some("name a machine that runs".to_owned()),
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

    /// The machine called `name`.
    pub(crate) fn named(name: &str) -> Self {
        Self(machines::socket_of(name))
    }

    /// Its API.
    pub(crate) fn socket(&self) -> &Path {
        &self.0
    }

    /// What it says at `path`.
    pub(crate) fn show(&self, path: &str) -> Result<Value, RemoteError> {
        let failed = |source| RemoteError::Call { done: "asked how it is", source };
        show(&self.0, path, PATIENCE).map_err(failed)
    }

    /// The process that answers for it.
    pub(crate) fn process(&self) -> Result<Pid, RemoteError> {
        let failed = |source| RemoteError::Process { socket: self.0.clone(), source };
        let stream = UnixStream::connect(&self.0).map_err(failed)?;
        let credentials = socket_peercred(&stream).map_err(|error| failed(error.into()))?;
        Ok(credentials.pid)
    }

    /// Whether it runs, or stands still.
    pub(crate) fn runs(&self) -> Result<bool, RemoteError> {
        Ok(self.show("/")?["state"] == "Running")
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
