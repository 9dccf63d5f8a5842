//! `kedge run` from its command line to its exit status, on any host.
#![forbid(unsafe_code)]

mod program;

use expect_test::{Expect, expect, expect_file};
use kedge_devices::virtio::catalog::KINDS;
use program::kedge;

/// The status and the report that `words` behind `kedge run --kernel Image` lead to.
fn wrong(words: &[&str], outcome: &Expect) {
    let words = [&["run", "--kernel", "Image"], words].concat();
    outcome.assert_eq(&kedge(&words));
}

/// Help without the section that the catalogue fills.
fn without_devices(help: &str) -> String {
    let (before, devices) = help.split_once("Its devices:\n").expect("the section is there");
    let (_, after) = devices.split_once("\n\n").expect("another follows");
    before.to_owned() + after
}

#[test]
fn a_profile_that_is_none_is_a_usage_error() {
    expect![[r#"
        2
        error: there is no profile `arm64-v7` in this release, and no file of that name
          fix: write `arm64-v1`, or name a file that exists
    "#]]
    .assert_eq(&kedge(&["run", "--kernel", "Image", "--guest-abi", "arm64-v7"]));
}

#[test]
fn a_dry_run_prints_the_machine() {
    expect_file!["golden/run.txt"].assert_eq(&kedge(&[
        "run",
        "--kernel=Image",
        "--kernel-format=flat",
        "--initrd=initrd.gz",
        "--cmdline=console=ttyS0 root=/dev/vda",
        "--cpus=4",
        "--memory=2G",
        "--rom=path=firmware.bin,at=0x10000000",
        "--cpu-features=ptrauth,pmu",
        "--psci=1.1",
        "--gic=v3",
        "--serial=file=console.log",
        "--on-reset=exit",
        "--rng",
        "--disk=path=root.ext4",
        "--disk=path=data.ext4,readonly",
        "--net=tap=tap1,mac=06:00:00:00:00:01",
        "--net=tap=tap0",
        "--dry-run",
    ]));
}

#[test]
fn what_is_not_said_has_a_default() {
    expect![[r#"
        0
        {
          "cpus": 1,
          "memory": 536870912,
          "cpu_features": [],
          "guest_abi": {
            "format": 1,
            "name": "arm64-v1",
            "about": "PSCI 1.1 and the hypercalls of 2022: for hosts with Linux 5.19 or later.",
            "firmware": {
              "psci_version": "1.1",
              "std_bmap": "trng",
              "std_hyp_bmap": "pv-time",
              "vendor_hyp_bmap": "func-feat,ptp",
              "vendor_hyp_bmap_2": "none"
            },
            "levels": {},
            "unknown_firmware": "neutralise",
            "cpu": {
              "implementation": "host"
            },
            "machine": {
              "system_suspend": true,
              "pv_time": true,
              "gicd_revision": 3,
              "timer_ppis": {
                "virtual_timer": 27,
                "physical_timer": 30
              },
              "pmu_ppi": 23,
              "counter": "stop"
            }
          },
          "psci": null,
          "gic": null,
          "transport": "mmio",
          "boot": {
            "kernel": "Image",
            "kernel_format": "auto",
            "initrd": null,
            "cmdline": ""
          },
          "rom": [],
          "serial": "stdio",
          "devices": [],
          "on_reset": "restart",
          "on_panic": "exit"
        }
    "#]]
    .assert_eq(&kedge(&["run", "--kernel", "Image", "--dry-run"]));
}

#[test]
fn the_help_shows_a_newcomer_the_way() {
    expect![[r#"
        0
        Run a virtual machine described by flags

        Usage: kedge run --kernel FILE [OPTIONS]

        What boots:
              --kernel <FILE>           The kernel: an arm64 Image, plain or compressed
                                        (gzip, zstd, lz4), EFI zboot or ELF
              --kernel-format <FORMAT>  auto: by what the file says; flat: code without header,
                                        loaded and entered at RAM base + 0x80000 [default: auto]
              --initrd <FILE>           An initial RAM disk
              --cmdline <TEXT>          The kernel's command line, to the letter (console=ttyS0)

        The machine:
              --cpus <N>                    Virtual CPUs [default: 1]
              --memory <SIZE>               Memory: 512M, 2G, 1GiB; a bare number counts MiB [default: 512M]
              --rom <path=FILE,at=ADDRESS>  Read-only memory: a file's bytes at a multiple of 64 KiB
              --cpu-features <LIST>         Features to give the CPUs, of: pmu,sve,ptrauth
              --guest-abi <NAME|FILE>       What the guest is promised of its firmware and its CPU, for life:
                                            a profile's name or file; see `kedge abi show` [default: arm64-v1]
              --psci <VERSION>              PSCI version shown to the guest: 0.1, 0.2 or 1.0 to 1.3
                                            [default: the profile's]
              --gic <VERSION>               Interrupt controller: v2 or v3 [default: the host's best]
              --transport <BUS>             What virtio devices are attached to: mmio, or pci with
                                            message-signalled interrupts (needs a GICv3 with ITS)
                                            [default: mmio]
              --pci-slots <N>               On PCI: slots into which devices can be plugged while the
                                            guest runs, up to 8 [default: 0]
              --removable <ID>              Have the disk or network interface ID begin in such a slot:
                                            it can leave while the guest runs (several: in this order)
              --on-reset <ACTION>           When the guest resets: restart it, or exit [default: restart]

        What kedge does:
              --id <NAME>          The machine's name: kedge's other commands find it by that
                                   (letters, digits and hyphens)
              --api-sock <FILE>    Answer Firecracker's API at this socket
              --io-threads <N>     Threads on which virtio devices work, in turn, so that one
                                   that waits is in the way of fewer [default: 0, one for all]
              --track-changes      Note what the guest changes, for `kedge snapshot create --diff`
              --dry-run            Print the machine as JSON and end: opens nothing, needs no KVM
              --dump-dtb <FILE>    Write the guest's device tree to FILE, then go on
                                   (with --dry-run end there, which does need KVM)
              --log-level <LEVEL>  Log on stderr: off, error, warn, info, debug or trace [default: warn]
          -h, --help               Print this help

        Examples:
          A kernel with an initial RAM disk, on this terminal (Ctrl-A x ends it):
            kedge run --kernel Image --initrd initrd.gz --cmdline console=ttyS0

          Two CPUs, a disk, a network interface and a source of entropy:
            kedge run --kernel Image --cpus 2 --memory 1G --disk path=root.ext4 --net tap=tap0 --rng \
                --cmdline "console=ttyS0 root=/dev/vda rw"

          What the machine would be, on any host:
            kedge run --kernel Image --disk path=root.ext4 --dry-run

        On a terminal: Ctrl-A x ends the machine, Ctrl-A a sends Ctrl-A, Ctrl-A h lists these.

        Exit status: 0 when the guest powered off or was ended from the terminal, 1 after an error, 2 when
        the command line makes no sense, 3 after a kernel panic of the guest, 128 + N after signal N.
    "#]].assert_eq(&without_devices(&kedge(&["run", "--help"])));
}

#[test]
fn the_help_lists_the_catalogues_devices() {
    let help = kedge(&["run", "--help"]);
    assert!(KINDS.iter().all(|kind| help.contains(kind.flag_help)), "{help}");
}

#[test]
fn a_machine_needs_a_kernel() {
    expect![[r#"
        2
        error: `--kernel` is missing
          fix: add `--kernel <FILE>`; see `kedge run --help`
    "#]]
    .assert_eq(&kedge(&["run"]));
}

#[test]
fn a_misspelt_flag_is_named_with_the_one_that_is_meant() {
    wrong(
        &["--memroy", "1G"],
        &expect![[r#"
        2
        error: there is no flag `--memroy`
          fix: write `--memory`
    "#]],
    );
}

#[test]
fn a_flag_unlike_any_leads_to_the_help() {
    wrong(
        &["--xyzzy"],
        &expect![[r#"
        2
        error: there is no flag `--xyzzy`
          fix: see `kedge run --help`
    "#]],
    );
}

#[test]
fn a_word_without_flag_is_named() {
    wrong(
        &["initrd.gz"],
        &expect![[r#"
        2
        error: `initrd.gz` belongs to no flag
          fix: see `kedge run --help`
    "#]],
    );
}

#[test]
fn a_flag_without_its_value_is_named() {
    wrong(
        &["--cpus"],
        &expect![[r#"
        2
        error: `--cpus` wants a value
          fix: write `--cpus <N>`
    "#]],
    );
}

#[test]
fn a_switch_takes_no_value() {
    wrong(
        &["--dry-run=yes"],
        &expect![[r#"
        2
        error: `--dry-run` takes no value, and was given `yes`
          fix: write `--dry-run` alone
    "#]],
    );
}

#[test]
fn a_flag_may_be_there_once() {
    wrong(
        &["--cpus", "1", "--cpus", "2"],
        &expect![[r#"
        2
        error: `--cpus` is there twice
          fix: leave one of them out
    "#]],
    );
}

#[test]
fn a_value_that_is_none_of_several_is_named_with_them() {
    wrong(
        &["--gic", "v4"],
        &expect![[r#"
        2
        error: `--gic` cannot be `v4`
          fix: write one of: v2, v3
    "#]],
    );
    wrong(
        &["--psci", "2.0"],
        &expect![[r#"
        2
        error: `--psci` cannot be `2.0`
          fix: write one of: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3
    "#]],
    );
    wrong(
        &["--kernel-format", "elf"],
        &expect![[r#"
        2
        error: `--kernel-format` cannot be `elf`
          fix: write one of: auto, flat
    "#]],
    );
    wrong(
        &["--cpu-features", "pmu,sme"],
        &expect![[r#"
        2
        error: `--cpu-features` cannot be `sme`
          fix: write one of: pmu, sve, ptrauth
    "#]],
    );
    wrong(
        &["--on-reset", "halt"],
        &expect![[r#"
        2
        error: `--on-reset` cannot be `halt`
          fix: write one of: exit, restart
    "#]],
    );
    wrong(
        &["--log-level", "loud"],
        &expect![[r#"
        2
        error: `--log-level` cannot be `loud`
          fix: write one of: off, error, warn, info, debug, trace
    "#]],
    );
}

#[test]
fn there_is_at_least_one_cpu() {
    wrong(
        &["--cpus", "0"],
        &expect![[r#"
        2
        error: `--cpus` cannot be `0`
          fix: write a whole number from 1
    "#]],
    );
    wrong(
        &["--cpus", "many"],
        &expect![[r#"
        2
        error: `--cpus` cannot be `many`
          fix: write a whole number from 1
    "#]],
    );
}

#[test]
fn memory_is_a_size() {
    wrong(
        &["--memory", "0"],
        &expect![[r#"
        2
        error: `--memory` cannot be `0`
          because: there is no machine without memory
          fix: write a whole number with K, M, G or T (powers of 1024), as in 512M or 2G; without a unit it counts MiB
    "#]],
    );
    wrong(
        &["--memory", "512MB"],
        &expect![[r#"
        2
        error: `--memory` cannot be `512MB`
          because: `MB` is no unit of memory
          fix: write a whole number with K, M, G or T (powers of 1024), as in 512M or 2G; without a unit it counts MiB
    "#]],
    );
    wrong(
        &["--memory", "99999999999T"],
        &expect![[r#"
        2
        error: `--memory` cannot be `99999999999T`
          because: `99999999999T` is more than a computer can address
          fix: write a whole number with K, M, G or T (powers of 1024), as in 512M or 2G; without a unit it counts MiB
    "#]],
    );
}

#[test]
fn the_serial_port_leads_somewhere() {
    wrong(
        &["--serial", "tty"],
        &expect![[r#"
            2
            error: `--serial` cannot be `tty`
              fix: write one of: stdio, socket, file=PATH, none
        "#]],
    );
    wrong(
        &["--serial", "file="],
        &expect![[r#"
            2
            error: `--serial` cannot be `file=`
              fix: write one of: stdio, socket, file=PATH, none
        "#]],
    );
}

#[test]
fn a_device_is_described_by_its_own_options() {
    wrong(
        &["--net", "mac=06:00:00:00:00:01"],
        &expect![[r#"
            2
            error: --net needs `tap=`
              fix: write --net tap=NAME[,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,vhost=on|off][,id=NAME][,rx_bandwidth=RATE][,rx_ops=RATE][,tx_bandwidth=RATE][,tx_ops=RATE] or socket=PATH[,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,id=NAME]
        "#]],
    );
    wrong(
        &["--net", "tab=tap0"],
        &expect![[r#"
        2
        error: --net has no option `tab`
          fix: write `tap=tap0`
    "#]],
    );
    wrong(
        &["--rng=fast"],
        &expect![[r#"
        2
        error: --rng has no option `fast`
          fix: write `bandwidth=fast`
    "#]],
    );
}

#[test]
fn two_devices_with_one_name_are_refused() {
    wrong(
        &["--net", "tap=tap0,id=a", "--net", "tap=tap1,id=a"],
        &expect![[r#"
        2
        error: there are two network interfaces with the name `a`
          fix: give each a name of its own
    "#]],
    );
}

#[test]
fn completions_know_the_flags() {
    assert!(kedge(&["completion", "bash"]).contains("--cpu-features"));
    assert!(kedge(&["completion", "zsh"]).contains("--config-file"));
    assert!(kedge(&["completion", "fish"]).contains("kernel-format"));
}

#[test]
fn a_shell_nobody_completes_for_is_named_with_those_there_are() {
    expect![[r#"
        2
        error: `<SHELL>` cannot be `tcsh`
          fix: write one of: bash, zsh, fish
    "#]]
    .assert_eq(&kedge(&["completion", "tcsh"]));
}

#[cfg(not(target_arch = "aarch64"))]
#[test]
fn another_architecture_runs_no_guest() {
    wrong(
        &[],
        &expect![[r#"
        1
        error: this host is not arm64: kedge runs guests on arm64 Linux with KVM
          fix: run it on an arm64 machine; on any other, `cargo xtask boot` brings an emulated one
    "#]],
    );
}

#[test]
fn read_only_memory_needs_a_file_and_an_address() {
    wrong(
        &["--rom", "firmware.bin"],
        &expect![[r#"
        2
        error: --rom has no option `firmware.bin`
          fix: write `path=firmware.bin`
    "#]],
    );
    wrong(
        &["--rom", "path=firmware.bin"],
        &expect![[r#"
        2
        error: --rom needs `at=`
          fix: write --rom path=FILE,at=ADDRESS
    "#]],
    );
    wrong(
        &["--rom", "path=firmware.bin,at=268435456"],
        &expect![[r#"
        2
        error: --rom cannot have `at=268435456`
          fix: give an address in hexadecimal, such as 0x10000000
    "#]],
    );
}
