//! Configuration files, good and bad.

use expect_test::{Expect, expect};
use kedge_diag::report;

use tracing::level_filters::LevelFilter;

use super::super::machine_config::Size;
use super::*;

const WHOLE: &str = r#"{
    "boot-source": { "kernel_image_path": "Image", "initrd_path": null, "boot_args": "quiet" },
    "machine-config": { "vcpu_count": 2, "mem_size_mib": 256, "smt": false, "huge_pages": "None" },
    "entropy": {},
    "network-interfaces": [{ "iface_id": "eth0", "host_dev_name": "tap0" }],
    "vsock": { "guest_cid": 3, "uds_path": "v.sock", "vsock_id": "vsock0" },
    "logger": { "level": "debug", "show_level": true },
    "balloon": null, "pmem": []
}"#;

fn wrong(text: &str, report_is: &Expect) {
    report_is.assert_eq(&report(&parse(text).unwrap_err()));
}

fn machine(members: &str) -> String {
    let boot = r#""boot-source": { "kernel_image_path": "Image" }"#;
    format!(r#"{{ {boot}, "machine-config": {{ {members} }} }}"#)
}

const CARD: &str = r#"{ "iface_id": "eth0", "host_dev_name": "tap0" }"#;

fn cards(value: &str) -> String {
    let boot = r#""boot-source": { "kernel_image_path": "Image" }"#;
    format!(r#"{{ {boot}, "network-interfaces": {value} }}"#)
}

#[test]
fn every_key_of_this_slice_is_taken() {
    let config = parse(WHOLE).unwrap();
    let boot = config.machine.boot.as_ref().unwrap();
    assert_eq!(boot.kernel_image_path, Path::new("Image"));
    assert_eq!(boot.boot_args.as_deref(), Some("quiet"));
    let size = Size { cpus: 2, memory: 256 << 20, notes_changes: false };
    assert_eq!(config.machine.size(), Ok(size));
    let names: Vec<_> = config.machine.devices.iter().map(|device| device.id()).collect();
    assert_eq!(names, ["eth0", "vsock", "rng"]);
    let logger = config.logger.unwrap();
    assert_eq!((logger.level, logger.show_level), (Some(LevelFilter::DEBUG), Some(true)));
}

#[test]
fn a_kernel_is_enough() {
    let config = parse(r#"{ "boot-source": { "kernel_image_path": "Image" } }"#).unwrap();
    let size = Size { cpus: 1, memory: 128 << 20, notes_changes: false };
    assert_eq!(config.machine.size(), Ok(size));
}

#[test]
fn changes_are_noted_when_that_is_asked_for() {
    let members = r#""vcpu_count": 2, "mem_size_mib": 128, "track_dirty_pages": true"#;
    assert!(parse(&machine(members)).unwrap().machine.size().unwrap().notes_changes);
}

#[test]
fn without_a_kernel_there_is_no_machine() {
    wrong(
        "{}",
        &expect![[r#"
            error: `boot-source` is missing
              fix: add "boot-source": { "kernel_image_path": "FILE" }"#]],
    );
}

#[test]
fn malformed_json_has_a_line_and_a_column() {
    wrong(
        "{\n  \"boot-source\": {\n",
        &expect![[r#"
            error: EOF while parsing an object at line 3 column 0
              fix: mend the JSON at that line and column"#]],
    );
    wrong(
        "{\n  \"entropy\": {},\n}",
        &expect![[r#"
            error: trailing comma at line 3 column 1
              fix: mend the JSON at that line and column"#]],
    );
    wrong(
        "{} {}",
        &expect![[r#"
            error: trailing characters at line 1 column 4
              fix: mend the JSON at that line and column"#]],
    );
}

#[test]
fn a_misspelt_key_is_named_with_the_one_that_is_meant() {
    wrong(
        r#"{ "boot_source": {} }"#,
        &expect![[r#"
            error: there is no key `boot_source`
              fix: write `boot-source`"#]],
    );
    wrong(
        r#"{ "boot-source": { "kernel_path": "Image" } }"#,
        &expect![[r#"
            error: unknown field `kernel_path`, expected one of `kernel_image_path`, `initrd_path`, `boot_args` at line 1 column 32
              fix: write `kernel_image_path`"#]],
    );
}

#[test]
fn a_key_unlike_any_is_named_with_those_there_are() {
    let error = parse(r#"{ "xyzzy": 1 }"#).unwrap_err();
    expect!["there is no key `xyzzy`"].assert_eq(&error.to_string());
    let fix = error.fix().unwrap();
    assert!(KINDS.iter().all(|kind| fix.contains(kind.key)), "{fix}");
}

#[test]
fn what_kedge_does_not_have_yet_is_named() {
    wrong(
        r#"{ "balloon": { "amount_mib": 3, "deflate_on_oom": true } }"#,
        &expect![[r#"
            error: kedge does not have `balloon` yet
              fix: leave it out, or set it to null"#]],
    );
}

#[test]
fn a_key_may_stand_there_once() {
    wrong(
        r#"{ "entropy": {}, "entropy": null }"#,
        &expect![[r#"
            error: `entropy` is there twice
              fix: leave one of them out"#]],
    );
}

#[test]
fn a_missing_or_ill_typed_field_is_named_with_its_place() {
    wrong(
        &machine(r#""vcpu_count": 1"#),
        &expect![[r#"error: missing field `mem_size_mib` at line 1 column 88"#]],
    );
    wrong(
        &machine(r#""vcpu_count": "two", "mem_size_mib": 128"#),
        &expect![[r#"error: invalid type: string "two", expected u8 at line 1 column 90"#]],
    );
    wrong(
        r#"{ "logger": { "level": "loud" } }"#,
        &expect![[
            r#"error: invalid value: string "loud", expected Error, Warning, Info, Debug, Trace or Off at line 1 column 31"#
        ]],
    );
}

#[test]
fn vcpus_are_from_1_to_32() {
    wrong(
        &machine(r#""vcpu_count": 0, "mem_size_mib": 128"#),
        &expect![[r#"
            error: `vcpu_count` cannot be 0
              fix: write a number from 1 to 32"#]],
    );
    wrong(
        &machine(r#""vcpu_count": 33, "mem_size_mib": 128"#),
        &expect![[r#"
            error: `vcpu_count` cannot be 33
              fix: write a number from 1 to 32"#]],
    );
}

#[test]
fn memory_is_at_least_one_mebibyte_and_fits_64_bits() {
    wrong(
        &machine(r#""vcpu_count": 1, "mem_size_mib": 0"#),
        &expect![[r#"
            error: `mem_size_mib` cannot be 0
              fix: write how many MiB of memory the guest gets, from 1"#]],
    );
    wrong(
        &machine(r#""vcpu_count": 1, "mem_size_mib": 18446744073709551615"#),
        &expect![[r#"
            error: `mem_size_mib` cannot be 18446744073709551615
              fix: write how many MiB of memory the guest gets, from 1"#]],
    );
}

#[test]
fn features_kedge_lacks_are_refused_by_name() {
    wrong(
        &machine(r#""vcpu_count": 2, "mem_size_mib": 128, "smt": true"#),
        &expect![[r#"
            error: `smt` cannot be true on arm64
              fix: leave it out or write false"#]],
    );
    wrong(
        &machine(r#""vcpu_count": 2, "mem_size_mib": 128, "cpu_template": "V1N1""#),
        &expect![[r#"
            error: kedge does not have the CPU template "V1N1"
              fix: make a profile that all your hosts can keep, with `kedge abi baseline`, and name its file: "guest-abi": "FILE""#]],
    );
    wrong(
        &machine(r#""vcpu_count": 2, "mem_size_mib": 128, "huge_pages": "2M""#),
        &expect![[r#"
            error: `huge_pages` cannot be "2M" yet
              fix: leave it out or write "None""#]],
    );
}

/// A configuration with `key` too.
fn with(key: &str, value: &str) -> String {
    format!(
        "{{\n  \"boot-source\": {{ \"kernel_image_path\": \"Image\" }},\n  \"{key}\": {value}\n}}"
    )
}

#[test]
fn a_profile_is_named_or_held() {
    let profile = |value: &str| parse(&with("guest-abi", value)).unwrap().machine.guest_abi;
    assert_eq!(profile("\"arm64-v0\"").unwrap().name, "arm64-v0");
    assert_eq!(profile("{ \"format\": 1, \"name\": \"mine\" }").unwrap().name, "mine");
    assert_eq!(profile("null"), None);
}

#[test]
fn what_is_wrong_in_a_profile_has_its_place_in_the_configuration() {
    wrong(
        &with("guest-abi", "{ \"format\": 1,\n    \"nmae\": \"mine\" }"),
        &expect![[r#"
        error: cannot use the value of `guest-abi`
          because: line 4, column 5: there is no key `nmae`
          fix: write `name`"#]],
    );
    wrong(
        &with("guest-abi", "7"),
        &expect![[r#"
        error: cannot use the value of `guest-abi`
          because: line 3, column 16: the document cannot be 7
          fix: write an object, `{ ... }`"#]],
    );
    wrong(
        &with("guest-abi", "\"arm64-v7\""),
        &expect![[r#"
        error: there is no profile `arm64-v7` in this release, and no file of that name
          fix: write `arm64-v1`, or name a file that exists"#]],
    );
}

#[test]
fn a_cpu_configuration_is_held_or_in_a_file() {
    let held = parse(&with("cpu-config", "{ \"kvm_capabilities\": [] }")).unwrap();
    assert!(held.machine.cpu_config.is_some());
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "{ \"reg_modifiers\": null }").unwrap();
    let path = serde_json::to_string(file.path()).unwrap();
    assert!(parse(&with("cpu-config", &path)).unwrap().machine.cpu_config.is_some());
    wrong(
        &with("cpu-config", "{ \"msr_modifiers\": [] }"),
        &expect![[r#"
        error: cannot use the value of `cpu-config`
          because: line 3, column 19: there is no key `msr_modifiers`
          fix: write `reg_modifiers`"#]],
    );
    wrong(
        &with("cpu-config", "\"no/such/file\""),
        &expect![[r#"
        error: cannot read `no/such/file`
          because: No such file or directory (os error 2)
          fix: name a file that exists and can be read"#]],
    );
}

#[test]
fn a_key_for_several_holds_an_array() {
    wrong(
        &cards("{}"),
        &expect![[r#"
            error: `network-interfaces` must hold an array of objects
              fix: put it in brackets: "network-interfaces": [ ... ]"#]],
    );
}

#[test]
fn an_entry_that_describes_no_device_is_named_with_its_place() {
    wrong(
        &cards(&format!(r#"[{CARD}, {{ "iface": "eth1" }}]"#)),
        &expect![[r#"
            error: entry 2 of `network-interfaces` describes no network interface
              because: `network-interfaces` in the configuration file is not right
              because: unknown field `iface`, expected one of `iface_id`, `host_dev_name`, `socket`, `guest_mac`, `mtu`, `queues`, `vhost`, `rx_rate_limiter`, `tx_rate_limiter`
              fix: correct the field named above: they are those of Firecracker's API"#]],
    );
}

#[test]
fn two_devices_with_one_name_are_refused() {
    wrong(
        &cards(&format!("[{CARD}, {CARD}]")),
        &expect![[r#"
            error: there are two network interfaces with the name `eth0`
              fix: give each a name of its own"#]],
    );
}
