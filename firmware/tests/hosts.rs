//! What a probe finds on every modelled kernel, and on one that there is not yet.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod watched;

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use kedge_firmware::{
    Firmware, FoundFirmware, FoundScope, FwReg, Hex, HostAbi, Takes, probe, probe_firmware,
};
use kedge_hv_model::{Invented, ModelHypervisor, Release, V5_10, V6_1, V6_12, V7_2, register};
use kedge_ids::RegId;
use watched::Watched;

/// A bitmap to come, with a service that is on by default.
const NEXT_BMAP: RegId = register(0x16, 4, 8);
/// One of 128 bits.
const WIDE_BMAP: RegId = register(0x16, 5, 16);
/// A level to come, each vCPU its own.
const NEXT_FW: RegId = register(0x14, 4, 8);

/// A kernel that is not there yet.
fn v9_0() -> Release {
    Invented::after(&V7_2, "9.0")
        .with_bitmap(4, 0x7, &[0x1])
        .with_shared_state(WIDE_BMAP, &[0x7])
        .with_state(NEXT_FW, &[0x2])
        .with_psci(&[0x2, 0x1_0000, 0x1_0001, 0x1_0002, 0x1_0003, 0x1_0004])
        .release()
}

fn probed(release: &Release) -> HostAbi {
    probe(&ModelHypervisor::new(release).unwrap()).unwrap()
}

fn firmware_of(release: &Release) -> Vec<FoundFirmware> {
    probe_firmware(&ModelHypervisor::new(release).unwrap()).unwrap()
}

/// A line per firmware register, at its end where the host and the table disagree.
fn firmware(release: &Release, expected: &Expect) {
    let mut text = String::new();
    for found in firmware_of(release) {
        let firmware = found.firmware();
        let (default, scope, takes) = (&found.default, found.scope.words(), &found.takes);
        let surprises = found.surprises();
        writeln!(text, "{firmware}: {default}, {scope}, {takes:?} {surprises:?}").unwrap();
    }
    expected.assert_eq(&text);
}

