//! `kedge abi` from its command line to its exit status, on any host.
#![forbid(unsafe_code)]

mod program;

use std::fs;

use expect_test::expect;
use kedge_firmware::probe;
use kedge_hv_model::{ModelHypervisor, Release, V5_10, V6_1, V6_12, V7_2};
use program::kedge;
use tempfile::TempDir;

/// A folder with a file that says `text`, and the file's path.
fn file(text: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("document.json");
    fs::write(&path, text).expect("room for a file");
    let path = path.to_str().expect("folders have text for names").to_owned();
    (folder, path)
}

/// What a probe finds on a host with this kernel.
fn host(release: &'static Release) -> String {
    let hypervisor = ModelHypervisor::new(release).expect("the model has such a host");
    probe(&hypervisor).expect("it can be probed").to_json()
}

const RARE: &str = r#"{
    "format": 1,
    "name": "fleet",
    "firmware": { "psci_version": "1.1", "0x6030000000160009": "0x5" },
    "levels": { "smccc_arch_workaround_3": "avail" },
    "unknown_firmware": "adopt",
    "cpu": {
        "features": ["pmu"],
        "id_registers": [{ "id": "0x603000000013c020", "value": "0x11", "mask": "0xff" }],
        "varying": [{
            "id": "0x603000000013c028",
            "name": "ID_AA64DFR0_EL1",
            "mask": "0xf00",
            "reason": "a guest asks for it before it uses it"
        }]
    },
    "machine": { "smccc_filter": [{ "base": "0xc6000040", "count": 2, "action": "forward" }] }
}"#;

