//! The machine's clock page: it tells a guest, down to its programs, that its
//! counter was disrupted or that the machine was restored (Linux,
//! include/uapi/linux/vmclock-abi.h and bindings/ptp/amazon,vmclock.yaml; UAPI.13).
//! What was calibrated before is then to be calibrated again.
//!
//! `abi.rs` has the structure; here is what changes in it, and when.

mod abi;
pub mod saved;

use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kedge_bus::{IrqLine, Node, NotAtRest, PauseError, RestoreError, ResumeError, Stateful};
use kedge_diag::{Fix, Trouble};
use kedge_guest_memory::{Address, Bytes, GuestAddress, GuestMemory, GuestMemoryError, GuestRange};
use kedge_ids::u64_from;
use kedge_saved_state::{Part, StateError};

use self::abi::field;
use self::saved::VmClockV1;

/// The clock page is not in guest memory.
#[derive(Debug, thiserror::Error)]
#[error("the machine's clock page cannot be written to guest memory at {:#x}", address.0)]
pub struct WriteError {
    /// Where it belongs.
    pub address: GuestAddress,
    /// What the memory said.
    pub source: GuestMemoryError,
}

impl Fix for WriteError {
    fn fix(&self) -> Option<String> {
        None
    }
}

/// Where the device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Works,
    Paused,
    /// At rest, and the guest does not know yet that its counter was disrupted.
    Disrupted,
    /// At rest, and the guest does not know yet that it was restored.
    Restored,
}

/// What the lock protects.
#[derive(Clone, Debug)]
struct State {
    markers: VmClockV1,
    phase: Phase,
}

/// The clock page of one machine.
pub struct VmClock {
    memory: GuestMemory,
    page: GuestRange,
    irq: IrqLine,
    state: Mutex<State>,
}

impl VmClock {
    /// The clock in `page` of `memory`, which the guest keeps clear of, with
    /// nothing else in it: the guest may show it to its programs. Nothing is
    /// written yet: see [`Self::begin`].
    pub fn new(memory: GuestMemory, page: GuestRange, irq: IrqLine) -> Self {
        let markers = VmClockV1 { sequence: 0, disruptions: 0, generations: 0 };
        Self { memory, page, irq, state: Mutex::new(State { markers, phase: Phase::Works }) }
    }

    /// Writes the page for the first time: for a machine that was not restored,
    /// before it runs.
    ///
    /// # Errors
    /// The memory is not there.
    pub fn begin(&self) -> Result<(), WriteError> {
        let markers = self.state().markers.clone();
        self.write(&markers)
    }

    /// The guest's counter was set, or did not go on while the machine was paused:
    /// the guest is told when it goes on. Nothing where the device works.
    pub fn disrupt(&self) {
        let mut state = self.state();
        if state.phase == Phase::Paused {
            state.phase = Phase::Disrupted;
        }
    }

    /// How the device tree describes it. `reg` and `interrupts` are added by
    /// whoever knows them.
    pub fn node(&self) -> Node {
        Node::new("ptp", &["amazon,vmclock"])
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the page; who reads it meanwhile finds an odd sequence and tries
    /// again.
    fn write(&self, markers: &VmClockV1) -> Result<(), WriteError> {
        let &VmClockV1 { sequence, disruptions, generations } = markers;
        let put = || {
            self.store(field::SEQ_COUNT, &sequence.wrapping_sub(1).to_le_bytes())?;
            fence(Ordering::SeqCst);
            let size = u32::try_from(self.page.size).unwrap_or(u32::MAX);
            let mut structure = abi::structure(size);
            structure[field::DISRUPTION_MARKER..][..8].copy_from_slice(&disruptions.to_le_bytes());
            structure[field::VM_GENERATION_COUNTER..][..8]
                .copy_from_slice(&generations.to_le_bytes());
            self.store(0, &structure[..field::SEQ_COUNT])?;
            let rest = field::DISRUPTION_MARKER;
            self.store(rest, &structure[rest..])?;
            fence(Ordering::SeqCst);
            self.store(field::SEQ_COUNT, &sequence.to_le_bytes())
        };
        put().map_err(|source| WriteError { address: self.page.start, source })
    }

    fn store(&self, offset: usize, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        let at = self.page.start.checked_add(u64_from(offset));
        let at = at.ok_or(GuestMemoryError::InvalidGuestAddress(self.page.start))?;
        self.memory.write_slice(bytes, at)
    }
}

const NAME: &str = "the machine's clock page";

impl Stateful for VmClock {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn pause(&self, _deadline: Instant) -> Result<(), PauseError> {
        let mut state = self.state();
        if state.phase == Phase::Works {
            state.phase = Phase::Paused;
        }
        Ok(())
    }

    /// A guest whose counter was disrupted finds a new marker, one that was restored
    /// a new generation as well; either is told.
    fn resume(&self) -> Result<(), ResumeError> {
        let mut state = self.state();
        if matches!(state.phase, Phase::Disrupted | Phase::Restored) {
            let mut markers = state.markers.clone();
            markers.sequence = markers.sequence.wrapping_add(2);
            markers.disruptions = markers.disruptions.wrapping_add(1);
            let restored = u64::from(state.phase == Phase::Restored);
            markers.generations = markers.generations.wrapping_add(restored);
            self.write(&markers).map_err(|error| ResumeError {
                device: NAME.to_owned(),
                source: Trouble::new(error),
            })?;
            state.markers = markers;
            self.irq.pulse();
        }
        state.phase = Phase::Works;
        Ok(())
    }

    fn save(&self) -> Result<Part, NotAtRest> {
        let state = self.state();
        match state.phase {
            Phase::Works => Err(NotAtRest { device: NAME.to_owned() }),
            // Who restores it tells the guest of both.
            Phase::Paused | Phase::Disrupted | Phase::Restored => Ok(Part::of(&state.markers)),
        }
    }

    fn restore(&self, saved: &Part) -> Result<(), RestoreError> {
        let markers = saved.read().and_then(checked).map_err(|error| RestoreError {
            device: NAME.to_owned(),
            source: Trouble::new(error),
        })?;
        *self.state() = State { markers, phase: Phase::Restored };
        Ok(())
    }
}

fn checked(saved: VmClockV1) -> Result<VmClockV1, StateError> {
    match saved.sequence % 2 {
        0 => Ok(saved),
        _ => {
            let problem = format!("is {}, and odd: a change is under way", saved.sequence);
            Err(StateError::field::<VmClockV1>("sequence", problem))
        }
    }
}

impl fmt::Debug for VmClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmClock").field("page", &self.page).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
