//! What a machine built on the model can rely on: programs, interrupts, doorbells,
//! kicks, and what a test sees of them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::thread;

use kedge_guest_memory::{Bytes, GuestAddress, GuestMemoryRegion, RamRegion};
use kedge_hv::{
    Access, Exit, GicConfig, Hypervisor, MpState, SystemEvent, Vcpu, VcpuFeatures, Vm, VmConfig,
};
use kedge_hv_model::{Event, ModelHypervisor, Program, Step, V5_10, V7_2, Width, psci};
use kedge_ids::{RegId, Ring, Spi, VcpuId};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const DEVICE: u64 = 0x900_0000;

/// An interrupt controller with a few inputs.
const GIC: GicConfig = GicConfig::V3 {
    distributor: GuestAddress(0x800_0000),
    redistributors: GuestAddress(0x80a_0000),
    its: None,
    spis: 32,
};

fn model(program: impl IntoIterator<Item = Step>) -> ModelHypervisor {
    ModelHypervisor::new(&V7_2).unwrap().with_program(VcpuId(0), Program::new(program))
}

fn vm(hypervisor: &ModelHypervisor) -> Arc<dyn Vm> {
    hypervisor.create_vm(&VmConfig::new(40)).unwrap()
}

fn vcpu(vm: &Arc<dyn Vm>) -> Box<dyn Vcpu> {
    let mut vcpu = vm.create_vcpu(VcpuId(0)).unwrap();
    vcpu.init(VcpuFeatures::PSCI_0_2).unwrap();
    vcpu
}

fn off() -> [Step; 5] {
    Step::call(psci::SYSTEM_OFF, [0; 3])
}

#[test]
fn a_test_sees_what_a_guest_loaded() {
    let hypervisor = model(
        [Step::Load { reg: 1, address: DEVICE, width: Width::Half }].into_iter().chain(off()),
    );
    let mut vcpu = vcpu(&vm(&hypervisor));
    let Exit::MmioRead { data, .. } = vcpu.run().unwrap() else { unreachable!("a load") };
    data.copy_from_slice(&[0x34, 0x12]);
    assert!(matches!(vcpu.run().unwrap(), Exit::System(SystemEvent::Off)));
    let loaded = Event::Loaded { vcpu: 0, address: DEVICE, value: 0x1234 };
    assert_eq!(hypervisor.trace().events(), [loaded]);
}

#[test]
fn a_test_sees_that_a_guest_took_an_abort() {
    let hypervisor = model([Step::LoadPair { address: DEVICE }]);
    let mut vcpu = vcpu(&vm(&hypervisor));
    assert!(matches!(vcpu.run().unwrap(), Exit::Undecoded { .. }));
    vcpu.inject_external_abort().unwrap();
    assert_eq!(hypervisor.trace().events(), [Event::Aborted { vcpu: 0, pc: 0 }]);
}

#[test]
fn a_guest_waits_for_the_interrupt_that_an_event_raises() {
    let spi = Spi::try_from(40).unwrap();
    let hypervisor = model([Step::AwaitIrq(spi)].into_iter().chain(off()));
    let vm = vm(&hypervisor);
    let mut vcpu = vcpu(&vm);
    // Blocking: the model must not read it before it is raised.
    let trigger = EventFd::new(0).unwrap();
    vm.connect_irq(spi, &trigger).unwrap();
    assert_eq!(hypervisor.raised(spi), 0);
    thread::scope(|scope| {
        scope.spawn(|| trigger.write(1).unwrap());
        assert!(matches!(vcpu.run().unwrap(), Exit::System(SystemEvent::Off)));
    });
    assert_eq!(hypervisor.raised(spi), 1);
}

#[test]
fn a_guest_takes_as_many_edges_as_there_were() {
    let spi = Spi::try_from(40).unwrap();
    let hypervisor = model([Step::AwaitIrq(spi), Step::AwaitIrq(spi)].into_iter().chain(off()));
    let vm = vm(&hypervisor);
    let mut vcpu = vcpu(&vm);
    vm.create_gic(&GIC).unwrap().init().unwrap();
    vm.pulse_irq(spi).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| vm.pulse_irq(spi).unwrap());
        assert!(matches!(vcpu.run().unwrap(), Exit::System(SystemEvent::Off)));
    });
    assert_eq!(hypervisor.raised(spi), 2);
}

