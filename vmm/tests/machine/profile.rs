//! What a guest is promised, from the specification to what it finds.

use std::fs;

use expect_test::{Expect, expect};
use kedge_devices::virtio::block;
use kedge_diag::report;
use kedge_firmware::{ARM64_V0, ARM64_V1, FwReg, HOST, Hex, IdPromise, Implementation, builtin};
use kedge_hv::{GicVersion, VcpuFeatures};
use kedge_hv_model::{ModelHypervisor, Recording, V5_10, V6_12, V7_2};
use kedge_ids::RegId;
use kedge_vmm::spec::{MachineSpec, OnReset, PsciVersion, SerialSpec};
use serde_json::json;

use crate::guest::{Guest, call, off, print_reg, program, reset};

const PSCI_VERSION: u32 = 0x8400_0000;
const PSCI_FEATURES: u32 = 0x8400_000a;
const SYSTEM_SUSPEND: u64 = 0x8400_000e;
const TRNG_VERSION: u32 = 0x8400_0050;

fn refused(guest: Guest, change: impl FnOnce(&mut MachineSpec), expected: &Expect) {
    let error = guest.with(change).build().map(drop).unwrap_err();
    expected.assert_eq(&report(&error));
}

fn on(release: &kedge_hv_model::Release) -> Guest {
    Guest::over(ModelHypervisor::new(release).unwrap())
}

#[test]
fn the_default_is_the_same_on_every_host_and_part_of_the_specification() {
    let guest = Guest::new(&[program(&[off()])]);
    assert_eq!(guest.spec.guest_abi, builtin(ARM64_V1).unwrap());
    let born = |name| {
        let built = Guest::on(name, &[program(&[off()])]).build().unwrap();
        built.machine.born().value(FwReg::PsciVersion)
    };
    assert_eq!(born("6.1"), Some(0x1_0001));
    assert_eq!(born("7.2"), Some(0x1_0001));
}

