//! The function's configuration space at work: its registers and its doorbells are where
//! the guest puts them.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kedge_bus::{Doorbell, DoorbellPost};
use kedge_ids::Ring;
use vmm_sys_util::eventfd::EventFd;

use super::place::{self, Places, at, window};
use crate::pci::{COMMAND, ConfigSpace, Msix, Windows};

/// No address of a range of memory.
const NOWHERE: u64 = u64::MAX;

/// The space, and what follows from it.
pub(super) struct Config {
    state: Mutex<State>,
    places: Places,
    windows: Windows,
    post: Arc<dyn DoorbellPost>,
    /// Where the registers start, or [`NOWHERE`]: for who looks for them.
    start: AtomicU64,
}

struct State {
    space: ConfigSpace,
    bells: Vec<Bell>,
}

/// A doorbell, and whether it hangs where the registers are.
struct Bell {
    bell: Doorbell,
    hangs: bool,
}

/// The doorbells of queues, by index.
///
/// # Errors
/// The host has no more file descriptors.
pub(super) fn doorbells(events: &[EventFd]) -> io::Result<Vec<Doorbell>> {
    let numbered = (0_u16..).zip(events);
    let bell = |(index, event): (u16, &EventFd)| {
        let offset = at::NOTIFY + place::DOORBELL * u64::from(index);
        Ok(Doorbell { offset, ring: Ring::Half(index), event: event.try_clone()? })
    };
    numbered.map(bell).collect()
}

impl Config {
    pub(super) fn new(
        (space, places): (ConfigSpace, Places),
        windows: Windows,
        (post, bells): (Arc<dyn DoorbellPost>, Vec<Doorbell>),
    ) -> Self {
        let bells = bells.into_iter().map(|bell| Bell { bell, hangs: false }).collect();
        let state = Mutex::new(State { space, bells });
        Self { state, places, windows, post, start: AtomicU64::new(NOWHERE) }
    }

    /// Where the registers start for the time being.
    pub(super) fn start(&self) -> Option<u64> {
        match self.start.load(Ordering::SeqCst) {
            NOWHERE => None,
            start => Some(start),
        }
    }

    pub(super) fn read(&self, offset: usize, data: &mut [u8]) {
        self.state().space.read(offset, data);
    }

    /// Stores, and does what the guest wants by it.
    pub(super) fn write(&self, offset: usize, data: &[u8], msix: &Msix) {
        let mut state = self.state();
        state.space.write(offset, data);
        let touches = |at: usize, length| offset < at + length && at < offset + data.len();
        // The command register to the end of the range's address.
        if touches(COMMAND, 0x14) {
            self.follow(&mut state);
        }
        if touches(self.places.msix, 4) {
            msix.obey(&state.space, self.places.msix);
        }
    }

    /// Forgets all that the guest has written: the registers are nowhere.
    pub(super) fn reset(&self, msix: &Msix) {
        let mut state = self.state();
        state.space.reset();
        self.follow(&mut state);
        msix.reset();
    }

    /// All of the space, to save.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state().space.bytes().to_vec()
    }

    /// Takes up what was saved.
    ///
    /// # Errors
    /// Where it is not this device's.
    pub(super) fn restore(&self, saved: &[u8], msix: &Msix) -> Result<(), u64> {
        let mut state = self.state();
        state.space.restore(saved)?;
        self.follow(&mut state);
        msix.obey(&state.space, self.places.msix);
        Ok(())
    }

    /// Moves to where the guest wants the registers, and the doorbells with them.
    fn follow(&self, State { space, bells }: &mut State) {
        let wanted = space.memory().filter(|start| self.windows.lead_to(*start, place::SIZE));
        let wanted = wanted.unwrap_or(NOWHERE);
        let before = self.start.swap(wanted, Ordering::SeqCst);
        if before == wanted {
            return;
        }
        for Bell { bell, hangs } in bells {
            if *hangs {
                self.post.take_down(before, bell);
            }
            *hangs = wanted != NOWHERE && self.post.hang(wanted, bell);
        }
    }

    /// The registers that the guest wants to reach through the space, where an access of it
    /// does that: from where, and how many bytes (4.1.4.9).
    pub(super) fn wants_window(&self, offset: usize, length: usize) -> Option<(u64, usize)> {
        let start = self.places.window;
        let data = start + window::DATA;
        if offset >= data + 4 || offset + length <= data {
            return None;
        }
        let space = &self.state().space;
        let [bar, ..] = space.word(start + window::BAR).to_le_bytes();
        let at = u64::from(space.word(start + window::OFFSET));
        let length = space.word(start + window::LENGTH);
        let fits = at.is_multiple_of(u64::from(length.max(1)))
            && at.saturating_add(length.into()) <= place::SIZE;
        match length {
            1 | 2 | 4 if bar == 0 && fits => Some((at, usize::try_from(length).ok()?)),
            _ => None,
        }
    }

    /// What the guest wants to store there.
    pub(super) fn window_data(&self) -> [u8; 4] {
        self.state().space.word(self.places.window + window::DATA).to_le_bytes()
    }

    /// What the guest is to load from there.
    pub(super) fn show_window(&self, data: [u8; 4]) {
        self.state().space.put(self.places.window + window::DATA, &data);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the space as some guest could.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
