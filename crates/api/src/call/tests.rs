//! Requests, good and bad.

use expect_test::{Expect, expect};

use super::*;
use crate::http::Method::{self, Delete, Get, Patch, Put};

fn read(method: Method, path: &str, body: &str) -> Result<Parsed, Fault> {
    let (path, body) = (path.to_owned(), body.as_bytes().to_vec());
    Parsed::read(&Request { method, path, body, last: false })
}

fn call(method: Method, path: &str, body: &str) -> Call {
    read(method, path, body).unwrap().call
}

fn fault(method: Method, path: &str, body: &str, expected: &Expect) {
    let fault = read(method, path, body).unwrap_err();
    expected.assert_eq(&fault.message());
}

#[test]
fn a_path_is_looked_at_as_far_as_a_resource_needs() {
    assert!(matches!(call(Get, "/", ""), Call::Describe));
    assert!(matches!(call(Get, "/version/", ""), Call::Version));
    assert!(matches!(call(Get, "/version/anything", ""), Call::Version));
    assert!(matches!(call(Get, "/vm/config", ""), Call::ShowConfig));
    assert!(read(Get, "/versions", "").is_err());
    assert!(read(Get, "/vm", "").is_err());
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    fault(Put, "/vmm", "{}", &expect!["Invalid request method and/or path: PUT /vmm."]);
    fault(
        Put,
        "/vm",
        "{}",
        &expect!["Invalid request method and/or path: PUT /vm. There is: PATCH"],
    );
    fault(Get, "/", "{}", &expect!["GET request cannot have a body."]);
    fault(Patch, "/vm", "", &expect!["Empty PATCH request."]);
    fault(Patch, "/machine-config", "{}", &expect!["Empty PATCH request."]);
    fault(Delete, "/drives/root", "{}", &expect!["Empty Delete request."]);
    let wrong = expect![
        "An error occurred when deserializing the json body of a request: unknown field `stat`, expected `state` at line 1 column 7; fix: write `state`"
    ];
    fault(Patch, "/vm", r#"{"stat": "Paused"}"#, &wrong);
    let wrong = expect![
        "An error occurred when deserializing the json body of a request: unknown variant `Pause`, expected `Paused` or `Resumed` at line 1 column 17; fix: write `Paused`"
    ];
    fault(Patch, "/vm", r#"{"state": "Pause"}"#, &wrong);
    let wrong = expect![
        "An error occurred when deserializing the json body of a request: it is no object; fix: put it in braces: { ... }"
    ];
    fault(Put, "/serial", "[null, null]", &wrong);
}

#[test]
fn what_kedge_has_not_is_named() {
    fault(
        Put,
        "/balloon",
        r#"{"amount_mib": 64, "deflate_on_oom": true}"#,
        &expect!["Balloon config error: kedge has no balloon device yet; fix: leave it out"],
    );
    fault(
        Get,
        "/hotplug/memory",
        "",
        &expect![
            "Memory hotplug config error: kedge has no memory that is plugged in yet; fix: leave it out"
        ],
    );
    fault(
        Put,
        "/actions",
        r#"{"action_type": "SendCtrlAltDel"}"#,
        &expect![
            "SendCtrlAltDel does not supported on aarch64. It is a keyboard's, and the machine has none; fix: run `poweroff` in the guest, or end the process"
        ],
    );
}

#[test]
fn a_device_has_one_name() {
    let body = r#"{"drive_id": "root", "is_root_device": true, "path_on_host": "a"}"#;
    fault(
        Put,
        "/drives/data",
        body,
        &expect!["The id from the path [data] does not match the id from the body [root]!"],
    );
    fault(Put, "/drives/", body, &expect!["The ID cannot be empty."]);
    fault(Put, "/drives", body, &expect!["The ID cannot be empty."]);
    fault(
        Put,
        "/drives/my-disk",
        body,
        &expect![
            "API Resource IDs can only contain alphanumeric characters and underscores. `my-disk` is no name of a device; fix: write letters, digits and underscores"
        ],
    );
    assert!(matches!(call(Put, "/drives/root", body), Call::Set(Setting::Device(_))));
}

#[test]
fn what_is_wrong_with_a_device_is_said_with_its_place() {
    let body = "{\"drive_id\": \"root\",\n \"is_root\": true, \"path_on_host\": \"a\"}";
    fault(
        Put,
        "/drives/root",
        body,
        &expect![
            "An error occurred when deserializing the json body of a request: unknown field `is_root`, expected one of `drive_id`, `is_root_device`, `partuuid`, `cache_type`, `is_read_only`, `path_on_host`, `rate_limiter`, `io_engine`, `socket`, `direct`, `num_queues`, `format` at line 2 column 13; fix: write `is_root_device`"
        ],
    );
    let body = "{\"drive_id\": \"root\",\n \"is_root_device\": 1, \"path_on_host\": \"a\"}";
    fault(
        Put,
        "/drives/root",
        body,
        &expect![
            "An error occurred when deserializing the json body of a request: invalid type: integer `1`, expected a boolean at line 2 column 20"
        ],
    );
    fault(
        Put,
        "/drives/root",
        r#"{"drive_id": "root"}"#,
        &expect![
            "An error occurred when deserializing the json body of a request: missing field `is_root_device` at line 1 column 20"
        ],
    );
    fault(
        Put,
        "/drives/root",
        r#"["root"]"#,
        &expect![
            "An error occurred when deserializing the json body of a request: it is no object; fix: put it in braces: { ... }"
        ],
    );
    fault(
        Put,
        "/vsock",
        r#"{"guest_cid": 2, "uds_path": "v.sock"}"#,
        &expect![
            "Vsock config error: `guest_cid` of `vsock` cannot be `2`; fix: give a number from 3 to 4294967294, the guest's own"
        ],
    );
}

#[test]
fn what_will_go_away_is_marked() {
    let deprecated = |method, path, body| read(method, path, body).unwrap().deprecated;
    let machine = r#"{"vcpu_count": 1, "mem_size_mib": 128, "cpu_template": "None"}"#;
    assert!(deprecated(Put, "/machine-config", machine));
    assert!(deprecated(Patch, "/machine-config", r#"{"cpu_template": "None"}"#));
    assert!(!deprecated(Patch, "/machine-config", r#"{"vcpu_count": 2}"#));
    let vsock = r#"{"guest_cid": 3, "uds_path": "v.sock", "vsock_id": "v"}"#;
    assert!(deprecated(Put, "/vsock", vsock));
    assert!(!deprecated(Put, "/vsock", r#"{"guest_cid": 3, "uds_path": "v.sock"}"#));
    let metadata = r#"{"network_interfaces": ["eth0"], "version": "V2"}"#;
    assert!(!deprecated(Put, "/mmds/config", metadata));
    let first = r#"{"network_interfaces": ["eth0"], "version": "V1"}"#;
    assert!(deprecated(Put, "/mmds/config", first));
    assert!(deprecated(Put, "/mmds/config", r#"{"network_interfaces": ["eth0"]}"#));
}
