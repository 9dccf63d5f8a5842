//! Releases are data: those there are agree with their recordings, and those there
//! are not can be invented.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kedge_hv::{Exit, Hypervisor, SystemEvent, Vcpu, VcpuFeatures, VmConfig};
use kedge_hv_model::{
    Invented, ModelHypervisor, Program, RELEASES, Recording, Release, Step, V7_2, Width, id,
    invented, psci, register, release,
};
use kedge_ids::{RegId, VcpuId};

fn plain_vcpus(release: &Release) -> [Box<dyn Vcpu>; 2] {
    let hypervisor = ModelHypervisor::new(release).unwrap();
    let vm = hypervisor.create_vm(&VmConfig::new(40)).unwrap();
    let mut vcpus = [0, 1].map(|id| vm.create_vcpu(VcpuId(id)).unwrap());
    vcpus.iter_mut().for_each(|vcpu| vcpu.init(VcpuFeatures::PSCI_0_2).unwrap());
    vcpus
}

fn plain_vcpu(release: &Release) -> Box<dyn Vcpu> {
    let [vcpu, _] = plain_vcpus(release);
    vcpu
}

/// What the call of the invented kernels answers, seen as the guest stores it.
fn answer(release: &Release, bitmap: u64) -> u64 {
    const DEVICE: u64 = 0x900_0000;
    let tell = Step::Store { reg: 0, address: DEVICE, width: Width::Double };
    let steps = Step::call(invented::NEXT_CALL, [0; 3]).into_iter().chain([tell]);
    let hypervisor =
        ModelHypervisor::new(release).unwrap().with_program(VcpuId(0), Program::new(steps));
    let vm = hypervisor.create_vm(&VmConfig::new(40)).unwrap();
    let mut vcpu = vm.create_vcpu(VcpuId(0)).unwrap();
    vcpu.init(VcpuFeatures::PSCI_0_2).unwrap();
    vcpu.set_reg64(invented::NEXT_BITMAP, bitmap).unwrap();
    let Exit::MmioWrite { data, .. } = vcpu.run().unwrap() else { unreachable!("a store") };
    u64::from_le_bytes(data.try_into().unwrap())
}

#[test]
fn a_release_is_found_by_its_name() {
    assert_eq!(release("6.12").unwrap().name, "6.12");
    assert!(release("6.13").is_none());
}

#[test]
fn a_plain_vcpu_lists_as_many_registers_as_the_kernel_does() {
    let lists = RELEASES.iter().map(|release| plain_vcpu(release).reg_list().unwrap().len());
    assert_eq!(lists.collect::<Vec<_>>(), [312, 242, 259, 257]);
}

#[test]
fn registers_are_born_as_they_were_recorded() {
    let runs = [id::TIMER_CNT, id::PTIMER_CNT];
    for release in RELEASES {
        let recorded = Recording::parse(release.recording).unwrap();
        let vcpu = plain_vcpu(release);
        for (id, value) in recorded.registers(VcpuFeatures::PSCI_0_2) {
            let born = vcpu.reg(id).unwrap();
            assert!(born == value || runs.contains(&id), "{}: {id} {born:x?}", release.name);
        }
    }
}

#[test]
fn a_recording_knows_the_counter_and_the_masks_of_its_host() {
    let hypervisor = ModelHypervisor::new(&V7_2).unwrap();
    assert_eq!(hypervisor.abilities().counter_hz, 62_500_000);
    let vm = hypervisor.create_vm(&VmConfig::new(40)).unwrap();
    let masks = vm.writable_id_masks().unwrap().unwrap();
    assert_eq!(masks.iter().count(), 40);
}

#[test]
fn an_invented_kernel_has_registers_of_any_size_in_any_bank() {
    let kernel = invented::every_size();
    let [vcpu, other] = plain_vcpus(&kernel);
    assert_eq!(vcpu.reg_list().unwrap().len(), 257 + 27);
    for bytes in invented::SIZES {
        let ones = vec![0xa5; usize::try_from(bytes).unwrap()];
        let ids = [(invented::NEW_BANK, 0), (0x14, 0x20), (0x16, 0x20)]
            .map(|(b, i)| register(b, i, bytes));
        ids.iter().for_each(|id| vcpu.set_reg(*id, &ones).unwrap());
        assert_eq!(ids.map(|id| vcpu.reg(id).unwrap()), [(); 3].map(|()| ones.clone()));
        assert_ne!(other.reg(ids[0]).unwrap(), ones);
        assert_eq!(other.reg(ids[1]).unwrap(), ones);
    }
}

