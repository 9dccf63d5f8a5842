//! Rows 12 to 22: whose a register is (February 2022).

use std::collections::BTreeSet;
use std::time::Instant;

use expect_test::expect;
use kedge_diag::report;
use kedge_firmware::{
    ARM64_V1, FoundScope, FwReg, HOST, Live, Manner, RegValue, RegisterState, Rules, SavedRegister,
    TABLE, VmRegisters, Writes, builtin, plan, probe, settle,
};
use kedge_hv::{Hypervisor, Vcpu, VcpuFeatures, VmConfig};
use kedge_hv_model::invented::{every_size, own_psci_versions};
use kedge_hv_model::{ModelHypervisor, RELEASES, Release, V5_10, V6_1, V6_12, V7_2, id};
use kedge_ids::{RegId, VcpuId};

use crate::kernels::new_bank;
use crate::machine::{Machine, lines, refusals, rows};
use crate::recorder::UNKNOWN_BIT;

const ID_AA64ISAR0: RegId = RegId::system(3, 0, 0, 6, 0);
const X5: RegId = RegId::x(5);

#[test]
fn row_12_vcpus_of_one_machine_have_the_same_features() {
    let machine = Machine::new(&V6_12);
    let state = machine.save(machine.born(HOST));
    assert_eq!(state.features, VcpuFeatures::PSCI_0_2);
}

/// What becomes of a second vCPU that is to have a feature more than the first.
fn otherwise(release: &Release) -> Result<(), i32> {
    let vm = ModelHypervisor::new(release).unwrap().create_vm(&VmConfig::new(40)).unwrap();
    let [mut first, mut second] = [0, 1].map(|id| vm.create_vcpu(VcpuId(id)).unwrap());
    first.init(VcpuFeatures::PSCI_0_2).unwrap();
    let more = second.init(VcpuFeatures::PSCI_0_2 | VcpuFeatures::PMU_V3);
    more.map_err(|error| error.errno())
}

#[test]
fn row_12_kernels_from_6_5_on_refuse_other_features_and_older_ones_do_not_care() {
    const EINVAL: i32 = 22;
    assert_eq!([otherwise(&V5_10), otherwise(&V6_1)], [Ok(()); 2]);
    assert_eq!([otherwise(&V6_12), otherwise(&V7_2)], [Err(EINVAL); 2]);
}

#[test]
fn row_13_what_no_kernel_announces_is_asked_of_none() {
    const ENOENT: i32 = 2;
    const LAST: VcpuFeatures = VcpuFeatures(1 << 31);
    for release in RELEASES {
        let hypervisor = ModelHypervisor::new(release).unwrap();
        assert!(!hypervisor.limits().features.contains(LAST), "{}", release.name);
        let mut vcpu =
            hypervisor.create_vm(&VmConfig::new(40)).unwrap().create_vcpu(VcpuId(0)).unwrap();
        let refused = vcpu.init(VcpuFeatures::PSCI_0_2 | LAST).unwrap_err();
        assert_eq!(refused.errno(), ENOENT, "{}", release.name);
    }
}

#[test]
fn row_14_a_probe_tells_whose_a_register_is() {
    let host = probe(&ModelHypervisor::new(&V6_12).unwrap()).unwrap();
    let of = |reg| host.firmware(reg).unwrap().scope;
    assert_eq!(of(FwReg::PsciVersion), FoundScope::WholeVm);
    assert_eq!(of(FwReg::VendorHypBmap), FoundScope::WholeVm);
    let isar0 = host.cpus[0].id_registers.iter().find(|found| found.id == ID_AA64ISAR0);
    assert_eq!(isar0.unwrap().scope, FoundScope::WholeVm);
}

#[test]
fn row_14_a_bit_of_an_id_that_means_nothing_yet_is_kept() {
    let flagged = |value| {
        let mut machine = Machine::new(&V7_2);
        machine.write(0, X5, value);
        machine.vcpus.iter_mut().for_each(|vcpu| vcpu.flagged = Some(X5));
        machine
    };
    let old = flagged(0xfeed);
    let state = old.save(old.born(HOST));
    let text = serde_json::to_string(&state).unwrap();
    let state: RegisterState = serde_json::from_str(&text).unwrap();
    let id = RegId(X5.0 | UNKNOWN_BIT);
    assert_eq!(state.of_vcpu(0, id), Some(&RegValue::from(0xfeed)));
    let new = flagged(0);
    new.load(&state);
    assert_eq!(new.read(0, X5), 0xfeed);
}

