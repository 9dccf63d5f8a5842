//! A model vCPU: its life, and the thread that runs it.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kedge_guest_memory::GuestAddress;
use kedge_hv::{
    Access, Exit, GicVersion, HvError, Kick, MpState, PmuEvents, SError, Timer, Vcpu, VcpuFeatures,
    VcpuReg, Vm,
};
use kedge_ids::{Ppi, RegId, VcpuId};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::machine::Machine;
use crate::memory::slot_at;
use crate::refusal::{Refusal, refuse};
use crate::registers::{Registers, at_reset};
use crate::release::{Ability, PowerOff, SErrorTaken, Scope, WidthOf};
use crate::run::{self, Entry, Outcome};
use crate::seen;
use crate::state::{Pending, Sve, VcpuState, VmState};
use crate::vm::ModelVm;

/// A vCPU of the model.
pub(crate) struct ModelVcpu {
    id: VcpuId,
    machine: Arc<Machine>,
    wake: EventFd,
    kicked: Arc<AtomicBool>,
    /// The bytes of the last MMIO exit.
    data: [u8; 8],
}

/// Kicks a model vCPU.
struct ModelKick {
    kicked: Arc<AtomicBool>,
    wake: EventFd,
}

impl Kick for ModelKick {
    fn kick(&self) {
        self.kicked.store(true, Ordering::Release);
        // The counter only saturates at 2^64 - 2 pending wake-ups.
        let _ = self.wake.write(1);
    }
}

impl ModelVcpu {
    pub(crate) fn new(id: VcpuId, machine: Arc<Machine>, wake: EventFd) -> Self {
        Self { id, machine, wake, kicked: Arc::default(), data: [0; 8] }
    }

    /// Does something to the registers of this vCPU.
    fn with<T>(&self, act: impl FnOnce(&mut Registers<'_>) -> T) -> T {
        let shared = &self.machine.shared;
        let mut vm = self.machine.lock();
        let mut registers = Registers {
            release: &shared.release,
            host: &shared.host,
            vm: &mut vm,
            vcpu: self.id.0,
            now: shared.counter(),
        };
        act(&mut registers)
    }

    /// Does something to the state of this vCPU, or refuses before its first
    /// initialisation.
    fn with_state<T>(
        &self,
        act: impl FnOnce(&mut VcpuState, VcpuFeatures) -> Result<T, Refusal>,
    ) -> Result<T, HvError> {
        let mut vm = self.machine.lock();
        let vcpu = state(&mut vm, self.id);
        let done = match vcpu.features {
            Some(features) => act(vcpu, features),
            None => Err(Refusal::NotInitialised),
        };
        done.or_else(|refusal| refuse(&self.machine.shared.release, refusal))
    }

    /// Whether the vCPU can have these features now.
    fn check(&self, vm: &VmState, wanted: VcpuFeatures) -> Result<(), Refusal> {
        let release = &self.machine.shared.release;
        let host = self.machine.shared.host.limits.features;
        if wanted.0 & !release.features != 0 {
            return Err(Refusal::UnknownFeature);
        }
        let keys = wanted.0 & VcpuFeatures::PTRAUTH.0;
        let half = keys != 0 && keys != VcpuFeatures::PTRAUTH.0;
        if !host.contains(wanted) || half {
            return Err(Refusal::BadFeatures);
        }
        let compared = |features: VcpuFeatures| match release.power_off {
            PowerOff::Compared => features,
            PowerOff::Ephemeral => features.without(VcpuFeatures::POWER_OFF),
        };
        let differs = |other: Option<VcpuFeatures>| {
            other.is_some_and(|other| compared(other) != compared(wanted))
        };
        if differs(vm.vcpus[&self.id.0].features) {
            return Err(Refusal::ChangedFeatures);
        }
        if release.feature_scope == Scope::Vm && differs(vm.features) {
            return Err(Refusal::OtherFeatures);
        }
        let narrow = |features: VcpuFeatures| features.contains(VcpuFeatures::EL1_32BIT);
        let mixed = |other: VcpuFeatures| narrow(other) != narrow(wanted);
        let mut others = vm.vcpus.iter().filter(|(id, _)| **id != self.id.0);
        let mixed = match release.width_of {
            WidthOf::FirstInitialised => vm.features.is_some_and(mixed),
            WidthOf::EveryVcpu => {
                others.any(|(_, vcpu)| mixed(vcpu.features.unwrap_or(VcpuFeatures::NONE)))
            }
        };
        if mixed {
            return Err(Refusal::MixedWidth);
        }
        Ok(())
    }

    /// Whether SErrors can be told and made yet.
    fn check_serror(&self) -> Result<(), HvError> {
        match self.machine.shared.release.early_serror {
            Ability::Present => Ok(()),
            Ability::Absent => self.with_state(|_, _| Ok(())),
        }
    }

    /// Sleeps until a kick, a CPU_ON or an interrupt.
    fn sleep(&self) -> Result<(), HvError> {
        let failed = |source| HvError { call: "wait for an event", source };
        let epoll = Epoll::new().map_err(failed)?;
        let wanted = EpollEvent::new(EventSet::IN, 0);
        let triggers = self.machine.lock().triggers.as_raw_fd();
        for fd in [self.wake.as_raw_fd(), triggers] {
            epoll.ctl(ControlOperation::Add, fd, wanted).map_err(failed)?;
        }
        match epoll.wait(-1, &mut [EpollEvent::default()]) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => Err(failed(error)),
            _ => {
                // Nonblocking: without a wake-up it is an error, and fine.
                let _ = self.wake.read();
                Ok(())
            }
        }
    }

