//! From every release to every other: 16 ways.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use expect_test::{Expect, expect};
use kedge_firmware::{
    ARM64_V0, ARM64_V1, FwReg, GuestAbi, HOST, Manner, Planned, RegValue, Rules,
    as_the_guest_reads, builtin,
};
use kedge_hv::{Vcpu, VcpuFeatures};
use kedge_hv_model::{RELEASES, Release};
use kedge_ids::RegId;

use crate::machine::{Machine, common, features, lines, rows};

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
            from 5.10: 5.10 moves (0) 6.1 refuses smccc_arch_workaround_3 not-required, ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409; 6.12 refuses smccc_arch_workaround_3 not-required, ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409, ID_AA64MMFR1_EL1 0x0000001010211122; 7.2 refuses smccc_arch_workaround_3 not-required, ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409;
            from 6.1: 5.10 refuses psci_version 1.1, std_bmap trng, vendor_hyp_bmap func-feat,ptp, ID_DFR0_EL1 0x0000000000010009, ID_AA64DFR0_EL1 0x0000000010305006; 6.1 moves (0) 6.12 refuses ID_AA64MMFR1_EL1 0x0000001010211122; 7.2 moves (13)
            from 6.12: 5.10 refuses psci_version 1.1, std_bmap trng, vendor_hyp_bmap func-feat,ptp, CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000000010009, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.1 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.12 moves (0) 7.2 moves (3)
            from 7.2: 5.10 refuses psci_version 1.3, std_bmap trng, vendor_hyp_bmap func-feat,ptp, CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000000010009, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.1 refuses psci_version 1.3, CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.12 refuses psci_version 1.3; 7.2 moves (0)
        "#]],
    );
}

#[test]
fn row_29_with_a_baseline_all_kernels_behind_the_fence_are_alike() {
    let behind = &RELEASES[1..];
    let abi = common(behind);
    for source in behind {
        let machine = Machine::with(source, 2, features(&abi));
        let state = machine.save(machine.born_with(&abi));
        for destination in behind {
            Machine::with(destination, 2, features(&abi)).load(&state);
        }
    }
}

