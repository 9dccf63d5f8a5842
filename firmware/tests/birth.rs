//! Machines being born with a profile, on every modelled kernel and on some that there
//! are not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod nursery;
mod watched;

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use kedge_diag::{one_line, report};
use kedge_firmware::{
    ARM64_V0, ARM64_V1, BirthError, Born, FilterAction, FilterRange, Firmware, FwReg, GuestAbi,
    HOST, Hex, IdPromise, Implementation, Newborn, ServiceRecord, UnknownFirmware, builtin, settle,
    settle_again,
};
use kedge_hv::VmConfig;
use kedge_hv_model::invented::NEXT_BITMAP;
use kedge_hv_model::{
    Ids, Invented, RELEASES, Release, Row, Rule, Scope, V5_10, V6_1, V6_12, V7_2, id, register,
};
use kedge_ids::RegId;
use nursery::Nursery;

const DFR0: RegId = RegId::system(3, 0, 0, 5, 0);
const MIDR: RegId = RegId::system(3, 0, 0, 0, 0);
/// One of 128 bits.
const WIDE_BMAP: RegId = register(0x16, 0xa, 16);
/// A firmware register to come, of which nothing is known.
const NEXT_FW: RegId = register(0x14, 7, 8);

/// A kernel that is not there yet.
fn v9_0() -> Release {
    Invented::after(&V7_2, "9.0")
        .with_bitmap(9, 0xff, &[0xff])
        .with_shared_state(WIDE_BMAP, &[0x7])
        .with_shared_state(NEXT_FW, &[0x2])
        .with_psci(&[0x2, 0x1_0000, 0x1_0001, 0x1_0002, 0x1_0003, 0x2_0000])
        .release()
}

fn abi(name: &str) -> GuestAbi {
    builtin(name).unwrap()
}

fn v1_with(change: impl FnOnce(&mut GuestAbi)) -> GuestAbi {
    let mut abi = abi(ARM64_V1);
    change(&mut abi);
    abi
}

fn promise(id: RegId, value: u64, mask: u64) -> IdPromise {
    IdPromise { id, name: String::new(), value: Hex(value), mask: Hex(mask) }
}

fn refused(result: Result<Born, BirthError>) -> String {
    report(&result.unwrap_err())
}

/// Every firmware register of a machine, in words.
fn firmware(born: &Born) -> String {
    let mut text = String::new();
    for register in &born.birth.firmware {
        let firmware = Firmware::of(register.id).unwrap();
        let value = register.value.as_u64().map(|value| firmware.format(value));
        let value = value.unwrap_or_else(|| register.value.to_string());
        writeln!(text, "{firmware} {value}").unwrap();
    }
    writeln!(text, "gicd_revision {:?}", born.gicd_revision.unwrap()).unwrap();
    writeln!(text, "system_suspend {}, pv_time {}", born.system_suspend, born.pv_time).unwrap();
    text
}

/// Those lines of it that are about firmware which nobody knows.
fn unknown_firmware(born: &Born) -> String {
    firmware(born).lines().filter(|line| line.starts_with("0x")).collect::<Vec<_>>().join("\n")
}

fn assert_firmware(born: &Born, expected: &Expect) {
    expected.assert_eq(&firmware(born));
}