    fn enter(&mut self, entry: Entry) -> Result<(), HvError> {
        let data = self.data;
        if let Some(event) = self.with(|registers| registers.enter(entry, data))? {
            self.machine.shared.trace.push(event);
        }
        Ok(())
    }

    /// What the user gets to see of an exit.
    fn exit(&mut self, exit: run::Exit) -> Exit<'_> {
        match exit {
            run::Exit::MmioRead { address, length } => {
                self.data = [0; 8];
                Exit::MmioRead { address: GuestAddress(address), data: &mut self.data[..length] }
            }
            run::Exit::MmioWrite { address, value, length } => {
                self.data = value.to_le_bytes();
                Exit::MmioWrite { address: GuestAddress(address), data: &self.data[..length] }
            }
            run::Exit::Undecoded { address, syndrome } => {
                Exit::Undecoded { address: GuestAddress(address), syndrome }
            }
            run::Exit::Hypercall { function, conduit } => Exit::Hypercall { function, conduit },
            run::Exit::System(event) => Exit::System(event),
            run::Exit::Failed(reason) => Exit::Failed { reason },
        }
    }
}

/// Counts a vCPU as running.
struct Inside<'a>(&'a Machine);

impl<'a> Inside<'a> {
    fn new(machine: &'a Machine) -> Self {
        machine.lock().running += 1;
        Self(machine)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}

fn state(vm: &mut VmState, id: VcpuId) -> &mut VcpuState {
    vm.vcpus.get_mut(&id.0).expect("vCPUs are never removed from a machine")
}

impl Vcpu for ModelVcpu {
    fn id(&self) -> VcpuId {
        self.id
    }

    fn init(&mut self, features: VcpuFeatures) -> Result<(), HvError> {
        let shared = &self.machine.shared;
        let mut vm = self.machine.lock();
        if let Err(refusal) = self.check(&vm, features) {
            return refuse(&shared.release, refusal);
        }
        vm.features.get_or_insert(features);
        let vcpu = state(&mut vm, self.id);
        let lengths = vcpu.regs.remove(&RegId::SVE_VLS);
        vcpu.regs = at_reset(&shared.release, &shared.host, features, self.id);
        if let (Sve::Final, Some(lengths)) = (vcpu.sve, lengths) {
            vcpu.regs.insert(RegId::SVE_VLS, lengths);
        } else if features.contains(VcpuFeatures::SVE) {
            vcpu.sve = Sve::Choosing;
        }
        vcpu.features = Some(features);
        vcpu.pending = Pending::None;
        vcpu.serror = None;
        vcpu.base = None;
        let off = features.contains(VcpuFeatures::POWER_OFF);
        vcpu.mp = if off { MpState::Stopped } else { MpState::Runnable };
        Ok(())
    }

    fn finalize_sve(&mut self) -> Result<(), HvError> {
        self.with_state(|vcpu, _| match vcpu.sve {
            Sve::Without => Err(Refusal::FinalizeWithout),
            Sve::Final => Err(Refusal::FinalizedTwice),
            Sve::Choosing => {
                vcpu.sve = Sve::Final;
                Ok(())
            }
        })
    }

    fn reg_list(&self) -> Result<Vec<RegId>, HvError> {
        self.with(|registers| registers.list())
    }

    fn reg(&self, id: RegId) -> Result<VcpuReg, HvError> {
        self.with(|registers| registers.get(id))
    }

    fn set_reg(&self, id: RegId, value: &[u8]) -> Result<(), HvError> {
        self.with(|registers| registers.set(id, value))
    }

    fn mp_state(&self) -> Result<MpState, HvError> {
        Ok(state(&mut self.machine.lock(), self.id).mp)
    }

    fn set_mp_state(&self, wanted: MpState) -> Result<(), HvError> {
        if !self.machine.shared.release.mp_states.contains(&wanted) {
            return refuse(&self.machine.shared.release, Refusal::MpState);
        }
        state(&mut self.machine.lock(), self.id).mp = wanted;
        // The counter only saturates at 2^64 - 2 pending wake-ups.
        let _ = self.wake.write(1);
        Ok(())
    }

    fn init_pmu(&self, irq: Ppi) -> Result<(), HvError> {
        let gic = self.machine.lock().gic.as_ref().map(|gic| (gic.config.version(), gic.ready));
        self.with_state(|vcpu, features| {
            if !features.contains(VcpuFeatures::PMU_V3) {
                return Err(Refusal::NoPmu);
            }
            if vcpu.pmu.is_some() {
                return Err(Refusal::PmuTwice);
            }
            if matches!(gic, Some((GicVersion::V2 | GicVersion::V3, false))) {
                return Err(Refusal::PmuEarly);
            }
            vcpu.pmu = Some(irq);
            Ok(())
        })
    }