#[test]
fn linux_5_10_has_psci_1_0_and_no_bitmaps() {
    firmware(
        &V5_10,
        &expect![[r#"
        psci_version: 0x0000000000010000, whole VM, Values([0x2, 0x10000]) []
        smccc_arch_workaround_1: 0x0000000000000002, unchanging, Levels([0x0, 0x1, 0x2]) []
        smccc_arch_workaround_2: 0x0000000000000000, unchanging, Levels([0x0, 0x1]) []
        smccc_arch_workaround_3: 0x0000000000000002, unchanging, Levels([0x0, 0x1, 0x2]) []
    "#]],
    );
}

#[test]
fn linux_6_1_has_psci_1_1_and_three_bitmaps_on() {
    firmware(
        &V6_1,
        &expect![[r#"
        psci_version: 0x0000000000010001, whole VM, Values([0x2, 0x10000, 0x10001]) []
        smccc_arch_workaround_1: 0x0000000000000002, unchanging, Levels([0x0, 0x1, 0x2]) []
        smccc_arch_workaround_2: 0x0000000000000000, unchanging, Levels([0x0, 0x1]) []
        smccc_arch_workaround_3: 0x0000000000000000, unchanging, Levels([0x0]) []
        std_bmap: 0x0000000000000001, whole VM, Bits { bits: 0x1, empty: true } []
        std_hyp_bmap: 0x0000000000000001, whole VM, Bits { bits: 0x1, empty: true } []
        vendor_hyp_bmap: 0x0000000000000003, whole VM, Bits { bits: 0x3, empty: true } []
    "#]],
    );
}

#[test]
fn linux_6_12_has_the_firmware_of_6_1() {
    assert_eq!(firmware_of(&V6_12), firmware_of(&V6_1));
}

#[test]
fn linux_7_2_has_psci_1_3_and_a_fourth_bitmap_off_that_can_be_switched_on() {
    firmware(
        &V7_2,
        &expect![[r#"
        psci_version: 0x0000000000010003, whole VM, Values([0x2, 0x10000, 0x10001, 0x10002, 0x10003]) []
        smccc_arch_workaround_1: 0x0000000000000002, unchanging, Levels([0x0, 0x1, 0x2]) []
        smccc_arch_workaround_2: 0x0000000000000000, unchanging, Levels([0x0, 0x1]) []
        smccc_arch_workaround_3: 0x0000000000000000, unchanging, Levels([0x0]) []
        std_bmap: 0x0000000000000001, whole VM, Bits { bits: 0x1, empty: true } []
        std_hyp_bmap: 0x0000000000000001, whole VM, Bits { bits: 0x1, empty: true } []
        vendor_hyp_bmap: 0x0000000000000003, whole VM, Bits { bits: 0x3, empty: true } []
        vendor_hyp_bmap_2: 0x0000000000000000, whole VM, Bits { bits: 0x3, empty: true } []
    "#]],
    );
}

#[test]
fn a_kernel_to_come_shows_registers_that_the_table_does_not_know() {
    firmware(
        &v9_0(),
        &expect![[r#"
        psci_version: 0x0000000000010004, whole VM, Values([0x2, 0x10000, 0x10001, 0x10002, 0x10003, 0x10004]) ["the default 0x10004 is not in the table"]
        smccc_arch_workaround_1: 0x0000000000000002, unchanging, Levels([0x0, 0x1, 0x2]) []
        smccc_arch_workaround_2: 0x0000000000000000, unchanging, Levels([0x0, 0x1]) []
        smccc_arch_workaround_3: 0x0000000000000000, unchanging, Levels([0x0]) []
        0x6030000000140004: 0x0000000000000002, per vCPU, Values([0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf]) ["not in the table"]
        std_bmap: 0x0000000000000001, whole VM, Bits { bits: 0x1, empty: true } []
        std_hyp_bmap: 0x0000000000000001, whole VM, Bits { bits: 0x1, empty: true } []
        vendor_hyp_bmap: 0x0000000000000003, whole VM, Bits { bits: 0x3, empty: true } []
        vendor_hyp_bmap_2: 0x0000000000000000, whole VM, Bits { bits: 0x3, empty: true } []
        0x6030000000160004: 0x0000000000000001, whole VM, Bits { bits: 0x7, empty: true } ["not in the table"]
        0x6040000000160005: 0x00000000000000000000000000000007, unchanging, Untried ["not in the table"]
    "#]],
    );
    let all = firmware_of(&v9_0());
    let next = all.iter().find(|found| found.id == NEXT_BMAP).unwrap();
    assert_eq!(next.firmware(), Firmware::Unknown(NEXT_BMAP));
    assert_eq!(next.scope, FoundScope::WholeVm);
}

#[test]
fn what_a_probe_writes_it_reads_again() {
    let abi = probed(&v9_0());
    let text = serde_json::to_string(&abi).unwrap();
    assert_eq!(serde_json::from_str::<HostAbi>(&text).unwrap(), abi);
}

#[test]
fn a_probe_runs_nothing_and_writes_only_what_is_listed() {
    let hypervisor = Watched::new(&V5_10, None);
    probe(&hypervisor).unwrap();
    assert_eq!(hypervisor.misdeeds(), [""; 0]);
    assert!(hypervisor.writes().iter().all(|(vcpu, ..)| *vcpu == 0));
}

#[test]
fn a_machine_that_cannot_be_mended_is_replaced() {
    let bmap = FwReg::VendorHypBmap;
    let hypervisor = Watched::new(&V6_1, Some(bmap.spec().id));
    let found = probe_firmware(&hypervisor).unwrap();
    let found = found.iter().find(|found| found.id == bmap.spec().id).unwrap();
    let expected = Takes::Bits { bits: Hex(0x3), empty: true };
    assert_eq!(found.takes, expected);
}

#[test]
fn a_probe_leaves_nothing_for_the_next_one_to_find() {
    let hypervisor = ModelHypervisor::new(&V7_2).unwrap();
    assert_eq!(probe(&hypervisor).unwrap(), probe(&hypervisor).unwrap());
}

#[test]
fn the_document_of_a_register_reads_well() {
    let found = probed(&V7_2).firmware(FwReg::VendorHypBmap2).unwrap().clone();
    expect![[r#"
        {
          "id": "0x6030000000160003",
          "name": "vendor_hyp_bmap_2",
          "default": "0x0000000000000000",
          "scope": "whole_vm",
          "takes": {
            "bits": {
              "bits": "0x3",
              "empty": true
            }
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&found).unwrap());
}

/// The registers whose fields take something, with how many fields do.
fn writable(release: &Release, expected: &Expect) {
    let mut text = String::new();
    let plain = probed(release).cpus.remove(0);
    for register in plain.id_registers.iter().filter(|register| !register.fields.is_empty()) {
        let (name, value, scope) = (&register.name, register.value, register.scope.words());
        writeln!(text, "{name} {value}, {scope}: {} fields", register.fields.len()).unwrap();
    }
    expected.assert_eq(&text);
}

#[test]
fn linux_5_10_lets_one_register_of_identification_be_written() {
    writable(
        &V5_10,
        &expect![[r#"
        ID_AA64PFR0_EL1 0x1101001021110222, whole VM: 1 fields
    "#]],
    );
}

#[test]
fn linux_7_2_lets_most_of_identification_be_written() {
    writable(
        &V7_2,
        &expect![[r#"
            CCSIDR_EL1 of cache 0 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 1 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 2 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 3 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 4 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 5 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 6 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 7 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 8 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 9 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 10 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 11 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 12 0x2, per vCPU: 8 fields
            CCSIDR_EL1 of cache 13 0x2, per vCPU: 8 fields
            ID_PFR0_EL1 0x1020131, whole VM: 5 fields
            ID_PFR1_EL1 0x10011001, whole VM: 4 fields
            ID_DFR0_EL1 0x10009, whole VM: 3 fields
            ID_MMFR0_EL1 0x10101105, whole VM: 5 fields
            ID_MMFR1_EL1 0x40000000, whole VM: 1 fields
            ID_MMFR2_EL1 0x1260000, whole VM: 3 fields
            ID_MMFR3_EL1 0x2122211, whole VM: 7 fields
            ID_ISAR0_EL1 0x2101110, whole VM: 5 fields
            ID_ISAR1_EL1 0x13112111, whole VM: 8 fields
            ID_ISAR2_EL1 0x21232042, whole VM: 7 fields
            ID_ISAR3_EL1 0x1112131, whole VM: 7 fields
            ID_ISAR4_EL1 0x11142, whole VM: 5 fields
            ID_ISAR5_EL1 0x1011121, whole VM: 6 fields
            ID_MMFR4_EL1 0x11110, whole VM: 5 fields
            ID_ISAR6_EL1 0x1111111, whole VM: 7 fields
            MVFR0_EL1 0x10110222, whole VM: 6 fields
            MVFR1_EL1 0x13211111, whole VM: 8 fields
            MVFR2_EL1 0x43, whole VM: 2 fields
            ID_PFR2_EL1 0x11, whole VM: 2 fields
            ID_MMFR5_EL1 0x1, whole VM: 1 fields
            ID_AA64PFR0_EL1 0x1101001021110222, whole VM: 9 fields
            ID_AA64PFR1_EL1 0x21, whole VM: 2 fields
            ID_AA64DFR0_EL1 0x10305009, whole VM: 4 fields
            ID_AA64ISAR0_EL1 0x1221111110212120, whole VM: 14 fields
            ID_AA64ISAR1_EL1 0x11111100211002, whole VM: 10 fields
            ID_AA64MMFR0_EL1 0x32310201126, whole VM: 9 fields
            ID_AA64MMFR1_EL1 0x11010211122, whole VM: 7 fields
            ID_AA64MMFR2_EL1 0x1021011010011011, whole VM: 8 fields
            CLIDR_EL1 0x2000021, per vCPU: 12 fields
            CTR_EL0 0x9444c004, whole VM: 4 fields
        "#]],
    );
}

#[test]
fn limits_are_the_hosts() {
    expect![[r#"
        HostLimits {
            ipa_bits: 52,
            vcpus: 512,
            features: [
                "power-off",
                "el1-32bit",
                "psci-0.2",
                "pmu",
                "sve",
                "ptrauth",
            ],
            gics: [
                FoundGic {
                    version: V3,
                    revision: 3,
                    revisions: [
                        2,
                        3,
                    ],
                    typer2: Some(
                        0x0,
                    ),
                },
            ],
            its: true,
            system_suspend: true,
            sve_lengths: [
                128,
                256,
                384,
                512,
                640,
                768,
                896,
                1024,
                1152,
                1280,
                1408,
                1536,
                1664,
                1792,
                1920,
                2048,
            ],
            pmu_events: Some(
                PmuEventSet {
                    pmceid0: 0x40020001,
                    pmceid1: 0x10000018,
                },
            ),
            counter_hz: 62500000,
            page_size: 4096,
        }"#]]
    .assert_eq(&format!("{:#?}", probed(&V7_2).limits));
}

#[test]
fn features_together_are_what_each_of_them_brings() {
    let host = probed(&V7_2);
    let cpu = host.cpu_with(&["pmu".to_owned(), "sve".to_owned()]);
    let register = |op2, crm| RegId::system(3, 0, 0, crm, op2);
    let (pfr0, dfr0, zfr0) = (register(0, 4), register(0, 5), register(4, 4));
    let of = |features: &[String], id| {
        host.cpu_with(features).id_register(id).map_or(0, |found| found.value.0)
    };
    let (pmu, sve) = (["pmu".to_owned()], ["sve".to_owned()]);
    let value = |id| cpu.id_register(id).unwrap().value.0;
    assert_eq!([value(pfr0), value(zfr0)], [of(&sve, pfr0), of(&sve, zfr0)]);
    assert_eq!(value(dfr0), of(&pmu, dfr0));
    assert_ne!(of(&pmu, dfr0), of(&[], dfr0));
    const PMCR_EL0: RegId = RegId::system(3, 3, 9, 12, 0);
    assert!(cpu.registers.contains(&PMCR_EL0) && cpu.registers.contains(&RegId::SVE_VLS));
    assert!(host.cpu_with(&[]) == host.cpus[0]);
}
