//! A virtual CPU: registers, power state, running.

use kedge_guest_memory::GuestAddress;
use kedge_ids::{Ppi, RegId, VcpuId};

use crate::{Exit, HvError, VcpuFeatures};

/// The value of a register: up to 256 bytes, little endian.
pub type VcpuReg = Vec<u8>;

/// Whether a vCPU runs, as PSCI sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MpState {
    /// It runs, or would if nobody held it.
    Runnable,
    /// It is off: PSCI CPU_OFF, or never turned on.
    Stopped,
    /// It waits for an interrupt, the machine's user having said so (Linux 5.19).
    Suspended,
}

/// A timer of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// `CNTV_`.
    Virtual,
    /// `CNTP_`.
    Physical,
}

/// Some events of performance monitors, by number (Arm DDI 0487, D13.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PmuEvents {
    /// The first.
    pub first: u16,
    /// How many.
    pub count: u16,
}

/// An SError interrupt that the guest has not taken yet. It is in no register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SError {
    /// The instruction-specific syndrome that the guest will read, bits 24:0 of
    /// `ESR_EL1`. None on a host without RAS, where it reads what the hardware says.
    pub esr: Option<u64>,
}

/// Makes a vCPU's [`Vcpu::run`] return, from any thread.
pub trait Kick: Send + Sync {
    /// The running or next [`Vcpu::run`] returns [`Exit::Interrupted`] soon, at
    /// least once.
    fn kick(&self);
}

/// A virtual CPU. One thread owns it; it keeps its machine alive.
pub trait Vcpu: Send {
    /// Its index.
    fn id(&self) -> VcpuId;

    /// Gives it the host's preferred target and these features, and resets it.
    ///
    /// # Errors
    /// `EINVAL`: a feature this host lacks, or features that differ from the
    /// other vCPUs'; `ENOENT`: a feature the kernel does not know.
    fn init(&mut self, features: VcpuFeatures) -> Result<(), HvError>;

    /// Ends the choice of SVE vector lengths.
    ///
    /// # Errors
    /// `EPERM`: done before; `EINVAL`: the vCPU has no SVE.
    fn finalize_sve(&mut self) -> Result<(), HvError>;

    /// The ids of all its registers, as many as there are.
    ///
    /// # Errors
    /// `ENOEXEC` before `init`, `EPERM` before `finalize_sve`.
    fn reg_list(&self) -> Result<Vec<RegId>, HvError>;

    /// Registers that read zero when the vCPU was initialised, ascending; none where nobody
    /// has looked.
    fn born_zero(&self) -> &[RegId] {
        &[]
    }

    /// Reads a register, as long as its id says.
    ///
    /// # Errors
    /// `ENOENT`: no such register; `ENOEXEC`: before `init`.
    fn reg(&self, id: RegId) -> Result<VcpuReg, HvError>;

    /// Writes a register.
    ///
    /// # Errors
    /// `ENOENT`: no such register; `EINVAL`: not this value; `EBUSY`: too late.
    fn set_reg(&self, id: RegId, value: &[u8]) -> Result<(), HvError>;