#[test]
fn a_doorbell_rings_while_the_guest_goes_on() {
    let ring = Step::store(DEVICE + 0x50, Width::Word, 1);
    let hypervisor = model(ring.into_iter().chain(off()));
    let vm = vm(&hypervisor);
    let bell = EventFd::new(EFD_NONBLOCK).unwrap();
    vm.connect_doorbell(GuestAddress(DEVICE + 0x50), Ring::Word(1), &bell).unwrap();
    assert!(matches!(vcpu(&vm).run().unwrap(), Exit::System(SystemEvent::Off)));
    assert_eq!(bell.read().unwrap(), 1);
}

#[test]
fn guest_memory_is_shared_with_its_machine() {
    let ram = RamRegion::from_range(GuestAddress(0x8000_0000), 0x1_0000, None).unwrap();
    let ram = Arc::new(ram);
    let memory = ram.as_volatile_slice().unwrap();
    memory.write_obj(7_u32, 0).unwrap();
    let load = Step::Load { reg: 1, address: 0x8000_0000, width: Width::Word };
    let copy = Step::Store { reg: 1, address: 0x8000_0010, width: Width::Double };
    let hypervisor = model([load, copy].into_iter().chain(off()));
    let vm = vm(&hypervisor);
    vm.map_ram(0, Arc::clone(&ram), Access::ReadWrite).unwrap();
    assert!(matches!(vcpu(&vm).run().unwrap(), Exit::System(SystemEvent::Off)));
    assert_eq!(memory.read_obj::<u64>(0x10).unwrap(), 7);
}

#[test]
fn a_kick_gets_a_guest_out_that_waits_for_ever() {
    let hypervisor = model([]);
    let mut vcpu = vcpu(&vm(&hypervisor));
    let kick = vcpu.kicker().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| kick.kick());
        assert!(matches!(vcpu.run().unwrap(), Exit::Interrupted));
    });
}

#[test]
fn each_machine_can_have_a_program_of_its_own() {
    let hypervisor =
        model([Step::Event(SystemEvent::Reset)]).with_program(VcpuId(0), Program::new(off()));
    assert!(matches!(vcpu(&vm(&hypervisor)).run().unwrap(), Exit::System(SystemEvent::Reset)));
    assert!(matches!(vcpu(&vm(&hypervisor)).run().unwrap(), Exit::System(SystemEvent::Off)));
    assert!(matches!(vcpu(&vm(&hypervisor)).run().unwrap(), Exit::System(SystemEvent::Off)));
}

#[test]
fn a_program_begins_again_after_a_reset() {
    let hypervisor = model(Step::call(psci::SYSTEM_RESET, [0; 3]));
    let mut vcpu = vcpu(&vm(&hypervisor));
    assert!(matches!(vcpu.run().unwrap(), Exit::System(SystemEvent::Reset)));
    vcpu.init(VcpuFeatures::PSCI_0_2).unwrap();
    vcpu.set_reg64(RegId::PC, 0x8000).unwrap();
    assert!(matches!(vcpu.run().unwrap(), Exit::System(SystemEvent::Reset)));
}

#[test]
fn a_broken_vcpu_says_so() {
    let hypervisor = model([Step::Fail("the host is on fire".to_owned())]);
    let mut vcpu = vcpu(&vm(&hypervisor));
    let Exit::Failed { reason } = vcpu.run().unwrap() else { unreachable!("it fails") };
    assert_eq!(reason, "the host is on fire");
}

#[test]
fn a_suspended_vcpu_is_woken_by_an_interrupt() {
    let spi = Spi::try_from(33).unwrap();
    let hypervisor = model(off());
    let vm = vm(&hypervisor);
    let mut vcpu = vcpu(&vm);
    let trigger = EventFd::new(EFD_NONBLOCK).unwrap();
    vm.connect_irq(spi, &trigger).unwrap();
    vcpu.set_mp_state(MpState::Suspended).unwrap();
    trigger.write(1).unwrap();
    assert!(matches!(vcpu.run().unwrap(), Exit::System(SystemEvent::Wakeup)));
    assert_eq!(vcpu.mp_state().unwrap(), MpState::Suspended);
}

#[test]
fn older_firmware_lacks_what_came_later() {
    let off2 = Program::new(Step::call(psci::SYSTEM_OFF2, [0; 3]).into_iter().chain(off()));
    let hypervisor = ModelHypervisor::new(&V5_10).unwrap().with_program(VcpuId(0), off2);
    assert!(matches!(vcpu(&vm(&hypervisor)).run().unwrap(), Exit::System(SystemEvent::Off)));
}
