//! Machines that cannot be built: what is said, and what the cure is.

use std::io::Write;

use expect_test::{Expect, expect};
use kedge_devices::virtio::block;
use kedge_devices::virtio::rng::RngConfig;
use kedge_diag::report;
use kedge_hv::{GicVersion, VcpuFeatures};
use kedge_hv_model::{ModelHypervisor, Recording, V6_12};
use kedge_vmm::spec::{KernelFormat, MachineSpec, SerialSpec};
use serde_json::json;
use tempfile::NamedTempFile;

use crate::guest::Guest;

fn refused_by(hypervisor: ModelHypervisor, change: impl FnOnce(&mut MachineSpec)) -> String {
    let guest = Guest::over(hypervisor).with(change);
    let kernel = guest.spec.boot.kernel.display().to_string();
    let text = guest.build().map(drop).map_err(|error| report(&error)).unwrap_err();
    text.replace(&kernel, "KERNEL")
}

fn refused(change: impl FnOnce(&mut MachineSpec), expected: &Expect) {
    expected.assert_eq(&refused_by(ModelHypervisor::new(&V6_12).unwrap(), change));
}

/// A host of Linux 6.12 with other limits.
fn host(gics: &[GicVersion], change: impl FnOnce(&mut Recording)) -> ModelHypervisor {
    let mut recording = Recording::parse(V6_12.recording).unwrap();
    change(&mut recording);
    ModelHypervisor::on(&V6_12, recording, gics)
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().write_all(bytes).unwrap();
    file
}

