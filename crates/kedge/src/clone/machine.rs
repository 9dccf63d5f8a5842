//! Clones of this process's own machine, for whoever asks its API for them.
//!
//! The machine is saved here, and a process that does what `kedge clone` does starts the
//! clones from that. They are its children, and nobody's once it has ended: this process has
//! only one to wait for.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Output};

use kedge_api::call::CloneMachine;
use kedge_diag::Fix;
use kedge_vmm::{Handle, SaveProgress};
use serde_json::{Value, json};

use super::descriptors::keep_to_this_process;
use super::fields;
use super::flags::Wanted;
use super::numbered::PLACE;
use super::source::{Source, SourceError};
use crate::machines::BadId;

/// Why there are no clones.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloneError {
    /// They cannot be called so.
    #[error("`name` leads to a name that no machine can have")]
    Name(#[source] BadId),
    /// The machine cannot be saved, or not cloned so.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The host has no more threads.
    #[error("cannot start a thread to clone the machine")]
    Thread(#[source] io::Error),
    /// The host has no more processes, or does not take the words.
    #[error("cannot start a process to clone the machine")]
    Process(#[source] io::Error),
    /// It said nothing of the clones.
    #[error("the process that was to clone the machine ended with {status}: {said}")]
    Silent {
        /// How it ended.
        status: ExitStatus,
        /// What else it said.
        said: String,
    },
    /// Not one could be started.
    #[error("no clone could be started, `{id}` for this reason: {error}")]
    None {
        /// The name of the first.
        id: String,
        /// What became of it, and its cure.
        error: String,
    },
}

impl Fix for CloneError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Name(source) => source.fix(),
            Self::Source(SourceError::Shared { id }) => Some(format!(
                "give each its own copy: \"drive_overrides\": [{{\"drive_id\": \"{id}\", \
                 \"path_on_host\": \"FILE-{PLACE}\"}}]"
            )),
            Self::Source(source) => source.fix(),
            Self::Thread(_) | Self::Process(_) => {
                Some("raise the limits of the process (ulimit -a)".to_owned())
            }
            Self::Silent { .. } | Self::None { .. } => None,
        }
    }
}

/// A machine that is saved, and what is to come of it.
pub(crate) struct Clones {
    source: Source,
    wanted: Wanted,
}

impl Clones {
    /// Saves the machine behind `handle`, which is paused and stays so, with `watcher` to hear
    /// how far that is. It may go on as soon as this is done.
    ///
    /// # Errors
    /// It cannot be saved, or its clones cannot be called as `asked`.
    pub(crate) fn of(
        handle: &Handle,
        asked: &CloneMachine,
        watcher: impl FnMut(SaveProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Self, CloneError> {
        let wanted = fields::wanted(asked).map_err(CloneError::Name)?;
        Ok(Self { source: Source::of_machine(handle, watcher)?, wanted })
    }

    /// Starts them, and waits until each has said how that went: an object for each, in
    /// their order. To read a snapshot takes more room on the stack than the API's threads
    /// have.
    ///
    /// # Errors
    /// There is not one.
    pub(crate) fn start(self) -> Result<Value, CloneError> {
        let Self { source, wanted } = self;
        source.check(&wanted)?;
        keep_to_this_process().map_err(CloneError::Process)?;
        // This very program, whatever has become of its file. What is typed on this one's
        // terminal is not for it.
        let output = Command::new("/proc/self/exe")
            .arg("clone")
            .args([source.state(), "--memory".as_ref(), source.memory()])
            .args(wanted.line())
            .process_group(0)
            .output()
            .map_err(CloneError::Process)?;
        let clones = told(&output, &wanted)?;
        let has_started = |clone: &Value| clone.get("error").is_none();
        match clones.first() {
            Some(first) if !clones.iter().any(has_started) => {
                let text = |key: &str| first[key].as_str().unwrap_or_default().to_owned();
                Err(CloneError::None { id: text("id"), error: text("error") })
            }
            _ => Ok(json!({ "clones": clones })),
        }
    }
}

/// What a process said of each clone, also of those that it did not come to.
fn told(output: &Output, wanted: &Wanted) -> Result<Vec<Value>, CloneError> {
    let status = output.status;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let stdout = text(&output.stdout);
    if stdout.is_empty() {
        return Err(CloneError::Silent { status, said: text(&output.stderr) });
    }
    let lines = stdout.lines().map_while(|line| serde_json::from_str(line).ok());
    let mut told: Vec<Value> = lines.collect();
    let others = wanted.numbers().skip(told.len()).map(|number| {
        let error = format!("the process that was to start it ended with {status}");
        json!({ "id": wanted.id(number), "error": error })
    });
    told.extend(others);
    Ok(told)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use expect_test::expect;

    use super::*;

    fn three() -> Wanted {
        Wanted::new((1, 3), "web-{n}".to_owned(), vec![]).unwrap()
    }

    fn killed(stdout: &str, stderr: &str) -> Output {
        let [stdout, stderr] = [stdout, stderr].map(|text| text.as_bytes().to_vec());
        Output { status: ExitStatus::from_raw(9), stdout, stderr }
    }

    #[test]
    fn clones_that_a_process_did_not_come_to_have_its_end_as_their_error() {
        let output = killed("{\"id\":\"web-1\",\"pid\":7}\n{\"id\":\"we", "");
        let told = told(&output, &three()).unwrap();
        assert_eq!(told[0], json!({ "id": "web-1", "pid": 7 }));
        let error = "the process that was to start it ended with signal: 9 (SIGKILL)";
        assert_eq!(told[1..], ["web-2", "web-3"].map(|id| json!({ "id": id, "error": error })));
    }

    #[test]
    fn a_process_that_says_nothing_of_clones_is_told_with_what_else_it_said() {
        let error = told(&killed("", "error: no\n"), &three()).unwrap_err();
        let expected = expect![
            "the process that was to clone the machine ended with signal: 9 (SIGKILL): error: no"
        ];
        expected.assert_eq(&error.to_string());
    }
}
