//! A machine that clients of the API describe, before it starts, on any host.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod waiting;

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use kedge_api::http::{CallError, Method, call};
use serde_json::{Value, json};
use waiting::{Waiting, fault};

fn ask(waiting: &Waiting, method: Method, path: &str, body: &Value) -> Result<Value, CallError> {
    call(waiting.socket(), method, path, Some(body))
}

fn put(waiting: &Waiting, path: &str, body: &Value) {
    assert_eq!(ask(waiting, Method::Put, path, body).unwrap(), Value::Null);
}

fn get(waiting: &Waiting, path: &str) -> Value {
    call(waiting.socket(), Method::Get, path, None).unwrap()
}

/// What is wrong with `body`, paths without the folder of `waiting`.
fn refused(waiting: &Waiting, path: &str, body: &Value, expected: &Expect) {
    let fault = fault(ask(waiting, Method::Put, path, body));
    expected.assert_eq(&fault.replace(&format!("{}/", waiting.folder().display()), ""));
}

/// A file of one sector.
fn file(waiting: &Waiting, name: &str) -> Value {
    let path = waiting.folder().join(name);
    fs::write(&path, [0; 512]).unwrap();
    json!(path)
}

fn drive(id: &str, is_root: bool, path: &Value) -> Value {
    json!({ "drive_id": id, "is_root_device": is_root, "path_on_host": path })
}

fn start() -> Value {
    json!({ "action_type": "InstanceStart" })
}

