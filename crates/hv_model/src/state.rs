//! The state of a model machine, behind one lock. What it means is decided
//! elsewhere: `registers`, `firmware`, `run`.

use std::collections::BTreeMap;

use kedge_hv::{MpState, Msi, PmuEvents, SError, SmcccRange, Timer, VcpuFeatures};
use kedge_ids::{Ppi, RegId, Ring, Spi};
use vmm_sys_util::epoll::Epoll;
use vmm_sys_util::eventfd::EventFd;

use crate::gic::GicState;
use crate::memory::Slot;
use crate::program::{Program, Step};
use crate::release::Ability;

/// Everything a machine remembers.
#[derive(Debug)]
pub(crate) struct VmState {
    pub(crate) ipa_bits: u8,
    pub(crate) slots: BTreeMap<u32, Slot>,
    /// Registers that the machine holds, once written.
    pub(crate) shared: BTreeMap<RegId, Vec<u8>>,
    /// The features of its first vCPU.
    pub(crate) features: Option<VcpuFeatures>,
    pub(crate) vcpus: BTreeMap<u32, VcpuState>,
    pub(crate) gic: Option<GicState>,
    pub(crate) ran: bool,
    /// vCPUs that are in their guest.
    pub(crate) running: usize,
    pub(crate) dead: bool,
    pub(crate) suspend: Ability,
    /// Whether the main ID registers are the machine's.
    pub(crate) imp_ids: Ability,
    /// What its user said of calls of the firmware.
    pub(crate) filter: Vec<SmcccRange>,
    /// Whether its user gave its counters a distance from the host's.
    pub(crate) counters: Counters,
    /// The performance counters of its vCPUs, once its user chose.
    pub(crate) pmu_counters: Option<u64>,
    /// Events that its performance monitors do not count.
    pub(crate) hidden_events: Vec<PmuEvents>,
    pub(crate) irqs: Vec<Irq>,
    /// The triggers of `irqs`, by index.
    pub(crate) triggers: Epoll,
    pub(crate) doorbells: Vec<Doorbell>,
    /// Messages that came to the translation service.
    pub(crate) messages: Vec<Msi>,
}

impl VmState {
    /// Wakes the vCPUs that wait for something.
    pub(crate) fn wake_all(&self) {
        for vcpu in self.vcpus.values() {
            // The counter only saturates at 2^64 - 2 pending wake-ups.
            let _ = vcpu.wake.write(1);
        }
    }
}

/// Who decides a machine's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counters {
    /// Whoever writes them.
    Written,
    /// Its user's offset.
    Offset,
}

/// An interrupt that is raised by an event, or directly.
#[derive(Debug)]
pub(crate) struct Irq {
    pub(crate) spi: Spi,
    /// The event, and what it is known by.
    pub(crate) trigger: Option<(EventFd, String)>,
    /// Edges that no script has waited for yet.
    pub(crate) pending: u64,
    /// Edges since the start.
    pub(crate) raised: u64,
}

impl Irq {
    /// One edge.
    pub(crate) fn raise(&mut self) {
        self.pending += 1;
        self.raised += 1;
    }
}

/// A store that rings an event.
#[derive(Debug)]
pub(crate) struct Doorbell {
    pub(crate) address: u64,
    pub(crate) ring: Ring,
    pub(crate) event: EventFd,
    pub(crate) identity: String,
    /// Rings by the guest.
    pub(crate) rung: u64,
}

/// How far a vCPU's vector lengths are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sve {
    Without,
    Choosing,
    Final,
}

/// An access that its user has answered but the guest has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    None,
    Load { reg: u8, address: u64, length: usize },
    Store,
}

/// Everything a vCPU remembers.
#[derive(Debug)]
pub(crate) struct VcpuState {
    /// None before its first initialisation.
    pub(crate) features: Option<VcpuFeatures>,
    pub(crate) regs: BTreeMap<RegId, Vec<u8>>,
    pub(crate) sve: Sve,
    pub(crate) mp: MpState,
    pub(crate) pending: Pending,
    /// Where CPU_ON wants it to start, and with which x0, until it notices.
    pub(crate) start: Option<(u64, u64)>,
    pub(crate) pmu: Option<Ppi>,
    /// The interrupts of its virtual and its physical timer.
    pub(crate) timers: [Ppi; 2],
    /// Whether its interrupts were checked for the last time.
    pub(crate) checked: bool,
    /// Which timer has claimed which interrupt.
    pub(crate) claims: BTreeMap<Ppi, Timer>,
    /// Where its record of stolen time is.
    pub(crate) pv_time: Option<u64>,
    /// The SError that waits for it.
    pub(crate) serror: Option<SError>,
    pub(crate) ran: bool,
    pub(crate) program: Program,
    /// Where its script lies: chosen when it first runs, and again after a reset.
    pub(crate) base: Option<u64>,
    /// The address of the last access that left the guest.
    pub(crate) fault: u64,
    pub(crate) wake: EventFd,
}

impl VcpuState {
    /// One that is not initialised.
    pub(crate) fn new(program: Program, wake: EventFd) -> Self {
        Self {
            features: None,
            regs: BTreeMap::new(),
            sve: Sve::Without,
            mp: MpState::Runnable,
            pending: Pending::None,
            start: None,
            pmu: None,
            timers: [Ppi::VIRTUAL_TIMER, Ppi::PHYSICAL_TIMER],
            checked: false,
            claims: BTreeMap::new(),
            pv_time: None,
            serror: None,
            ran: false,
            program,
            base: None,
            fault: 0,
            wake,
        }
    }

    /// The interrupt of a timer.
    pub(crate) fn timer(&mut self, timer: Timer) -> &mut Ppi {
        match timer {
            Timer::Virtual => &mut self.timers[0],
            Timer::Physical => &mut self.timers[1],
        }
    }

    /// A 64-bit register as it is stored, 0 when there is none.
    pub(crate) fn raw(&self, id: RegId) -> u64 {
        self.regs.get(&id).map_or(0, |value| number(value))
    }

    /// Stores a 64-bit register.
    pub(crate) fn put(&mut self, id: RegId, value: u64) {
        self.regs.insert(id, value.to_le_bytes().to_vec());
    }

    /// Moves the program counter to the next step.
    pub(crate) fn advance(&mut self) {
        self.jump(1);
    }

    /// Moves the program counter by so many steps.
    pub(crate) fn jump(&mut self, steps: i64) {
        let pc = self.raw(RegId::PC).wrapping_add_signed(steps * 4);
        self.put(RegId::PC, pc);
    }

    /// The step that the program counter stands on.
    pub(crate) fn step(&mut self) -> Option<Step> {
        let pc = self.raw(RegId::PC);
        let base = *self.base.get_or_insert(self.program.base.unwrap_or(pc));
        let vector = self.raw(crate::run::VBAR_EL1).wrapping_add(crate::run::VECTOR);
        at(&self.program.main, pc.wrapping_sub(base))
            .or_else(|| at(&self.program.vector, pc.wrapping_sub(vector)))
            .cloned()
    }
}

fn at(steps: &[Step], offset: u64) -> Option<&Step> {
    steps.get(usize::try_from(offset / 4).ok()?)
}

/// Up to eight little-endian bytes as a number.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
