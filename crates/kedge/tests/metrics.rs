//! What a process counts, as its users read it, on any host.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod program;
mod waiting;

use std::fs;
use std::path::Path;

use expect_test::expect;
use kedge_api::http::{Method, call};
use serde_json::{Value, json};
use waiting::{Waiting, fault};

fn put(waiting: &Waiting, path: &str, body: &Value) {
    let answer = call(waiting.socket(), Method::Put, path, Some(body));
    assert_eq!(answer.unwrap(), Value::Null);
}

/// What is wrong with `body`, paths without the folder of `waiting`.
fn refused(waiting: &Waiting, path: &str, body: &Value) -> String {
    let fault = fault(call(waiting.socket(), Method::Put, path, Some(body)));
    fault.replace(&format!("{}/", waiting.folder().display()), "")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn metrics_go_to_one_place_and_no_other() {
    let waiting = Waiting::start(&["--id", "vm-7"]);
    let [first, second] = ["first", "second"].map(|name| waiting.folder().join(name));
    expect![[r#"Metrics error: metrics cannot be written to ``; because: No such file or directory (os error 2); fix: name a file or FIFO that can be written"#]]
        .assert_eq(&refused(&waiting, "/metrics", &json!({ "metrics_path": "" })));
    let folder = json!({ "metrics_path": waiting.folder().join("") });
    expect!["Metrics error: metrics cannot be written to ``; because: Is a directory (os error 21); fix: name a file or FIFO that can be written"].assert_eq(&refused(&waiting, "/metrics", &folder));
    let body = json!({
        "metrics_path": first, "emit_id": true, "properties": { "zone": "a" }, "unknown": 1,
    });
    put(&waiting, "/metrics", &body);
    let again = json!({ "metrics_path": second });
    expect!["Metrics error: Reinitialization of metrics not allowed. metrics go to `first` already; fix: say once where they go, before it starts"].assert_eq(&refused(&waiting, "/metrics", &again));
    assert!(!second.exists());
    expect![[r#"The requested operation is not supported before starting the microVM. there is no machine yet; fix: start it: PUT /actions {"action_type": "InstanceStart"}; or load a snapshot: PUT /snapshot/load"#]]
        .assert_eq(&refused(&waiting, "/actions", &json!({ "action_type": "FlushMetrics" })));
    let folder = waiting.into_folder();
    let lines = lines(&folder.path().join("first"));
    assert_eq!(lines.len(), 1, "one at the end, as there was no machine");
    let line = &lines[0];
    assert_eq!((&line["id"], &line["properties"]["zone"]), (&json!("vm-7"), &json!("a")));
    let puts = &line["put_api_requests"];
    assert_eq!((&puts["metrics_count"], &puts["metrics_fails"]), (&json!(4), &json!(3)));
    assert_eq!((&puts["actions_count"], &puts["actions_fails"]), (&json!(1), &json!(1)));
}

#[test]
fn every_request_is_counted_and_measured() {
    let waiting = Waiting::start(&[]);
    let get = |path| call(waiting.socket(), Method::Get, path, None);
    put(&waiting, "/mmds/", &json!({}));
    get("/version").unwrap();
    get("/nothing").unwrap_err();
    let metrics = get("/metrics").unwrap();
    let counted: Vec<_> = metrics
        .as_str()
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("kedge_api_request_") && !line.contains("_bucket"))
        .filter(|line| !line.contains("_sum"))
        .collect();
    expect![[r#"
        kedge_api_request_failed_total{kind="GET /version"} 0
        kedge_api_request_failed_total{kind="PUT /mmds"} 0
        kedge_api_request_failed_total{kind="other"} 1
        kedge_api_request_seconds_count{kind="GET /version"} 1
        kedge_api_request_seconds_count{kind="PUT /mmds"} 1
        kedge_api_request_seconds_count{kind="other"} 1"#]]
    .assert_eq(&counted.join("\n"));
    let again = get("/metrics").unwrap();
    let own = "kedge_api_request_seconds_bucket{kind=\"GET /metrics\",le=\"+Inf\"} 1\n";
    assert!(again.as_str().unwrap().contains(own));
}

#[test]
fn the_command_line_and_the_file_say_where_they_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let [file, flag] = [path("file"), path("flag")];
    let config = json!({
        "boot-source": { "kernel_image_path": "none" },
        "metrics": { "metrics_path": file },
    });
    fs::write(path("vm.json"), config.to_string()).unwrap();
    let words = ["--no-api", "--level", "off", "--config-file", &path("vm.json")];
    let run = |more: &[&str]| {
        let outcome = program::kedge(&[&words[..], more].concat());
        outcome.replace(&format!("{}/", folder.path().display()), "")
    };
    run(&["--dry-run"]);
    assert!(!Path::new(&file).exists(), "nothing is to run");
    run(&["--start-time-us", "1", "--start-time-cpu-us", "0", "--parent-cpu-time-us", "5"]);
    let lines = lines(Path::new(&file));
    let began = &lines.last().unwrap()["api_server"];
    assert!(began["process_startup_time_us"].as_u64() > Some(0));
    assert!(began["process_startup_time_cpu_us"].as_u64() > Some(5));
    expect![[r#"
        152
        error: metrics go to `flag` already
          fix: say once where they go, before it starts
    "#]]
    .assert_eq(&run(&["--metrics-path", &flag]));
    let nowhere = program::kedge(&["--metrics-path", "/nowhere/metrics", "--level", "off"]);
    expect![[r#"
        1
        error: metrics cannot be written to `/nowhere/metrics`
          because: No such file or directory (os error 2)
          fix: name a file or FIFO that can be written
    "#]]
    .assert_eq(&nowhere);
}
