//! Rows 50 to 52: registers of a machine instead of a vCPU (February 2022).

use expect_test::expect;
use kedge_firmware::{ARM64_V1, Firmware, RegisterState};
use kedge_hv_model::invented::{NEXT_BITMAP, on_by_default};
use kedge_hv_model::{RELEASES, V6_1, V7_2, id};
use kedge_ids::VcpuId;

use crate::machine::Machine;
use crate::recorder::Access;

#[test]
fn row_50_registers_of_the_machine_are_reached_through_a_vcpu_on_every_kernel() {
    let old = Machine::new(&V6_1);
    let state = old.save(old.born(ARM64_V1));
    for release in &RELEASES[1..] {
        let new = Machine::new(release);
        new.forget();
        new.load_firmware(&state);
        let by_others = new.accesses().into_iter().filter(|access| {
            matches!(access, Access::Written(vcpu, id)
                if *vcpu != VcpuId(0) && Firmware::of(*id).is_some())
        });
        assert_eq!(by_others.collect::<Vec<_>>(), []);
    }
}

#[test]
fn row_51_a_state_without_the_machines_registers_offers_nothing_unknown() {
    let old = Machine::new(&V7_2);
    let mut state = old.save(old.born(ARM64_V1));
    state.machine.retain(|saved| saved.id.coprocessor() != Firmware::FEAT_BMAP);
    let new = Machine::new(&on_by_default());
    new.load(&state);
    assert_eq!(new.read(0, NEXT_BITMAP), 0);
    assert_eq!(new.read(0, id::VENDOR_HYP_BMAP_2), 0);
}

#[test]
fn row_52_a_profile_of_a_later_release_is_refused_and_nothing_is_restored() {
    let machine = Machine::new(&V7_2);
    let mut json = serde_json::to_value(machine.save(machine.born(ARM64_V1))).unwrap();
    json["birth"]["abi"]["name"] = "arm64-v9".into();
    json["birth"]["abi"]["firmware"]["sme_bmap"] = "0x1".into();
    let error = serde_json::from_value::<RegisterState>(json).unwrap_err();
    expect![[r#"the guest was born with the profile `arm64-v9`, which this release cannot honour: there is no firmware register `sme_bmap`"#]]
        .assert_eq(&error.to_string());
}
