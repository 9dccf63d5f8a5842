//! `kedge info`: what a machine is and how it is.

use clap::{ArgMatches, Command};
use serde_json::{Value, json};

use super::{Machine, RemoteError};
use crate::columns::aligned;
use crate::flags::{help, is_set, switch};
use crate::output;
use crate::status::{Failure, Status};

/// `kedge info`.
pub(super) fn command() -> Command {
    Command::new("info")
        .bin_name("kedge info")
        .about("Say what a machine is, and how it is")
        .disable_help_flag(true)
        .args(Machine::flags())
        .arg(switch("json").help("Print it as a line of JSON"))
        .arg(help())
}

/// Does it.
///
/// # Errors
/// The machine does not answer.
pub(super) fn enter(flags: &ArgMatches) -> Result<Status, Failure> {
    let told = told(&Machine::of(flags)).map_err(|error| Failure::new(Status::ERROR, error))?;
    output::answer(&match is_set(flags, "json") {
        true => format!("{told}\n"),
        false => text(&told),
    })
}

/// All that it says of itself.
fn told(machine: &Machine) -> Result<Value, RemoteError> {
    Ok(json!({
        "instance": machine.show("/")?,
        "pid": machine.process()?.as_raw_nonzero(),
        "api_socket": machine.socket(),
        "config": machine.show("/vm/config")?,
    }))
}

/// The same for people: a line for each thing that there is.
fn text(told: &Value) -> String {
    let instance = &told["instance"];
    let mut rows = Vec::new();
    for (name, value) in [
        ("name", &instance["id"]),
        ("state", &instance["state"]),
        ("at", &instance["operation"]),
        ("kedge", &instance["kedge_version"]),
        ("process", &told["pid"]),
        ("API", &told["api_socket"]),
    ] {
        rows.extend((!value.is_null()).then(|| [name.to_owned(), plain(value)]));
    }
    for (key, value) in told["config"].as_object().into_iter().flatten() {
        match value {
            Value::Null => {}
            Value::Array(all) => rows.extend(all.iter().map(|one| [key.clone(), plain(one)])),
            one => rows.push([key.clone(), plain(one)]),
        }
    }
    aligned(&rows)
}

/// A value without the marks of JSON: of an object, its members that are something.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => {
            let there = members.iter().filter(|(_, value)| !value.is_null());
            let all: Vec<_> =
                there.map(|(name, value)| format!("{name}={}", plain(value))).collect();
            all.join(" ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_there_is_not_is_left_out() {
        let told = json!({
            "instance": { "id": "web", "state": "Running", "kedge_version": "0.1.0" },
            "pid": 7,
            "api_socket": "/run/kedge/web/api.sock",
            "config": {
                "balloon": null,
                "drives": [{ "drive_id": "root", "is_read_only": false, "partuuid": null }],
                "guest-abi": "arm64-v1",
                "pmem": [],
            },
        });
        expect![[r#"
            name       web
            state      Running
            kedge      0.1.0
            process    7
            API        /run/kedge/web/api.sock
            drives     drive_id=root is_read_only=false
            guest-abi  arm64-v1
        "#]]
        .assert_eq(&text(&told));
    }
}
