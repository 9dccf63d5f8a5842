//! Rows 1 to 11: hypercalls have identity registers (September 2021).

use std::collections::BTreeSet;

use expect_test::expect;
use kedge_diag::report;
use kedge_firmware::{
    ARM64_V1, CaptureError, Firmware, FwReg, GuestAbi, HOST, RegValue, RegisterState, Rules,
    SavedRegister, UnknownFirmware, builtin, capture,
};
use kedge_hv::Vcpu;
use kedge_hv_model::invented::{NEXT_BITMAP, NEXT_LEVEL, every_size, on_by_default};
use kedge_hv_model::{RELEASES, V5_10, V6_1, V7_2};
use kedge_ids::RegId;

use crate::kernels::{level_more, new_bank};
use crate::machine::{Machine, lines, refusals, rows};
use crate::recorder::Access;

/// KVM_FEATURES: what it answers is the vendor bitmaps.
const KVM_FEATURES: (u32, u64) = (0x8600_0000, 0);

fn with_unknown(policy: UnknownFirmware) -> GuestAbi {
    GuestAbi { unknown_firmware: policy, ..builtin(ARM64_V1).unwrap() }
}

fn ids<'a>(saved: impl IntoIterator<Item = &'a SavedRegister>) -> BTreeSet<RegId> {
    saved.into_iter().map(|saved| saved.id).collect()
}

/// What a vCPU was saved with.
fn all_ids(state: &RegisterState, vcpu: usize) -> BTreeSet<RegId> {
    ids(state.vcpus[vcpu].registers.iter().chain(&state.machine))
}

#[test]
fn row_01_a_guest_does_not_gain_the_hypercalls_of_a_newer_kernel() {
    let mut old = Machine::calling(&V6_1, &[KVM_FEATURES]);
    let state = old.save(old.born(ARM64_V1));
    let mut new = Machine::calling(&V7_2, &[KVM_FEATURES]);
    let planned = new.plan(&state);
    assert_eq!(lines(&planned.plan, "vendor_hyp_bmap_2"), ["keep: vendor_hyp_bmap_2: none"]);
    new.load_firmware(&state);
    assert_eq!(new.answers(), old.answers());
}

