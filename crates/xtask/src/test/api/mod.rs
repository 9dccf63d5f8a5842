//! The API before a client that nobody here wrote: schemathesis sends what `resources/api/openapi.yaml` allows, and what it
//! does not, to machines in every state. No answer may be one that the document has not, and each of its operations has to
//! succeed somewhere.

mod forward;
mod machine;
mod tool;

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use serde_json::Value;

use super::{model, tally::Tally};
use crate::paths;
use machine::Machine;
use tool::{Fed, Order, Tool};

/// How a machine gets into a state.
type Make = fn(&Path) -> anyhow::Result<Machine>;

/// Requests of one kind that a machine gets.
struct Row {
    /// The machine's state, and what is asked of it.
    name: &'static str,
    make: Make,
    /// The words that choose operations and how many requests there are.
    words: &'static [&'static str],
}

/// What succeeds only with a guest that does its part, which the model's does not, and the test that shows it.
const WITH_A_GUEST: [(&str, &str); 2] =
    [("DELETE /drives/{drive_id}", PLUGS), ("DELETE /network-interfaces/{iface_id}", PLUGS)];
const PLUGS: &str = "plug::a_disk_and_a_card_come_and_go_in_use_also_after_a_move";

const EXAMPLES: &str = "--phases=examples";
const ALL: &str = "--phases=examples,coverage,fuzzing";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // What ends the state that is meant is left to rows of its own.
    Row { name: "described",     make: described, words: &[ALL, "--max-examples=40", "--exclude-name", "PUT /actions"] },
    Row { name: "running",       make: running,   words: &[ALL, "--max-examples=20", "--exclude-name", "PATCH /vm"] },
    // A clone is a process, and the document allows ten thousand of them.
    Row { name: "paused",        make: paused,    words: &[ALL, "--max-examples=20", "--exclude-name", "PATCH /vm", "--exclude-name", "PUT /clone"] },
    Row { name: "starts",        make: bootable,  words: &[EXAMPLES, "--include-name", "PUT /actions"] },
    Row { name: "clones",        make: paused,    words: &[EXAMPLES, "--include-name", "PUT /clone"] },
    Row { name: "resumes",       make: paused,    words: &[ALL, "--max-examples=40", "--include-name", "PATCH /vm"] },
    Row { name: "loads_nothing", make: saved,     words: &["--phases=coverage,fuzzing", "--max-examples=200", "--include-path-regex", "^/snapshot/(load|check)$"] },
    Row { name: "loads",         make: saved,     words: &[EXAMPLES, "--include-name", "PUT /snapshot/load", "--include-name", "PUT /snapshot/check"] },
];

fn described(kedge: &Path) -> anyhow::Result<Machine> {
    Machine::new(kedge)
}

fn running(kedge: &Path) -> anyhow::Result<Machine> {
    described(kedge)?.again(&["--config-file", "vm.json"])
}