#[test]
fn a_bitmap_to_come_opens_a_call_by_default_or_when_asked_to() {
    for (kernel, born) in [(invented::on_by_default(), 0xff), (invented::off_by_default(), 0)] {
        assert_eq!(plain_vcpu(&kernel).reg64(invented::NEXT_BITMAP).unwrap(), born);
        assert_eq!(answer(&kernel, 1), 9);
        assert_eq!(answer(&kernel, 0xfe), u64::MAX);
    }
}

#[test]
fn a_bitmap_to_come_freezes_as_those_of_today() {
    let mut vcpu = plain_vcpu(&invented::on_by_default());
    let unknown = vcpu.set_reg64(invented::NEXT_BITMAP, 0x100).unwrap_err();
    assert_eq!(unknown.errno(), libc::EINVAL);
    vcpu.complete_access().unwrap();
    let late = vcpu.set_reg64(invented::NEXT_BITMAP, 0).unwrap_err();
    assert_eq!(late.errno(), libc::EBUSY);
}

#[test]
fn a_level_to_come_is_the_machines() {
    let [vcpu, other] = plain_vcpus(&invented::unknown_level());
    assert_eq!(vcpu.reg64(invented::NEXT_LEVEL).unwrap(), 3);
    vcpu.set_reg64(invented::NEXT_LEVEL, 1).unwrap();
    assert_eq!(other.reg64(invented::NEXT_LEVEL).unwrap(), 1);
    assert_eq!(vcpu.set_reg64(invented::NEXT_LEVEL, 4).unwrap_err().errno(), libc::EINVAL);
}

#[test]
fn a_kernel_can_hold_the_psci_version_for_each_vcpu() {
    let [vcpu, other] = plain_vcpus(&invented::own_psci_versions());
    vcpu.set_reg64(RegId::PSCI_VERSION, 0x2).unwrap();
    assert_eq!(vcpu.reg64(RegId::PSCI_VERSION).unwrap(), 0x2);
    assert_eq!(other.reg64(RegId::PSCI_VERSION).unwrap(), 0x1_0003);
}

#[test]
fn a_kernel_can_have_a_newer_psci_version() {
    let kernel = Invented::after(&V7_2, "psci 1.4").with_psci(&[0x2, 0x1_0000, 0x1_0004]).release();
    assert_eq!(plain_vcpu(&kernel).reg64(RegId::PSCI_VERSION).unwrap(), 0x1_0004);
}

#[test]
fn a_kernel_can_be_without_bitmaps() {
    let list = plain_vcpu(&invented::without_bitmaps()).reg_list().unwrap();
    assert_eq!(list.len(), 257 - 4);
    assert!(list.iter().all(|id| id.coprocessor() != 0x16));
}

#[test]
fn a_list_can_be_longer_than_anybody_expects() {
    assert_eq!(plain_vcpu(&invented::long_list()).reg_list().unwrap().len(), 257 + 800);
}

#[test]
fn an_id_register_can_hide_another_register() {
    let vcpu = plain_vcpu(&invented::hiding());
    let by = vcpu.reg64(invented::HIDDEN_BY).unwrap();
    assert_eq!(vcpu.reg64(invented::HIDDEN).unwrap(), 7);
    vcpu.set_reg64(invented::HIDDEN_BY, by & !0xf).unwrap();
    assert!(!vcpu.reg_list().unwrap().contains(&invented::HIDDEN));
    assert_eq!(vcpu.reg(invented::HIDDEN).unwrap_err().errno(), libc::ENOENT);
}

#[test]
fn every_invented_kernel_runs_a_guest() {
    for kernel in invented::all() {
        let off = Program::new(Step::call(psci::SYSTEM_OFF, [0; 3]));
        let hypervisor = ModelHypervisor::new(&kernel).unwrap().with_program(VcpuId(0), off);
        let vm = hypervisor.create_vm(&VmConfig::new(40)).unwrap();
        let mut vcpu = vm.create_vcpu(VcpuId(0)).unwrap();
        vcpu.init(VcpuFeatures::PSCI_0_2).unwrap();
        assert!(matches!(vcpu.run().unwrap(), Exit::System(SystemEvent::Off)), "{}", kernel.name);
    }
}