    fn hide_pmu_events(&self, events: PmuEvents) -> Result<(), HvError> {
        self.with(|registers| registers.hide_events(events))
    }

    fn read_as_guest(&mut self, ids: &[RegId]) -> Result<Vec<Option<u64>>, HvError> {
        let is_system = |id: &RegId| seen::is_system(*id);
        if !ids.iter().all(is_system) {
            return self.machine.refuse(Refusal::NoSystemRegister);
        }
        let region = seen::memory()?;
        ModelVm { machine: Arc::clone(&self.machine) }.map_ram(0, region, Access::ReadWrite)?;
        self.enter(Entry::Run)?;
        Ok(ids.iter().map(|id| self.with(|registers| registers.seen(*id))).collect())
    }

    fn inject_external_abort(&mut self) -> Result<(), HvError> {
        self.with_state(|_, _| Ok(()))?;
        let event = self.with(|registers| registers.abort());
        self.machine.shared.trace.push(event);
        Ok(())
    }

    fn set_pv_time(&self, address: GuestAddress) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        let backed = slot_at(&mut vm, address.0, 1).is_some_and(|s| s.access == Access::ReadWrite);
        let vcpu = state(&mut vm, self.id);
        if !address.0.is_multiple_of(64) {
            return self.machine.refuse(Refusal::PvTimeMisaligned);
        }
        if vcpu.pv_time.is_some() {
            return self.machine.refuse(Refusal::PvTimeTwice);
        }
        if !backed {
            return self.machine.refuse(Refusal::PvTimeNowhere);
        }
        vcpu.pv_time = Some(address.0);
        Ok(())
    }

    fn pv_time(&self) -> Result<Option<GuestAddress>, HvError> {
        Ok(state(&mut self.machine.lock(), self.id).pv_time.map(GuestAddress))
    }

    fn set_timer_ppi(&self, timer: Timer, ppi: Ppi) -> Result<(), HvError> {
        let mut vm = self.machine.lock();
        if vm.gic.is_none() {
            return self.machine.refuse(Refusal::TimerWithoutGic);
        }
        let late = match self.machine.shared.release.timer_ppis {
            Scope::Vm => vm.vcpus.values().any(|vcpu| vcpu.ran),
            Scope::Vcpu => state(&mut vm, self.id).ran,
        };
        if late {
            return self.machine.refuse(Refusal::TimerLate);
        }
        vm.vcpus.values_mut().for_each(|vcpu| *vcpu.timer(timer) = ppi);
        Ok(())
    }

    fn serror(&self) -> Result<Option<SError>, HvError> {
        self.check_serror()?;
        Ok(state(&mut self.machine.lock(), self.id).serror)
    }

    fn set_serror(&self, serror: SError) -> Result<(), HvError> {
        /// What a guest reads whose user gave no syndrome: one of its own kind.
        const OWN_KIND: u64 = 1 << 24;
        let ras = self.machine.shared.host.has_ras();
        self.check_serror()?;
        if serror.esr.is_some_and(|esr| !ras || esr >> 25 != 0) {
            return self.machine.refuse(Refusal::SErrorSyndrome);
        }
        let esr = ras.then_some(serror.esr.unwrap_or(OWN_KIND));
        state(&mut self.machine.lock(), self.id).serror = Some(SError { esr });
        if self.machine.shared.release.serror_taken == SErrorTaken::AtOnce {
            self.with(|registers| registers.take_serror());
        }
        Ok(())
    }

    fn has_run(&self) -> bool {
        self.machine.lock().vcpus.values().any(|vcpu| vcpu.ran)
    }

    fn complete_access(&mut self) -> Result<(), HvError> {
        self.enter(Entry::Complete)
    }

    fn kicker(&mut self) -> Result<Box<dyn Kick>, HvError> {
        let wake = self.wake.try_clone();
        let wake = wake.map_err(|source| HvError { call: "bind a vCPU to its thread", source })?;
        Ok(Box::new(ModelKick { kicked: Arc::clone(&self.kicked), wake }))
    }

    fn run(&mut self) -> Result<Exit<'_>, HvError> {
        self.enter(Entry::Run)?;
        let machine = Arc::clone(&self.machine);
        let _inside = Inside::new(&machine);
        loop {
            if self.kicked.swap(false, Ordering::Acquire) {
                return Ok(Exit::Interrupted);
            }
            let outcome = {
                self.machine.take_irqs(&mut self.machine.lock());
                self.with(|registers| {
                    registers.start(self.id.0);
                    registers.step()
                })
            };
            match outcome {
                Outcome::Next => {}
                Outcome::Blocked => self.sleep()?,
                Outcome::Exit(exit) => return Ok(self.exit(exit)),
            }
        }
    }
}
