//! A virtual CPU: its registers, its power state, running it.

use std::sync::Arc;

use kedge_guest_memory::GuestAddress;
use kedge_hv::{
    Access, Exit, HvError, Kick, MpState, PmuEvents, SError, Timer, Vcpu, VcpuFeatures, VcpuReg,
};
use kedge_ids::{Ppi, RegId, VcpuId};
use kvm_bindings::{
    KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_FILTER, KVM_ARM_VCPU_PMU_V3_INIT,
    KVM_ARM_VCPU_PMU_V3_IRQ, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, KVM_ARM_VCPU_SVE,
    KVM_ARM_VCPU_TIMER_CTRL, KVM_ARM_VCPU_TIMER_IRQ_PTIMER, KVM_ARM_VCPU_TIMER_IRQ_VTIMER,
    KVM_EXIT_MMIO, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_STOPPED, KVM_MP_STATE_SUSPENDED,
    KVM_PMU_EVENT_DENY, kvm_mp_state, kvm_pmu_event_filter, kvm_vcpu_events, kvm_vcpu_init,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use libc::{EFAULT, EINTR, EINVAL};

use crate::attribute::{Attribute, Attributes, attribute, refused};
use crate::exit;
use crate::ioctl;
use crate::kick::Binding;
use crate::machine::Machine;
use crate::scratch_guest;

const PMU_IRQ: Attribute = attribute(KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_IRQ);
const PMU_INIT: Attribute = attribute(KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT);
const PMU_FILTER: Attribute = attribute(KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_FILTER);
const PVTIME_IPA: Attribute = attribute(KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA);

const RUN: &str = "run a vCPU";
const READ: &str = "read a register";
const WRITE: &str = "write a register";
const ABORT: &str = "inject an external abort";

/// A virtual CPU on KVM.
pub(crate) struct KvmVcpu {
    id: VcpuId,
    fd: VcpuFd,
    binding: Binding,
    /// What it was initialised with before it was asked for, if it was.
    ready: Option<VcpuFeatures>,
    /// The registers that read zero then, ascending.
    born_zero: Vec<RegId>,
    /// Behind `fd`: no guest code runs once the memory goes (see [`Machine`]).
    machine: Arc<Machine>,
}

impl KvmVcpu {
    /// Creates vCPU `id`.
    pub(crate) fn create(id: VcpuId, machine: Arc<Machine>) -> Result<Self, HvError> {
        let fd = machine.fd.create_vcpu(id.0.into()).map_err(refused("create a vCPU"))?;
        let (binding, ready, born_zero) = (Binding::default(), None, Vec::new());
        Ok(Self { id, fd, binding, ready, born_zero, machine })
    }

    /// Initialises it before it is asked for, and notes which of its registers are zero.
    pub(crate) fn make_ready(&mut self, features: VcpuFeatures) -> Result<(), HvError> {
        self.init(features)?;
        let mut zero = Vec::new();
        for id in self.reg_list()? {
            if self.reg(id)?.iter().all(|byte| *byte == 0) {
                zero.push(id);
            }
        }
        zero.sort_unstable();
        (self.ready, self.born_zero) = (Some(features), zero);
        Ok(())
    }

    fn read(&self, id: RegId, value: &mut [u8]) -> Result<(), HvError> {
        self.fd.get_one_reg(id.0, value).map(drop).map_err(refused(READ))
    }

    fn write(&self, id: RegId, value: &[u8]) -> Result<(), HvError> {
        self.fd.set_one_reg(id.0, value).map(drop).map_err(refused(WRITE))
    }

    /// Takes back the load or store of an MMIO exit: the vCPU stands before it, as
    /// if it had not been tried.
    ///
    /// KVM keeps the access open and completes it in the next `KVM_RUN`, after
    /// whatever else was done to the vCPU: Linux 5.10 would step over the first
    /// instruction of an exception handler, or load into a register of its. So it is
    /// let do so first, and then what it changed is put back.
    fn undo_access(&mut self) -> Result<(), HvError> {
        let touched = (0..31).map(RegId::x).chain([RegId::PC]);
        let saved: Vec<_> =
            touched.map(|id| Ok((id, self.reg64(id)?))).collect::<Result<_, _>>()?;
        self.complete_access()?;
        saved.into_iter().try_for_each(|(id, value)| self.set_reg64(id, value))
    }
}

impl Vcpu for KvmVcpu {
    fn id(&self) -> VcpuId {
        self.id
    }

    fn init(&mut self, features: VcpuFeatures) -> Result<(), HvError> {
        if self.ready.take() == Some(features) {
            return Ok(());
        }
        self.born_zero.clear();
        let mut init = kvm_vcpu_init::default();
        // Asked for each time: kernels before 6.6 know the host CPU's own only.
        self.machine
            .fd
            .get_preferred_target(&mut init)
            .map_err(refused("name the host's preferred vCPU"))?;
        init.features[0] = features.0;
        self.fd.vcpu_init(&init).map_err(refused("initialize a vCPU"))
    }

    fn finalize_sve(&mut self) -> Result<(), HvError> {
        let sve = KVM_ARM_VCPU_SVE.cast_signed();
        self.fd.vcpu_finalize(&sve).map_err(refused("finalize the vector lengths"))
    }

    fn reg_list(&self) -> Result<Vec<RegId>, HvError> {
        let ids = ioctl::reg_list(&self.fd).map_err(refused("list the registers"))?;
        Ok(ids.into_iter().map(RegId).collect())
    }

    fn born_zero(&self) -> &[RegId] {
        &self.born_zero
    }

    fn reg(&self, id: RegId) -> Result<VcpuReg, HvError> {
        let mut value = vec![0; id.size().bytes()];
        self.read(id, &mut value)?;
        Ok(value)
    }

    fn set_reg(&self, id: RegId, value: &[u8]) -> Result<(), HvError> {
        // kvm-ioctls refuses a short value only.
        if value.len() != id.size().bytes() {
            return Err(HvError::new(WRITE, EINVAL));
        }
        self.write(id, value)
    }

    fn reg64(&self, id: RegId) -> Result<u64, HvError> {
        let mut value = [0; 8];
        if id.size().bytes() != value.len() {
            return Err(HvError::new(READ, EINVAL));
        }
        self.read(id, &mut value)?;
        Ok(u64::from_le_bytes(value))
    }

    fn mp_state(&self) -> Result<MpState, HvError> {
        const CALL: &str = "tell a vCPU's power state";
        let state = self.fd.get_mp_state().map_err(refused(CALL))?;
        match state.mp_state {
            KVM_MP_STATE_RUNNABLE => Ok(MpState::Runnable),
            KVM_MP_STATE_STOPPED => Ok(MpState::Stopped),
            KVM_MP_STATE_SUSPENDED => Ok(MpState::Suspended),
            _ => Err(HvError::new(CALL, EINVAL)),
        }
    }

    fn set_mp_state(&self, state: MpState) -> Result<(), HvError> {
        let mp_state = match state {
            MpState::Runnable => KVM_MP_STATE_RUNNABLE,
            MpState::Stopped => KVM_MP_STATE_STOPPED,
            MpState::Suspended => KVM_MP_STATE_SUSPENDED,
        };
        self.fd.set_mp_state(kvm_mp_state { mp_state }).map_err(refused("set a vCPU's power state"))
    }

    fn init_pmu(&self, irq: Ppi) -> Result<(), HvError> {
        self.fd.set_u32(PMU_IRQ, irq.intid(), "set the performance monitors' interrupt")?;
        self.fd.perform(PMU_INIT, "initialize the performance monitors")
    }

    fn hide_pmu_events(&self, events: PmuEvents) -> Result<(), HvError> {
        const CALL: &str = "hide events of the performance monitors";
        let PmuEvents { first: base_event, count: nevents } = events;
        if nevents == 0 {
            // KVM would take it, and filter nothing.
            return Err(HvError::new(CALL, EINVAL));
        }
        let action = u8::try_from(KVM_PMU_EVENT_DENY).map_err(|_| HvError::new(CALL, EINVAL))?;
        let filter = kvm_pmu_event_filter { base_event, nevents, action, pad: [0; 3] };
        self.fd.set_to(PMU_FILTER, &filter, CALL)
    }

    fn read_as_guest(&mut self, ids: &[RegId]) -> Result<Vec<Option<u64>>, HvError> {
        let memory = scratch_guest::that_reads(ids)?;
        self.machine.map_ram(0, memory, Access::ReadWrite)?;
        scratch_guest::start(self)?;
        ids.iter().map(|_| scratch_guest::next_value(self)).collect()
    }

    fn inject_external_abort(&mut self) -> Result<(), HvError> {
        if self.fd.get_kvm_run().exit_reason == KVM_EXIT_MMIO {
            self.undo_access()?;
        }
        let mut events = kvm_vcpu_events::default();
        events.exception.ext_dabt_pending = 1;
        self.fd.set_vcpu_events(&events).map_err(refused(ABORT))
    }

    fn set_pv_time(&self, address: GuestAddress) -> Result<(), HvError> {
        self.fd.set_u64(PVTIME_IPA, address.0, "place the record of stolen time")
    }

    fn pv_time(&self) -> Result<Option<GuestAddress>, HvError> {
        /// `INVALID_GPA`.
        const NOWHERE: u64 = u64::MAX;
        let address = self.fd.get_u64(PVTIME_IPA, "tell where the record of stolen time is")?;
        Ok((address != NOWHERE).then_some(GuestAddress(address)))
    }

    fn set_timer_ppi(&self, timer: Timer, ppi: Ppi) -> Result<(), HvError> {
        let timer = match timer {
            Timer::Virtual => KVM_ARM_VCPU_TIMER_IRQ_VTIMER,
            Timer::Physical => KVM_ARM_VCPU_TIMER_IRQ_PTIMER,
        };
        let irq = attribute(KVM_ARM_VCPU_TIMER_CTRL, timer);
        self.fd.set_u32(irq, ppi.intid(), "set a timer's interrupt")
    }

    fn serror(&self) -> Result<Option<SError>, HvError> {
        let events = self.fd.get_vcpu_events().map_err(refused("tell a pending SError"))?;
        let exception = events.exception;
        let esr = (exception.serror_has_esr != 0).then_some(exception.serror_esr);
        Ok((exception.serror_pending != 0).then_some(SError { esr }))
    }

    fn set_serror(&self, serror: SError) -> Result<(), HvError> {
        let mut events = kvm_vcpu_events::default();
        events.exception.serror_pending = 1;
        events.exception.serror_has_esr = serror.esr.is_some().into();
        events.exception.serror_esr = serror.esr.unwrap_or(0);
        self.fd.set_vcpu_events(&events).map_err(refused("make an SError pending"))
    }

    fn has_run(&self) -> bool {
        self.machine.has_run()
    }

    fn complete_access(&mut self) -> Result<(), HvError> {
        self.machine.runs();
        self.fd.set_kvm_immediate_exit(1);
        let result = self.fd.run().map(drop);
        self.fd.set_kvm_immediate_exit(0);
        match result {
            Err(error) if error.errno() != EINTR => {
                Err(HvError::new("complete an access", error.errno()))
            }
            _ => Ok(()),
        }
    }

    fn kicker(&mut self) -> Result<Box<dyn Kick>, HvError> {
        self.binding.bind(&self.fd)
    }

    fn run(&mut self) -> Result<Exit<'_>, HvError> {
        self.machine.runs();
        match self.fd.run() {
            // The one exit that comes with an errno, which kvm-ioctls drops.
            Ok(VcpuExit::MemoryFault { .. }) => Err(HvError::new(RUN, EFAULT)),
            Ok(_) => Ok(exit::decode(self.fd.get_kvm_run())),
            Err(error) if error.errno() == EINTR => {
                self.binding.consume();
                Ok(Exit::Interrupted)
            }
            Err(error) => Err(HvError::new(RUN, error.errno())),
        }
    }
}