    /// Reads a 64-bit register.
    ///
    /// # Errors
    /// As [`Vcpu::reg`]; `EINVAL` when the register has another size.
    fn reg64(&self, id: RegId) -> Result<u64, HvError> {
        let value = self.reg(id)?;
        let bytes =
            value.try_into().map_err(|_| HvError::new("read a register as 64 bits", EINVAL))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a 64-bit register.
    ///
    /// # Errors
    /// As [`Vcpu::set_reg`].
    fn set_reg64(&self, id: RegId, value: u64) -> Result<(), HvError> {
        self.set_reg(id, &value.to_le_bytes())
    }

    /// Whether it is on.
    ///
    /// # Errors
    /// The hypervisor cannot say.
    fn mp_state(&self) -> Result<MpState, HvError>;

    /// Turns it on or off.
    ///
    /// # Errors
    /// `EINVAL`: a state this host does not know.
    fn set_mp_state(&self, state: MpState) -> Result<(), HvError>;

    /// Makes the PMU's overflow interrupt `irq` and the PMU ready. After the
    /// interrupt controller is.
    ///
    /// # Errors
    /// The vCPU has no PMU, or another interrupt was set before.
    fn init_pmu(&self, irq: Ppi) -> Result<(), HvError>;

    /// Hides events of the performance monitors from the guest, of the whole machine, for
    /// its life: they are not counted, and `PMCEID0_EL0` and `PMCEID1_EL0` do not have
    /// them. Before [`Vcpu::init_pmu`]. There is no way to read what was hidden.
    ///
    /// # Errors
    /// `ENODEV`: the vCPU has no PMU; `EINVAL`: no event, or one past the last that the
    /// PMU's version has; `EBUSY`: a PMU is ready, or a vCPU has run.
    fn hide_pmu_events(&self, events: PmuEvents) -> Result<(), HvError>;

    /// Reads system registers as a guest does, by instructions: what a kernel leaves to
    /// the processor is not always what it tells its user. Nothing where the guest may
    /// not read one.
    ///
    /// For a vCPU of a scratch machine, fresh from [`Vcpu::init`], and once: the machine
    /// has run then, its memory slot 0 is taken, and registers have changed.
    ///
    /// # Errors
    /// `EINVAL`: no system register, or more than fit a page of code; all errors of
    /// [`Vm::map_ram`](crate::Vm::map_ram) and [`Vcpu::run`].
    fn read_as_guest(&mut self, ids: &[RegId]) -> Result<Vec<Option<u64>>, HvError>;

    /// Answers the access of the last exit with a synchronous external data abort,
    /// which the guest takes when it next runs. After an MMIO exit it takes the
    /// place of the access: neither is anything loaded, nor is the program counter
    /// past the instruction. The registers show it after [`Vcpu::complete_access`];
    /// until then a host may keep it elsewhere (Linux 6.1 and 6.12 do).
    ///
    /// # Errors
    /// The host cannot (`KVM_CAP_ARM_INJECT_EXT_DABT`, Linux 5.5).
    fn inject_external_abort(&mut self) -> Result<(), HvError>;

    /// Places the vCPU's record of stolen time (Arm DEN0057, 3): 64 bytes of mapped
    /// RAM, for the life of the vCPU. The guest is told where when it asks, and the
    /// record is zeroed then; the host adds to it whenever it runs the vCPU, asked or
    /// not.
    ///
    /// # Errors
    /// `ENXIO`: the host has no stolen time to tell
    /// ([`crate::Abilities::pv_time`]); `EINVAL`: not aligned to 64 bytes, or not in
    /// a memory slot; `EEXIST`: placed before.
    fn set_pv_time(&self, address: GuestAddress) -> Result<(), HvError>;

    /// Where the record of stolen time is, if it was placed.
    ///
    /// # Errors
    /// `ENXIO`: the host has no stolen time to tell.
    fn pv_time(&self) -> Result<Option<GuestAddress>, HvError>;

    /// Makes `ppi` the interrupt of a timer, on all vCPUs that there are. Without
    /// this it is [`Ppi::VIRTUAL_TIMER`] or [`Ppi::PHYSICAL_TIMER`].
    ///
    /// # Errors
    /// `EBUSY`: a vCPU has run; `EINVAL`: the machine has no interrupt controller. One
    /// interrupt for two purposes is found out by the first [`Vcpu::run`]: `EINVAL`.
    fn set_timer_ppi(&self, timer: Timer, ppi: Ppi) -> Result<(), HvError>;

    /// The SError that waits for the guest, if one does.
    ///
    /// # Errors
    /// `ENOEXEC` before `init`.
    fn serror(&self) -> Result<Option<SError>, HvError>;

    /// Makes an SError wait for the guest. It cannot be taken back.
    ///
    /// # Errors
    /// `EINVAL`: bits beyond the syndrome, or a syndrome on a host without RAS;
    /// `ENOEXEC` before `init`.
    fn set_serror(&self, serror: SError) -> Result<(), HvError>;

    /// Whether any vCPU of the machine was ever entered, to run or to complete an access:
    /// what a guest may have seen is not to change any more. Kernels freeze most of it
    /// by themselves, and not the PSCI version.
    fn has_run(&self) -> bool;

    /// Completes the access of the last exit without running guest code.
    ///
    /// # Errors
    /// The hypervisor cannot run the vCPU at all.
    fn complete_access(&mut self) -> Result<(), HvError>;

    /// Binds the vCPU to the calling thread, the one that will run it.
    ///
    /// # Errors
    /// The thread's signals cannot be set up.
    fn kicker(&mut self) -> Result<Box<dyn Kick>, HvError>;

    /// Runs guest code until something needs the machine's attention.
    ///
    /// # Errors
    /// The vCPU cannot run: not initialised, or the guest touched memory that
    /// its host lost (`EFAULT`).
    fn run(&mut self) -> Result<Exit<'_>, HvError>;
}

const EINVAL: i32 = 22;
