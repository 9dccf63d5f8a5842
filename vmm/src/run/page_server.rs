//! A guest whose memory another process has: a page server, which can end. Whoever waits
//! for a page then waits for good, the machine's own thread too.
//!
//! Before the guest has gone on, that is mended: pages become zeroes, whoever waited goes
//! on, and what was to be restored is thrown away. Afterwards nothing may see such a page,
//! since a device could write it to a disk: the machine is left as it stands, its memory
//! and its threads with it, until the process ends.

use std::io;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kedge_guest_memory::PageServer;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::Event;
use crate::machine::RunError;
use crate::surroundings::Surroundings;

/// How long a machine may take to hear of it.
const PATIENCE: Duration = Duration::from_secs(3);
/// The thread does next to nothing.
const STACK_BYTES: usize = 64 * 1024;

/// Watches over the page server of a machine, on a thread of its own. Dropped, together
/// with what was in its memory, it ends.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    server: PageServer,
    stage: Mutex<Stage>,
    changed: Condvar,
    /// Readable once the machine is gone.
    over: OwnedFd,
}

/// What a machine is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is being restored.
    Restored,
    /// It was, without a server.
    GivenUp,
    /// Its guest may go on.
    Alive,
    /// It knows that the server has ended.
    Told,
}

impl Watch {
    /// Watches over `server` for a machine that hears of `events`, and is being restored.
    ///
    /// # Errors
    /// The host has no more threads or descriptors.
    pub(crate) fn begin(
        server: PageServer,
        events: &Sender<Event>,
        surroundings: &Surroundings,
    ) -> io::Result<Self> {
        let over = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stage = Mutex::new(Stage::Restored);
        let shared = Arc::new(Shared { server, stage, changed: Condvar::new(), over });
        let (watched, events, around) = (Arc::clone(&shared), events.clone(), surroundings.clone());
        let builder = std::thread::Builder::new().name("page server".to_owned());
        let thread = builder.stack_size(STACK_BYTES).spawn(move || {
            if watched.wait_for_end() {
                watched.tell(&events, &around);
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Whether a machine that is being restored found pages of zeroes.
    pub(crate) fn has_given_up(&self) -> bool {
        *self.shared.stage() == Stage::GivenUp
    }

    /// The machine is restored: whether its guest may go on.
    pub(crate) fn is_restored(&self) -> bool {
        let mut stage = self.shared.stage();
        if *stage == Stage::Restored {
            *stage = Stage::Alive;
        }
        *stage == Stage::Alive
    }

    /// The machine knows that the server has ended, and leaves all as it stands.
    pub(crate) fn leave(mut self) {
        *self.shared.stage() = Stage::Told;
        self.shared.changed.notify_all();
        drop(self.thread.take());
        // Its descriptor must not be closed before the process ends.
        std::mem::forget(self);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.shared.stage() = Stage::Told;
        self.shared.changed.notify_all();
        // It is not readable yet.
        let _ = rustix::io::write(&self.shared.over, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of the server, or of the machine: whether it was the server's.
    fn wait_for_end(&self) -> bool {
        let ended = self.server.ended();
        loop {
            let mut fds =
                [PollFd::new(&self.over, PollFlags::IN), PollFd::new(&ended, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(_) => return false,
                Ok(_) if !fds[0].revents().is_empty() => return false,
                Ok(_) => return true,
            }
        }
    }

    /// The server has ended.
    fn tell(&self, events: &Sender<Event>, around: &Surroundings) {
        let mut stage = self.stage();
        if *stage == Stage::Restored {
            *stage = Stage::GivenUp;
            drop(stage);
            return self.server.give_up();
        }
        // A machine that is gone needs no pages.
        let _ = events.send(Event::PageServerEnded);
        let waited =
            self.changed.wait_timeout_while(stage, PATIENCE, |stage| *stage != Stage::Told);
        let (stage, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(stage);
        if waited.timed_out() {
            around.is_stuck(&RunError::PageServerEnded);
        }
    }
}