#[test]
fn the_help_names_the_commands() {
    expect![[r#"
        0
        Show what guests are promised of firmware, and what hosts offer

        Usage: kedge abi <COMMAND>

        Commands:
          probe      Find out what this host can give its guests, by trial on scratch machines
          baseline   Make the greatest profile that every host of a fleet can give, and say what is lost
          check      Say, register by register, whether a host can give what a profile promises,
                     or what the guest of a snapshot knows
          show       Show a profile, or what a probe found; without a name, which profiles there are
          diff       Compare two profiles, or what probes found on two hosts, by register and field
          registers  List the firmware registers that kedge knows, with their values

        Options:
          -h, --help  Print this help

        Examples:
          What guests can be given here:             kedge abi probe
          The same for a program, or another day:    kedge abi probe --output host.json
          What all hosts of a fleet can promise:     kedge abi baseline a.json b.json --output fleet.json
          Whether this host can keep a promise:      kedge abi check --profile arm64-v1
          What guests are promised:                  kedge abi show arm64-v1
          How two hosts, or two profiles, differ:    kedge abi diff a.json b.json
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
fn the_profiles_are_listed() {
    expect![[r#"
        0
        PROFILE   ABOUT
        arm64-v1  PSCI 1.1 and the hypercalls of 2022: for hosts with Linux 5.19 or later.
        arm64-v0  PSCI 1.0 and no hypercall younger than stolen time: for any host, Linux 5.10 too.
        host      Whatever the host gives: nothing is written, nothing is promised.
    "#]]
    .assert_eq(&kedge(&["abi", "show"]));
}

#[test]
fn a_profile_is_shown_in_tables() {
    expect![[r#"
        0
        arm64-v1
        PSCI 1.1 and the hypercalls of 2022: for hosts with Linux 5.19 or later.

        FIRMWARE REGISTER  PROMISED
        psci_version       1.1
        std_bmap           trng
        std_hyp_bmap       pv-time
        vendor_hyp_bmap    func-feat,ptp
        vendor_hyp_bmap_2  none
        all others         bitmaps are emptied

        BESIDES                            PROMISED
        cpu.implementation                 host
        machine.counter                    stop
        machine.gicd_revision              3
        machine.pmu_ppi                    23
        machine.pv_time                    true
        machine.system_suspend             true
        machine.timer_ppis.physical_timer  30
        machine.timer_ppis.virtual_timer   27
    "#]]
    .assert_eq(&kedge(&["abi", "show", "arm64-v1"]));
}

#[test]
fn a_profile_can_be_written_to_a_file_and_shown_from_there() {
    let json = kedge(&["abi", "show", "arm64-v0", "--json"]);
    let (folder, path) = file(json.strip_prefix("0\n").expect("it is a profile"));
    assert_eq!(kedge(&["abi", "show", &path, "--json"]), json);
    assert_eq!(kedge(&["abi", "diff", &path, "arm64-v0"]), "0\n");
    drop(folder);
}

#[test]
fn the_rarer_promises_are_shown_too() {
    let (_folder, path) = file(RARE);
    expect![[r#"
        0
        fleet

        FIRMWARE REGISTER        PROMISED
        psci_version             1.1
        0x6030000000160009       0x5
        smccc_arch_workaround_3  at least avail
        all others               as the host has them

        ID REGISTER         VALUE  OF THE BITS
        0x603000000013c020  0x11   0xff

        MAY VARY         IN THE BITS  SINCE
        ID_AA64DFR0_EL1  0xf00        a guest asks for it before it uses it

        BESIDES                            PROMISED
        cpu.features                       pmu
        cpu.implementation                 host
        machine.counter                    stop
        machine.pmu_ppi                    23
        machine.smccc_filter[0].action     forward
        machine.smccc_filter[0].base       0xc6000040
        machine.smccc_filter[0].count      2
        machine.timer_ppis.physical_timer  30
        machine.timer_ppis.virtual_timer   27
    "#]]
    .assert_eq(&kedge(&["abi", "show", &path]));
}

#[test]
fn two_profiles_are_compared_side_by_side() {
    expect![[r#"
        1
                                  arm64-v0  arm64-v1
        psci_version              1.0       1.1
        std_bmap                  none      trng
        vendor_hyp_bmap           none      func-feat,ptp
        machine.gicd_revision     2         3
        machine.system_suspend    false     true
    "#]]
    .assert_eq(&kedge(&["abi", "diff", "arm64-v0", "arm64-v1"]));
}

#[test]
fn a_comparison_is_there_for_programs_too() {
    expect![[r#"
        1
        [
          {
            "subject": "psci_version",
            "part": "",
            "one": "1.0",
            "other": "1.1"
          },
          {
            "subject": "std_bmap",
            "part": "",
            "one": "none",
            "other": "trng"
          },
          {
            "subject": "vendor_hyp_bmap",
            "part": "",
            "one": "none",
            "other": "func-feat,ptp"
          },
          {
            "subject": "machine.gicd_revision",
            "part": "",
            "one": "2",
            "other": "3"
          },
          {
            "subject": "machine.system_suspend",
            "part": "",
            "one": "false",
            "other": "true"
          }
        ]
    "#]]
    .assert_eq(&kedge(&["abi", "diff", "arm64-v0", "arm64-v1", "--json"]));
    assert_eq!(kedge(&["abi", "diff", "host", "host", "--json"]), "0\n[]\n");
}

#[test]
fn a_name_that_is_no_profile_is_named_with_the_one_meant() {
    expect![[r#"
        1
        error: there is no profile `arm64-v7` in this release, and no file of that name
          fix: write `arm64-v1`, or name a file that exists
    "#]]
    .assert_eq(&kedge(&["abi", "show", "arm64-v7"]));
    expect![[r#"
        1
        error: there is no profile `fleet.json` in this release, and no file of that name
          fix: write one of: arm64-v1, arm64-v0, host; or name a file
    "#]]
    .assert_eq(&kedge(&["abi", "show", "fleet.json"]));
}

#[test]
fn what_is_wrong_in_a_profile_is_shown_with_its_place() {
    let (folder, path) = file("{\n  \"format\": 1,\n  \"name\": \"mine\",\n  \"levles\": {}\n}\n");
    let outcome = kedge(&["abi", "show", &path]);
    expect![[r#"
        1
        error: cannot use `document.json` as a profile
          because: line 4, column 3: there is no key `levles`
          fix: write `levels`
    "#]]
    .assert_eq(&outcome.replace(&format!("{}/", folder.path().display()), ""));
}

#[test]
fn a_profile_and_a_host_are_not_compared() {
    let (folder, path) = file(&host(&V7_2));
    let outcome = kedge(&["abi", "diff", "arm64-v1", &path]);
    expect![[r#"
        1
        error: `arm64-v1` is a profile, and `document.json` is what a probe found on a host
          fix: ask whether the host can keep the promises: `kedge abi check --profile arm64-v1 --host document.json`
    "#]].assert_eq(&outcome.replace(&format!("{}/", folder.path().display()), ""));
}

/// What `words` come to where `host.json` is what a probe found on a host with this kernel.
fn with_host(release: &'static Release, words: &[&str]) -> String {
    let (_folder, path) = file(&host(release));
    let words: Vec<_> =
        words.iter().map(|word| if *word == "host.json" { path.as_str() } else { word }).collect();
    kedge(&words).replace(&path, "host.json")
}

#[test]
fn a_host_that_can_keep_a_promise_is_told_register_by_register() {
    let words = ["abi", "check", "--profile", "arm64-v1", "--host", "host.json"];
    expect![[r#"
        0
              REGISTER OR PART         PROMISED                         HOST
        keep  psci_version             1.1                              0.2 or 1.0 or 1.1 or 1.2 or 1.3
        keep  std_bmap                 trng                             trng
        keep  std_hyp_bmap             pv-time                          pv-time
        keep  vendor_hyp_bmap          func-feat,ptp                    func-feat,ptp
        keep  vendor_hyp_bmap_2        none                             impl-version,impl-cpus
        keep  smccc_arch_workaround_1  any                              not-required
        keep  smccc_arch_workaround_2  any                              not-avail
        keep  smccc_arch_workaround_3  any                              not-avail
        keep  system_suspend           yes                              yes
        keep  pv_time                  yes                              yes
        keep  gicd_revision            3                                2, 3
        keep  timer_ppis, pmu_ppi      virtual 27, physical 30, pmu 23  any
        keep  counter                  stop                             stop

        The host can keep every promise.
    "#]].assert_eq(&with_host(&V7_2, &words));
}

#[test]
fn a_host_that_cannot_is_named_with_everything_it_cannot() {
    let words = ["abi", "check", "--profile", "arm64-v1", "--host", "host.json"];
    expect![[r#"
        1
                REGISTER OR PART         PROMISED                         HOST
        REFUSE  psci_version             1.1                              0.2 or 1.0             the kernel does not have this version
        REFUSE  std_bmap                 trng                             none                   the kernel has no such register, and no trng
        keep    std_hyp_bmap             pv-time                          pv-time
        REFUSE  vendor_hyp_bmap          func-feat,ptp                    none                   the kernel has no such register, and no func-feat,ptp
        keep    vendor_hyp_bmap_2        none                             none
        keep    smccc_arch_workaround_1  any                              not-required
        keep    smccc_arch_workaround_2  any                              not-avail
        keep    smccc_arch_workaround_3  any                              not-required
        REFUSE  system_suspend           yes                              no                     the kernel cannot give it
        keep    pv_time                  yes                              yes
        REFUSE  gicd_revision            3                                2                      the kernel's interrupt controller does not have this revision
        keep    timer_ppis, pmu_ppi      virtual 27, physical 30, pmu 23  any
        adapt   counter                  stop                             stop, the virtual one  the physical counter goes on while the guest is paused or saved; Linux guests live by the virtual one

        The host cannot keep 5 promises.
          fix: start the guest with `--guest-abi arm64-v0`
    "#]].assert_eq(&with_host(&V5_10, &words));
}

#[test]
fn a_plan_is_there_for_programs_too() {
    let words = ["abi", "check", "--profile", "host", "--host", "host.json", "--json"];
    let outcome = with_host(&V5_10, &words);
    let start: Vec<_> = outcome.lines().take(8).collect();
    expect![[r#"
        0
        {
          "lines": [
            {
              "subject": "psci_version",
              "id": "0x6030000000140000",
              "wanted": "any",
              "offered": "1.0","#]]
    .assert_eq(&start.join("\n"));
}

#[test]
fn a_check_wants_a_profile_and_a_host() {
    expect![[r#"
        2
        error: `--profile` is missing
          fix: add `--profile <NAME|FILE>`; see `kedge abi --help`
    "#]]
    .assert_eq(&kedge(&["abi", "check"]));
    expect![[r#"
        1
        error: `arm64-v1` is a profile, not what a probe found on a host
          fix: name a file that `kedge abi probe --output FILE` has written
    "#]]
    .assert_eq(&kedge(&["abi", "check", "--profile", "arm64-v1", "--host", "arm64-v1"]));
    let words = ["abi", "check", "--profile", "host.json", "--host", "host.json"];
    expect![[r#"
        1
        error: `host.json` is what a probe found on a host, not a profile
          fix: make a profile of it with `kedge abi baseline`, or name another file
    "#]]
    .assert_eq(&with_host(&V7_2, &words));
}

#[test]
fn a_fleet_has_a_baseline_that_each_host_can_keep() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let hosts = [("older.json", &V6_12), ("newer.json", &V7_2)].map(|(name, release)| {
        fs::write(path(name), host(release)).expect("room for a file");
        path(name)
    });
    let fleet = path("fleet.json");
    let [older, newer] = &hosts;
    let outcome = kedge(&["abi", "baseline", older, newer, "--output", &fleet]);
    expect![[r#"
        0
        LOST                            SINCE HOST
        psci_version 1.3                older       takes 0.2, 1.0, 1.1
        vendor_hyp_bmap_2 impl-cpus     older       has no such register, which comes to `none`
        vendor_hyp_bmap_2 impl-version  older       has no such register, which comes to `none`
    "#]]
    .assert_eq(&outcome);
    for host in &hosts {
        let outcome = kedge(&["abi", "check", "--profile", &fleet, "--host", host]);
        assert!(outcome.starts_with("0\n"), "{outcome}");
    }
    let outcome = kedge(&["abi", "baseline", older, newer, "--json"]);
    assert!(outcome.starts_with("0\n{\n  \"losses\": ["), "{outcome}");
    let outcome = kedge(&["abi", "baseline", older]);
    assert!(outcome.ends_with("Nothing is lost: every host has all of it.\n"), "{outcome}");
}

#[test]
fn a_baseline_wants_hosts() {
    expect![[r#"
        2
        error: `<HOST>...` is missing
          fix: add `<HOST>...`; see `kedge abi --help`
    "#]]
    .assert_eq(&kedge(&["abi", "baseline"]));
    expect![[r#"
        1
        error: `arm64-v1` is a profile, not what a probe found on a host
          fix: name a file that `kedge abi probe --output FILE` has written
    "#]]
    .assert_eq(&kedge(&["abi", "baseline", "arm64-v1"]));
}

#[test]
fn two_hosts_are_compared_side_by_side() {
    let ((older_folder, older), (newer_folder, newer)) = (file(&host(&V6_1)), file(&host(&V6_12)));
    let outcome = kedge(&["abi", "diff", &older, &newer]);
    let outcome = outcome.replace(&older, "older.json").replace(&newer, "newer.json");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let start: Vec<_> = outcome.lines().take(12).map(words).collect();
    expect![[r#"
        1
        older.json newer.json
        CCSIDR_EL1 of cache 0 scope unchanging per vCPU
        CCSIDR_EL1 of cache 0 LineSize/Associativity 3:0 0xa 0x2
        CCSIDR_EL1 of cache 0 LineSize/Associativity 3:0 takes - 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf
        CCSIDR_EL1 of cache 0 Associativity 7:4 takes - 0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf
        CCSIDR_EL1 of cache 0 Associativity 11:8 takes - 0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf
        CCSIDR_EL1 of cache 0 Associativity/NumSets 15:12 0xe 0x0
        CCSIDR_EL1 of cache 0 Associativity/NumSets 15:12 takes - 0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf
        CCSIDR_EL1 of cache 0 NumSets 19:16 0xf 0x0
        CCSIDR_EL1 of cache 0 NumSets 19:16 takes - 0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf
        CCSIDR_EL1 of cache 0 NumSets 23:20 0x1 0x0"#]]
    .assert_eq(&start.join("\n"));
    drop((older_folder, newer_folder));
}

#[test]
fn a_command_is_asked_for() {
    expect![[r#"
        2
        error: a command is missing
          fix: add one of: probe, baseline, check, show, diff, registers
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