#[test]
fn a_host_that_cannot_honour_it_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("serial");
    let untouched = |spec: &mut MachineSpec| {
        spec.boot.kernel = folder.path().join("no-kernel");
        spec.boot.initrd = Some(folder.path().join("no-initrd"));
        spec.serial = SerialSpec::File(output.clone());
        let disk = json!({"drive_id": "disk", "path_on_host": folder.path().join("no-disk"),
                          "is_root_device": false});
        spec.devices.push((block::KIND.from_json)(disk).unwrap());
    };
    refused(
        on(&V5_10),
        untouched,
        &expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          psci_version: 1.1 wanted, 0.2 or 1.0 offered: the kernel does not have this version
          std_bmap: trng wanted, none offered: the kernel has no such register, and no trng
          vendor_hyp_bmap: func-feat,ptp wanted, none offered: the kernel has no such register, and no func-feat,ptp
          system_suspend: yes wanted, no offered: the kernel cannot give it
          gicd_revision: 3 wanted, 2 offered: the kernel's interrupt controller does not have this revision
          fix: start the guest with `--guest-abi arm64-v0`"#]],
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_guest_finds_what_it_was_promised() {
    let steps = [
        call(PSCI_VERSION, [0; 3]),
        print_reg(0),
        call(PSCI_FEATURES, [SYSTEM_SUSPEND, 0, 0]),
        print_reg(0),
        call(TRNG_VERSION, [0; 3]),
        print_reg(0),
        off(),
    ];
    let said = |name| {
        let abi = builtin(name).unwrap();
        Guest::on("7.2", &[program(&steps)]).with(|spec| spec.guest_abi = abi).run().said
    };
    assert_eq!(said(ARM64_V1), [0x01, 0x00, 0x00]);
    assert_eq!(said(ARM64_V0), [0x00, 0xff, 0xff]);
    assert_eq!(said(HOST), [0x03, 0x00, 0x00]);
}

#[test]
fn a_psci_version_is_promised_on_top_of_the_profile() {
    let guest = Guest::on("7.2", &[program(&[off()])]);
    let built = guest.with(|spec| spec.psci = Some(PsciVersion::V1_0)).build().unwrap();
    let born = built.machine.born();
    assert_eq!(born.birth.abi.name, "arm64-v1+psci_version=1.0");
    assert_eq!(born.value(FwReg::PsciVersion), Some(0x1_0000));
    refused(
        on(&V5_10),
        |spec| spec.psci = Some(PsciVersion::V1_3),
        &expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1+psci_version=1.3`
          psci_version: 1.3 wanted, 0.2 or 1.0 offered: the kernel does not have this version
          std_bmap: trng wanted, none offered: the kernel has no such register, and no trng
          vendor_hyp_bmap: func-feat,ptp wanted, none offered: the kernel has no such register, and no func-feat,ptp
          system_suspend: yes wanted, no offered: the kernel cannot give it
          gicd_revision: 3 wanted, 2 offered: the kernel's interrupt controller does not have this revision
          fix: promise `psci_version` 1.0, or run the guest on a newer kernel; start the guest with `--guest-abi arm64-v0`"#]],
    );
}

#[test]
fn a_reset_leaves_the_guest_what_it_was_born_with() {
    let first = program(&[call(PSCI_VERSION, [0; 3]), print_reg(0), reset()]);
    let then = program(&[call(PSCI_VERSION, [0; 3]), print_reg(0), off()]);
    for name in [ARM64_V0, ARM64_V1, HOST] {
        let guest = Guest::on("7.2", std::slice::from_ref(&first)).then(then.clone());
        let guest = guest.with(|spec| {
            spec.guest_abi = builtin(name).unwrap();
            spec.on_reset = OnReset::Restart;
        });
        let finished = guest.run();
        assert_eq!(finished.said[0], finished.said[1]);
        assert_eq!(finished.machine.born().birth.abi.name, name);
    }
}

#[test]
fn interrupts_of_timers_and_monitors_are_those_of_the_profile() {
    let guest = Guest::new(&[program(&[off()])]).with(|spec| {
        spec.cpu_features = VcpuFeatures::PMU_V3;
        spec.guest_abi.machine.timer_ppis.virtual_timer = 20;
        spec.guest_abi.machine.timer_ppis.physical_timer = 21;
        spec.guest_abi.machine.pmu_ppi = 22;
    });
    let built = guest.build().unwrap();
    let tree = built.machine.device_tree();
    let interrupt = |intid: u32| [[0, 0, 0, 1], (intid - 16).to_be_bytes(), [0, 0, 0, 4]].concat();
    let timers = [29, 21, 20, 26].map(interrupt).concat();
    assert!(tree.windows(timers.len()).any(|window| window == timers));
    let monitors = interrupt(22);
    assert!(tree.windows(monitors.len()).any(|window| window == monitors));
}

#[test]
fn features_of_the_profile_are_given_unasked_and_no_others() {
    let sve = |spec: &mut MachineSpec| {
        spec.guest_abi.cpu.features = Some(vec!["sve".to_owned()]);
        spec.guest_abi.cpu.sve_lengths = Some(vec![128, 256]);
    };
    on(&V7_2).with(sve).build().unwrap();
    let both = |spec: &mut MachineSpec| {
        sve(spec);
        spec.cpu_features = VcpuFeatures::PMU_V3;
    };
    refused(
        on(&V7_2),
        both,
        &expect![[r#"
            error: the machine asks for `pmu`, which is not what the guest ABI profile `arm64-v1` promises
              fix: do not ask for `pmu`, or use another profile"#]],
    );
    let mut plain = Recording::parse(V6_12.recording).unwrap();
    plain.limits.features = VcpuFeatures::PSCI_0_2;
    let plain = ModelHypervisor::on(&V6_12, plain, &[GicVersion::V3]);
    refused(
        Guest::over(plain),
        sve,
        &expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          features: sve wanted, psci-0.2 offered: the host has no sve
          sve_lengths: 128, 256 wanted, none offered: up to 256 bits the host has just none
          fix: run the guest on a host that has them, or with a profile without them; promise the lengths that all hosts have in common, up to the first that one lacks"#]],
    );
}

#[test]
fn lengths_that_the_host_cannot_hide_are_refused() {
    let gap = |spec: &mut MachineSpec| {
        spec.guest_abi.cpu.features = Some(vec!["sve".to_owned()]);
        spec.guest_abi.cpu.sve_lengths = Some(vec![128, 512]);
    };
    refused(
        on(&V7_2),
        gap,
        &expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          sve_lengths: 128, 512 wanted, 128, 256, 384, 512, 640, 768, 896, 1024, 1152, 1280, 1408, 1536, 1664, 1792, 1920, 2048 offered: up to 512 bits the host has just 128, 256, 384, 512
          fix: promise the lengths that all hosts have in common, up to the first that one lacks"#]],
    );
}

#[test]
fn another_interrupt_controller_than_the_profiles_is_refused() {
    let v2 = |spec: &mut MachineSpec| spec.guest_abi.machine.gic = Some(GicVersion::V2);
    refused(
        on(&V7_2),
        v2,
        &expect![[r#"
            error: this host cannot honour the guest ABI profile `arm64-v1`
              gic: v2 wanted, v3 offered: the host has no such interrupt controller
              fix: run the guest on a host that has one"#]],
    );
    let both = |spec: &mut MachineSpec| {
        v2(spec);
        spec.gic = Some(GicVersion::V3);
    };
    refused(
        on(&V7_2),
        both,
        &expect![[r#"
            error: the machine asks for a GICv3, which is not what the guest ABI profile `arm64-v1` promises
              fix: do not ask for a GICv3, or use another profile"#]],
    );
}

#[test]
fn a_guest_can_be_told_that_its_processor_is_another() {
    let neoverse = |spec: &mut MachineSpec| {
        spec.guest_abi.cpu.implementation = Implementation::Promised;
        spec.guest_abi.cpu.id_registers = vec![IdPromise {
            id: RegId::system(3, 0, 0, 0, 0),
            name: "MIDR_EL1".to_owned(),
            value: Hex(0x413f_d0c1),
            mask: Hex(u64::MAX),
        }];
    };
    on(&V7_2).with(neoverse).build().unwrap();
    refused(
        on(&V6_12),
        neoverse,
        &expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          MIDR_EL1: 0x413fd0c1 wanted, 0xf0510 offered: it is the host's own, and cannot be chosen
          fix: run the guest on hosts with the same CPU, or on Linux 6.15 or later"#]],
    );
}