#[test]
fn row_23_with_a_profile_for_all_only_a_lesser_mitigation_stands_in_the_way() {
    plain(
        ARM64_V0,
        &expect![[r#"
            from 5.10: 5.10 moves (0) 6.1 refuses smccc_arch_workaround_3 not-required, ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409; 6.12 refuses smccc_arch_workaround_3 not-required, ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409, ID_AA64MMFR1_EL1 0x0000001010211122; 7.2 refuses smccc_arch_workaround_3 not-required, ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409;
            from 6.1: 5.10 refuses ID_DFR0_EL1 0x0000000000010009, ID_AA64DFR0_EL1 0x0000000010305006; 6.1 moves (0) 6.12 refuses ID_AA64MMFR1_EL1 0x0000001010211122; 7.2 moves (13)
            from 6.12: 5.10 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000000010009, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.1 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.12 moves (0) 7.2 moves (3)
            from 7.2: 5.10 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000000010009, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.1 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.12 moves (4) 7.2 moves (0)
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
        from 5.10: 5.10 moves (0) 6.1 refuses ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409; 6.12 refuses ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409, ID_AA64MMFR1_EL1 0x0000001010211122; 7.2 refuses ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409;
        from 6.1: 5.10 refuses ID_DFR0_EL1 0x0000000000010009, ID_AA64DFR0_EL1 0x0000000010305006; 6.1 moves (0) 6.12 refuses ID_AA64MMFR1_EL1 0x0000001010211122; 7.2 moves (13)
        from 6.12: 5.10 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000000010009, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.1 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.12 moves (0) 7.2 moves (3)
        from 7.2: 5.10 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000000010009, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.1 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_AA64DFR0_EL1 0x0000000010305009, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.12 moves (4) 7.2 moves (0)
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
        from 5.10: 5.10 moves (0) 6.1 refuses ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409; 6.12 refuses ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409, ID_AA64MMFR1_EL1 0x0000001010211122, PMCR_EL0 0x00000000410130ac; 7.2 refuses ID_DFR0_EL1 0x0000000004010009, ID_AA64DFR0_EL1 0x0000000010305409, PMCR_EL0 0x00000000410130ac;
        from 6.1: 5.10 refuses ID_DFR0_EL1 0x0000000005010009, ID_AA64DFR0_EL1 0x0000000010305506; 6.1 moves (0) 6.12 refuses ID_DFR0_EL1 0x0000000005010009, ID_AA64DFR0_EL1 0x0000000010305506, ID_AA64MMFR1_EL1 0x0000001010211122, PMCR_EL0 0x00000000410130ac; 7.2 refuses ID_DFR0_EL1 0x0000000005010009, ID_AA64DFR0_EL1 0x0000000010305506, PMCR_EL0 0x00000000410130ac;
        from 6.12: 5.10 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000006010009, ID_AA64DFR0_EL1 0x0000000010305609, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.1 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000006010009, ID_AA64DFR0_EL1 0x0000000010305609, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.12 moves (0) 7.2 moves (3)
        from 7.2: 5.10 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000006010009, ID_AA64DFR0_EL1 0x0000000010305609, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.1 refuses CCSIDR_EL1 of cache 1 0x00000002, CCSIDR_EL1 of cache 2 0x00000002, ID_DFR0_EL1 0x0000000006010009, ID_AA64DFR0_EL1 0x0000000010305609, ID_AA64MMFR1_EL1 0x0000011010211122, CLIDR_EL1 0x0000000002000021; 6.12 moves (4) 7.2 moves (0)
    "#]].assert_eq(&matrix(&abi, features, &rules));
}

/// `ID_AA64DFR0_EL1`.
const DFR0: RegId = RegId::system(3, 0, 0, 5, 0);

#[test]
fn row_24_a_guest_with_the_cpu_of_an_older_kernel_keeps_it_there_and_back() {
    let [old, new] = [&RELEASES[1], &RELEASES[3]];
    let abi = common(&[old.clone(), new.clone()]);
    let machine = Machine::with(new, 2, features(&abi));
    let state = machine.save(machine.born_with(&abi));
    let back = Machine::with(old, 2, features(&abi));
    assert_ne!(back.read(1, DFR0), Machine::new(new).read(1, DFR0));
    back.load(&state);
    assert_eq!(back.read(1, DFR0), machine.read(1, DFR0));
}

#[test]
fn what_a_guest_could_read_otherwise_is_refused_by_name_unless_it_is_allowed() {
    const MMFR1: RegId = RegId::system(3, 0, 0, 7, 1);
    let (old, rows) = (Machine::new(&RELEASES[1]), rows());
    let state = old.save(old.born(ARM64_V1));
    let mut rules = Rules::new(&rows);
    let told = |rules: &Rules<'_>| {
        let plan = Machine::new(&RELEASES[2]).plan_by(&state, rules).plan;
        lines(&plan, "ID_AA64MMFR1_EL1")
    };
    expect![[r#"
        [
            "refuse: ID_AA64MMFR1_EL1: 0x0000001010211122 wanted, 0x0000011010211122 offered: the nearest that this host takes: HCX is 0x1, not 0x0",
        ]
    "#]].assert_debug_eq(&told(&rules));
    rules.allow.insert(MMFR1);
    expect![[r#"
        [
            "adapt: ID_AA64MMFR1_EL1: 0x0000001010211122 wanted, 0x0000011010211122 offered: the operator allows it",
        ]
    "#]].assert_debug_eq(&told(&rules));
}

#[test]
fn the_monitors_counters_move_between_kernels_that_write_them_each_in_its_way() {
    const OVERFLOWS: [RegId; 2] = [RegId::system(3, 3, 9, 14, 3), RegId::system(3, 3, 9, 12, 3)];
    let features = VcpuFeatures::PSCI_0_2 | VcpuFeatures::PMU_V3;
    let rows = rows();
    for source in RELEASES {
        let machine = Machine::with(source, 2, features);
        let birth = machine.born(HOST);
        machine.write(1, OVERFLOWS[1], u64::MAX);
        machine.write(1, OVERFLOWS[0], 0x8000_0001);
        let state = machine.save(birth);
        for destination in RELEASES {
            let new = Machine::with(destination, 2, features);
            new.write(1, OVERFLOWS[0], 0x6);
            // What else there is to say of these kernels others say.
            let allow = machine.list().into_iter().chain(new.list()).collect();
            new.load_by(&state, &Rules { allow, ..Rules::new(&rows) });
            let read = OVERFLOWS.map(|id| new.read(1, id));
            assert_eq!(read, [0x8000_0001; 2], "{} to {}", source.name, destination.name);
        }
    }
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
    let abi = common(&RELEASES[1..]);
    for source in &RELEASES[1..] {
        let machine = Machine::with(source, 2, features(&abi));
        let state = machine.save(machine.born_with(&abi));
        for destination in &RELEASES[1..] {
            let mut machine = Machine::with(destination, 2, features(&abi));
            machine.load(&state);
            let read = machine.vcpus[1].read_as_guest(&[CTR]).unwrap();
            assert_eq!(read, [Some(OWN)], "{} to {}", source.name, destination.name);
        }
    }
}

#[test]
fn row_24_without_a_promise_the_cache_type_is_saved_as_the_guest_reads_it() {
    for release in RELEASES {
        let mut machine = Machine::new(release);
        let birth = machine.born(ARM64_V0);
        machine.vcpus[0].complete_access().unwrap();
        let mut state = machine.save(birth);
        as_the_guest_reads(&mut state, &machine.vcpus[0], &machine.hypervisor).unwrap();
        let saved = state.of_machine(CTR).and_then(RegValue::as_u64);
        let read = Machine::new(release).vcpus[0].read_as_guest(&[CTR]).unwrap();
        assert_eq!(read, [saved], "{}", release.name);
    }
}
