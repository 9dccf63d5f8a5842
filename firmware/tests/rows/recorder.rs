//! A vCPU of which everything that is done to its registers is written down.

use std::sync::{Arc, Mutex};

use kedge_hv::{Exit, HvError, Vcpu, VcpuReg};
use kedge_ids::{RegId, VcpuId};

use crate::hand_on::hand_on_to;

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
    hand_on_to!(vcpu);

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
    fn complete_access(&mut self) -> Result<(), HvError> {
        self.vcpu.complete_access()
    }
    fn run(&mut self) -> Result<Exit<'_>, HvError> {
        self.vcpu.run()
    }
}