#[test]
fn a_machine_of_which_nothing_is_said_has_firecrackers_defaults() {
    let waiting = Waiting::start(&[]);
    expect![[r#"{"huge_pages":"None","mem_size_mib":128,"smt":false,"track_dirty_pages":false,"vcpu_count":1}"#]]
        .assert_eq(&get(&waiting, "/machine-config").to_string());
    expect![[r#"{"balloon":null,"boot-source":null,"cpu-config":null,"drives":[],"entropy":null,"guest-abi":null,"logger":null,"machine-config":{"huge_pages":"None","mem_size_mib":128,"smt":false,"track_dirty_pages":false,"vcpu_count":1},"memory-hotplug":null,"metrics":null,"mmds-config":null,"network-interfaces":[],"pmem":[],"vsock":null}"#]].assert_eq(&get(&waiting, "/vm/config").to_string());
}

#[test]
fn it_says_what_can_be_asked_for() {
    let waiting = Waiting::start(&[]);
    let document = get(&waiting, "/openapi.json");
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/actions"]["put"].is_object());
}

#[test]
fn what_is_said_of_a_machine_is_shown() {
    let waiting = Waiting::start(&[]);
    put(&waiting, "/machine-config", &json!({ "vcpu_count": 2, "mem_size_mib": 256 }));
    ask(&waiting, Method::Patch, "/machine-config", &json!({ "track_dirty_pages": true })).unwrap();
    let machine = get(&waiting, "/machine-config");
    assert_eq!(machine["vcpu_count"], 2);
    assert_eq!(machine["track_dirty_pages"], true);
    // What is left out is the default again.
    put(&waiting, "/machine-config", &json!({ "vcpu_count": 4, "mem_size_mib": 64 }));
    assert_eq!(get(&waiting, "/machine-config")["track_dirty_pages"], false);

    let kernel = file(&waiting, "Image");
    let boot = json!({ "kernel_image_path": kernel, "boot_args": "quiet" });
    put(&waiting, "/boot-source", &boot);
    let [data, root] = ["data", "root"].map(|name| file(&waiting, name));
    put(&waiting, "/drives/data", &drive("data", false, &data));
    put(&waiting, "/drives/root", &drive("root", true, &root));
    put(&waiting, "/entropy", &json!({}));
    put(&waiting, "/guest-abi", &json!("arm64-v0"));
    let config = get(&waiting, "/vm/config");
    assert_eq!(config["boot-source"]["boot_args"], "quiet");
    assert_eq!(config["machine-config"]["vcpu_count"], 4);
    assert_eq!(config["drives"][0]["drive_id"], "root");
    assert_eq!(config["drives"][1]["path_on_host"], data);
    assert_eq!(config["entropy"], json!({}));
    assert_eq!(config["guest-abi"], "arm64-v0");
}

#[test]
fn a_device_takes_the_place_of_the_one_of_its_name() {
    let waiting = Waiting::start(&[]);
    let [first, second] = ["first", "second"].map(|name| file(&waiting, name));
    put(&waiting, "/drives/root", &drive("root", true, &first));
    put(&waiting, "/drives/root", &drive("root", true, &second));
    let absent = drive("root", true, &json!(waiting.folder().join("absent")));
    refused(
        &waiting,
        "/drives/root",
        &absent,
        &expect![
            "Drive config error: Error manipulating the backing file: disk `root`: there is no file absent; fix: correct the path, or make a disk: truncate -s 1G absent"
        ],
    );
    let other = drive("other", true, &first);
    refused(
        &waiting,
        "/drives/other",
        &other,
        &expect![
            "Drive config error: A root block device already exists! the disks `root` and `other` are both root devices; fix: make one of them the root device"
        ],
    );
    let drives = get(&waiting, "/vm/config")["drives"].clone();
    assert_eq!(drives.as_array().unwrap().len(), 1);
    assert_eq!(drives[0]["path_on_host"], second);
}

#[test]
fn a_vsock_device_listens_as_soon_as_it_is_described() {
    let waiting = Waiting::start(&[]);
    let [first, second] = ["first", "second"].map(|name| waiting.folder().join(name));
    let vsock = |path: &Path| json!({ "guest_cid": 3, "uds_path": path });
    put(&waiting, "/vsock", &vsock(&first));
    assert!(first.exists());
    put(&waiting, "/vsock", &vsock(&first));
    put(&waiting, "/vsock", &vsock(&second));
    assert!(second.exists() && !first.exists());
    fs::write(&first, "").unwrap();
    refused(
        &waiting,
        "/vsock",
        &vsock(&first),
        &expect![
            "Vsock config error: Cannot create backend for vsock device: cannot listen on the vsock socket `first`: it exists already; fix: if nobody needs it any more: rm 'first'"
        ],
    );
    assert!(second.exists());
    assert_eq!(waiting.terminate(), Some(143));
    assert!(!second.exists());
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let waiting = Waiting::start(&[]);
    let before = get(&waiting, "/vm/config");
    let machine = |cpus: u8, memory: u32| json!({ "vcpu_count": cpus, "mem_size_mib": memory });
    refused(
        &waiting,
        "/machine-config",
        &machine(33, 128),
        &expect![
            "Machine config error: `vcpu_count` cannot be 33; fix: write a number from 1 to 32"
        ],
    );
    refused(
        &waiting,
        "/machine-config",
        &machine(1, 0),
        &expect![
            "Machine config error: `mem_size_mib` cannot be 0; fix: write how many MiB of memory the guest gets, from 1"
        ],
    );
    refused(
        &waiting,
        "/machine-config",
        &json!({ "vcpu_count": 1 }),
        &expect![
            "An error occurred when deserializing the json body of a request: missing field `mem_size_mib` at line 1 column 16"
        ],
    );
    let absent = waiting.folder().join("absent");
    refused(
        &waiting,
        "/boot-source",
        &json!({ "kernel_image_path": absent }),
        &expect![
            "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2): cannot open `absent`; fix: name a file that exists and can be read"
        ],
    );
    let kernel = file(&waiting, "Image");
    let folder = waiting.folder().join("folder");
    fs::create_dir(&folder).unwrap();
    let boot = json!({ "kernel_image_path": kernel, "initrd_path": folder });
    refused(
        &waiting,
        "/boot-source",
        &boot,
        &expect![
            "Boot source error: The initrd file cannot be opened: is a directory: cannot open `folder`; fix: name a file that exists and can be read"
        ],
    );
    let card = json!({ "iface_id": "eth0", "host_dev_name": "a/b" });
    refused(
        &waiting,
        "/network-interfaces/eth0",
        &card,
        &expect![
            "Network config error: Could not create the network device: Open tap device failed: `a/b` cannot be the name of a network interface; fix: give the name of a tap interface: 1 to 15 characters, no spaces, slashes or colons"
        ],
    );
    assert_eq!(get(&waiting, "/vm/config"), before);
}

#[test]
fn what_no_guest_can_be_promised_is_refused() {
    let waiting = Waiting::start(&[]);
    let before = get(&waiting, "/vm/config");
    refused(
        &waiting,
        "/guest-abi",
        &json!("arm64-v7"),
        &expect![
            "there is no profile `arm64-v7` in this release, and no file of that name; fix: write `arm64-v1`, or name a file that exists"
        ],
    );
    let cpu = json!({ "reg_modifier": [] });
    refused(
        &waiting,
        "/cpu-config",
        &cpu,
        &expect![
            "An error occurred when deserializing the json body of a request: line 1, column 2: there is no key `reg_modifier`; fix: write `reg_modifiers`"
        ],
    );
    let slow = json!({ "rate_limiter": { "size": 1, "refill_time": 1 } });
    refused(
        &waiting,
        "/serial",
        &slow,
        &expect!["kedge does not have `rate_limiter` yet; fix: leave it out"],
    );
    assert_eq!(get(&waiting, "/vm/config"), before);
}

#[test]
fn a_machine_starts_with_a_kernel_and_else_can_be_mended() {
    let waiting = Waiting::start(&[]);
    refused(
        &waiting,
        "/actions",
        &start(),
        &expect![[
            r#"Start microvm error: Cannot start microvm without kernel configuration. there is no kernel to run; fix: say what it runs: PUT /boot-source {"kernel_image_path": "FILE"}"#
        ]],
    );
    let kernel = file(&waiting, "Image");
    put(&waiting, "/boot-source", &json!({ "kernel_image_path": kernel }));
    let fault = fault(ask(&waiting, Method::Put, "/actions", &start()));
    assert!(fault.starts_with("Start microvm error: "), "{fault}");
    assert_eq!(get(&waiting, "/")["state"], "Not started");
    put(&waiting, "/machine-config", &json!({ "vcpu_count": 1, "mem_size_mib": 64 }));
}

#[test]
fn a_snapshot_is_not_loaded_over_a_machine_that_is_described() {
    let waiting = Waiting::start(&[]);
    put(&waiting, "/logger", &json!({ "level": "Debug", "show_level": true }));
    put(&waiting, "/serial", &json!({ "serial_out_path": waiting.folder().join("serial") }));
    let load = json!({ "snapshot_path": "/nowhere/s", "mem_file_path": "/nowhere/m" });
    let fault = fault(ask(&waiting, Method::Put, "/snapshot/load", &load));
    assert!(fault.contains("Failed to open snapshot file: "), "{fault}");
    let check = json!({ "snapshot_path": "/nowhere/s" });
    refused(
        &waiting,
        "/snapshot/check",
        &check,
        &expect![
            "Check snapshot error: the state file /nowhere/s cannot be loaded; because: it cannot be read; because: No such file or directory (os error 2); fix: name the state file of a snapshot"
        ],
    );
    put(&waiting, "/entropy", &json!({}));
    refused(
        &waiting,
        "/snapshot/load",
        &load,
        &expect![
            "Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources. another machine is described already; fix: start that one, or load the snapshot in another process"
        ],
    );
}

#[test]
fn the_log_can_be_changed_at_any_time() {
    let waiting = Waiting::start(&[]);
    let log = waiting.folder().join("log");
    put(&waiting, "/logger", &json!({ "log_path": log, "level": "Off" }));
    refused(
        &waiting,
        "/logger",
        &json!({ "log_path": "/nowhere/log" }),
        &expect![
            "Logger error: cannot write the log to `/nowhere/log`; because: No such file or directory (os error 2); fix: name a file or FIFO that can be written"
        ],
    );
    refused(
        &waiting,
        "/logger",
        &json!({ "level": "loud" }),
        &expect![[
            r#"An error occurred when deserializing the json body of a request: invalid value: string "loud", expected Error, Warning, Info, Debug, Trace or Off at line 1 column 16"#
        ]],
    );
    put(&waiting, "/logger", &json!({ "level": "info", "show_level": true }));
    let folder = waiting.into_folder();
    let text = fs::read_to_string(folder.path().join("log")).unwrap();
    let said: Vec<_> = text.lines().filter_map(|line| line.split_once(":main:")).collect();
    expect!["ERROR] kedge exiting with error. exit_code=143"]
        .assert_eq(&said.iter().map(|line| line.1).collect::<String>());
}

#[test]
fn the_log_is_json_from_when_that_is_asked_for() {
    let waiting = Waiting::start(&[]);
    let log = waiting.folder().join("log");
    put(&waiting, "/logger", &json!({ "log_path": log, "level": "Off" }));
    put(&waiting, "/logger", &json!({ "log_format": "json", "show_log_origin": true }));
    refused(
        &waiting,
        "/logger",
        &json!({ "log_format": "xml" }),
        &expect![
            "An error occurred when deserializing the json body of a request: unknown variant `xml`, expected `text` or `json` at line 1 column 19"
        ],
    );
    let folder = waiting.into_folder();
    let text = fs::read_to_string(folder.path().join("log")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["thread"], &lines[0]["level"]), (&json!("fc_api"), &json!("INFO")));
    let last = lines.last().unwrap();
    assert!(last["file"].is_string() && last["line"].is_u64() && last["time"].is_string());
    expect![[r#"["main","ERROR","kedge exiting with error. exit_code=143",null]"#]].assert_eq(
        &json!([last["thread"], last["level"], last["message"], last["fields"]]).to_string(),
    );
}

#[test]
fn the_log_says_what_clients_ask_for_and_what_comes_of_it() {
    let waiting = Waiting::start(&[]);
    let log = json!({ "log_path": waiting.folder().join("log"), "show_level": true });
    put(&waiting, "/logger", &log);
    put(&waiting, "/mmds", &json!({ "secret": 1 }));
    ask(&waiting, Method::Put, "/entropy", &json!({ "rate": 1 })).unwrap_err();
    // A client that asks and asks fills no disk.
    (0..30).for_each(|_| drop(get(&waiting, "/version")));
    let counted = get(&waiting, "/metrics");
    let folder = waiting.into_folder();
    let text = fs::read_to_string(folder.path().join("log")).unwrap();
    let said: Vec<_> = text.lines().filter_map(|line| line.split_once(":fc_api:")).collect();
    let said: Vec<_> = said.iter().map(|line| line.1).collect();
    expect![[r#"
        INFO] The request was executed successfully. Status code: 204 No Content.
        INFO] The API server received a Put request on "/mmds".
        INFO] The request was executed successfully. Status code: 204 No Content.
        INFO] The API server received a Put request on "/entropy" with body "{\"rate\":1}".
        ERROR] Received Error. Status code: 400 Bad Request. Message: An error occurred when deserializing the json body of a request: unknown field `rate`, expected `rate_limiter` at line 1 column 9; fix: write `rate_limiter`"#]].assert_eq(&said[..5].join("\n"));
    assert!(said.iter().filter(|line| line.contains("Get request")).count() < 30);
    assert!(!counted.as_str().unwrap().contains("rate_limited_log_count_total 0\n"));
}
