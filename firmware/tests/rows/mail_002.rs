//! Rows 23 to 38: negotiation and the fence (August 2021). Rows 23, 24 and 29 are in
//! `matrix`.

use expect_test::expect;
use kedge_firmware::{
    ARM64_V0, ARM64_V1, Domain, FwReg, GuestAbi, HOST, Promises, RegValue, RegisterState, Rules,
    TABLE, Takes, builtin, probe_firmware,
};
use kedge_hv::{Vcpu, VcpuFeatures};
use kedge_hv_model::invented::{NEXT_BITMAP, on_by_default};
use kedge_hv_model::{Invented, ModelHypervisor, Release, V6_1, V6_12, V7_2, id};
use kedge_ids::RegId;

use crate::machine::{Machine, lines, refusals, rows, whatever_the_cpu};
use crate::recorder::Access;

const NOT_SUPPORTED: u64 = u64::MAX;
const KVM_FEATURES: (u32, u64) = (0x8600_0000, 0);

/// The answers to every call that a bit of a bitmap opens on this kernel.
fn answers_with(reg: FwReg, value: u64) -> Vec<(u32, u64)> {
    let opened = TABLE.iter().filter(|spec| matches!(spec.domain, Domain::Bits(_)));
    let opened = opened.flat_map(|spec| spec.domain.symbols()).flat_map(|bit| bit.opens);
    let calls: Vec<_> = opened.map(|function| (*function, 0x8400_0050)).collect();
    let mut machine = Machine::calling(&V7_2, &calls);
    machine.write(0, reg.spec().id, value);
    let answers = machine.answers();
    calls.iter().zip(answers).map(|((function, _), answer)| (*function, answer[0])).collect()
}

#[test]
fn row_25_a_cleared_bit_closes_the_calls_it_opens_and_no_others() {
    for reg in [FwReg::StdBmap, FwReg::StdHypBmap, FwReg::VendorHypBmap] {
        let full = reg.spec().domain.mask();
        let open = answers_with(reg, full);
        for bit in reg.spec().domain.symbols() {
            let closed = answers_with(reg, full & !bit.value);
            for ((function, open), (_, closed)) in open.iter().zip(closed) {
                let opened_by_it = bit.opens.contains(function);
                let features = *function == KVM_FEATURES.0 && reg == FwReg::VendorHypBmap;
                let expected = if opened_by_it { NOT_SUPPORTED } else { *open };
                assert!(
                    closed == expected || features,
                    "{reg} without {}: {function:#x}",
                    bit.name
                );
            }
        }
    }
}

fn as_json(state: &RegisterState) -> serde_json::Value {
    serde_json::to_value(state).unwrap()
}

#[test]
fn row_26_what_no_register_shows_is_saved_with_the_registers() {
    let machine = Machine::new(&V7_2);
    let json = as_json(&machine.save(machine.born(ARM64_V1)));
    assert_eq!(json["birth"]["abi"]["machine"]["system_suspend"], true);
    assert_eq!(json["birth"]["abi"]["machine"]["gicd_revision"], 3);
    let mut without = json;
    without.as_object_mut().unwrap().remove("birth");
    let error = serde_json::from_value::<RegisterState>(without).unwrap_err();
    assert_eq!(error.to_string(), "missing field `birth`");
}

/// Linux 7.2 whose fourth bitmap is on by default.
fn bmap_2_on() -> Release {
    Invented::after(&V7_2, "with BMAP_2 on").with_bitmap(3, 0x3, &[0x3]).release()
}

