//! Whether a host can honour a profile, on every modelled kernel and on some that there
//! are not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use kedge_firmware::{
    ARM64_V0, ARM64_V1, FilterAction, FilterRange, Firmware, FwReg, GuestAbi, HOST, Hex, HostAbi,
    IdPromise, Implementation, Plan, Subject, UnknownFirmware, Verdict, builtin, check, probe,
};
use kedge_hv_model::invented::NEXT_BITMAP;
use kedge_hv_model::{
    Invented, ModelHypervisor, RELEASES, Release, V5_10, V6_1, V6_12, V7_2, register,
};
use kedge_ids::RegId;

/// A firmware register to come, of which nothing is known.
const NEXT_FW: RegId = register(0x14, 7, 8);
const DFR0: RegId = RegId::system(3, 0, 0, 5, 0);

fn probed(release: &Release) -> HostAbi {
    probe(&ModelHypervisor::new(release).unwrap()).unwrap()
}

fn abi(name: &str) -> GuestAbi {
    builtin(name).unwrap()
}

fn text(plan: &Plan) -> String {
    let mut text = String::new();
    for line in &plan.lines {
        writeln!(text, "{}: {line}", line.verdict.word()).unwrap();
        if let Verdict::Refuse { cure: Some(cure), .. } = &line.verdict {
            writeln!(text, "  fix: {cure}").unwrap();
        }
    }
    text
}

fn assert_plan(abi: &GuestAbi, host: &HostAbi, expected: &Expect) {
    expected.assert_eq(&text(&check(abi, host)));
}

fn assert_refusals(abi: &GuestAbi, host: &HostAbi, expected: &Expect) {
    let lines = check(abi, host).refusals().cloned().collect();
    expected.assert_eq(&text(&Plan { lines }));
}