#[test]
fn the_default_is_the_same_on_every_kernel_that_can() {
    let born = |release| {
        let born = Nursery::new(release, 2).settle(&abi(ARM64_V1)).unwrap();
        // What only the newest kernel lists promises nothing.
        firmware(&born).replace("vendor_hyp_bmap_2 none\n", "")
    };
    assert_eq!(born(&V6_1), born(&V6_12));
    assert_eq!(born(&V6_12), born(&V7_2));
    expect![[r#"
        psci_version 1.1
        smccc_arch_workaround_1 not-required
        smccc_arch_workaround_2 not-avail
        smccc_arch_workaround_3 not-avail
        std_bmap trng
        std_hyp_bmap pv-time
        vendor_hyp_bmap func-feat,ptp
        gicd_revision 3
        system_suspend true, pv_time true
    "#]]
    .assert_eq(&born(&V7_2));
}

#[test]
fn the_profile_of_5_10_switches_off_what_came_later() {
    let old = Nursery::new(&V5_10, 1).settle(&abi(ARM64_V0)).unwrap();
    assert_firmware(
        &old,
        &expect![[r#"
        psci_version 1.0
        smccc_arch_workaround_1 not-required
        smccc_arch_workaround_2 not-avail
        smccc_arch_workaround_3 not-required
        gicd_revision 2
        system_suspend false, pv_time true
    "#]],
    );
    let new = Nursery::new(&V7_2, 1).settle(&abi(ARM64_V0)).unwrap();
    assert_firmware(
        &new,
        &expect![[r#"
        psci_version 1.0
        smccc_arch_workaround_1 not-required
        smccc_arch_workaround_2 not-avail
        smccc_arch_workaround_3 not-avail
        std_bmap none
        std_hyp_bmap pv-time
        vendor_hyp_bmap none
        vendor_hyp_bmap_2 none
        gicd_revision 2
        system_suspend false, pv_time true
    "#]],
    );
}

#[test]
fn the_hosts_own_profile_writes_nothing() {
    for release in RELEASES {
        let nursery = Nursery::new(release, 2);
        let born = nursery.settle(&abi(HOST)).unwrap();
        assert_eq!(nursery.writes(), [""; 0]);
        assert_eq!(born.warnings, [""; 0]);
    }
}

#[test]
fn nothing_is_written_where_it_is_right_already() {
    for release in [&V6_1, &V6_12] {
        let nursery = Nursery::new(release, 2);
        nursery.settle(&abi(ARM64_V1)).unwrap();
        assert_eq!(nursery.writes(), [""; 0]);
    }
}

#[test]
fn a_register_of_the_whole_vm_is_written_once_whatever_the_number_of_vcpus() {
    let writes = |vcpus, abi: &GuestAbi| {
        let nursery = Nursery::new(&V7_2, vcpus);
        nursery.settle(abi).unwrap();
        assert_eq!(nursery.hypervisor.misdeeds(), [""; 0]);
        nursery.writes()
    };
    let mut v0 = abi(ARM64_V0);
    v0.cpu.id_registers = vec![promise(DFR0, 0x6, 0xf)];
    let one = writes(1, &v0);
    expect![[r#"
        0 0x603000000013c028 0x10305006
        0 psci_version 0x10000
        0 std_bmap 0x0
        0 vendor_hyp_bmap 0x0"#]]
    .assert_eq(&one.join("\n"));
    assert_eq!(writes(32, &v0), one);
    assert_eq!(writes(32, &abi(ARM64_V1)), ["0 psci_version 0x10001"]);
}

#[test]
fn on_5_10_the_default_is_refused_with_all_that_stands_in_the_way() {
    let error = Nursery::new(&V5_10, 1).settle(&abi(ARM64_V1)).unwrap_err();
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          psci_version: 1.1 wanted, 0.2 or 1.0 offered: the kernel does not have this version
          std_bmap: trng wanted, none offered: the kernel has no such register, and no trng
          vendor_hyp_bmap: func-feat,ptp wanted, none offered: the kernel has no such register, and no func-feat,ptp
          system_suspend: yes wanted, no offered: the kernel cannot give it
          gicd_revision: 3 wanted, 2 offered: the kernel's interrupt controller does not have this revision
          fix: start the guest with `--guest-abi arm64-v0`"#]].assert_eq(&report(&error));
    expect!["this host cannot honour the guest ABI profile `arm64-v1`; psci_version: 1.1 wanted, 0.2 or 1.0 offered: the kernel does not have this version; std_bmap: trng wanted, none offered: the kernel has no such register, and no trng; vendor_hyp_bmap: func-feat,ptp wanted, none offered: the kernel has no such register, and no func-feat,ptp; system_suspend: yes wanted, no offered: the kernel cannot give it; gicd_revision: 3 wanted, 2 offered: the kernel's interrupt controller does not have this revision; fix: start the guest with `--guest-abi arm64-v0`"].assert_eq(&one_line(&error));
}

/// A kernel between, with calls that no register switches.
const V5_15: Release = Release { name: "5.15", services: V6_1.services, ..V5_10 };

#[test]
fn a_kernel_whose_calls_cannot_be_switched_off_is_found_out_without_running_anything() {
    let nursery = Nursery::new(&V5_15, 1);
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v0`
          std_bmap: none wanted, trng offered: the kernel has no such register: it cannot switch off trng
          vendor_hyp_bmap: none wanted, func-feat,ptp offered: the kernel has no such register: it cannot switch off func-feat,ptp
          fix: run the guest on Linux 5.19 or later, or with `--guest-abi host`"#]].assert_eq(&refused(nursery.settle(&abi(ARM64_V0))));
    assert_eq!(nursery.hypervisor.misdeeds(), [""; 0]);
    Nursery::new(&V5_15, 1).settle(&abi(HOST)).unwrap();
}

#[test]
fn bits_that_a_new_machine_hides_are_found_by_trial() {
    let wanted = v1_with(|abi| abi.firmware.set(Firmware::Known(FwReg::VendorHypBmap2), 0x3));
    let born = Nursery::new(&V7_2, 2).settle(&wanted).unwrap();
    assert_eq!(born.value(FwReg::VendorHypBmap2), Some(0x3));
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          vendor_hyp_bmap_2: impl-version,impl-cpus wanted, none offered: the kernel has no such register, and no impl-version,impl-cpus
          fix: run the guest on Linux 6.15 or later"#]].assert_eq(&refused(Nursery::new(&V6_12, 2).settle(&wanted)));
    let wanted = v1_with(|abi| abi.firmware.set(Firmware::Known(FwReg::VendorHypBmap2), 0x7));
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          vendor_hyp_bmap_2: impl-version,impl-cpus,0x4 wanted, impl-version,impl-cpus offered: the kernel has no 0x4
          fix: promise no more than the host offers, or run the guest on a newer kernel"#]].assert_eq(&refused(Nursery::new(&V7_2, 2).settle(&wanted)));
}

#[test]
fn a_level_is_asked_for_and_not_set() {
    let asks = |level| v1_with(|abi| abi.levels.set(Firmware::Known(FwReg::Workaround1), level));
    let nursery = Nursery::new(&V6_12, 1);
    let born = nursery.settle(&asks(0x1)).unwrap();
    assert_eq!(born.value(FwReg::Workaround1), Some(0x2));
    assert_eq!(nursery.writes(), ["0 smccc_arch_workaround_1 0x1"]);
    let asks = v1_with(|abi| abi.levels.set(Firmware::Known(FwReg::Workaround3), 0x1));
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          smccc_arch_workaround_3: avail or better wanted, not-avail offered: the host is mitigated less than that
          fix: run the guest on a host with this mitigation, or take the level out of the profile"#]].assert_eq(&refused(Nursery::new(&V6_12, 1).settle(&asks)));
}

#[test]
fn unknown_firmware_is_switched_off_and_what_cannot_be_is_said() {
    let born = Nursery::new(&v9_0(), 2).settle(&abi(ARM64_V1)).unwrap();
    assert_firmware(
        &born,
        &expect![[r#"
        psci_version 1.1
        smccc_arch_workaround_1 not-required
        smccc_arch_workaround_2 not-avail
        smccc_arch_workaround_3 not-avail
        0x6030000000140007 0x2
        std_bmap trng
        std_hyp_bmap pv-time
        vendor_hyp_bmap func-feat,ptp
        vendor_hyp_bmap_2 none
        0x6030000000160009 0x0
        0x604000000016000a 0x00000000000000000000000000000000
        gicd_revision 3
        system_suspend true, pv_time true
    "#]],
    );
    expect!["0x6030000000140007: any wanted, 0x2 offered: it stays as the host has it: no value of it is known to offer nothing"].assert_eq(&born.warnings.join("\n"));
}

#[test]
fn unknown_firmware_is_adopted_on_demand() {
    let adopting = v1_with(|abi| abi.unknown_firmware = UnknownFirmware::Adopt);
    let nursery = Nursery::new(&v9_0(), 2);
    let born = nursery.settle(&adopting).unwrap();
    expect![[r#"
        0x6030000000140007 0x2
        0x6030000000160009 0xff
        0x604000000016000a 0x00000000000000000000000000000007"#]]
    .assert_eq(&unknown_firmware(&born));
    assert_eq!(nursery.writes(), ["0 psci_version 0x10001"]);
}

#[test]
fn a_bitmap_that_cannot_be_emptied_is_refused_by_id() {
    let stays = Row::of(Ids::One(NEXT_BITMAP), Rule::Fixed).whole_vm().born(&[0xff]);
    let stubborn = Invented::after(&V7_2, "stubborn").with_row(stays).release();
    let nursery = Nursery::new(&stubborn, 1);
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          0x6030000000160009: 0x0 wanted, 0xff offered: the profile does not know it, and the kernel does not let it be emptied
          fix: start the guest with a profile that adopts unknown firmware, such as `--guest-abi host`"#]].assert_eq(&refused(nursery.settle(&abi(ARM64_V1))));
}

#[test]
fn a_guest_that_moved_is_offered_nothing_new_by_a_reset() {
    let born = Nursery::new(&V6_1, 2).settle(&abi(HOST)).unwrap();
    let again = Nursery::new(&v9_0(), 2);
    let again = again.with_newborn(|newborn| settle_again(newborn, &born)).unwrap();
    assert_firmware(
        &again,
        &expect![[r#"
        psci_version 1.1
        smccc_arch_workaround_1 not-required
        smccc_arch_workaround_2 not-avail
        smccc_arch_workaround_3 not-avail
        0x6030000000140007 0x2
        std_bmap trng
        std_hyp_bmap pv-time
        vendor_hyp_bmap func-feat,ptp
        vendor_hyp_bmap_2 none
        0x6030000000160009 0x0
        0x604000000016000a 0x00000000000000000000000000000000
        gicd_revision 3
        system_suspend true, pv_time true
    "#]],
    );
    assert_eq!(again.birth.abi, abi(HOST));
}

#[test]
fn a_reset_on_the_same_host_changes_nothing() {
    for name in [ARM64_V0, ARM64_V1, HOST] {
        let born = Nursery::new(&V7_2, 2).settle(&abi(name)).unwrap();
        let nursery = Nursery::new(&V7_2, 2);
        let again = nursery.with_newborn(|newborn| settle_again(newborn, &born)).unwrap();
        assert_eq!(again, born);
    }
}

#[test]
fn a_kernel_without_any_bitmap_is_no_hindrance_to_who_promises_none() {
    let nursery = Nursery::new(&V5_10, 2);
    nursery.settle(&abi(ARM64_V0)).unwrap();
    assert_eq!(nursery.hypervisor.misdeeds(), [""; 0]);
}

/// A kernel that holds the PSCI version and a bitmap for each vCPU.
fn per_vcpu() -> Release {
    Invented::after(&V7_2, "per vCPU")
        .with_scope(id::STD_BMAP, Scope::Vcpu)
        .with_scope(RegId::PSCI_VERSION, Scope::Vcpu)
        .release()
}

#[test]
fn where_a_register_is_each_vcpus_own_each_gets_its_own_with_a_warning() {
    let nursery = Nursery::new(&per_vcpu(), 3);
    let born = nursery.settle(&abi(ARM64_V0)).unwrap();
    for vcpu in &nursery.vcpus {
        assert_eq!(vcpu.reg64(RegId::PSCI_VERSION).unwrap(), 0x1_0000);
        assert_eq!(vcpu.reg64(id::STD_BMAP).unwrap(), 0);
    }
    expect![[r#"
        psci_version: this kernel holds it for each vCPU; each was given the same
        std_bmap: this kernel holds it for each vCPU; each was given the same"#]]
    .assert_eq(&born.warnings.join("\n"));
}

#[test]
fn id_registers_are_written_before_firmware() {
    let mut wanted = abi(ARM64_V0);
    wanted.cpu.id_registers = vec![promise(DFR0, 0x6, 0xf)];
    let nursery = Nursery::new(&V7_2, 2);
    nursery.settle(&wanted).unwrap();
    let (_, first, _) = nursery.hypervisor.writes().remove(0);
    assert_eq!(first, DFR0);
    let value = nursery.vcpus[1].reg64(DFR0).unwrap();
    assert_eq!(value & 0xf, 0x6);
}

#[test]
fn fields_that_the_host_refuses_are_named() {
    let wanted = v1_with(|abi| {
        abi.cpu.id_registers = vec![promise(DFR0, 0xf00a, 0xf00f), promise(MIDR, 1, u64::MAX)];
    });
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          ID_AA64DFR0_EL1: 0xf00a in 0xf00f wanted, 0x10305009 offered: DebugVer is 0x9 and cannot be 0xa; BRPs is 0x5 and cannot be 0xf
          MIDR_EL1: 0x1 wanted, 0xf0510 offered: it is the host's own, and cannot be chosen
          fix: make a baseline of a fleet that this host is in, or run the guest on a host like those of the profile; run the guest on hosts with the same CPU, or on Linux 6.15 or later"#]].assert_eq(&refused(Nursery::new(&V7_2, 1).settle(&wanted)));
}

#[test]
fn another_cpus_name_is_given_where_it_can_be() {
    let wanted = v1_with(|abi| {
        abi.cpu.implementation = Implementation::Promised;
        abi.cpu.id_registers = vec![promise(MIDR, 0x413f_d0c1, u64::MAX)];
    });
    let config = VmConfig { writable_imp_ids: true, ..VmConfig::new(40) };
    let nursery = Nursery::with(&V7_2, 2, &config);
    nursery.settle(&wanted).unwrap();
    assert_eq!(nursery.vcpus[1].reg64(MIDR).unwrap(), 0x413f_d0c1);
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          MIDR_EL1: 0x413fd0c1 wanted, 0xf0510 offered: it is the host's own, and cannot be chosen
          fix: run the guest on hosts with the same CPU, or on Linux 6.15 or later"#]]
    .assert_eq(&refused(Nursery::new(&V6_12, 1).settle(&wanted)));
}

#[test]
fn a_machine_without_interrupt_controller_or_vcpus_is_judged_without() {
    let nursery = Nursery::new(&V7_2, 1);
    let born = nursery
        .with_newborn(|newborn| settle(&Newborn { gic: None, ..*newborn }, &abi(HOST)).unwrap());
    assert_eq!((born.gic, born.gicd_revision), (None, None));
    let none = nursery.with_newborn(|newborn| {
        settle(&Newborn { vcpus: &[], ..*newborn }, &abi(HOST)).unwrap_err()
    });
    assert_eq!(none.to_string(), "a machine without vCPUs has no registers");
}

fn service(name: &str, base: u64) -> ServiceRecord {
    let functions = FilterRange { base: Hex(base), count: 2, action: FilterAction::Forward };
    ServiceRecord { name: name.to_owned(), functions: vec![functions] }
}

/// A machine that was born among the first services, and is again among the second.
fn again(first: &[ServiceRecord], second: &[ServiceRecord]) -> Result<Born, BirthError> {
    let born = |services, act: &dyn Fn(&Newborn<'_>) -> Result<Born, BirthError>| {
        let nursery = Nursery::new(&V7_2, 1);
        nursery.with_newborn(|newborn| act(&Newborn { services, ..*newborn }))
    };
    let first = born(first, &|newborn| settle(newborn, &abi(ARM64_V1)))?;
    born(second, &|newborn| settle_again(newborn, &first))
}

#[test]
fn a_guest_that_was_born_with_a_service_is_not_restored_without() {
    let (clock, dice) = (service("clock", 0xc300_0100), service("dice", 0xc300_0200));
    let moved = service("dice", 0xc300_0210);
    let error = refused(again(&[clock, dice], &[moved]));
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          service `clock`: 0xc3000100+2 wanted, nothing offered: the guest was born with it, and nobody else answers
          service `dice`: 0xc3000200+2 wanted, 0xc3000210+2 offered: the guest was born with other functions of it
          fix: restore the guest in a program with the services that it was born with"#]].assert_eq(&error);
}

#[test]
fn a_service_that_a_guest_was_not_born_with_is_none_of_its_own() {
    let (clock, dice) = (service("clock", 0xc300_0100), service("dice", 0xc300_0200));
    let born = again(std::slice::from_ref(&clock), &[dice, clock.clone()]).unwrap();
    assert_eq!(born.services, [clock]);
    expect!["service `dice`: nothing wanted, 0xc3000200+2 offered: the guest was born without it: it answers nothing"].assert_eq(&born.warnings.join("\n"));
}

#[test]
fn a_record_survives_json() {
    let nursery = Nursery::new(&v9_0(), 2);
    let born = nursery.with_newborn(|newborn| {
        let services = &[service("clock", 0xc300_0100)];
        settle(&Newborn { services, ..*newborn }, &abi(ARM64_V1)).unwrap()
    });
    let json = serde_json::to_string(&born).unwrap();
    assert_eq!(serde_json::from_str::<Born>(&json).unwrap(), born);
}
