//! From every release to every other: 16 ways.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use expect_test::{Expect, expect};
use kedge_firmware::{
    ARM64_V0, ARM64_V1, FwReg, GuestAbi, HOST, Hex, IdPromise, Manner, Planned, Rules, builtin,
};
use kedge_hv::{Vcpu, VcpuFeatures};
use kedge_hv_model::{RELEASES, Release};
use kedge_ids::RegId;

use crate::machine::{Machine, rows};

fn told(planned: &Planned, release: &Release) -> String {
    let refused = planned.plan.refusals();
    let words: Vec<_> = refused.map(|line| format!("{} {}", line.subject, line.wanted)).collect();
    match words.as_slice() {
        [] => format!(" {} moves ({})", release.name, planned.plan.adaptations().count()),
        _ => format!(" {} refuses {};", release.name, words.join(", ")),
    }
}

/// A line per source: what becomes of its guest on every release, and in how many
/// registers it is adapted.
fn matrix(abi: &GuestAbi, features: VcpuFeatures, rules: &Rules<'_>) -> String {
    let mut text = String::new();
    for source in RELEASES {
        let machine = Machine::with(source, 2, features);
        let state = machine.save(machine.born_with(abi));
        write!(text, "from {}:", source.name).unwrap();
        for destination in RELEASES {
            let machine = Machine::with(destination, 2, features);
            let planned = machine.plan_by(&state, rules);
            text.push_str(&told(&planned, destination));
            let moves = !planned.plan.is_refused();
            let restored = planned.restore(&machine.refs(), &Manner::default());
            assert_eq!(restored.is_ok(), moves, "{} to {}", source.name, destination.name);
        }
        text.push('\n');
    }
    text
}

fn plain(abi: &str, expected: &Expect) {
    let rows = rows();
    let abi = builtin(abi).unwrap();
    expected.assert_eq(&matrix(&abi, VcpuFeatures::PSCI_0_2, &Rules::new(&rows)));
}

