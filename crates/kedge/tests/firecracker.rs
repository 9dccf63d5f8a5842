//! Firecracker's command line from its flags to its exit status, on any host.
#![forbid(unsafe_code)]

mod program;

use std::fs;

use expect_test::{Expect, expect, expect_file};
use program::{kedge, run};
use tempfile::TempDir;

/// A folder with a configuration file that says `text`, and the file's path.
fn config(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vm.json");
    fs::write(&path, text).expect("room for a file");
    let path = path.to_str().expect("folders have text for names").to_owned();
    (folder, path)
}

/// What `words` lead to with a configuration file that says `text`; what
/// changes from run to run left out, paths without their folder.
fn with_config(text: &str, words: &[&str]) -> String {
    let (folder, path) = config(text);
    let outcome = kedge(&[&["--no-api", "--config-file", path.as_str()], words].concat());
    let outcome = outcome.replace(&format!("{}/", folder.path().display()), "");
    outcome.lines().map(lasting).collect()
}

/// What stays the same of a line that may begin with a time, as long as
/// `2026-01-02T03:04:05.000000000 `, and may end with kedge's version.
fn lasting(line: &str) -> String {
    let text = line.get(30..).filter(|text| text.starts_with('[')).unwrap_or(line);
    text.replace(env!("CARGO_PKG_VERSION"), "X.Y.Z") + "\n"
}

const KERNEL: &str = r#"{ "boot-source": { "kernel_image_path": "Image" } }"#;

fn refused(words: &[&str], outcome: &Expect) {
    outcome.assert_eq(&kedge(words));
}

/// The profile in what `--dry-run` printed.
fn profile_in(outcome: &str) -> String {
    let lines = outcome.lines().skip_while(|line| *line != "  \"guest_abi\": {");
    let lines = lines.take_while(|line| *line != "  },");
    let lines: Vec<_> = lines.filter_map(|line| line.strip_prefix("  ")).collect();
    lines.join("\n")
}

/// What `--dry-run` printed, without the profile.
fn without_profile(outcome: &str) -> String {
    let (before, rest) = outcome.split_once("  \"guest_abi\": {\n").expect("there is a profile");
    let (_, after) = rest.split_once("\n  },\n").expect("it ends");
    before.to_owned() + after
}

const WITH_CPU_CONFIG: &str = r#"{
    "boot-source": { "kernel_image_path": "Image" },
    "guest-abi": "host",
    "cpu-config": {
        "reg_modifiers": [
            { "addr": "0x6030000000140000", "bitmap": "0b00000000000000010000000000000001" },
            { "addr": "0x603000000013c020", "bitmap": "0b0000xxxx" }
        ]
    }
}"#;

