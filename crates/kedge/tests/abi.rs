//! `kedge abi` from its command line to its exit status, on any host.
#![forbid(unsafe_code)]

mod program;

use expect_test::expect;
use program::kedge;

#[test]
fn the_help_names_the_commands() {
    expect![[r#"
        0
        Show what a host's firmware offers its guests

        Usage: kedge abi <COMMAND>

        Commands:
          probe      Find out what this host can give its guests, by trial on scratch machines
          registers  List the firmware registers that kedge knows, with their values

        Options:
          -h, --help  Print this help

        Examples:
          What guests can be given here:             kedge abi probe
          The same for a program, or another day:    kedge abi probe --output host.json
          What there is to know of each register:    kedge abi registers
    "#]]
    .assert_eq(&kedge(&["abi", "--help"]));
}

#[test]
fn the_help_of_a_probe_names_its_flags() {
    expect![[r#"
        0
        Find out what this host can give its guests, by trial on scratch machines

        Usage: kedge abi probe [OPTIONS]

        Options:
              --json           Print JSON instead of tables
              --output <FILE>  Write JSON to FILE, and print nothing unless --json is there
          -h, --help           Print this help
    "#]]
    .assert_eq(&kedge(&["abi", "probe", "--help"]));
}

#[test]
fn the_registers_are_listed() {
    expect![[r#"
        0
        REGISTER                 ID                  KIND     SCOPE     SINCE       VALUES
        psci_version             0x6030000000140000  version  whole VM  Linux 4.17  0.1, 0.2, 1.0, 1.1, 1.2, 1.3
        smccc_arch_workaround_1  0x6030000000140001  level    host      Linux 5.3   not-avail, avail, not-required
        smccc_arch_workaround_2  0x6030000000140002  level    host      Linux 5.3   not-avail, unknown, avail, avail-enabled, not-required
        smccc_arch_workaround_3  0x6030000000140003  level    host      Linux 5.18  not-avail, avail, not-required
        std_bmap                 0x6030000000160000  bitmap   whole VM  Linux 5.19  trng
        std_hyp_bmap             0x6030000000160001  bitmap   whole VM  Linux 5.19  pv-time
        vendor_hyp_bmap          0x6030000000160002  bitmap   whole VM  Linux 5.19  func-feat, ptp
        vendor_hyp_bmap_2        0x6030000000160003  bitmap   whole VM  Linux 6.15  impl-version, impl-cpus
    "#]].assert_eq(&kedge(&["abi", "registers"]));
}

#[test]
fn a_command_is_asked_for() {
    expect![[r#"
        2
        error: a command is missing
          fix: add one of: probe, registers
    "#]]
    .assert_eq(&kedge(&["abi"]));
}

#[test]
fn a_misspelt_command_is_named_with_the_one_meant() {
    expect![[r#"
        2
        error: there is no command `prob`
          fix: write `probe`
    "#]]
    .assert_eq(&kedge(&["abi", "prob"]));
}

#[test]
fn completions_know_the_commands_and_their_flags() {
    assert!(kedge(&["completion", "bash"]).contains("kedge__subcmd__abi__subcmd__probe"));
    assert!(kedge(&["completion", "zsh"]).contains("scratch machines"));
    assert!(kedge(&["completion", "fish"]).contains("registers"));
}

#[cfg(not(target_arch = "aarch64"))]
#[test]
fn another_architecture_cannot_be_probed() {
    expect![[r#"
        1
        error: this host is not arm64: kedge runs guests on arm64 Linux with KVM
          fix: run it on an arm64 machine; on any other, `cargo xtask boot` brings an emulated one
    "#]]
    .assert_eq(&kedge(&["abi", "probe"]));
}
