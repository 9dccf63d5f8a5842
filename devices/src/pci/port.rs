//! A root port with a slot (PCI Express Base 5.0, 7.5.1.3 and 6.7): a bridge to a bus of
//! its own, on which a function can come and go while the guest runs. The guest notices by
//! an interrupt, a message by MSI-X.
//!
//! What the guest says of the addresses below it is kept and means nothing: what is below
//! lies where it says itself, in the window of the root.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kedge_bus::{MsiPort, NotAtRest, PauseError, RestoreError, ResumeError, Stateful, Unsuitable};
use kedge_diag::Trouble;
use kedge_guest_memory::GuestRange;
use kedge_saved_state::{Bytes, Part, StateError};

use super::config::{
    BRIDGE_CONTROL, BUSES, COMMAND, ConfigSpace, Header, Identity, SECONDARY_RESET,
};
use super::function::{Function, Windows};
use super::msix::{Msix, MsixBar};
use super::saved::PortV1;
use super::slot::{Done, Slot};

/// Bytes of its registers: the table and the pending bits of its one vector.
const SIZE: u64 = 0x1000;
const TABLE: u32 = 0;
const PENDING: u32 = 0x800;
/// No address of registers.
const NOWHERE: u64 = u64::MAX;

/// What it is known as: the port that virtual machines have, driven by what its class says.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x000c,
    revision: 0,
    class: [0x06, 0x04, 0x00],
    header: Header::Bridge,
};

/// Hears of a card that the guest has let go of. It is called by a vCPU's thread.
pub type LetGo = Box<dyn Fn() + Send + Sync>;

/// A root port.
pub struct RootPort {
    number: u8,
    state: Mutex<State>,
    msix: Msix,
    msix_at: usize,
    slot: Slot,
    windows: Windows,
    start: AtomicU64,
    /// The bus below, as the guest numbers it: for who sends messages from there.
    bus: Arc<AtomicU8>,
    let_go: LetGo,
}

struct State {
    space: ConfigSpace,
    card: Option<Arc<dyn Function>>,
    /// The card is to go, and the guest was not asked yet: it is not done with its coming.
    is_to_ask: bool,
}

impl RootPort {
    /// The port of the empty slot `number`, from 1, whose registers can be reached in
    /// `windows`. Interrupts go to `messages`; `let_go` hears of cards.
    pub fn new(number: u8, windows: &[GuestRange], messages: MsiPort, let_go: LetGo) -> Self {
        let msix = Msix::new(1, messages);
        let mut space = ConfigSpace::new(&IDENTITY, SIZE);
        let slot = Slot::add_to(&mut space, number);
        let msix_at = msix.add_to(&mut space, MsixBar { table: TABLE, pending: PENDING });
        Self {
            number,
            state: Mutex::new(State { space, card: None, is_to_ask: false }),
            msix,
            msix_at,
            slot,
            windows: Windows::new(windows),
            start: AtomicU64::new(NOWHERE),
            bus: Arc::default(),
            let_go,
        }
    }

    /// The number of the bus below, which the guest changes.
    pub fn bus(&self) -> Arc<AtomicU8> {
        Arc::clone(&self.bus)
    }

    /// What the guest finds on bus `number`, as device 0, if that is the bus below.
    pub(super) fn below(&self, number: u8) -> Option<Arc<dyn Function>> {
        // Bus 0 is the root's, and this port's until the guest numbers it.
        (number != 0 && self.bus.load(Ordering::SeqCst) == number).then(|| self.powered())?
    }

    /// The card, if it has power.
    pub(super) fn powered(&self) -> Option<Arc<dyn Function>> {
        let state = self.state();
        state.card.as_ref().filter(|_| self.slot.is_powered(&state.space)).cloned()
    }

    /// Puts in a card before the guest runs.
    pub fn begin_with(&self, card: Arc<dyn Function>) {
        let mut state = self.state();
        state.card = Some(card);
        self.slot.begin_with_card(&mut state.space);
    }

    /// Puts in a card, and has the guest notice. There is none, and the last one was let go
    /// of, as [`RootPort::is_free`] says.
    pub fn put_in(&self, card: Arc<dyn Function>) {
        self.happens(|Self { slot, .. }, state| {
            state.card = Some(card);
            slot.put_in(&mut state.space);
        });
    }

    /// Whether a card can be put in: none is, and the guest is done with the last one.
    pub fn is_free(&self) -> bool {
        self.state().card.is_none() && self.has_let_go()
    }

    /// Whether the guest does not use the card that there may be, and knows that it does not.
    pub fn has_let_go(&self) -> bool {
        self.slot.is_dark(&self.state().space)
    }

    /// Asks the guest to let go of the card: as soon as it is done with its coming.
    pub fn ask(&self) {
        self.happens(|Self { slot, .. }, state| match slot.shines(&state.space) {
            true => slot.press(&mut state.space),
            false => state.is_to_ask = true,
        });
    }