#[test]
fn a_cpu_configuration_becomes_promises_of_a_profile_with_a_name_of_its_own() {
    expect![[r#"
          "guest_abi": {
            "format": 1,
            "name": "host+cpu-config-5466f66b",
            "about": "host, and more promised.",
            "firmware": {
              "psci_version": "1.1"
            },
            "levels": {},
            "unknown_firmware": "adopt",
            "cpu": {
              "id_registers": [
                {
                  "id": "0x603000000013c020",
                  "name": "ID_AA64PFR0_EL1",
                  "value": "0x0",
                  "mask": "0xf0"
                }
              ],
              "implementation": "host"
            },
            "machine": {
              "timer_ppis": {
                "virtual_timer": 27,
                "physical_timer": 30
              },
              "pmu_ppi": 23,
              "counter": "stop"
            }"#]]
    .assert_eq(&profile_in(&with_config(WITH_CPU_CONFIG, &["--dry-run"])));
}

#[test]
fn a_cpu_configuration_that_says_otherwise_than_the_profile_is_refused() {
    let text = WITH_CPU_CONFIG.replace("\"host\"", "\"arm64-v0\"");
    expect![[r#"
        152
        [anonymous-instance:main] Running kedge vX.Y.Z
        [anonymous-instance:main] Configuration for VMM from one single json failed: the CPU configuration sets bits 0x1 of psci_version to 0x1 (`1.1`), and `arm64-v0` promises 0x0 (`1.0`); fix: leave it out of the CPU configuration, or use a profile that promises it, or nothing of it, instead of `arm64-v0`
        [anonymous-instance:main] kedge exiting with error. exit_code=152
        error: the CPU configuration sets bits 0x1 of psci_version to 0x1 (`1.1`), and `arm64-v0` promises 0x0 (`1.0`)
          fix: leave it out of the CPU configuration, or use a profile that promises it, or nothing of it, instead of `arm64-v0`
    "#]].assert_eq(&with_config(&text, &["--dry-run"]));
}

#[test]
fn a_profile_on_the_command_line_replaces_the_one_in_the_file() {
    let words = ["--dry-run", "--guest-abi", "arm64-v1"];
    let outcome = with_config(WITH_CPU_CONFIG, &words);
    assert!(profile_in(&outcome).contains("\"name\": \"arm64-v1+cpu-config-"), "{outcome}");
    expect![[r#"
        153
        error: there is no profile `arm64-v7` in this release, and no file of that name
          fix: write `arm64-v1`, or name a file that exists
    "#]]
    .assert_eq(&with_config(KERNEL, &["--guest-abi", "arm64-v7"]));
}

#[test]
fn the_version_is_kedges() {
    let version = format!("0\nkedge {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(kedge(&["--version"]), version);
}

#[test]
fn under_firecrackers_name_the_version_is_the_line_clients_parse() {
    expect![[r#"
        0
        Firecracker v1.17.0
    "#]]
    .assert_eq(&run("/usr/bin/firecracker", &["--version"]));
}

#[test]
fn the_help_shows_both_command_lines() {
    expect_file!["golden/help.txt"].assert_eq(&kedge(&["--help"]));
}

#[test]
fn no_words_at_all_get_the_help_and_the_status_of_a_mistake() {
    assert_eq!(kedge(&[]).replacen('2', "0", 1), kedge(&["--help"]));
}

#[test]
fn a_dry_run_prints_the_machine_with_firecrackers_defaults() {
    let outcome = with_config(KERNEL, &["--dry-run", "--level", "Error"]);
    let of_run = kedge(&["run", "--kernel", "Image", "--dry-run"]);
    assert_eq!(profile_in(&outcome), profile_in(&of_run));
    expect![[r#"
        0
        {
          "cpus": 1,
          "memory": 134217728,
          "cpu_features": [],
          "psci": null,
          "gic": null,
          "transport": "mmio",
          "boot": {
            "kernel": "Image",
            "kernel_format": "auto",
            "initrd": null,
            "cmdline": "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce pci=off"
          },
          "rom": [],
          "serial": "stdio",
          "devices": [],
          "on_reset": "exit",
          "on_panic": "continue"
        }
    "#]].assert_eq(&without_profile(&outcome));
}

#[test]
fn a_dry_run_takes_what_the_file_says() {
    let text = r#"{
        "boot-source": { "kernel_image_path": "Image", "initrd_path": "initrd.gz", "boot_args": "console=ttyS0 -- sh" },
        "network-interfaces": [{ "iface_id": "eth0", "host_dev_name": "tap0" }],
        "drives": [
            { "drive_id": "data", "is_root_device": false, "path_on_host": "data.ext4" },
            { "drive_id": "root", "is_root_device": true, "path_on_host": "root.ext4", "is_read_only": true }
        ],
        "entropy": {},
        "machine-config": { "vcpu_count": 2, "mem_size_mib": 256 }
    }"#;
    let words = ["--dry-run", "--level", "off", "--on-reset", "restart", "--no-seccomp"];
    expect_file!["golden/firecracker.txt"].assert_eq(&with_config(text, &words));
}

#[test]
fn a_configuration_that_does_not_parse_is_logged_and_reported() {
    expect![[r#"
        152
        [vm-1:main:INFO] Running kedge vX.Y.Z
        [vm-1:main:ERROR] Configuration for VMM from one single json failed: cannot use the configuration file `vm.json`; because: expected value at line 2 column 18; fix: mend the JSON at that line and column
        [vm-1:main:ERROR] kedge exiting with error. exit_code=152
        error: cannot use the configuration file `vm.json`
          because: expected value at line 2 column 18
          fix: mend the JSON at that line and column
    "#]]
        .assert_eq(&with_config("{\n  \"boot-source\": ?\n}", &["--show-level", "--id", "vm-1"]));
}

#[test]
fn a_missing_configuration_file_is_a_bad_configuration() {
    expect![[r#"
        152
        error: cannot use the configuration file `/nowhere/vm.json`
          because: it cannot be read
          because: No such file or directory (os error 2)
          fix: name a file that exists and can be read
    "#]]
    .assert_eq(&kedge(&["--no-api", "--config-file", "/nowhere/vm.json", "--level", "off"]));
}

#[test]
fn the_log_goes_to_a_file_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let words = ["--log-path", log.to_str().unwrap(), "--show-level", "--dry-run"];
    let outcome = with_config(KERNEL, &words);
    assert!(outcome.starts_with("0\n{\n"), "{outcome}");
    let lines: String = fs::read_to_string(log).unwrap().lines().map(lasting).collect();
    expect![[r#"
        [anonymous-instance:main:INFO] Running kedge vX.Y.Z
        [anonymous-instance:main:INFO] kedge exiting successfully. exit_code=0
    "#]]
    .assert_eq(&lines);
}

#[test]
fn the_files_logger_comes_before_the_flags() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let boot = r#""boot-source": { "kernel_image_path": "Image" }"#;
    let logger = format!(r#""logger": {{ "log_path": "{}" }}"#, log.display());
    with_config(&format!("{{ {boot}, {logger} }}"), &["--level", "off", "--dry-run"]);
    assert!(fs::read_to_string(log).unwrap().contains("[anonymous-instance:main] Running kedge v"));
}

#[test]
fn a_log_that_cannot_be_written_is_an_error() {
    expect![[r#"
        1
        error: cannot write the log to `/nowhere/log`
          because: No such file or directory (os error 2)
          fix: name a file or FIFO that can be written
    "#]]
    .assert_eq(&with_config(KERNEL, &["--log-path", "/nowhere/log"]));
}

#[test]
fn what_is_about_the_file_needs_one() {
    refused(
        &["--api-sock", "/nowhere/api", "--dry-run"],
        &expect![[r#"
        153
        error: `--config-file` is missing
          fix: add `--config-file <FILE>`; see `kedge --help`
    "#]],
    );
}

#[test]
fn without_an_api_there_must_be_a_file() {
    refused(
        &["--no-api"],
        &expect![[r#"
        153
        error: `--config-file` is missing
          fix: add `--config-file <FILE>`; see `kedge --help`
    "#]],
    );
}

#[test]
fn what_kedge_does_not_have_yet_is_refused_by_name() {
    let outcomes = kedge(&["--seccomp-filter", "filter.bin"]);
    expect![[r#"
        153
        error: kedge does not have `--seccomp-filter` yet
          fix: write `--no-seccomp` instead
    "#]]
    .assert_eq(&outcomes);
}

#[test]
fn snapshots_have_a_version() {
    assert_eq!(kedge(&["--snapshot-version"]), "0\nv1.0.0\n");
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../resources/snapshots/format-1.state");
    assert_eq!(kedge(&["--describe-snapshot", golden]), "0\nv1.0.0\n");
    refused(
        &["--describe-snapshot", "/nowhere/vm.state"],
        &expect![[r#"
        1
        error: cannot open `/nowhere/vm.state`
          because: No such file or directory (os error 2)
          fix: name the state file of a snapshot
    "#]],
    );
}

#[test]
fn an_unknown_flag_is_named() {
    refused(
        &["--config-fil", "vm.json"],
        &expect![[r#"
        153
        error: there is no flag `--config-fil`
          fix: write `--config-file`
    "#]],
    );
}

#[test]
fn a_command_that_is_none_is_no_flag_of_firecrackers() {
    refused(
        &["rum"],
        &expect![[r#"
            2
            error: there is no command `rum`
              fix: write `run` or `resume`
        "#]],
    );
}

#[test]
fn an_id_has_letters_digits_and_hyphens() {
    expect![[r#"
        153
        error: `--id` cannot be `vm_1`
          fix: write 1 to 64 letters, digits and hyphens
    "#]]
    .assert_eq(&with_config(KERNEL, &["--id", "vm_1"]));
}

#[test]
fn what_the_jailer_adds_is_taken() {
    let times = ["--start-time-us=1", "--start-time-cpu-us=2", "--parent-cpu-time-us=3"];
    let words = [&times[..], &["--dry-run", "--level=off"]].concat();
    assert!(with_config(KERNEL, &words).starts_with("0\n"));
}

#[cfg(not(target_arch = "aarch64"))]
#[test]
fn another_architecture_runs_no_guest() {
    expect![[r#"
        1
        [anonymous-instance:main] Running kedge vX.Y.Z
        [anonymous-instance:main] this host is not arm64: kedge runs guests on arm64 Linux with KVM; fix: run it on an arm64 machine; on any other, `cargo xtask boot` brings an emulated one
        [anonymous-instance:main] kedge exiting with error. exit_code=1
        error: this host is not arm64: kedge runs guests on arm64 Linux with KVM
          fix: run it on an arm64 machine; on any other, `cargo xtask boot` brings an emulated one
    "#]].assert_eq(&with_config(KERNEL, &[]));
}
