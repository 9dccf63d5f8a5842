//! Running a vCPU: its script, one step after the other, until something needs
//! the machine's user.

use kedge_guest_memory::GuestAddress;
use kedge_hv::{Access, Conduit, GicConfig, HvError, MpState, SystemEvent, VcpuFeatures};
use kedge_ids::RegId;

use crate::firmware::Called;
use crate::gic::GicState;
use crate::memory::slot_at;
use crate::program::{Step, Width};
use crate::refusal::{Refusal, refuse};
use crate::registers::Registers;
use crate::release::{FailedRun, FirstRun, FrozenBy, UnreadyPmu};
use crate::state::{Doorbell, Pending, Sve, VcpuState, VmState, number};
use crate::trace::Event;

/// The vector base.
pub(crate) const VBAR_EL1: RegId = RegId::system(3, 0, 12, 0, 0);
/// Where a synchronous exception of EL1 goes, from the vector base.
pub(crate) const VECTOR: u64 = 0x200;
/// Where an SError of EL1 goes, from the vector base.
const SERROR_VECTOR: u64 = 0x380;
/// An SError, 32-bit instruction.
const SERROR: u64 = 0x2f << 26 | 1 << 25;
/// PSTATE.A: SErrors wait.
const MASKED: u64 = 1 << 8;
/// EL1 with a stack of its own, all interrupts masked.
const EXCEPTION_STATE: u64 = 0x3c5;
const SPSR_EL1: RegId = RegId::core(8 * 36);
const ESR_EL1: RegId = RegId::system(3, 0, 5, 2, 0);
const FAR_EL1: RegId = RegId::system(3, 0, 6, 0, 0);
/// In `struct kvm_regs`: behind 31 registers, SP, PC, PSTATE and SP_EL1.
const ELR_EL1: RegId = RegId::core(8 * 35);
/// A data abort without a change of exception level, 32-bit instruction,
/// synchronous external abort.
const EXTERNAL_ABORT: u64 = 0x25 << 26 | 1 << 25 | 0x10;
/// What hardware says of a load of a pair: nothing but the translation fault.
const UNDECODED_SYNDROME: u64 = 0x6;

/// What a step led to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The next one.
    Next,
    /// Nothing, before something happens outside.
    Blocked,
    /// The user is needed.
    Exit(Exit),
}

/// A [`kedge_hv::Exit`] that owns its data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    MmioRead { address: u64, length: usize },
    MmioWrite { address: u64, value: u64, length: usize },
    Undecoded { address: u64, syndrome: u64 },
    Hypercall { function: u32, conduit: Conduit },
    System(SystemEvent),
    Failed(String),
}

/// Which way into the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// To run.
    Run,
    /// Only to complete the last access.
    Complete,
}

