//! A process that waits for its machine, as its clients see it, on any host.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;
mod waiting;

use std::fs;
use std::path::{Path, PathBuf};

use expect_test::{Expect, expect};
use kedge_api::http::{CallError, Method, call};
use serde_json::{Value, json};
use waiting::{Waiting, fault};

fn load(socket: &Path, body: &Value) -> Result<Value, CallError> {
    call(socket, Method::Put, "/snapshot/load", Some(body))
}

/// What is wrong with loading `body`, paths without the folder of `waiting`.
fn refused(waiting: &Waiting, body: &Value, expected: &Expect) {
    let fault = fault(load(waiting.socket(), body));
    expected.assert_eq(&fault.replace(&format!("{}/", waiting.folder().display()), ""));
    let state = call(waiting.socket(), Method::Get, "/", None).unwrap()["state"].clone();
    assert_eq!(state, "Not started", "behind `{fault}`");
}

fn files(waiting: &Waiting) -> [PathBuf; 2] {
    ["state", "memory"].map(|name| waiting.folder().join(name))
}

#[test]
fn it_says_who_it_is_and_ends_with_its_socket() {
    let waiting = Waiting::start(&["--id", "vm-7"]);
    let socket = waiting.socket().to_owned();
    let instance = call(&socket, Method::Get, "/", None).unwrap();
    assert_eq!(instance["state"], "Not started");
    assert_eq!(instance["id"], "vm-7");
    let version = call(&socket, Method::Get, "/version", None).unwrap();
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(version, json!({ "firecracker_version": "1.17.0", "kedge_version": own }));
    // 128 and the number of SIGTERM.
    assert_eq!(waiting.terminate(), Some(143));
    assert!(!socket.exists());
}

#[test]
fn what_is_for_machines_that_have_started_is_refused_by_its_words() {
    let waiting = Waiting::start(&[]);
    let ask = |method, path, body| fault(call(waiting.socket(), method, path, Some(&body)));
    let expected = expect![
        r#"The requested operation is not supported before starting the microVM. there is no machine yet; fix: start it: PUT /actions {"action_type": "InstanceStart"}; or load a snapshot: PUT /snapshot/load"#
    ];
    expected.assert_eq(&ask(Method::Patch, "/vm", json!({ "state": "Paused" })));
    let create = json!({ "snapshot_path": "s", "mem_file_path": "m" });
    expected.assert_eq(&ask(Method::Put, "/snapshot/create", create));
    let limit = json!({ "iface_id": "eth0", "tx_rate_limiter": {} });
    expected.assert_eq(&ask(Method::Patch, "/network-interfaces/eth0", limit));
    for path in ["/drives/root", "/network-interfaces/eth0"] {
        let removed = fault(call(waiting.socket(), Method::Delete, path, None));
        expected.assert_eq(&removed);
    }
    expected.assert_eq(&ask(Method::Put, "/clone", json!({ "count": 2, "name": "web-{n}" })));
    expect![[r#"2 clones cannot all have the name `web`; fix: write "name": "web-{n}""#]]
        .assert_eq(&ask(Method::Put, "/clone", json!({ "count": 2, "name": "web" })));
}

#[test]
fn what_cannot_be_loaded_is_told_and_another_can_be_asked_for() {
    let waiting = Waiting::start(&[]);
    let [state, memory] = files(&waiting);
    let body = json!({ "snapshot_path": state, "mem_file_path": memory });
    let absent = expect![
        "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: Failed to open snapshot file: No such file or directory (os error 2): state cannot be opened; because: No such file or directory (os error 2); fix: name the two files of a snapshot"
    ];
    refused(&waiting, &body, &absent);
    refused(&waiting, &body, &absent);
    fs::write(&state, "no snapshot").unwrap();
    let foreign = expect![
        "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: the state file state cannot be loaded; because: it is no state file of kedge: it begins otherwise; fix: name the state file of a snapshot, not its memory file"
    ];
    refused(&waiting, &body, &foreign);
    fs::write(&state, of_a_later_release()).unwrap();
    let newer = expect![
        "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot state from file: the state file state cannot be loaded; because: it has format 2, written by a release that it does not name; this release reads format 1; fix: load it with the release that wrote it, or a later one"
    ];
    refused(&waiting, &body, &newer);
}

/// The beginning of a state file in a format that is not there yet, with the checksum that
/// it has in every format.
fn of_a_later_release() -> Vec<u8> {
    let mut bytes = b"\x89KEDGE\r\n\x02\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let step = |rest: u32, _| if rest & 1 == 1 { rest >> 1 ^ 0xedb8_8320 } else { rest >> 1 };
    let crc = bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    bytes.extend((!crc).to_le_bytes());
    bytes
}

#[test]
fn a_register_that_there_is_not_is_refused_by_name() {
    let waiting = Waiting::start(&[]);
    let [state, memory] = files(&waiting);
    let allowed = json!({ "snapshot_path": state, "mem_file_path": memory, "allow": ["psci"] });
    refused(
        &waiting,
        &allowed,
        &expect![
            "Load snapshot error: Failed to restore from snapshot: there is no register `psci`; fix: write it as the plan does, as in smccc_arch_workaround_3, ID_AA64PFR0_EL1, S3_0_C0_C7_5 or 0x6030000000160002"
        ],
    );
}

#[test]
fn a_socket_is_one_process_s() {
    let waiting = Waiting::start(&[]);
    let socket = waiting.socket().display().to_string();
    let second = program::kedge(&["--api-sock", &socket, "--level", "off"]);
    expect![[r#"
        1
        error: there is something at the socket's path `SOCKET`
          fix: stop the machine that listens there; if there is none, remove it: rm SOCKET
    "#]]
    .assert_eq(&second.replace(&socket, "SOCKET"));
}