#[test]
fn on_5_10_the_default_is_refused_with_every_register_and_the_cure() {
    assert_plan(
        &abi(ARM64_V1),
        &probed(&V5_10),
        &expect![[r#"
            refuse: psci_version: 1.1 wanted, 0.2 or 1.0 offered: the kernel does not have this version
              fix: start the guest with `--guest-abi arm64-v0`
            refuse: std_bmap: trng wanted, none offered: the kernel has no such register, and no trng
              fix: start the guest with `--guest-abi arm64-v0`
            keep: std_hyp_bmap: pv-time
            refuse: vendor_hyp_bmap: func-feat,ptp wanted, none offered: the kernel has no such register, and no func-feat,ptp
              fix: start the guest with `--guest-abi arm64-v0`
            keep: vendor_hyp_bmap_2: none
            keep: smccc_arch_workaround_1: any
            keep: smccc_arch_workaround_2: any
            keep: smccc_arch_workaround_3: any
            refuse: system_suspend: yes wanted, no offered: the kernel cannot give it
              fix: start the guest with `--guest-abi arm64-v0`
            keep: pv_time: yes
            refuse: gicd_revision: 3 wanted, 2 offered: the kernel's interrupt controller does not have this revision
              fix: start the guest with `--guest-abi arm64-v0`
            keep: timer_ppis, pmu_ppi: virtual 27, physical 30, pmu 23
            adapt: counter: stop wanted, stop, the virtual one offered: the physical counter goes on while the guest is paused or saved; Linux guests live by the virtual one
        "#]],
    );
}

#[test]
fn on_5_10_the_profile_for_it_is_kept() {
    assert_plan(
        &abi(ARM64_V0),
        &probed(&V5_10),
        &expect![[r#"
        keep: psci_version: 1.0
        keep: std_bmap: none
        keep: std_hyp_bmap: pv-time
        keep: vendor_hyp_bmap: none
        keep: vendor_hyp_bmap_2: none
        keep: smccc_arch_workaround_1: any
        keep: smccc_arch_workaround_2: any
        keep: smccc_arch_workaround_3: any
        keep: system_suspend: no
        keep: pv_time: yes
        keep: gicd_revision: 2
        keep: timer_ppis, pmu_ppi: virtual 27, physical 30, pmu 23
        adapt: counter: stop wanted, stop, the virtual one offered: the physical counter goes on while the guest is paused or saved; Linux guests live by the virtual one
    "#]],
    );
}

#[test]
fn on_7_2_the_default_is_kept() {
    assert_plan(
        &abi(ARM64_V1),
        &probed(&V7_2),
        &expect![[r#"
        keep: psci_version: 1.1
        keep: std_bmap: trng
        keep: std_hyp_bmap: pv-time
        keep: vendor_hyp_bmap: func-feat,ptp
        keep: vendor_hyp_bmap_2: none
        keep: smccc_arch_workaround_1: any
        keep: smccc_arch_workaround_2: any
        keep: smccc_arch_workaround_3: any
        keep: system_suspend: yes
        keep: pv_time: yes
        keep: gicd_revision: 3
        keep: timer_ppis, pmu_ppi: virtual 27, physical 30, pmu 23
        keep: counter: stop
    "#]],
    );
}

#[test]
fn the_built_in_profiles_are_for_the_kernels_that_they_name() {
    let hosts: Vec<_> = RELEASES.iter().map(|release| (release.name, probed(release))).collect();
    let accepts = |name| {
        let fit = hosts.iter().filter(|(_, host)| !check(&abi(name), host).is_refused());
        fit.map(|(name, _)| *name).collect::<Vec<_>>()
    };
    assert_eq!(accepts(ARM64_V1), ["6.1", "6.12", "7.2"]);
    assert_eq!(accepts(ARM64_V0), ["5.10", "6.1", "6.12", "7.2"]);
    assert_eq!(accepts(HOST), ["5.10", "6.1", "6.12", "7.2"]);
}

/// The kernels between, with calls that no register switches.
const V5_15: Release = Release { name: "5.15", services: V6_1.services, ..V5_10 };

#[test]
fn a_kernel_whose_calls_cannot_be_switched_off_does_not_honour_their_absence() {
    assert_refusals(
        &abi(ARM64_V0),
        &probed(&V5_15),
        &expect![[r#"
            refuse: std_bmap: none wanted, trng offered: the kernel has no such register: it cannot switch off trng
              fix: run the guest on Linux 5.19 or later, or with `--guest-abi host`
            refuse: vendor_hyp_bmap: none wanted, func-feat,ptp offered: the kernel has no such register: it cannot switch off func-feat,ptp
              fix: run the guest on Linux 5.19 or later, or with `--guest-abi host`
        "#]],
    );
}

#[test]
fn bits_and_versions_in_excess_are_named() {
    let mut wanted = abi(ARM64_V1);
    wanted.name = "mine".to_owned();
    wanted.firmware.set(Firmware::Known(FwReg::PsciVersion), 0x1_0003);
    wanted.firmware.set(Firmware::Known(FwReg::VendorHypBmap2), 0x3);
    wanted.firmware.set(Firmware::Known(FwReg::VendorHypBmap), 0x7);
    wanted.firmware.set(Firmware::Unknown(NEXT_FW), 0x1);
    wanted.levels.set(Firmware::Known(FwReg::Workaround3), 0x1);
    assert_refusals(
        &wanted,
        &probed(&V6_12),
        &expect![[r#"
            refuse: psci_version: 1.3 wanted, 0.2 or 1.0 or 1.1 offered: the kernel does not have this version
              fix: promise `psci_version` 1.1, or run the guest on a newer kernel
            refuse: vendor_hyp_bmap: func-feat,ptp,0x4 wanted, func-feat,ptp offered: the kernel has no 0x4
              fix: promise no more than the host offers, or run the guest on a newer kernel
            refuse: vendor_hyp_bmap_2: impl-version,impl-cpus wanted, none offered: the kernel has no such register, and no impl-version,impl-cpus
              fix: run the guest on Linux 6.15 or later
            refuse: 0x6030000000140007: 0x1 wanted, nothing offered: the kernel has no such register
              fix: run the guest on a newer kernel
            refuse: smccc_arch_workaround_3: avail or better wanted, not-avail offered: the host is mitigated less than that
              fix: run the guest on a host with this mitigation, or take the level out of the profile
        "#]],
    );
}

#[test]
fn a_level_that_the_host_exceeds_is_kept() {
    let mut wanted = abi(ARM64_V1);
    wanted.levels.set(Firmware::Known(FwReg::Workaround1), 0x1);
    assert!(!check(&wanted, &probed(&V6_12)).is_refused());
}

/// A kernel that is not there yet.
fn next_kernel() -> HostAbi {
    let next = Invented::after(&V7_2, "9.0")
        .with_bitmap(9, 0xff, &[0xff])
        .with_shared_state(NEXT_FW, &[0x2])
        .release();
    probed(&next)
}

#[test]
fn unknown_firmware_is_emptied_left_or_adopted_and_said_so() {
    let host = next_kernel();
    let unknown = |abi: &GuestAbi| {
        let of = |subject: &Subject| {
            let id = subject.id();
            id == Some(NEXT_BITMAP) || id == Some(NEXT_FW)
        };
        let plan = check(abi, &host);
        assert!(!plan.is_refused());
        text(&Plan { lines: plan.lines.into_iter().filter(|line| of(&line.subject)).collect() })
    };
    expect![[r#"
        adapt: 0x6030000000140007: any wanted, 0x2 offered: it stays as the host has it: no value of it is known to offer nothing
        keep: 0x6030000000160009: 0x0
    "#]].assert_eq(&unknown(&abi(ARM64_V1)));
    let adopting = GuestAbi { unknown_firmware: UnknownFirmware::Adopt, ..abi(ARM64_V1) };
    expect![[r#"
        keep: 0x6030000000140007: any
        keep: 0x6030000000160009: any
    "#]]
    .assert_eq(&unknown(&adopting));
}

#[test]
fn fields_of_id_registers_are_refused_by_field() {
    let host = probed(&V7_2);
    let found = host.cpus[0].id_register(DFR0).unwrap().value.0;
    let mut wanted = abi(ARM64_V1);
    let promise = |value, mask| IdPromise {
        id: DFR0,
        name: String::new(),
        value: Hex(value),
        mask: Hex(mask),
    };
    wanted.cpu.id_registers = vec![promise(found & !0xf | 0x6, u64::MAX)];
    assert!(!check(&wanted, &host).is_refused());
    wanted.cpu.id_registers = vec![promise(0xf00a, 0xf00f)];
    assert_refusals(
        &wanted,
        &host,
        &expect![[r#"
            refuse: ID_AA64DFR0_EL1: 0xf00a in 0xf00f wanted, 0x10305009 offered: DebugVer is 0x9 and cannot be 0xa; BRPs is 0x5 and cannot be 0xf
              fix: make a baseline of a fleet that this host is in, or run the guest on a host like those of the profile
        "#]],
    );
}

#[test]
fn a_register_that_is_not_there_reads_as_zero() {
    let absent = RegId::system(3, 0, 0, 9, 0);
    let mut wanted = abi(ARM64_V1);
    let promise = |value| IdPromise { id: absent, name: String::new(), value, mask: Hex(u64::MAX) };
    wanted.cpu.id_registers = vec![promise(Hex(0))];
    assert!(!check(&wanted, &probed(&V7_2)).is_refused());
    wanted.cpu.id_registers = vec![promise(Hex(1))];
    assert_refusals(
        &wanted,
        &probed(&V7_2),
        &expect![[r#"
            refuse: S3_0_C0_C9_0: 0x1 wanted, nothing offered: the vCPU has no such register
              fix: make a baseline of a fleet that this host is in, or run the guest on a host like those of the profile
        "#]],
    );
}

#[test]
fn another_cpus_name_is_kept_where_it_can_be_chosen() {
    let mut wanted = abi(ARM64_V1);
    wanted.cpu.implementation = Implementation::Promised;
    wanted.cpu.id_registers = vec![IdPromise {
        id: RegId::system(3, 0, 0, 0, 0),
        name: "MIDR_EL1".to_owned(),
        value: Hex(0x413f_d0c1),
        mask: Hex(u64::MAX),
    }];
    assert!(!check(&wanted, &probed(&V7_2)).is_refused());
    assert_refusals(
        &wanted,
        &probed(&V6_12),
        &expect![[r#"
            refuse: MIDR_EL1: 0x413fd0c1 wanted, 0xf0510 offered: it is the host's own, and cannot be chosen
              fix: run the guest on hosts with the same CPU, or on Linux 6.15 or later
        "#]],
    );
}

#[test]
fn what_no_register_shows_is_refused_by_name() {
    let mut wanted = abi(ARM64_V1);
    wanted.cpu.features = Some(vec!["pmu".to_owned(), "mte".to_owned()]);
    wanted.cpu.sve_lengths = Some(vec![128, 512]);
    wanted.machine.smccc_filter = vec![
        FilterRange { base: Hex(0xc600_0040), count: 2, action: FilterAction::Forward },
        FilterRange { base: Hex(0x8000_fff0), count: 32, action: FilterAction::Deny },
        FilterRange { base: Hex(0xffff_fff0), count: 32, action: FilterAction::Deny },
    ];
    wanted.machine.gic = Some(kedge_hv::GicVersion::V2);
    wanted.machine.gicd_typer2 = Some(Hex(0x100));
    wanted.machine.timer_ppis.physical_timer = 27;
    wanted.machine.ipa_bits = Some(56);
    assert_refusals(
        &wanted,
        &probed(&V6_1),
        &expect![[r#"
            refuse: features: pmu, mte wanted, power-off, el1-32bit, psci-0.2, pmu, sve, ptrauth offered: the host has no mte
              fix: run the guest on a host that has them, or with a profile without them
            refuse: sve_lengths: 128, 512 wanted, 128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 1920, 2048 offered: up to 512 bits the host has just 128, 256, 384, 512
              fix: promise the lengths that all hosts have in common, up to the first that one lacks
            refuse: smccc_filter 0xc6000040+2: forward wanted, none offered: the kernel answers every call itself
              fix: run the guest on Linux 6.4 or later, or with a profile without this range
            refuse: smccc_filter 0x8000fff0+32: deny wanted, none offered: these are the architecture's own calls, which only the kernel answers
              fix: leave 0x80000000 to 0x8000ffff and 0xc0000000 to 0xc000ffff out of the filter
            refuse: smccc_filter 0xfffffff0+32: deny wanted, none offered: these are no function ids
              fix: give function ids of 32 bits, one or more
            refuse: gic: v2 wanted, v3 offered: the host has no such interrupt controller
              fix: run the guest on a host that has one
            refuse: timer_ppis, pmu_ppi: virtual 27, physical 27, pmu 23 wanted, any offered: these are not three private interrupts
              fix: give each of them an INTID of its own from 16 to 31
            refuse: ipa_bits: 56 wanted, 48 offered: the host's guests have fewer address bits
              fix: promise 48 bits, or run the guest on a host with more
        "#]],
    );
}

#[test]
fn a_plan_does_not_depend_on_a_document_being_complete() {
    let host = HostAbi { cpus: Vec::new(), firmware: Vec::new(), ..probed(&V7_2) };
    assert!(check(&abi(ARM64_V1), &host).is_refused());
    assert!(!check(&abi(HOST), &host).is_refused());
}