impl Registers<'_> {
    fn vcpu_state(&mut self) -> &mut VcpuState {
        self.vm.vcpus.get_mut(&self.vcpu).expect("vCPUs are never removed from a machine")
    }

    /// What happens at every attempt to run, before guest code does. `data` is
    /// the user's answer to the last load.
    pub(crate) fn enter(&mut self, entry: Entry, data: [u8; 8]) -> Result<Option<Event>, HvError> {
        self.ready()?;
        if entry == Entry::Run || self.release.frozen_by == FrozenBy::RunCall {
            self.freeze();
        }
        let index = self.vcpu;
        self.vcpu_state().ran = true;
        self.start(index);
        let vcpu = self.vcpu_state();
        match std::mem::replace(&mut vcpu.pending, Pending::None) {
            Pending::Load { reg, address, length } => {
                let value = number(&data[..length]);
                vcpu.put(RegId::x(u64::from(reg)), value);
                vcpu.advance();
                return Ok(Some(Event::Loaded { vcpu: index, address, value }));
            }
            Pending::Store => vcpu.advance(),
            Pending::None => {}
        }
        Ok(None)
    }

    /// The first run fixes what the guest will see.
    fn freeze(&mut self) {
        if !std::mem::replace(&mut self.vm.ran, true) && self.vm.gic.is_none() {
            for (id, field) in self.release.without_gic {
                let row = self.release.row(*id);
                let value = number(&self.stored(row, *id)) & !field;
                self.store(row, *id, &value.to_le_bytes());
            }
        }
    }

    /// Whether the machine is in a state to run at all.
    fn ready(&mut self) -> Result<(), HvError> {
        let release = self.release;
        if self.vm.dead {
            return refuse(release, Refusal::Dead);
        }
        let gic_unready = matches!(
            self.vm.gic,
            Some(GicState { config: GicConfig::V3 { .. }, ready: false, .. })
        );
        let vcpu = self.vcpu_state();
        let Some(features) = vcpu.features else {
            return refuse(release, Refusal::NotInitialised);
        };
        if vcpu.sve == Sve::Choosing {
            return refuse(release, Refusal::SveUnfinished);
        }
        if gic_unready {
            self.vm.dead = release.failed_run == FailedRun::KillsMachine;
            return refuse(release, Refusal::GicUnready);
        }
        let pmu_unready = features.contains(VcpuFeatures::PMU_V3) && vcpu.pmu.is_none();
        if pmu_unready && release.unready_pmu == UnreadyPmu::Refused {
            return refuse(release, Refusal::PmuUnready);
        }
        self.check_ppis()
    }

    /// An interrupt controller hands out each private interrupt once, and all vCPUs
    /// have the same.
    fn check_ppis(&mut self) -> Result<(), HvError> {
        let release = self.release;
        if self.vm.gic.is_none() || self.vcpu_state().checked {
            return Ok(());
        }
        let alone = self.claim_ppis();
        let timers = self.vcpu_state().timers;
        let alike = self.vm.vcpus.values().all(|other| other.timers == timers);
        self.vcpu_state().checked = alone && alike || release.first_run == FirstRun::TriedOnce;
        if alone && alike { Ok(()) } else { refuse(release, Refusal::SharedPpi) }
    }

    /// Whether the timers get their interrupts, one after the other.
    fn claim_ppis(&mut self) -> bool {
        let order = self.release.timer_claims;
        let vcpu = self.vcpu_state();
        order.into_iter().all(|timer| {
            let ppi = *vcpu.timer(timer);
            vcpu.pmu != Some(ppi) && *vcpu.claims.entry(ppi).or_insert(timer) == timer
        })
    }

    /// Takes an external abort in the place of the last access.
    pub(crate) fn abort(&mut self) -> Event {
        let index = self.vcpu;
        let vcpu = self.vcpu_state();
        vcpu.pending = Pending::None;
        let (pc, fault) = (vcpu.raw(RegId::PC), vcpu.fault);
        let vector = vcpu.raw(VBAR_EL1).wrapping_add(VECTOR);
        vcpu.put(ELR_EL1, pc);
        vcpu.put(ESR_EL1, EXTERNAL_ABORT);
        vcpu.put(FAR_EL1, fault);
        // Where the script lies must not change by leaving it.
        vcpu.base.get_or_insert(pc);
        vcpu.put(RegId::PC, vector);
        Event::Aborted { vcpu: index, pc }
    }

    /// Takes the SError that waits, unless the vCPU masks it.
    pub(crate) fn take_serror(&mut self) {
        let vcpu = self.vcpu_state();
        let (pc, pstate) = (vcpu.raw(RegId::PC), vcpu.raw(RegId::PSTATE));
        if pstate & MASKED != 0 {
            return;
        }
        let Some(serror) = vcpu.serror.take() else { return };
        vcpu.put(ELR_EL1, pc);
        vcpu.put(SPSR_EL1, pstate);
        vcpu.put(ESR_EL1, SERROR | serror.esr.unwrap_or(0));
        vcpu.base.get_or_insert(pc);
        let vector = vcpu.raw(VBAR_EL1).wrapping_add(SERROR_VECTOR);
        vcpu.put(RegId::PC, vector);
        vcpu.put(RegId::PSTATE, EXCEPTION_STATE);
    }

    /// Does one step.
    pub(crate) fn step(&mut self) -> Outcome {
        self.take_serror();
        let vcpu = self.vcpu_state();
        match vcpu.mp {
            MpState::Runnable => {}
            MpState::Stopped => return Outcome::Blocked,
            MpState::Suspended => return self.suspended(),
        }
        let Some(step) = vcpu.step() else { return Outcome::Blocked };
        match step {
            Step::Set { reg, value } => {
                vcpu.put(RegId::x(u64::from(reg)), value);
                self.next()
            }
            Step::Load { reg, address, width } => self.load(reg, address, width),
            Step::Store { reg, address, width } => self.store_step(reg, address, width),
            Step::LoadPair { address } => self.load_pair(address),
            Step::Call => self.call_step(Conduit::Hvc),
            Step::SecureCall => self.call_step(Conduit::Smc),
            Step::Wait => self.wait_for(|_| true),
            Step::AwaitIrq(spi) => self.wait_for(|irq| irq == spi),
            Step::Jump(steps) => {
                vcpu.jump(i64::from(steps));
                Outcome::Next
            }
            Step::Event(event) => {
                vcpu.advance();
                Outcome::Exit(Exit::System(event))
            }
            Step::Fail(reason) => Outcome::Exit(Exit::Failed(reason)),
        }
    }

    fn next(&mut self) -> Outcome {
        self.vcpu_state().advance();
        Outcome::Next
    }

    fn suspended(&mut self) -> Outcome {
        let awake = self.vm.irqs.iter().any(|irq| irq.pending > 0);
        if awake { Outcome::Exit(Exit::System(SystemEvent::Wakeup)) } else { Outcome::Blocked }
    }

    fn wait_for(&mut self, wanted: impl Fn(kedge_ids::Spi) -> bool) -> Outcome {
        let mut irqs = self.vm.irqs.iter_mut();
        let Some(irq) = irqs.find(|irq| irq.pending > 0 && wanted(irq.spi)) else {
            return Outcome::Blocked;
        };
        irq.pending -= 1;
        self.next()
    }

    fn load(&mut self, reg: u8, address: u64, width: Width) -> Outcome {
        let length = width.bytes();
        if let Some(slot) = slot_at(self.vm, address, length) {
            let mut data = [0; 8];
            if slot.read(address, &mut data[..length]).is_none() {
                return Outcome::Exit(Exit::Failed(lost(address)));
            }
            self.vcpu_state().put(RegId::x(u64::from(reg)), number(&data));
            return self.next();
        }
        if in_gic(self.vm, address) {
            self.vcpu_state().put(RegId::x(u64::from(reg)), 0);
            return self.next();
        }
        let vcpu = self.vcpu_state();
        vcpu.pending = Pending::Load { reg, address, length };
        vcpu.fault = address;
        Outcome::Exit(Exit::MmioRead { address, length })
    }

    fn store_step(&mut self, reg: u8, address: u64, width: Width) -> Outcome {
        let length = width.bytes();
        let value = self.vcpu_state().raw(RegId::x(u64::from(reg)));
        let value = value & u64::MAX >> (64 - 8 * u32::try_from(length).unwrap_or(8));
        if let Some(slot) = slot_at(self.vm, address, length)
            && slot.access == Access::ReadWrite
        {
            return match slot.write(address, &value.to_le_bytes()[..length]) {
                Some(()) => self.next(),
                None => Outcome::Exit(Exit::Failed(lost(address))),
            };
        }
        if in_gic(self.vm, address) || ring(self.vm, address, (length, value)) {
            return self.next();
        }
        let vcpu = self.vcpu_state();
        vcpu.pending = Pending::Store;
        vcpu.fault = address;
        Outcome::Exit(Exit::MmioWrite { address, value, length })
    }

    fn load_pair(&mut self, address: u64) -> Outcome {
        if slot_at(self.vm, address, 16).is_some() {
            return self.next();
        }
        self.vcpu_state().fault = address;
        Outcome::Exit(Exit::Undecoded { address, syndrome: UNDECODED_SYNDROME })
    }

    fn call_step(&mut self, conduit: Conduit) -> Outcome {
        let vcpu = self.vcpu_state();
        let [function, x1, x2, x3] = [0, 1, 2, 3].map(|n| vcpu.raw(RegId::x(n)));
        vcpu.advance();
        // The function id is in w0: its upper half is not looked at.
        let function = u32::try_from(function & 0xffff_ffff).unwrap_or_default();
        match self.call(function, [x1, x2, x3], conduit) {
            Called::Answered(values) => {
                for (n, value) in (0..).zip(values) {
                    self.vcpu_state().put(RegId::x(n), value);
                }
                Outcome::Next
            }
            Called::Event(event) => Outcome::Exit(Exit::System(event)),
            Called::Forwarded => Outcome::Exit(Exit::Hypercall { function, conduit }),
            Called::Off => Outcome::Next,
        }
    }
}