#[test]
fn row_23_without_a_profile_a_guest_moves_or_is_refused_by_name() {
    plain(
        HOST,
        &expect![[r#"
            from 5.10: 5.10 moves (0) 6.1 refuses smccc_arch_workaround_3 not-required; 6.12 refuses smccc_arch_workaround_3 not-required; 7.2 refuses smccc_arch_workaround_3 not-required;
            from 6.1: 5.10 refuses psci_version 1.1, std_bmap trng, vendor_hyp_bmap func-feat,ptp; 6.1 moves (0) 6.12 moves (17) 7.2 moves (13)
            from 6.12: 5.10 refuses psci_version 1.1, std_bmap trng, vendor_hyp_bmap func-feat,ptp; 6.1 moves (23) 6.12 moves (0) 7.2 moves (3)
            from 7.2: 5.10 refuses psci_version 1.3, std_bmap trng, vendor_hyp_bmap func-feat,ptp; 6.1 refuses psci_version 1.3; 6.12 refuses psci_version 1.3; 7.2 moves (0)
        "#]],
    );
}

#[test]
fn row_29_with_the_default_profile_all_kernels_behind_the_fence_are_alike() {
    plain_among(ARM64_V1, &RELEASES[1..]);
}

fn plain_among(abi: &str, releases: &[Release]) {
    for source in releases {
        let machine = Machine::new(source);
        let state = machine.save(machine.born(abi));
        for destination in releases {
            Machine::new(destination).load(&state);
        }
    }
}

#[test]
fn row_23_with_a_profile_for_all_only_a_lesser_mitigation_stands_in_the_way() {
    plain(
        ARM64_V0,
        &expect![[r#"
            from 5.10: 5.10 moves (0) 6.1 refuses smccc_arch_workaround_3 not-required; 6.12 refuses smccc_arch_workaround_3 not-required; 7.2 refuses smccc_arch_workaround_3 not-required;
            from 6.1: 5.10 moves (81) 6.1 moves (0) 6.12 moves (17) 7.2 moves (13)
            from 6.12: 5.10 moves (103) 6.1 moves (23) 6.12 moves (0) 7.2 moves (3)
            from 7.2: 5.10 moves (101) 6.1 moves (21) 6.12 moves (4) 7.2 moves (0)
        "#]],
    );
}

#[test]
fn with_the_mitigation_allowed_by_name_every_way_is_open() {
    let rows = rows();
    let rules =
        Rules { allow: BTreeSet::from([FwReg::Workaround3.spec().id]), ..Rules::new(&rows) };
    let abi = builtin(ARM64_V0).unwrap();
    expect![[r#"
        from 5.10: 5.10 moves (0) 6.1 moves (80) 6.12 moves (97) 7.2 moves (93)
        from 6.1: 5.10 moves (81) 6.1 moves (0) 6.12 moves (17) 7.2 moves (13)
        from 6.12: 5.10 moves (103) 6.1 moves (23) 6.12 moves (0) 7.2 moves (3)
        from 7.2: 5.10 moves (101) 6.1 moves (21) 6.12 moves (4) 7.2 moves (0)
    "#]]
    .assert_eq(&matrix(&abi, VcpuFeatures::PSCI_0_2, &rules));
}

#[test]
fn guests_with_every_feature_move_or_are_refused_by_name() {
    let rows = rows();
    let rules =
        Rules { allow: BTreeSet::from([FwReg::Workaround3.spec().id]), ..Rules::new(&rows) };
    let features =
        VcpuFeatures::PSCI_0_2 | VcpuFeatures::SVE | VcpuFeatures::PTRAUTH | VcpuFeatures::PMU_V3;
    let abi = builtin(ARM64_V0).unwrap();
    expect![[r#"
        from 5.10: 5.10 moves (0) 6.1 refuses ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409; 6.12 refuses ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409; 7.2 refuses ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409;
        from 6.1: 5.10 refuses ID_DFR0_EL1 0x0000000005010009, ID_AA64DFR0_EL1 0x0000000010305506; 6.1 moves (0) 6.12 refuses ID_DFR0_EL1 0x0000000005010009, ID_AA64DFR0_EL1 0x0000000010305506; 7.2 refuses ID_DFR0_EL1 0x0000000005010009, ID_AA64DFR0_EL1 0x0000000010305506;
        from 6.12: 5.10 refuses ID_DFR0_EL1 0x0000000006010009, ID_AA64DFR0_EL1 0x0000000010305609; 6.1 refuses ID_DFR0_EL1 0x0000000006010009, ID_AA64DFR0_EL1 0x0000000010305609; 6.12 moves (0) 7.2 moves (3)
        from 7.2: 5.10 refuses ID_DFR0_EL1 0x0000000006010009, ID_AA64DFR0_EL1 0x0000000010305609; 6.1 refuses ID_DFR0_EL1 0x0000000006010009, ID_AA64DFR0_EL1 0x0000000010305609; 6.12 moves (4) 7.2 moves (0)
    "#]].assert_eq(&matrix(&abi, features, &rules));
}

/// What a guest of this release is let know of its CPU by a profile: one ID register
/// as it is on the oldest kernel that can have it so.
fn like(release: &Release, id: RegId) -> GuestAbi {
    let value = Machine::new(release).read(0, id);
    let promise = IdPromise { id, name: String::new(), value: Hex(value), mask: Hex(u64::MAX) };
    let mut abi = builtin(ARM64_V1).unwrap();
    abi.cpu.id_registers.push(promise);
    abi
}

/// `ID_AA64DFR0_EL1`.
const DFR0: RegId = RegId::system(3, 0, 0, 5, 0);

#[test]
fn row_24_a_guest_with_the_cpu_of_an_older_kernel_keeps_it_there_and_back() {
    let [old, new] = [&RELEASES[1], &RELEASES[3]];
    let machine = Machine::new(new);
    let state = machine.save(machine.born_with(&like(old, DFR0)));
    let back = Machine::new(old);
    back.load(&state);
    assert_eq!(back.read(1, DFR0), machine.read(1, DFR0));
}

#[test]
fn row_24_the_registers_of_an_older_kernel_are_all_there_on_a_newer_one() {
    let list = |release| Machine::new(release).list().into_iter().collect::<BTreeSet<_>>();
    let [old, new] = [list(&RELEASES[1]), list(&RELEASES[3])];
    assert_eq!(old.difference(&new).collect::<Vec<_>>(), [&RegId(0); 0]);
}

#[test]
fn a_plan_that_keeps_a_register_never_changes_what_the_guest_reads() {
    for source in RELEASES {
        let machine = Machine::new(source);
        let state = machine.save(machine.born(ARM64_V0));
        for destination in RELEASES {
            let new = Machine::new(destination);
            let plan = new.plan(&state).plan;
            let kept = plan.lines.iter().filter(|line| line.verdict.word() == "keep");
            let kept = kept.filter_map(|line| line.subject.id());
            for id in kept.filter(|id| state.of_vcpu(0, *id).is_some()) {
                assert_eq!(
                    Some(&new.vcpus[0].reg(id).unwrap()),
                    state.of_vcpu(0, id).map(|value| &value.0)
                );
            }
        }
    }
}

/// `CTR_EL0`, and its value in the processor, without the IDC that Linux adds.
const CTR: RegId = RegId::system(3, 3, 0, 0, 1);
const OWN: u64 = 0x8444_c004;

#[test]
fn row_24_a_guest_reads_one_cache_type_wherever_it_goes() {
    let promise = IdPromise { id: CTR, name: String::new(), value: Hex(OWN), mask: Hex(u64::MAX) };
    let mut abi = builtin(ARM64_V1).unwrap();
    abi.cpu.id_registers.push(promise);
    for source in &RELEASES[1..] {
        let machine = Machine::new(source);
        let state = machine.save(machine.born_with(&abi));
        for destination in &RELEASES[1..] {
            let mut machine = Machine::new(destination);
            machine.load(&state);
            let read = machine.vcpus[1].read_as_guest(&[CTR]).unwrap();
            assert_eq!(read, [Some(OWN)], "{} to {}", source.name, destination.name);
        }
    }
}
