//! What a guest may read of its host, as clients of the API and the command line say it
//! before there is a guest, on any host.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;
mod waiting;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use expect_test::{Expect, expect};
use kedge_api::http::{Method, call};
use serde_json::{Deserializer, Value, json};
use waiting::{Waiting, fault};

fn put(waiting: &Waiting, path: &str, body: &Value) {
    assert_eq!(call(waiting.socket(), Method::Put, path, Some(body)).unwrap(), Value::Null);
}

fn refused(waiting: &Waiting, method: Method, path: &str, body: &Value, expected: &Expect) {
    expected.assert_eq(&fault(call(waiting.socket(), method, path, Some(body))));
}

fn shown(waiting: &Waiting) -> String {
    call(waiting.socket(), Method::Get, "/mmds", None).unwrap().to_string()
}

/// The head of what is answered to a `PUT` of `body`.
fn head(waiting: &Waiting, path: &str, body: &Value) -> String {
    let mut client = UnixStream::connect(waiting.socket()).unwrap();
    let body = body.to_string();
    let length = body.len();
    write!(
        client,
        "PUT {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer.split("\r\n\r\n").next().unwrap().to_owned()
}

#[test]
fn metadata_is_put_merged_and_shown() {
    let waiting = Waiting::start(&[]);
    assert_eq!(shown(&waiting), "{}");
    let change = json!({"a": null, "b": {"c": 1}});
    refused(
        &waiting,
        Method::Patch,
        "/mmds",
        &change,
        &expect![
            "MMDS error: The MMDS data store is not initialized. there is no metadata yet; fix: give the guest something to read first: PUT /mmds with a JSON object"
        ],
    );
    put(&waiting, "/mmds", &json!({"a": 1, "b": {"d": 2}}));
    call(waiting.socket(), Method::Patch, "/mmds", Some(&change)).unwrap();
    assert_eq!(shown(&waiting), r#"{"b":{"c":1,"d":2}}"#);
    refused(
        &waiting,
        Method::Put,
        "/mmds",
        &json!([1]),
        &expect![[
            r#"MMDS error: metadata cannot be an array; fix: put it into an object: {"latest": ...}"#
        ]],
    );
    assert_eq!(shown(&waiting), r#"{"b":{"c":1,"d":2}}"#);
}

#[test]
fn what_is_too_much_is_told_413_and_changes_nothing() {
    let waiting = Waiting::start(&["--mmds-size-limit", "20"]);
    put(&waiting, "/mmds", &json!({"a": "12345678901"}));
    let more = json!({"a": "1234567890123456"});
    assert!(head(&waiting, "/mmds", &more).starts_with("HTTP/1.1 413 "));
    refused(
        &waiting,
        Method::Put,
        "/mmds",
        &more,
        &expect![
            "MMDS limit exceeded error: The MMDS patch request doesn't fit. the metadata would take 24 bytes, and may take 20; fix: store less, or start kedge with a larger --mmds-size-limit"
        ],
    );
    refused(
        &waiting,
        Method::Patch,
        "/mmds",
        &json!({"b": "1234"}),
        &expect![
            "MMDS limit exceeded error: The MMDS patch request doesn't fit. the metadata would take 30 bytes, and may take 20; fix: store less, or start kedge with a larger --mmds-size-limit"
        ],
    );
    assert_eq!(shown(&waiting), r#"{"a":"12345678901"}"#);
}

#[test]
fn a_service_is_behind_cards_that_there_are() {
    let waiting = Waiting::start(&[]);
    let config = |cards: &[&str]| json!({"network_interfaces": cards, "version": "V2"});
    refused(
        &waiting,
        Method::Put,
        "/mmds/config",
        &config(&[]),
        &expect![[
            r#"MMMDS config error: The list of network interface IDs that allow forwarding MMDS requests is empty. the metadata service has no network interface; fix: name the guest's network interface: "network_interfaces": ["eth0"]"#
        ]],
    );
    refused(
        &waiting,
        Method::Put,
        "/mmds/config",
        &config(&["eth0"]),
        &expect![
            "MMMDS config error: The list of network interface IDs provided contains at least one ID that does not correspond to any existing network interface. there is no network interface `eth0` for the metadata service; fix: name network interfaces that the machine has by then"
        ],
    );
    let whole = || call(waiting.socket(), Method::Get, "/vm/config", None).unwrap();
    assert_eq!(whole()["mmds-config"], Value::Null);
}

#[test]
fn a_file_says_what_there_is_at_first() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data.json");
    fs::write(&file, r#"{"latest": {"id": "i-1"}}"#).unwrap();
    let waiting = Waiting::start(&["--metadata", file.to_str().unwrap()]);
    assert_eq!(shown(&waiting), r#"{"latest":{"id":"i-1"}}"#);
}

/// A configuration with the card `eth0`, and a service behind `cards`; a dry run of it.
fn dry_run(cards: &[&str], data: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let machine = json!({
        "boot-source": {"kernel_image_path": "Image"},
        "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0"}],
        "mmds-config": {"network_interfaces": cards, "version": "V2"},
    });
    fs::write(path("vm.json"), machine.to_string()).unwrap();
    fs::write(path("data.json"), data).unwrap();
    let words = ["--no-api", "--config-file", &path("vm.json"), "--metadata", &path("data.json")];
    let told = program::kedge(&[&words[..], &["--dry-run"]].concat());
    told.replace(&format!("{}/", folder.path().display()), "")
}

/// Why kedge does not run a configuration, without what its log says.
fn fault_of(told: &str) -> &str {
    let (log, fault) = told.split_once("error: ").unwrap();
    assert!(log.starts_with("152\n"), "{told}");
    fault
}

#[test]
fn a_configuration_file_has_it_behind_its_cards() {
    let told = dry_run(&["eth0"], "{}");
    let (status, rest) = told.split_once('\n').unwrap();
    assert_eq!(status, "0", "{rest}");
    // The log comes behind it.
    let spec: Value = Deserializer::from_str(rest).into_iter().next().unwrap().unwrap();
    expect![[r#"{"imds_compat":false,"ipv4_address":"169.254.169.254","network_interfaces":["eth0"],"version":"V2"}"#]].assert_eq(&spec["metadata"].to_string());
    expect![[r#"
        cannot use the configuration file `vm.json`
          because: there is no network interface `eth1` for the metadata service
          fix: name network interfaces that the machine has by then
    "#]]
    .assert_eq(fault_of(&dry_run(&["eth0", "eth1"], "{}")));
}

#[test]
fn what_is_no_document_is_refused_before_anything_runs() {
    expect![[r#"
        the metadata in `data.json` is not JSON
          because: EOF while parsing an object at line 1 column 1
          fix: mend the JSON at that line and column
    "#]]
    .assert_eq(fault_of(&dry_run(&["eth0"], "{")));
    expect![[r#"
        the metadata in `data.json` cannot be had
          because: metadata cannot be an array
          fix: put it into an object: {"latest": ...}
    "#]]
    .assert_eq(fault_of(&dry_run(&["eth0"], "[]")));
}