/// What can be compared of two machines: everything but the counters.
fn comparable(machine: &Machine) -> RegisterState {
    let mut state = machine.save(machine.born(HOST));
    state.machine.retain(|saved| ![id::TIMER_CNT, id::PTIMER_CNT].contains(&saved.id));
    state
}

fn restored_by(writes: Writes, state: &RegisterState) -> Machine {
    let machine = Machine::with(&V7_2, 32, VcpuFeatures::PSCI_0_2);
    let before = Instant::now();
    machine.forget();
    let planned = machine.plan(state);
    planned.restore(&machine.refs(), &Manner { writes, elapsed: 0 }).unwrap();
    println!("{writes:?}: {} writes, {:?}", machine.written().len(), before.elapsed());
    machine
}

#[test]
fn row_15_writing_everything_on_every_vcpu_is_right_but_for_the_counters() {
    let old = Machine::with(&V7_2, 32, VcpuFeatures::PSCI_0_2);
    old.write(31, X5, 0xbeef);
    let state = old.save(old.born(ARM64_V1));
    let unaware = restored_by(Writes::EveryVcpu, &state);
    assert_eq!(unaware.writes(id::TIMER_CNT), 32);
    let aware = restored_by(Writes::Once, &state);
    assert_eq!(comparable(&unaware), comparable(&aware));
    assert_eq!(comparable(&unaware).vcpus, state.vcpus);
}

#[test]
fn row_16_what_the_whole_machine_holds_is_written_once() {
    let machine_wide = [
        RegId::PSCI_VERSION,
        id::STD_BMAP,
        id::VENDOR_HYP_BMAP,
        ID_AA64ISAR0,
        id::TIMER_CNT,
        id::PTIMER_CNT,
    ];
    for vcpus in [1, 32] {
        let old = Machine::with(&V7_2, vcpus, VcpuFeatures::PSCI_0_2);
        old.write(0, RegId::PSCI_VERSION, 0x1_0001);
        old.write(0, id::STD_BMAP, 0);
        old.write(0, id::VENDOR_HYP_BMAP, 1);
        old.write(0, ID_AA64ISAR0, old.read(0, ID_AA64ISAR0) & !(0xf << 60));
        let state = old.save(old.born(HOST));
        let new = Machine::with(&V7_2, vcpus, VcpuFeatures::PSCI_0_2);
        new.forget();
        new.load(&state);
        assert_eq!(machine_wide.map(|id| new.writes(id)), [1; 6], "{vcpus} vCPUs");
    }
}

