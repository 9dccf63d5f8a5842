//! A machine of another process's making that says in a line of JSON that it runs, and then
//! keeps to itself: how `kedge clone` starts its clones.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use kedge_diag::Fix;
use rustix::stdio::{dup2_stderr, dup2_stdout};
use serde_json::json;

use crate::machines;
use crate::status::{Failure, Status};

/// What is to be said, and where the process's output goes afterwards.
#[derive(Debug)]
pub(crate) struct Report {
    line: String,
    output: File,
}

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to `{}`", path.display())]
struct NoLog {
    path: PathBuf,
    source: io::Error,
}

impl Fix for NoLog {
    fn fix(&self) -> Option<String> {
        Some("name a file that can be written (--log)".to_owned())
    }
}

impl Report {
    /// Leaves the session of whoever started this process, so that its terminal's end is
    /// not this one's, and makes ready to say that the machine `id` runs. What is said later
    /// goes to `log`, or nowhere.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub(crate) fn prepare(id: &str, log: Option<PathBuf>) -> Result<Self, Failure> {
        // It fails where the process leads a session already.
        let _ = rustix::process::setsid();
        let path = log.unwrap_or_else(|| Path::new("/dev/null").to_owned());
        let output = OpenOptions::new().append(true).create(true).open(&path);
        let output =
            output.map_err(|source| Failure::new(Status::ERROR, NoLog { path, source }))?;
        let socket = machines::socket_of(id);
        let line = json!({ "id": id, "pid": process::id(), "api_socket": socket }).to_string();
        Ok(Self { line, output })
    }

    /// Says it.
    ///
    /// # Errors
    /// Nobody listens.
    pub(crate) fn send(self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", self.line)?;
        stdout.flush()?;
        dup2_stdout(&self.output)?;
        Ok(dup2_stderr(&self.output)?)
    }
}