fn paused(kedge: &Path) -> anyhow::Result<Machine> {
    let machine = running(kedge)?;
    machine.ask("PATCH /vm", r#"{"state": "Paused"}"#)?;
    Ok(machine)
}

fn bootable(kedge: &Path) -> anyhow::Result<Machine> {
    let machine = described(kedge)?;
    machine.ask("PUT /boot-source", r#"{"kernel_image_path": "Image"}"#)?;
    Ok(machine)
}

/// One that waits, beside a snapshot.
fn saved(kedge: &Path) -> anyhow::Result<Machine> {
    let machine = paused(kedge)?;
    let files = r#"{"snapshot_path": "vm.state", "mem_file_path": "vm.mem"}"#;
    machine.ask("PUT /snapshot/create", files)?;
    machine.again(&[])
}

/// Feeds machines in the states whose name contains `filter`.
pub(super) fn run(filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
    let is_meant =
        |row: &&Row| filter.is_none_or(|part| format!("api::{}", row.name).contains(part));
    let rows: Vec<_> = ROWS.iter().filter(is_meant).collect();
    if rows.is_empty() {
        return Ok(());
    }
    if let Some(why) = machine::can_have_taps() {
        tally.skip("api", &format!("there can be no network interfaces here: {why}"));
        return Ok(());
    }
    let tool = Tool::installed()?;
    let kedge = model::program()?;
    let mut answers = BTreeMap::new();
    for row in &rows {
        let fed = feed(row, &tool, &kedge)?;
        let outcome = if fed.finding.is_some() { "FAILED" } else { "ok" };
        println!("api   | test api::{} ... {outcome} ({} requests)", row.name, fed.count());
        match fed.finding {
            Some(finding) => tally.fail("api", row.name, &finding),
            None => tally.passed += 1,
        }
        for (answer, count) in fed.answers {
            *answers.entry(answer).or_default() += count;
        }
    }
    if filter.is_none() {
        let path = paths::workspace().join("resources/api/openapi.yaml");
        let document: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
        check_successes(&document, &answers, tally);
    }
    Ok(())
}

fn feed(row: &Row, tool: &Tool, kedge: &Path) -> anyhow::Result<Fed> {
    let mut machine = (row.make)(kedge).with_context(|| format!("no machine {}", row.name))?;
    let address = forward::to(&machine.socket())?;
    let folder = machine.client_folder();
    let mut fed = tool.feed(&Order { words: row.words, address, folder })?;
    // Whatever is sent to it, it goes on.
    fed.finding = machine.has_ended()?.or(fed.finding);
    Ok(fed)
}

/// Lists every operation with the answers that there were, and holds it against the document.
fn check_successes(document: &Value, answers: &BTreeMap<(String, u64), u64>, tally: &mut Tally) {
    for (operation, documented) in operations(document) {
        let of_it: Vec<_> = answers.iter().filter(|((name, _), _)| *name == operation).collect();
        let told: Vec<_> =
            of_it.iter().map(|((_, status), count)| format!("{count} times {status}")).collect();
        let elsewhere = WITH_A_GUEST.iter().find(|(name, _)| *name == operation);
        let elsewhere = elsewhere.map_or_else(String::new, |(_, test)| format!("; see {test}"));
        println!("api   | {operation}: {}{elsewhere}", told.join(", "));
        let succeeds = of_it.iter().any(|((_, status), _)| is_success(*status));
        match succeeds || !documented || !elsewhere.is_empty() {
            true => tally.passed += 1,
            false => tally.fail("api", &operation, "it was never answered with success"),
        }
    }
    let total: u64 = answers.values().sum();
    println!("api   | {total} requests in all");
}

fn is_success(status: u64) -> bool {
    (200..300).contains(&status)
}

/// The document's operations, and whether each can succeed.
fn operations(document: &Value) -> Vec<(String, bool)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let of_path = |(path, methods): (&String, &Value)| {
        let methods = methods.as_object().into_iter().flatten();
        let one = |(method, operation): (&String, &Value)| {
            let statuses = operation["responses"].as_object().into_iter().flatten();
            let succeeds = statuses.into_iter().any(|(status, _)| status.starts_with('2'));
            (format!("{} {path}", method.to_uppercase()), succeeds)
        };
        methods.map(one).collect::<Vec<_>>()
    };
    paths.flat_map(of_path).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({ "paths": { "/": { "get": { "responses": { "200": {}, "400": {} } } },
                           "/x": { "delete": { "responses": { "400": {} } } } } })
    }

    #[test]
    fn operations_are_named_as_requests_are() {
        let expected = [("GET /".to_owned(), true), ("DELETE /x".to_owned(), false)];
        assert_eq!(operations(&document()), expected);
    }

    #[test]
    fn an_operation_that_never_succeeds_is_a_failure() {
        let failed = |answer: (&str, u64)| {
            let answers = BTreeMap::from([((answer.0.to_owned(), answer.1), 1)]);
            let mut tally = Tally::default();
            check_successes(&document(), &answers, &mut tally);
            tally.failures.into_iter().map(|failure| failure.name).collect::<Vec<_>>()
        };
        assert_eq!(failed(("GET /", 400)), ["GET /"]);
        assert_eq!(failed(("GET /", 200)), [""; 0]);
    }
}