#[test]
fn row_27_a_build_that_does_not_know_a_bitmap_can_still_empty_it() {
    let rows = rows();
    let old_build = Rules { table: &TABLE[..7], ..Rules::new(&rows) };
    let old = Machine::calling(&V6_1, &[KVM_FEATURES]);
    let state = old.save_by(old.born(ARM64_V1), &old_build);
    let mut new = Machine::calling(&bmap_2_on(), &[KVM_FEATURES]);
    let plan = Machine::new(&bmap_2_on()).plan_by(&state, &old_build).plan;
    expect![[r#"
        [
            "adapt: 0x6030000000160003: 0x0 wanted, 0x3 offered: the guest was born without it: it is made 0x0",
        ]
    "#]]
    .assert_debug_eq(&lines(&plan, &id::VENDOR_HYP_BMAP_2.to_string()));
    new.load_by(&state, &whatever_the_cpu(&state, &old_build));
    assert_eq!(new.answers(), [[0x3, 0, 0, 0]]);
}

#[test]
fn row_28_not_offered_is_saved_and_heeded_where_the_register_is_on_by_default() {
    let old = Machine::new(&V6_1);
    let state = old.save(old.born(ARM64_V1));
    let promised =
        state.birth.abi.firmware.get(kedge_firmware::Firmware::Known(FwReg::VendorHypBmap2));
    assert_eq!(promised, Some(0));
    let plan = Machine::new(&bmap_2_on()).plan(&state).plan;
    expect![[r#"
        [
            "adapt: vendor_hyp_bmap_2: none wanted, impl-version,impl-cpus offered: the guest was born without it: it is made none",
        ]
    "#]]
    .assert_debug_eq(&lines(&plan, "vendor_hyp_bmap_2"));
}

/// What a machine shows its guest of firmware, mitigations aside.
fn firmware_shown(release: &Release, abi: &str) -> Vec<[u64; 4]> {
    let functions = [0x8400_0000, 0x8400_0050, 0x8600_0000, 0x8600_ff01, 0x8600_0001, 0xc500_0020];
    let features = (0..32).map(|n| (0x8400_000a, 0x8400_0000 + n));
    let calls: Vec<_> =
        functions.map(|function| (function, 0)).into_iter().chain(features).collect();
    let mut machine = Machine::calling(release, &calls);
    machine.born(abi);
    machine.answers()
}

#[test]
fn row_30_the_same_profile_shows_the_same_firmware_on_every_kernel() {
    let on_6_1 = firmware_shown(&V6_1, ARM64_V1);
    assert_eq!(firmware_shown(&V6_12, ARM64_V1), on_6_1);
    assert_eq!(firmware_shown(&V7_2, ARM64_V1), on_6_1);
    assert_ne!(firmware_shown(&V7_2, HOST), on_6_1);
}

#[test]
fn row_31_a_profile_that_says_nothing_leaves_all_calls_on() {
    let old = Machine::new(&V6_1);
    let state = old.save(old.born(HOST));
    let new = Machine::new(&V6_1);
    new.load(&state);
    let bitmaps = [id::STD_BMAP, id::STD_HYP_BMAP, id::VENDOR_HYP_BMAP];
    assert_eq!(bitmaps.map(|id| new.read(0, id)), [0x1, 0x1, 0x3]);
    let promised = builtin(ARM64_V1).unwrap().firmware;
    let promised = promised.get(kedge_firmware::Firmware::Known(FwReg::StdBmap));
    assert_eq!(promised, Some(0x1));
}

#[test]
fn row_32_what_can_be_set_is_told_from_what_is_set() {
    let found = probe_firmware(&ModelHypervisor::new(&V7_2).unwrap()).unwrap();
    let bmap_2 = found.iter().find(|found| found.id == id::VENDOR_HYP_BMAP_2).unwrap();
    assert_eq!(bmap_2.default, RegValue::from(0));
    let both = Takes::Bits { bits: kedge_firmware::Hex(0x3), empty: true };
    assert_eq!(bmap_2.takes, both);
}

#[test]
fn row_33_who_moves_the_registers_of_today_moves_those_to_come() {
    let old = Machine::new(&on_by_default());
    let state = old.save(old.born(HOST));
    let new = Machine::new(&on_by_default());
    new.write(0, NEXT_BITMAP, 0);
    new.load(&state);
    assert_eq!([0, 1].map(|vcpu| new.read(vcpu, NEXT_BITMAP)), [0xff, 0xff]);
}

#[test]
fn row_34_every_register_is_read_before_it_is_written() {
    let old = Machine::new(&V7_2);
    let state = old.save(old.born(ARM64_V0));
    let new = Machine::new(&V7_2);
    new.forget();
    new.born(ARM64_V1);
    new.plan(&state);
    let log = new.accesses();
    let unread = log.iter().enumerate().filter(|(at, access)| match access {
        Access::Written(vcpu, id) | Access::Refused(vcpu, id) => {
            !log[..*at].contains(&Access::Read(*vcpu, *id))
        }
        Access::Read(..) => false,
    });
    assert_eq!(unread.collect::<Vec<_>>(), []);
    assert_eq!(new.writes(id::STD_BMAP), 1);
}

#[test]
fn row_35_nothing_is_written_that_reads_so_already() {
    let old = Machine::new(&V7_2);
    let state = old.save(old.born(HOST));
    let new = Machine::new(&V7_2);
    new.forget();
    new.plan(&state);
    new.born(HOST);
    assert_eq!(new.written(), []);
}

fn bad(firmware: &[(FwReg, u64)]) -> GuestAbi {
    GuestAbi { firmware: Promises::of(firmware.iter().copied()), ..builtin(HOST).unwrap() }
}

#[test]
fn row_36_what_the_host_cannot_offer_is_named_bit_by_bit() {
    let old = Machine::new(&on_by_default());
    old.write(0, id::VENDOR_HYP_BMAP_2, 0x3);
    let state = old.save(old.born_with(&bad(&[(FwReg::VendorHypBmap2, 0x3)])));
    let plan = Machine::new(&V6_12).plan(&state).plan;
    expect![[r#"
        [
            "refuse: vendor_hyp_bmap_2: impl-version,impl-cpus wanted, no such register offered: a kernel without the register shows a guest none, for good",
        ]
    "#]].assert_debug_eq(&lines(&plan, "vendor_hyp_bmap_2"));
}

/// Linux 7.2 that knows one bit of the fourth bitmap.
fn half_of_bmap_2() -> Release {
    Invented::after(&V7_2, "with half of BMAP_2").with_bitmap(3, 0x1, &[0x0]).release()
}

#[test]
fn row_36_a_host_with_half_of_the_bits_is_told_the_other_half() {
    let old = Machine::new(&V7_2);
    old.write(0, id::VENDOR_HYP_BMAP_2, 0x3);
    let state = old.save(old.born(HOST));
    let plan = Machine::new(&half_of_bmap_2()).plan(&state).plan;
    expect![[r#"
        [
            "vendor_hyp_bmap_2: impl-version,impl-cpus wanted, none offered: this host cannot offer impl-cpus",
        ]
    "#]].assert_debug_eq(&refusals(&plan));
}

#[test]
fn row_37_a_run_freezes_bitmaps_and_id_registers_and_not_psci() {
    let mut machine = Machine::calling(&V7_2, &[]);
    machine.vcpus[0].complete_access().unwrap();
    let errno = |id, value| machine.vcpus[0].set_reg64(id, value).map_err(|error| error.errno());
    const EBUSY: i32 = 16;
    assert_eq!(errno(id::STD_BMAP, 0), Err(EBUSY));
    assert_eq!(errno(RegId::system(3, 0, 0, 6, 0), 0), Err(EBUSY));
    assert_eq!(errno(RegId::PSCI_VERSION, 0x1_0000), Ok(()));
}

#[test]
fn row_38_fields_of_id_registers_are_lowered_and_stay_so_behind_the_first_run() {
    const ISAR0: RegId = RegId::system(3, 0, 0, 6, 0);
    let machine = Machine::new(&V7_2);
    machine.write(0, ISAR0, machine.read(0, ISAR0) & !(0xf << 60));
    let state = machine.save(machine.born(HOST));
    let mut new = Machine::with(&V7_2, 2, VcpuFeatures::PSCI_0_2);
    let restored = new.load(&state);
    new.vcpus[0].complete_access().unwrap();
    assert_eq!(new.read(1, ISAR0) >> 60, 0);
    restored.compare_identity(&new.refs()).unwrap();
}

#[test]
fn row_38_what_is_saved_of_id_registers_is_what_the_first_run_left_of_them() {
    const PFR0: RegId = RegId::system(3, 0, 0, 4, 0);
    const GIC: u64 = 0xf << 24;
    let mut machine = Machine::without_gic(&V7_2);
    let birth = machine.born(HOST);
    let born = machine.read(0, PFR0);
    machine.vcpus[0].complete_access().unwrap();
    let saved = machine.save(birth).of_machine(PFR0).unwrap().as_u64().unwrap();
    assert_ne!(born & GIC, 0);
    assert_eq!(saved, born & !GIC);
}

#[test]
fn row_38_what_the_kernel_calls_writable_is_cleared_written_back_and_moves() {
    const INSTRUCTIONS: [RegId; 2] = [RegId::system(3, 0, 0, 6, 0), RegId::system(3, 0, 0, 6, 1)];
    let machine = Machine::new(&V7_2);
    let masks = machine.vm.writable_id_masks().unwrap().unwrap();
    let hidden = INSTRUCTIONS.map(|id| machine.read(0, id) & !masks.mask(id));
    let offered = INSTRUCTIONS.map(|id| machine.read(0, id));
    INSTRUCTIONS.iter().zip(hidden).for_each(|(id, value)| machine.write(0, *id, value));
    let state = machine.save(machine.born(HOST));
    let mut new = Machine::new(&V7_2);
    let restored = new.load(&state);
    new.vcpus[1].complete_access().unwrap();
    assert_eq!(INSTRUCTIONS.map(|id| new.read(0, id)), hidden);
    assert_ne!(hidden, offered);
    restored.compare_identity(&new.refs()).unwrap();
}
