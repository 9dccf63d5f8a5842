//! One clone on its way: the process that loads it, until that has said how it went.

use std::io::{self, Read};
use std::process::{self, Command, Stdio};

use serde_json::{Value, json};

use super::flags::Wanted;
use super::source::Source;
use crate::snapshot::REPORT;

/// A process that loads a clone.
pub(super) struct Child {
    id: String,
    process: io::Result<process::Child>,
}

impl Child {
    /// Starts it.
    pub(super) fn start(source: &Source, wanted: &Wanted, number: u32) -> Self {
        let id = wanted.id(number);
        // This very program, whatever has become of its file.
        let process = Command::new("/proc/self/exe")
            .args(["snapshot", "load"])
            .args([source.state(), "--memory".as_ref(), source.memory()])
            .args([format!("--id={id}"), format!("--{REPORT}")])
            .args(wanted.words(number))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self { id, process }
    }

    /// Waits until its machine goes on, or does not: a line about it, and which.
    pub(super) fn line(self) -> (Value, bool) {
        let Self { id, process } = self;
        let (report, complaint) = match process.and_then(heard) {
            Ok(heard) => heard,
            Err(error) => (String::new(), format!("error: cannot start a process: {error}")),
        };
        match serde_json::from_str::<Value>(&report) {
            Ok(mut line) => {
                if !complaint.is_empty() {
                    line["warnings"] = complaint.lines().map(Value::from).collect();
                }
                (line, true)
            }
            Err(_) => (json!({ "id": id, "error": in_a_line(&complaint) }), false),
        }
    }
}

/// What a process says before its machine goes on, and what it complains about. One whose
/// machine does not is waited for: it has ended.
fn heard(mut process: process::Child) -> io::Result<(String, String)> {
    let (mut report, mut complaint) = (String::new(), String::new());
    if let Some(output) = &mut process.stdout {
        output.read_to_string(&mut report)?;
    }
    if let Some(errors) = &mut process.stderr {
        errors.read_to_string(&mut complaint)?;
    }
    if report.is_empty() {
        let status = process.wait()?;
        if complaint.is_empty() {
            complaint = format!("error: its process ended with {status}");
        }
    }
    Ok((report, complaint))
}

/// An error as it is reported on a terminal, in a line.
fn in_a_line(report: &str) -> String {
    let report = report.trim_end();
    report.strip_prefix("error: ").unwrap_or(report).replace("\n  ", "; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_on_several_lines_becomes_one() {
        assert_eq!(in_a_line("error: no\n  because: x\n  fix: y\n"), "no; because: x; fix: y");
    }
}
