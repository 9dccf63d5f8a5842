//! Cases for every arm64 host with KVM.

use std::sync::Arc;

use kedge_guest_memory::{FileOffset, GuestAddress, MmapRegion, RamRegion};
use kedge_hv::{Access, Exit, GicVersion, Hypervisor, MpState, VcpuFeatures, VmConfig};
use kedge_hv_kvm::Kvm;
use kedge_ids::{RegId, Ring, Spi, VcpuId};
use libc::{EAGAIN, EEXIST, EFAULT, EINVAL, ENOENT, ENOEXEC};
use vmm_sys_util::eventfd::EventFd;

use crate::bench::{
    Bench, CPU_ON, MMIO, RAM, SYNCHRONOUS, SYSTEM_OFF, SYSTEM_OFF2, SYSTEM_RESET, SYSTEM_RESET2,
    SYSTEM_SUSPEND, assert_answers, errno, new_vm, said,
};
use crate::code;

#[test]
#[ignore = "needs /dev/kvm"]
fn stores_and_loads_outside_memory_leave_the_guest() {
    let mut bench = Bench::running(&code::STORE_AND_LOAD);
    assert_eq!(bench.runs(), "store [41] at 0x9000000");
    let Ok(Exit::MmioRead { address, data }) = bench.boot.run() else { panic!("a load") };
    assert_eq!(address.0, MMIO + 4);
    data.copy_from_slice(&[0x11, 0x22, 0x33, 0x44]);
    assert_eq!(bench.runs(), "store [11, 22, 33, 44, 0, 0, 0, 0] at 0x9000008");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_completed_access_is_in_the_registers_before_more_code_runs() {
    let mut bench = Bench::running(&code::LOAD);
    let Ok(Exit::MmioRead { data, .. }) = bench.boot.run() else { panic!("a load") };
    data.copy_from_slice(&[0x5a; 8]);
    assert_eq!(bench.boot.reg64(RegId::PC).unwrap(), RAM + 8);
    bench.boot.complete_access().unwrap();
    assert_eq!(bench.boot.reg64(RegId::PC).unwrap(), RAM + 12);
    assert_eq!(bench.x(2), 0x5a5a_5a5a_5a5a_5a5a);
}

/// The guest's handler ran from its first instruction, with the syndrome of a
/// synchronous external abort on the instruction at `pc`.
fn assert_abort_taken(bench: &mut Bench, pc: u64) {
    let said = bench.runs();
    // Data abort from the same EL, IL, fault status code 0x10; WnR is the CPU's.
    assert!(said.starts_with("store [") && said.ends_with("at 0x9000000"), "{said}");
    assert_eq!(bench.x(7), MMIO);
    assert_eq!(bench.x(4) & 0xfe00_003f, 0x9600_0010);
    assert_eq!(bench.x(5), pc);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn an_undecoded_access_can_be_answered_with_an_abort() {
    let mut bench = Bench::running(&code::LOAD_PAIR);
    assert_eq!(bench.runs(), "undecoded at 0x9000000");
    assert_eq!(bench.boot.reg64(RegId::PC).unwrap(), RAM + 4);
    bench.boot.inject_external_abort().unwrap();
    assert_abort_taken(&mut bench, RAM + 4);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_store_to_read_only_memory_can_be_answered_with_an_abort() {
    let mut bench = Bench::running(&code::STORE_TO_ROM);
    assert_eq!(bench.runs(), "store [7, 0, 0, 0, 0, 0, 0, 0] at 0x10000008");
    bench.boot.inject_external_abort().unwrap();
    assert_abort_taken(&mut bench, RAM + 8);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_load_answered_with_an_abort_loads_nothing() {
    let mut bench = Bench::running(&code::LOAD);
    assert_eq!(bench.runs(), "load 8 at 0x9000008");
    bench.boot.inject_external_abort().unwrap();
    assert_abort_taken(&mut bench, RAM + 8);
    assert_eq!(bench.x(2), 7);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_completed_abort_is_in_the_registers_before_more_code_runs() {
    let mut bench = Bench::running(&code::LOAD_PAIR);
    assert_eq!(bench.runs(), "undecoded at 0x9000000");
    bench.boot.inject_external_abort().unwrap();
    bench.boot.complete_access().unwrap();
    assert_eq!(bench.boot.reg64(RegId::PC).unwrap(), SYNCHRONOUS);
    assert_abort_taken(&mut bench, RAM + 4);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn power_calls_of_psci_0_2_are_events() {
    let mut bench = Bench::running(&code::CALL_AND_STORE_X0);
    assert_eq!(bench.calls([SYSTEM_OFF, 0, 0, 0]), "System(Off)");
    assert_eq!(bench.boot.mp_state().unwrap(), MpState::Stopped);
    let mut bench = Bench::running(&code::CALL_AND_STORE_X0);
    assert_eq!(bench.calls([SYSTEM_RESET, 0, 0, 0]), "System(Reset)");
}

/// What a guest gets that makes a call of a PSCI version newer than its own.
const NOT_SUPPORTED: &str = "store [ff, ff, ff, ff, ff, ff, ff, ff] at 0x9000000";

fn since(version: u64, bench: &Bench, event: &'static str) -> &'static str {
    let offered = bench.boot.reg64(RegId::PSCI_VERSION).unwrap();
    if offered >= version { event } else { NOT_SUPPORTED }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn the_second_reset_and_the_second_off_are_told_apart_where_psci_has_them() {
    let mut bench = Bench::running(&code::CALL_AND_STORE_X0);
    let expected = since(0x1_0001, &bench, "System(Reset2)");
    assert_eq!(bench.calls([SYSTEM_RESET2, 0, 0x77, 0]), expected);
    let mut bench = Bench::running(&code::CALL_AND_STORE_X0);
    let expected = since(0x1_0003, &bench, "System(Off2)");
    assert_eq!(bench.calls([SYSTEM_OFF2, 0, 0, 0]), expected);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn suspend_is_an_event_once_it_was_enabled() {
    let mut bench = Bench::running(&code::CALL_AND_STORE_X0);
    let enabled = errno(bench.vm.enable_system_suspend());
    let expected = if enabled == 0 { "System(Suspend)" } else { NOT_SUPPORTED };
    assert_eq!(bench.calls([SYSTEM_SUSPEND, RAM, 0, 0]), expected);
    assert!([0, EINVAL].contains(&enabled));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_vcpu_turned_on_by_another_runs_where_it_was_told_to() {
    let mut bench = Bench::running(&code::CALL_AND_STORE_X0);
    bench.put(&code::STORE_AND_LOAD, RAM + 0x8000);
    assert_eq!(bench.second.mp_state().unwrap(), MpState::Stopped);
    let done = "store [0, 0, 0, 0, 0, 0, 0, 0] at 0x9000000";
    assert_eq!(bench.calls([CPU_ON, 1, RAM + 0x8000, 0x99]), done);
    assert_eq!(said(bench.second.run()), "store [41] at 0x9000000");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn only_the_value_of_a_doorbell_rings_it() {
    let mut bench = Bench::running(&code::RING);
    let bell = EventFd::new(0).unwrap();
    bench.vm.connect_doorbell(GuestAddress(MMIO + 0x50), Ring::Word(3), &bell).unwrap();
    assert_eq!(bench.runs(), "store [4, 0, 0, 0] at 0x9000050");
    assert_eq!(bell.read().unwrap(), 1);
    bench.vm.disconnect_doorbell(GuestAddress(MMIO + 0x50), Ring::Word(3), &bell).unwrap();
    bench.boot.complete_access().unwrap();
    bench.boot.set_reg64(RegId::PC, RAM).unwrap();
    assert_eq!(bench.runs(), "store [3, 0, 0, 0] at 0x9000050");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_kick_survives_the_completion_of_an_access() {
    let mut bench = Bench::running(&code::STORE_AND_LOAD);
    let kick = bench.boot.kicker().unwrap();
    assert_eq!(bench.runs(), "store [41] at 0x9000000");
    kick.kick();
    bench.boot.complete_access().unwrap();
    assert_eq!(bench.runs(), "Interrupted");
    assert_eq!(bench.runs(), "load 4 at 0x9000004");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn every_listed_register_reads_at_its_own_size() {
    let bench = Bench::running(&code::WAIT);
    let list = bench.boot.reg_list().unwrap();
    assert!(list.len() > 200, "{} registers", list.len());
    for id in list {
        assert_eq!(bench.boot.reg(id).unwrap().len(), id.size().bytes());
    }
    assert_eq!(errno(bench.boot.set_reg(RegId::PC, &[0; 9])), EINVAL);
    assert_eq!(errno(bench.boot.reg64(RegId::SVE_VLS)), EINVAL);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_vcpu_without_init_or_a_machine_without_gic_is_refused_what_needs_them() {
    let vm = new_vm();
    let mut vcpu = vm.create_vcpu(VcpuId(0)).unwrap();
    let event = EventFd::new(0).unwrap();
    let kvm = Kvm::open().unwrap();
    let config = VmConfig::new;
    let answers = [
        ("list", ENOEXEC, errno(vcpu.reg_list())),
        ("register", ENOEXEC, errno(vcpu.reg(RegId::PC))),
        ("run", ENOEXEC, errno(vcpu.run())),
        ("same vCPU", EEXIST, errno(vm.create_vcpu(VcpuId(0)))),
        ("vCPU beyond the host's", EINVAL, errno(vm.create_vcpu(VcpuId(100_000)))),
        (
            "wire before the GIC",
            EAGAIN,
            errno(vm.connect_irq(Spi::from_offset(0).unwrap(), &event)),
        ),
        ("unknown feature", ENOENT, errno(vcpu.init(VcpuFeatures(1 << 31)))),
        ("SVE before it", ENOEXEC, errno(vcpu.finalize_sve())),
        ("no address bits", EINVAL, errno(kvm.create_vm(&config(0)))),
        ("too few address bits", EINVAL, errno(kvm.create_vm(&config(31)))),
        ("too many address bits", EINVAL, errno(kvm.create_vm(&config(kvm.limits().ipa_bits + 1)))),
    ];
    assert_answers(&answers);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn what_the_host_offers_can_be_asked_without_a_trace() {
    let kvm = Kvm::open().unwrap();
    let limits = kvm.limits();
    assert!((36..=52).contains(&limits.ipa_bits));
    assert!(limits.vcpus >= 8 && limits.slots >= 500);
    assert!(limits.features.contains(VcpuFeatures::PSCI_0_2));
    let vm = new_vm();
    assert!(vm.supports_gic(GicVersion::V3) || vm.supports_gic(GicVersion::V2));
    assert_eq!(vm.supports_its(), vm.supports_gic(GicVersion::V3));
    // The test of a device type must not have made one, nor closed standard input.
    assert!(std::fs::metadata("/proc/self/fd/0").is_ok());
}

#[test]
#[ignore = "needs /dev/kvm"]
fn memory_that_the_host_lost_fails_the_run_and_not_the_process() {
    let mut bench = Bench::running(&code::WAIT);
    let (file, lost) = (tempfile::tempfile().unwrap(), GuestAddress(0x4000_0000));
    file.set_len(0x1_0000).unwrap();
    let shared = FileOffset::new(file.try_clone().unwrap(), 0);
    let mapping = MmapRegion::from_file(shared, 0x1_0000).unwrap();
    let region = RamRegion::new(mapping, lost).unwrap();
    bench.vm.map_ram(2, Arc::new(region), Access::ReadWrite).unwrap();
    file.set_len(0).unwrap();
    bench.boot.set_reg64(RegId::PC, lost.0).unwrap();
    assert_eq!(errno(bench.boot.run()), EFAULT);
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_vcpu_initialized_again_starts_over() {
    let mut bench = Bench::running(&code::STORE_AND_LOAD);
    assert_eq!(bench.runs(), "store [41] at 0x9000000");
    bench.boot.complete_access().unwrap();
    bench.boot.init(VcpuFeatures::PSCI_0_2).unwrap();
    assert_eq!(bench.x(1), 0);
    let mut bench = bench.started();
    assert_eq!(bench.runs(), "store [41] at 0x9000000");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_machine_that_was_made_ready_is_given_once_and_to_whom_it_fits() {
    let kvm = Kvm::open().unwrap();
    let config = VmConfig::new(kvm.limits().ipa_bits.min(40));
    let features = VcpuFeatures::PSCI_0_2;
    let first = |features| {
        let vm = kvm.create_vm_for(&config, features).unwrap();
        let mut vcpu = vm.create_vcpu(VcpuId(0)).unwrap();
        vcpu.init(features).unwrap();
        vcpu
    };
    kvm.make_ready(&config, features).unwrap();
    assert!(first(features | VcpuFeatures::POWER_OFF).born_zero().is_empty());
    let ready = first(features);
    let other = first(features);
    assert!(kvm.take_ready().is_none() && other.born_zero().is_empty());
    assert_eq!(ready.reg_list().unwrap(), other.reg_list().unwrap());
    let zero = ready.born_zero();
    assert!(zero.len() > 50 && zero.is_sorted());
    for id in zero {
        assert!(ready.reg(*id).unwrap().iter().all(|byte| *byte == 0), "{id}");
        assert!(other.reg(*id).unwrap().iter().all(|byte| *byte == 0), "{id}");
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_vcpu_that_was_made_ready_starts_over_when_it_is_initialized_again() {
    let kvm = Kvm::open().unwrap();
    let config = VmConfig::new(kvm.limits().ipa_bits.min(40));
    let features = VcpuFeatures::PSCI_0_2;
    kvm.make_ready(&config, features).unwrap();
    let vm = kvm.create_vm_for(&config, features).unwrap();
    let mut vcpu = vm.create_vcpu(VcpuId(0)).unwrap();
    vcpu.init(features).unwrap();
    vcpu.set_reg64(RegId::x(1), 7).unwrap();
    vcpu.init(features).unwrap();
    assert_eq!((vcpu.reg64(RegId::x(1)).unwrap(), vcpu.born_zero()), (0, [].as_slice()));
}