fn lost(address: u64) -> String {
    format!("the host lost the guest's memory at {address:#x}")
}

/// Whether one of the interrupt controller's frames answers at `address`.
fn in_gic(vm: &VmState, address: u64) -> bool {
    let Some(gic) = &vm.gic else { return false };
    let redistributors = 0x2_0000 * kedge_ids::u64_from(vm.vcpus.len());
    let within = |start: GuestAddress, size| (start.0..start.0 + size).contains(&address);
    match gic.config {
        GicConfig::V2 { distributor, cpu_interface, .. } => {
            within(distributor, 0x1000) || within(cpu_interface, 0x2000)
        }
        GicConfig::V3 { distributor, redistributors: first, its, .. } => {
            within(distributor, 0x1_0000)
                || within(first, redistributors)
                || its.is_some_and(|its| within(its, 0x2_0000))
        }
    }
}

fn ring(vm: &mut VmState, address: u64, stored: (usize, u64)) -> bool {
    let hit = |bell: &&mut Doorbell| {
        bell.address == address && (bell.ring.length(), bell.ring.value()) == stored
    };
    match vm.doorbells.iter_mut().find(hit) {
        Some(bell) => {
            bell.rung += 1;
            // The counter only saturates at 2^64 - 2 rings.
            bell.event.write(1).is_ok()
        }
        None => false,
    }
}
