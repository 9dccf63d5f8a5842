//! `kedge ps`: the machines that run, and have names.

use std::io::{self, IsTerminal};

use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::Machine;
use crate::columns::{aligned, row};
use crate::flags::{help, is_set, switch};
use crate::machines;
use crate::output;
use crate::status::{Failure, Status};

const ABOUT_LINES: &str = "\
Of each machine: its name, its state (Not started, Running, Paused or Silent), CPUs, memory in MiB, its process and its API's
socket. On a terminal that is a table; otherwise a line each, with tabs between.";

/// The state of a machine that does not answer, as one whose process is stopped.
const SILENT: &str = "Silent";

/// `kedge ps`.
pub(super) fn command() -> Command {
    Command::new("ps")
        .bin_name("kedge ps")
        .about("List the machines that run: those with a name (--id)")
        .disable_help_flag(true)
        .after_help(ABOUT_LINES)
        .arg(switch("json").help("Print a line of JSON for each"))
        .arg(help())
}

/// Does it.
///
/// # Errors
/// Standard output is full.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    let machines: Vec<_> = machines::names().iter().filter_map(|name| found(name)).collect();
    output::answer(&match (is_set(flags, "json"), io::stdout().is_terminal()) {
        (true, _) => machines.iter().map(|machine| format!("{machine}\n")).collect(),
        (false, true) => table(&machines),
        (false, false) => machines.iter().map(|machine| cells(machine).join("\t") + "\n").collect(),
    })
}

/// The machine called `name`, if it runs: a process that was killed left its folder behind,
/// and nobody answers there.
fn found(name: &str) -> Option<Value> {
    let machine = Machine::named(name);
    let process = machine.process().ok()?;
    let shown = |path| machine.show(path).unwrap_or_default();
    let (instance, size) = (shown("/"), shown("/machine-config"));
    Some(json!({
        "id": name,
        "state": instance.get("state").unwrap_or(&json!(SILENT)),
        "vcpu_count": size["vcpu_count"],
        "mem_size_mib": size["mem_size_mib"],
        "pid": process.as_raw_nonzero(),
        "api_socket": machine.socket(),
    }))
}

fn cells(machine: &Value) -> [String; 6] {
    const KEYS: [&str; 6] = ["id", "state", "vcpu_count", "mem_size_mib", "pid", "api_socket"];
    KEYS.map(|key| match &machine[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

fn table(machines: &[Value]) -> String {
    let head = row(["NAME", "STATE", "CPUS", "MIB", "PID", "API"]);
    let rows: Vec<_> = [head].into_iter().chain(machines.iter().map(cells)).collect();
    aligned(&rows)
}