#[test]
fn row_01_an_unknown_bitmap_that_is_on_by_default_is_emptied() {
    let old = Machine::new(&V6_1);
    let state = old.save(old.born(ARM64_V1));
    let new = Machine::new(&on_by_default());
    let plan = new.plan(&state).plan;
    expect![[r#"
        [
            "adapt: 0x6030000000160009: 0x0 wanted, 0xff offered: the guest was born without it: it is made 0x0",
        ]
    "#]]
    .assert_debug_eq(&lines(&plan, &NEXT_BITMAP.to_string()));
    new.load_firmware(&state);
    assert_eq!(new.read(1, NEXT_BITMAP), 0);
}

#[test]
fn row_02_a_new_register_of_any_size_is_saved() {
    let machine = Machine::new(&every_size());
    let state = machine.save(machine.born(HOST));
    let saved = new_bank().map(|id| state.of_vcpu(1, id).unwrap().0.len());
    assert_eq!(saved, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
}

#[test]
fn row_03_all_that_is_listed_is_saved_and_nothing_else() {
    for release in RELEASES.iter().chain([&every_size(), &on_by_default()]) {
        let machine = Machine::new(release);
        let state = machine.save(machine.born(HOST));
        let listed: BTreeSet<_> = machine.list().into_iter().collect();
        assert_eq!(all_ids(&state, 0), listed, "{}", release.name);
        assert_eq!(all_ids(&state, 1), listed, "{}", release.name);
    }
}

#[test]
fn row_04_no_register_is_touched_that_is_not_listed() {
    let old = Machine::new(&V7_2);
    let state = old.save(old.born(ARM64_V1));
    for release in RELEASES.iter().chain([&every_size(), &on_by_default()]) {
        let new = Machine::new(release);
        let listed: BTreeSet<_> = new.list().into_iter().collect();
        new.plan(&state);
        let touched = new.accesses().into_iter().map(|access| match access {
            Access::Read(_, id) | Access::Written(_, id) | Access::Refused(_, id) => id,
        });
        let unlisted: Vec<_> = touched.filter(|id| !listed.contains(id)).collect();
        assert_eq!(unlisted, [], "{}", release.name);
    }
}

#[test]
fn row_05_both_banks_of_firmware_are_saved() {
    let machine = Machine::new(&V7_2);
    let state = machine.save(machine.born(HOST));
    let saved = ids(&state.machine);
    assert!(FwReg::all().all(|reg| saved.contains(&reg.spec().id)));
}

#[test]
fn row_06_what_is_not_understood_is_restored_but_not_configured() {
    let error = "sme_bmap".parse::<Firmware>().unwrap_err();
    assert_eq!(error.to_string(), "there is no firmware register `sme_bmap`");
    let error = serde_json::from_str::<kedge_firmware::Promises>(r#"{"sme_bmap": "0x1"}"#);
    assert!(error.unwrap_err().to_string().starts_with("there is no firmware register"));
    assert_eq!(NEXT_BITMAP.to_string().parse(), Ok(Firmware::Unknown(NEXT_BITMAP)));
    let old = Machine::new(&on_by_default());
    old.write(0, NEXT_BITMAP, 0xa5);
    let state = old.save(old.born(HOST));
    let new = Machine::new(&on_by_default());
    new.load(&state);
    assert_eq!(new.read(0, NEXT_BITMAP), 0xa5);
}

/// ID_AA64ISAR0_EL1, standing for an ID register that the source does not have.
const ID_REGISTER: RegId = RegId::system(3, 0, 0, 6, 0);

#[test]
fn row_07_an_id_register_that_the_guest_did_not_have_reads_zero() {
    let old = Machine::new(&V7_2);
    let mut state = old.save(old.born(HOST));
    state.machine.retain(|saved| saved.id != ID_REGISTER);
    let new = Machine::new(&V7_2);
    new.load(&state);
    assert_eq!(new.read(1, ID_REGISTER), 0);
}

#[test]
fn row_07_one_that_cannot_read_zero_is_refused() {
    let old = Machine::new(&V6_1);
    let mut state = old.save(old.born(HOST));
    state.machine.retain(|saved| saved.id != ID_REGISTER);
    let plan = Machine::new(&V6_1).plan(&state).plan;
    assert!(refusals(&plan)[0].starts_with("ID_AA64ISAR0_EL1: 0x0000000000000000 wanted"));
}

#[test]
fn row_08_what_is_no_bitmap_is_never_zeroed() {
    let old = Machine::new(&V7_2);
    assert!(old.vcpus[0].set_reg64(RegId::PSCI_VERSION, 0).is_err());
    let state = old.save(old.born_with(&with_unknown(UnknownFirmware::Neutralise)));
    let new = Machine::new(&level_more());
    new.forget();
    let plan = new.plan(&state).plan;
    assert!(!new.written().contains(&NEXT_LEVEL));
    expect![[r#"
        [
            "0x6030000000140009: nothing wanted, 0x2 offered: the guest was born without it, and no value is known with which it offers nothing",
        ]
    "#]]
    .assert_debug_eq(&refusals(&plan));
}

#[test]
fn row_09_a_listed_register_that_cannot_be_read_is_an_error() {
    let mut machine = Machine::new(&V7_2);
    machine.vcpus[1].broken = Some(FwReg::StdHypBmap.spec().id);
    let birth = Machine::new(&V7_2).born(HOST);
    let error = capture(&machine.refs(), &machine.source(), birth, &Rules::new(&[]));
    let error: CaptureError = error.unwrap_err();
    expect![[r#"
        error: cannot read `std_hyp_bmap` of vCPU 1, which this host lists
          because: the hypervisor refused to read a register
          because: Input/output error (os error 5)"#]]
    .assert_eq(&report(&error));
}

#[test]
fn row_09_what_is_read_can_be_written_back() {
    for release in RELEASES {
        let machine = Machine::new(release);
        let back = |id: &RegId| {
            let value = machine.vcpus[0].vcpu.reg(*id).unwrap();
            machine.vcpus[0].vcpu.set_reg(*id, &value).is_err()
        };
        let refused: Vec<_> = machine.list().into_iter().filter(back).collect();
        assert_eq!(refused, [], "{}", release.name);
    }
}

#[test]
fn row_10_a_kernel_without_bitmaps_saves_and_restores() {
    let old = Machine::new(&V5_10);
    let state = old.save(old.born(HOST));
    let new = Machine::new(&V5_10);
    new.load(&state);
    let of_bitmaps = |saved: &SavedRegister| saved.id.coprocessor() == Firmware::FEAT_BMAP;
    assert!(!state.machine.iter().any(of_bitmaps));
}

fn restored_with(policy: UnknownFirmware) -> u64 {
    let old = Machine::new(&V6_1);
    let state = old.save(old.born_with(&with_unknown(policy)));
    let new = Machine::new(&on_by_default());
    new.load_firmware(&state);
    new.read(0, NEXT_BITMAP)
}

#[test]
fn row_11_a_profile_says_whether_new_features_are_picked_up() {
    assert_eq!(restored_with(UnknownFirmware::Neutralise), 0);
    assert_eq!(restored_with(UnknownFirmware::Adopt), 0xff);
}

#[test]
fn what_was_adopted_at_birth_survives_a_restore_by_a_build_that_does_not_know_it() {
    let rows = rows();
    let old_build = Rules { table: &kedge_firmware::TABLE[..4], ..Rules::new(&rows) };
    for (policy, value) in [(UnknownFirmware::Neutralise, 0), (UnknownFirmware::Adopt, 0xff)] {
        let old = Machine::new(&on_by_default());
        old.write(0, NEXT_BITMAP, value);
        let state = old.save_by(old.born_with(&with_unknown(policy)), &old_build);
        let new = Machine::new(&on_by_default());
        new.load_by(&state, &old_build);
        assert_eq!(new.read(1, NEXT_BITMAP), value);
        assert_eq!(state.of_vcpu(1, NEXT_BITMAP), Some(&RegValue::from(value)));
    }
}
