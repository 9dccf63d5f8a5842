//! The door for Firecracker's users: a configuration file, and their name for the
//! program.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::{Ended, Kedge, SOON};
use crate::linux::{BOOT, Report};
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::tap::Tap;

/// What a client's log parser finds in the last line.
const GOOD_END: &str = "exiting successfully. exit_code=0";

pub(crate) fn tests(suite: &mut Suite) {
    suite.once("firecracker::linux_boots_and_a_reboot_ends_with_status_0", &[], linux);
    suite.once("firecracker::a_reset_restarts_when_asked_to", &[], |host| {
        let folder = TempDir::new()?;
        let config = write(&folder, &payload(host, "power", "reset"))?;
        let kedge = Kedge::new(["--no-api", "--config-file", &config, "--on-reset", "restart"]);
        let kedge = kedge.start()?;
        kedge.wait_for("POWER ", 3, SOON)?;
        kedge.terminate()?.by_signal(Signal::TERM).map(drop)
    });
    suite.once("firecracker::words_are_added_to_the_command_line", &[], |host| {
        let ended = run(&payload(host, "power", "nothing"))?.with_status(0)?;
        ensure_contains(&ended.stdout, &["POWER nothing pci=off"])
    });
    suite.once("firecracker::under_its_name_the_version_is_its_line", &[], |_| {
        let ended = Kedge::new(["--version"]).called("firecracker").finish()?.with_status(0)?;
        ensure_contains(&ended.stdout, &["Firecracker v1."])
    });
    suite.once("firecracker::malformed_json_is_shown_with_line_and_column", &[], |_| {
        let folder = TempDir::new()?;
        let path = folder.path().join("vm.json").display().to_string();
        fs::write(&path, "{\n  \"boot-source\": ?\n}")?;
        let ended = Kedge::new(["--no-api", "--config-file", &path]).finish()?.with_status(152)?;
        ensure_contains(&ended.stderr, &["line 2 column 18", "fix: "])
    });
    suite.once("firecracker::an_unknown_key_is_refused_by_name", &[], |host| {
        let mut config = payload(host, "null", "");
        config["boot-source"]["kernel_path"] = json!("Image");
        let ended = run(&config)?.with_status(152)?;
        ensure_contains(&ended.stderr, &["kernel_path", "fix: "])
    });
    suite.once("firecracker::two_drives_with_one_name_are_refused", &[], |host| {
        let mut config = payload(host, "null", "");
        let drive = json!({"drive_id": "a", "is_root_device": false, "path_on_host": host.disk(),
            "is_read_only": true});
        config["drives"] = json!([drive.clone(), drive]);
        let ended = run(&config)?.with_status(152)?;
        ensure_contains(&ended.stderr, &["two disks with the name `a`", "fix: "])
    });
    suite.once("firecracker::a_missing_kernel_is_a_bad_configuration", &[], |_| {
        let boot = json!({"kernel_image_path": "/nowhere/Image"});
        let ended = run(&json!({"boot-source": boot, "drives": []}))?.with_status(152)?;
        ensure_contains(&ended.stderr, &["/nowhere/Image", "fix: "])
    });
    suite.once("firecracker::a_filter_is_refused_and_no_filter_accepted", &[], |host| {
        let filter = ["--no-api", "--config-file", "x", "--seccomp-filter", "filter.bin"];
        let ended = Kedge::new(filter).finish()?.with_status(153)?;
        ensure_contains(&ended.stderr, &["--seccomp-filter", "fix: "])?;
        let folder = TempDir::new()?;
        let config = write(&folder, &payload(host, "null", ""))?;
        let words = ["--no-api", "--config-file", &config, "--no-seccomp", "--id", "vm-1"];
        ensure_contains(&Kedge::new(words).finish()?.with_status(0)?.stdout, &[GOOD_END])
    });
}

fn payload(host: &Host, name: &str, boot_args: &str) -> Value {
    let boot = json!({"kernel_image_path": host.payload(name), "boot_args": boot_args});
    json!({"boot-source": boot, "drives": [], "machine-config": {"vcpu_count": 1, "mem_size_mib": 16}})
}

fn write(folder: &TempDir, config: &Value) -> anyhow::Result<String> {
    let path = folder.path().join("vm.json").display().to_string();
    fs::write(&path, config.to_string())?;
    Ok(path)
}

fn run(config: &Value) -> anyhow::Result<Ended> {
    let folder = TempDir::new()?;
    Kedge::new(["--no-api", "--config-file", &write(&folder, config)?]).finish()
}

fn linux(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let disk = folder.path().join("root.ext4");
    fs::copy(host.disk(), &disk)?;
    let tap = Tap::new("kedge-t2")?.with_address("10.87.0.1/24")?;
    let config = json!({
        "boot-source": {
            "kernel_image_path": host.linux()?,
            "initrd_path": host.initrd()?,
            "boot_args": "console=ttyS0 loglevel=1 kedge.run=one kedge.then=reboot",
        },
        "drives": [{"drive_id": "rootfs", "is_root_device": true, "path_on_host": disk}],
        "network-interfaces": [{"iface_id": "eth0", "host_dev_name": tap.name()}],
        "entropy": {},
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 256},
    });
    let config = write(&folder, &config)?;
    let ended = Kedge::new(["--no-api", "--config-file", &config]).finish_within(BOOT)?;
    let ended = ended.with_status(0)?;
    let said = Report::new(&ended.stdout);
    ensure_contains(said.section("cmdline")?, &["pci=off root=/dev/vda rw earlycon="])?;
    ensure_contains(said.whole(), &["GUEST-UP ", GOOD_END])
}