#[test]
fn row_17_what_the_whole_machine_holds_cannot_be_set_after_its_start() {
    let old = Machine::new(&V7_2);
    let state = old.save(old.born(ARM64_V1));
    let rows = rows();
    let mut new = Machine::calling(&V7_2, &[]);
    let planned = new.plan(&state);
    new.answers();
    new.forget();
    let vcpus = new.refs();
    let mut live = Live::new(&vcpus, new.hypervisor.abilities());
    let error = plan(&state, &mut live, &Rules::new(&rows)).unwrap_err();
    expect![[r#"
        error: the machine has run: its registers are its guest's
          fix: restore into a new machine"#]]
    .assert_eq(&report(&error));
    let error = planned.restore(&new.refs(), &Manner::default()).unwrap_err();
    assert_eq!(error.to_string(), "the machine has run: its registers are its guest's");
    assert_eq!(new.written(), []);
}

#[test]
fn row_17_no_profile_is_put_into_effect_after_the_start() {
    let mut machine = Machine::calling(&V7_2, &[]);
    machine.answers();
    machine.forget();
    let vcpus = machine.refs();
    let newborn = machine.newborn(&vcpus);
    let error = settle(&newborn, &builtin(ARM64_V1).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "the machine has run: its firmware is its guest's");
    let mut registers = VmRegisters::new();
    registers.set(RegId::PSCI_VERSION, 0x1_0000);
    assert_eq!(registers.write(&newborn).unwrap_err().errno(), 16);
    assert_eq!(machine.written(), []);
    assert_eq!(machine.read(0, RegId::PSCI_VERSION), 0x1_0003);
}

#[test]
fn row_18_vcpus_that_disagree_each_get_their_own_where_the_host_holds_it_so() {
    let old = Machine::new(&own_psci_versions());
    old.write(0, RegId::PSCI_VERSION, 0x1_0000);
    old.write(1, RegId::PSCI_VERSION, 0x1_0001);
    let state = old.save(old.born(HOST));
    let new = Machine::new(&own_psci_versions());
    let plan = new.plan(&state).plan;
    expect![[r#"
        [
            "adapt: psci_version of vCPU 0: 1.0 wanted, 1.3 offered: the saved vCPUs disagree, though it is usually the whole machine's: each gets its own",
            "adapt: psci_version of vCPU 1: 1.1 wanted, 1.3 offered: the saved vCPUs disagree, though it is usually the whole machine's: each gets its own",
        ]
    "#]]
    .assert_debug_eq(&[lines(&plan, "psci_version of vCPU 0"), lines(&plan, "psci_version of vCPU 1")].concat());
    new.load(&state);
    assert_eq!(
        [new.read(0, RegId::PSCI_VERSION), new.read(1, RegId::PSCI_VERSION)],
        [0x1_0000, 0x1_0001]
    );
}

#[test]
fn row_18_vcpus_that_disagree_are_refused_where_the_host_holds_it_once() {
    let old = Machine::new(&own_psci_versions());
    old.write(0, RegId::PSCI_VERSION, 0x1_0000);
    old.write(1, RegId::PSCI_VERSION, 0x1_0001);
    let state = old.save(old.born(HOST));
    let plan = Machine::new(&V7_2).plan(&state).plan;
    expect![[r#"
        [
            "psci_version of vCPU 0: 1.0 wanted, 1.1 offered: the saved vCPUs disagree, and this host holds it once for all",
        ]
    "#]]
    .assert_debug_eq(&refusals(&plan));
}

#[test]
fn row_18_a_register_that_became_each_vcpus_own_is_given_to_each() {
    let old = Machine::new(&V7_2);
    old.write(0, RegId::PSCI_VERSION, 0x1_0000);
    let state = old.save(old.born(HOST));
    let new = Machine::new(&own_psci_versions());
    new.load(&state);
    assert_eq!(new.read(1, RegId::PSCI_VERSION), 0x1_0000);
}

/// The same register of the same CPU, the host's own before and the machine's since: no
/// manual of the architecture could say.
#[test]
fn row_19_whose_a_register_is_the_kernel_decides() {
    let scope = |release: &Release| {
        let host = probe(&ModelHypervisor::new(release).unwrap()).unwrap();
        let found = &host.cpus[0].id_registers;
        found.iter().find(|found| found.id == ID_AA64ISAR0).unwrap().scope
    };
    assert_eq!([scope(&V5_10), scope(&V6_1)], [FoundScope::Unchanging; 2]);
    assert_eq!([scope(&V6_12), scope(&V7_2)], [FoundScope::WholeVm; 2]);
}

#[test]
fn row_20_the_first_bitmaps_are_born_full_and_the_fourth_empty() {
    let machine = Machine::new(&V7_2);
    let bitmaps = [id::STD_BMAP, id::STD_HYP_BMAP, id::VENDOR_HYP_BMAP, id::VENDOR_HYP_BMAP_2];
    assert_eq!(bitmaps.map(|id| machine.read(0, id)), [0x1, 0x1, 0x3, 0x0]);
}

#[test]
fn row_21_registers_of_every_size_and_of_a_new_bank_move_as_they_are() {
    let value = |id: RegId| -> Vec<u8> { (1..=u8::MAX).cycle().take(id.size().bytes()).collect() };
    let old = Machine::new(&every_size());
    new_bank().iter().for_each(|id| old.vcpus[1].set_reg(*id, &value(*id)).unwrap());
    let state = old.save(old.born(ARM64_V1));
    let text = serde_json::to_string(&state).unwrap();
    let state: RegisterState = serde_json::from_str(&text).unwrap();
    let new = Machine::new(&every_size());
    new.load(&state);
    assert_eq!(new_bank().map(|id| new.vcpus[1].reg(id).unwrap()), new_bank().map(value));
    assert_eq!(new.vcpus[0].reg(new_bank()[8]).unwrap(), old.vcpus[0].reg(new_bank()[8]).unwrap());
}

#[test]
fn row_21_a_build_that_knows_only_the_firmware_of_linux_6_1_moves_a_guest_of_7_2() {
    let rows = rows();
    let cut = Rules { table: &TABLE[..7], ..Rules::new(&rows) };
    assert_eq!(cut.spec(id::VENDOR_HYP_BMAP_2).map(|spec| spec.name), None);
    let old = Machine::new(&V7_2);
    old.write(0, id::VENDOR_HYP_BMAP_2, 0x3);
    let state = old.save_by(old.born(HOST), &cut);
    let new = Machine::new(&V7_2);
    new.load_by(&state, &cut);
    assert_eq!([0, 1].map(|vcpu| new.read(vcpu, id::VENDOR_HYP_BMAP_2)), [0x3, 0x3]);
}

#[test]
fn row_22_what_cannot_move_is_told_whole_before_anything_is_done() {
    let mut old = Machine::calling(&V7_2, &[(0x8400_0000, 0)]);
    old.write(0, id::VENDOR_HYP_BMAP_2, 0x1);
    let birth = old.born(HOST);
    old.forget();
    let state = old.save(birth);
    assert_eq!(old.written(), []);
    let new = Machine::new(&V5_10);
    let planned = new.plan(&state);
    let error = planned.restore(&new.refs(), &Manner::default()).unwrap_err();
    expect![[r#"
        error: this host cannot give the guest the registers it was saved with:
            psci_version: 1.3 wanted, 1.0 offered: this host does not have that version
            std_bmap: trng wanted, no such register offered: a kernel without the register shows a guest none, for good
            vendor_hyp_bmap: func-feat,ptp wanted, no such register offered: a kernel without the register shows a guest none, for good
            vendor_hyp_bmap_2: impl-version wanted, no such register offered: a kernel without the register shows a guest none, for good
            CCSIDR_EL1 of cache 1: 0x00000002 wanted, 0x201fe012 offered: the nearest that this host takes: 0x201fe012
            CCSIDR_EL1 of cache 2: 0x00000002 wanted, 0x70ffe07a offered: the nearest that this host takes: 0x70ffe07a
            ID_DFR0_EL1: 0x0000000000010009 wanted, 0x0000000004010009 offered: the nearest that this host takes: PerfMon is 0x4, not 0x0
            ID_AA64DFR0_EL1: 0x0000000010305009 wanted, 0x0000000010305409 offered: the nearest that this host takes: PMUVer is 0x4, not 0x0
            ID_AA64MMFR1_EL1: 0x0000011010211122 wanted, 0x0000001010211122 offered: the nearest that this host takes: HCX is 0x0, not 0x1
            CLIDR_EL1: 0x0000000002000021 wanted, 0x0000000002000023 offered: the nearest that this host takes: Ctype1 is 0x3, not 0x1
          fix: restore it on a host that can, or let these differ with `--allow psci_version,std_bmap,vendor_hyp_bmap,vendor_hyp_bmap_2,CCSIDR_EL1 of cache 1,CCSIDR_EL1 of cache 2,ID_DFR0_EL1,ID_AA64DFR0_EL1,ID_AA64MMFR1_EL1,CLIDR_EL1`"#]].assert_eq(&report(&error));
    assert_eq!(old.answers()[0][0], 0x1_0003);
}

#[test]
fn an_image_of_another_machine_is_no_panic() {
    let old = Machine::new(&V6_1);
    let mut state = old.save(old.born(HOST));
    state.vcpus[0].registers.push(SavedRegister { id: X5, value: RegValue(vec![1]) });
    state.machine.push(SavedRegister { id: ID_AA64ISAR0, value: RegValue(vec![]) });
    state.machine.push(SavedRegister { id: X5, value: RegValue(vec![0; 300]) });
    let new = Machine::new(&V6_1);
    let refused: BTreeSet<_> = refusals(&new.plan(&state).plan).into_iter().collect();
    assert_eq!(refused.len(), 1);
}