    /// Takes the card out: what the guest does to it from now on goes nowhere.
    pub fn take_out(&self) -> Option<Arc<dyn Function>> {
        let mut card = None;
        self.happens(|Self { slot, .. }, state| {
            card = state.card.take();
            state.is_to_ask = false;
            slot.take_out(&mut state.space);
        });
        // Nothing of it is left where the guest put it.
        card.inspect(|card| card.reset())
    }

    /// Does something to the slot, and interrupts the guest where that is something new.
    fn happens<T>(&self, act: impl FnOnce(&Self, &mut State) -> T) -> T {
        let mut state = self.state();
        let before = self.slot.wants_interrupt(&state.space);
        let done = act(self, &mut state);
        if !before && self.slot.wants_interrupt(&state.space) {
            self.msix.notify(0);
        }
        done
    }

    /// Takes up what the guest has written to the space.
    fn obey(&self, space: &ConfigSpace) {
        let wanted = space.memory().filter(|start| self.windows.lead_to(*start, SIZE));
        self.start.store(wanted.unwrap_or(NOWHERE), Ordering::SeqCst);
        self.msix.obey(space, self.msix_at);
        let [_, below, ..] = space.word(BUSES).to_le_bytes();
        self.bus.store(below, Ordering::SeqCst);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the space as some guest could.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn restore_port(&self, saved: &PortV1) -> Result<(), StateError> {
        let bad = |field: &str, problem| StateError::field::<PortV1>(field, problem);
        if saved.vectors.len() != 1 {
            let problem = format!("are {}, and a port has one", saved.vectors.len());
            return Err(bad("vectors", problem));
        }
        let mut state = self.state();
        self.slot.adopt(&mut state.space, &saved.config.0);
        let restored = state.space.restore(&saved.config.0);
        restored.map_err(|at| bad("config", format!("is not this port's at {at:#x}")))?;
        state.is_to_ask = saved.is_to_ask;
        self.msix.restore(&saved.vectors);
        self.obey(&state.space);
        Ok(())
    }
}

impl Function for RootPort {
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.state().space.read(offset.into(), data);
    }

    fn write_config(&self, offset: u16, data: &[u8]) {
        let (offset, end) = (usize::from(offset), usize::from(offset) + data.len());
        let (done, is_dark, card) = self.happens(|Self { slot, .. }, state| {
            let was_dark = slot.is_dark(&state.space);
            let done = slot.write(&mut state.space, offset, data);
            if done == Done::Shining && std::mem::take(&mut state.is_to_ask) {
                slot.press(&mut state.space);
            }
            if offset < BUSES + 4 && end > COMMAND
                || offset < self.msix_at + 4 && end > self.msix_at
            {
                self.obey(&state.space);
            }
            let is_dark = !was_dark && slot.is_dark(&state.space);
            let resets = state.space.half(BRIDGE_CONTROL) & u16::from(SECONDARY_RESET) != 0;
            let is_reset = done == Done::SwitchedOff || resets;
            (done, is_dark, state.card.clone().filter(|_| is_reset || is_dark))
        });
        let Some(card) = card else { return };
        if !is_dark || done == Done::SwitchedOff {
            card.reset();
        }
        if is_dark {
            (self.let_go)();
        }
    }

    fn start(&self) -> Option<u64> {
        match self.start.load(Ordering::SeqCst) {
            NOWHERE => None,
            start => Some(start),
        }
    }

    fn size(&self) -> u64 {
        SIZE
    }

    fn reset(&self) {
        // Nothing leads to it that could.
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        match offset.checked_sub(PENDING.into()) {
            None => self.msix.read_table(offset, data),
            Some(offset) => self.msix.read_pending(offset, data),
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        if offset < PENDING.into() {
            self.msix.write_table(offset, data);
        }
        Ok(())
    }
}

impl Stateful for RootPort {
    fn name(&self) -> String {
        format!("PCI slot {}", self.number)
    }

    fn pause(&self, _: Instant) -> Result<(), PauseError> {
        Ok(())
    }

    fn resume(&self) -> Result<(), ResumeError> {
        Ok(())
    }

    fn save(&self) -> Result<Part, NotAtRest> {
        let state = self.state();
        let config = Bytes(state.space.bytes().to_vec());
        let vectors = self.msix.save();
        Ok(Part::of(&PortV1 { config, vectors, is_to_ask: state.is_to_ask }))
    }

    fn restore(&self, saved: &Part) -> Result<(), RestoreError> {
        let restored = saved.read().and_then(|saved| self.restore_port(&saved));
        restored.map_err(|error| RestoreError { device: self.name(), source: Trouble::new(error) })
    }
}

impl fmt::Debug for RootPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootPort").field("number", &self.number).finish_non_exhaustive()
    }
}
