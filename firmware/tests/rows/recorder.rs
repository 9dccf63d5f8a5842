//! A vCPU of which everything that is done to its registers is written down.

use std::sync::{Arc, Mutex};

use kedge_guest_memory::GuestAddress;
use kedge_hv::{Exit, HvError, Kick, MpState, SError, Timer, Vcpu, VcpuFeatures, VcpuReg};
use kedge_ids::{Ppi, RegId, VcpuId};

/// Something done to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It was read.
    Read(VcpuId, RegId),
    /// It was written, and took it.
    Written(VcpuId, RegId),
    /// It was written, and did not take it.
    Refused(VcpuId, RegId),
}

/// What was done to the registers of a machine's vCPUs, in order.
pub(crate) type Log = Arc<Mutex<Vec<Access>>>;

/// A bit of the ids that no kernel has given a meaning.
pub(crate) const UNKNOWN_BIT: u64 = 1 << 40;

/// A vCPU that is watched.
pub(crate) struct Recorder {
    pub(crate) vcpu: Box<dyn Vcpu>,
    pub(crate) log: Log,
    /// This register is listed and cannot be read.
    pub(crate) broken: Option<RegId>,
    /// This register is listed with [`UNKNOWN_BIT`].
    pub(crate) flagged: Option<RegId>,
}

impl Recorder {
    fn note(&self, access: Access) {
        self.log.lock().unwrap().push(access);
    }

    /// The id by which the kernel below knows a register.
    fn below(&self, id: RegId) -> RegId {
        let plain = RegId(id.0 & !UNKNOWN_BIT);
        if self.flagged == Some(plain) && id != plain { plain } else { id }
    }
}

impl Vcpu for Recorder {
    fn id(&self) -> VcpuId {
        self.vcpu.id()
    }
    fn init(&mut self, features: VcpuFeatures) -> Result<(), HvError> {
        self.vcpu.init(features)
    }
    fn finalize_sve(&mut self) -> Result<(), HvError> {
        self.vcpu.finalize_sve()
    }
    fn reg_list(&self) -> Result<Vec<RegId>, HvError> {
        let shown = |id: RegId| {
            if self.flagged == Some(id) { RegId(id.0 | UNKNOWN_BIT) } else { id }
        };
        Ok(self.vcpu.reg_list()?.into_iter().map(shown).collect())
    }
    fn reg(&self, id: RegId) -> Result<VcpuReg, HvError> {
        const EIO: i32 = 5;
        self.note(Access::Read(self.id(), id));
        if self.broken == Some(id) {
            return Err(HvError::new("read a register", EIO));
        }
        self.vcpu.reg(self.below(id))
    }
    fn set_reg(&self, id: RegId, value: &[u8]) -> Result<(), HvError> {
        let set = self.vcpu.set_reg(self.below(id), value);
        self.note(match set {
            Ok(()) => Access::Written(self.id(), id),
            Err(_) => Access::Refused(self.id(), id),
        });
        set
    }
    fn mp_state(&self) -> Result<MpState, HvError> {
        self.vcpu.mp_state()
    }
    fn set_mp_state(&self, state: MpState) -> Result<(), HvError> {
        self.vcpu.set_mp_state(state)
    }
    fn init_pmu(&self, irq: Ppi) -> Result<(), HvError> {
        self.vcpu.init_pmu(irq)
    }
    fn inject_external_abort(&mut self) -> Result<(), HvError> {
        self.vcpu.inject_external_abort()
    }
    fn set_pv_time(&self, address: GuestAddress) -> Result<(), HvError> {
        self.vcpu.set_pv_time(address)
    }
    fn pv_time(&self) -> Result<Option<GuestAddress>, HvError> {
        self.vcpu.pv_time()
    }
    fn set_timer_ppi(&self, timer: Timer, ppi: Ppi) -> Result<(), HvError> {
        self.vcpu.set_timer_ppi(timer, ppi)
    }
    fn serror(&self) -> Result<Option<SError>, HvError> {
        self.vcpu.serror()
    }
    fn set_serror(&self, serror: SError) -> Result<(), HvError> {
        self.vcpu.set_serror(serror)
    }
    fn has_run(&self) -> bool {
        self.vcpu.has_run()
    }
    fn complete_access(&mut self) -> Result<(), HvError> {
        self.vcpu.complete_access()
    }
    fn kicker(&mut self) -> Result<Box<dyn Kick>, HvError> {
        self.vcpu.kicker()
    }
    fn run(&mut self) -> Result<Exit<'_>, HvError> {
        self.vcpu.run()
    }
}