#[test]
fn sizes_that_make_no_machine() {
    refused(
        |spec| spec.memory = 0,
        &expect![[r#"
        error: a machine without memory cannot run
          fix: ask for some memory: 512 MiB suit most Linux guests"#]],
    );
    refused(
        |spec| spec.memory = 1 << 50,
        &expect![[r#"
        error: 1048576 GiB of memory are too much: a machine has at most 1022 GiB
          fix: ask for at most 1022 GiB of memory"#]],
    );
    refused(
        |spec| spec.cpus = 0,
        &expect![[r#"
        error: a machine without vCPUs cannot run
          fix: ask for at least one vCPU"#]],
    );
    refused(
        |spec| spec.cpus = 1000,
        &expect![[r#"
        error: 1000 vCPUs are too many for a GICv3: it serves 512
          fix: ask for at most 512 vCPUs"#]],
    );
}

#[test]
fn a_kernel_that_does_not_boot() {
    refused(
        |spec| spec.boot.kernel = "/nowhere/Image".into(),
        &expect![[r#"
        error: cannot open `KERNEL`
          because: No such file or directory (os error 2)
          fix: name a file that exists"#]],
    );
    refused(
        |spec| spec.boot.kernel = "/".into(),
        &expect![[r#"
            error: cannot open `KERNEL`
              because: Is a directory (os error 21)
              fix: name a regular file"#]],
    );
    refused(
        |spec| spec.boot.kernel_format = KernelFormat::Auto,
        &expect![[r#"
        error: cannot boot the kernel `KERNEL`
          because: the kernel is in no format that kedge knows
          fix: give an arm64 Image (plain or compressed), an EFI zboot image or an ELF vmlinux; code without a header needs the kernel format `flat`"#]],
    );
}

#[test]
fn an_initrd_that_does_not_load() {
    refused(
        |spec| spec.boot.initrd = Some("/nowhere/initrd".into()),
        &expect![[r#"
        error: cannot open `/nowhere/initrd`
          because: No such file or directory (os error 2)
          fix: name a file that exists"#]],
    );
    refused(
        |spec| spec.boot.initrd = Some("/".into()),
        &expect![[r#"
            error: cannot open `/`
              because: Is a directory (os error 21)
              fix: name a regular file"#]],
    );
    let large = file(&vec![1; 4 << 20]);
    let text = refused_by(ModelHypervisor::new(&V6_12).unwrap(), |spec| {
        spec.boot.initrd = Some(large.path().to_owned());
    });
    expect![[r#"
        error: cannot load the initial RAM disk `INITRD`
          because: the initrd takes 4 MiB, of the machine's 2 MiB of memory the kernel leaves 1.4 MiB
          fix: give the machine at least 5 MiB of memory"#]].assert_eq(&text.replace(&large.path().display().to_string(), "INITRD"));
}

#[test]
fn a_command_line_that_is_too_long() {
    refused(
        |spec| spec.boot.cmdline = "x".repeat(5000),
        &expect![[r#"
        error: the command line is 5000 bytes long, arm64 kernels read 2047
          fix: shorten it by 2953 bytes, or move settings into the initrd"#]],
    );
}

#[test]
fn devices_that_cannot_be_together_or_opened() {
    let disk = |id: &str, path: &str| {
        (block::KIND.from_json)(
            json!({"drive_id": id, "is_root_device": false, "path_on_host": path}),
        )
        .unwrap()
    };
    refused(
        |spec| spec.devices.extend([disk("data", "a.img"), disk("data", "b.img")]),
        &expect![[r#"
            error: there are two disks with the name `data`
              fix: give each a name of its own"#]],
    );
    refused(
        |spec| {
            spec.devices.push(Box::new(RngConfig::default()));
            spec.devices.push(Box::new(RngConfig::default()));
        },
        &expect![[r#"
            error: there is more than one entropy device
              fix: ask for one entropy device"#]],
    );
    refused(
        |spec| spec.devices.push(disk("data", "/nowhere/disk.img")),
        &expect![[r#"
        error: disk `data`: there is no file /nowhere/disk.img
          fix: correct the path, or make a disk: truncate -s 1G /nowhere/disk.img"#]],
    );
}

#[test]
fn a_console_that_cannot_be_written() {
    refused(
        |spec| spec.serial = SerialSpec::File("/nowhere/log".into()),
        &expect![[r#"
        error: cannot write the serial port's output to `/nowhere/log`
          because: No such file or directory (os error 2)
          fix: name a file or FIFO that can be written"#]],
    );
}

#[test]
fn features_that_the_host_lacks() {
    let plain = || host(&[GicVersion::V3], |host| host.limits.features = VcpuFeatures::PSCI_0_2);
    expect![[r#"
        error: this host has no Scalable Vector Extension (SVE) for its guests
          fix: leave `sve` out of the CPU features, or run on a host that has it"#]]
    .assert_eq(&refused_by(plain(), |spec| spec.cpu_features = VcpuFeatures::SVE));
}

#[test]
fn hosts_with_another_interrupt_controller_or_none() {
    let refused_on =
        |gics: &[GicVersion], change: fn(&mut MachineSpec)| refused_by(host(gics, |_| {}), change);
    expect![[r#"
        error: this host can give a guest neither a GICv3 nor a GICv2
          fix: run on a host whose own interrupt controller is a GICv2 or GICv3"#]]
    .assert_eq(&refused_on(&[], |_| {}));
    expect![[r#"
        error: this host cannot give a guest a GICv3
          fix: leave the choice of the interrupt controller to kedge"#]]
    .assert_eq(&refused_on(&[GicVersion::V2], |spec| spec.gic = Some(GicVersion::V3)));
    expect![[r#"
        error: 9 vCPUs are too many for a GICv2: it serves 8
          fix: ask for at most 8 vCPUs"#]]
    .assert_eq(&refused_on(&[GicVersion::V2], |spec| spec.cpus = 9));
    Guest::over(host(&[GicVersion::V2], |_| {})).with(|spec| spec.cpus = 8).build().unwrap();
}

#[test]
fn hosts_with_little_room() {
    let small = host(&[GicVersion::V3], |host| {
        host.limits.vcpus = 2;
        host.limits.ipa_bits = 36;
    });
    expect![[r#"
        error: 3 vCPUs are too many: this host allows 2
          fix: ask for at most 2 vCPUs"#]]
    .assert_eq(&refused_by(small, |spec| spec.cpus = 3));
    let narrow = host(&[GicVersion::V3], |host| host.limits.ipa_bits = 36);
    expect![[r#"
        error: 64 GiB of memory are too much for this host: its 36-bit guest addresses leave room for 62 GiB
          fix: ask for at most 62 GiB of memory"#]].assert_eq(&refused_by(narrow, |spec| spec.memory = 64 << 30));
}
