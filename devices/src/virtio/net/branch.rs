//! Where a card's wire branches off to a detour: the guest's frames for it leave there, and
//! its own come in.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::LARGEST_FRAME;
use crate::tap::HEADER_SIZE;
use crate::virtio::buffers::Buffers;
use crate::virtio::detour::{Detour, HEAD};

/// A detour, which outlives the workers of its card.
pub(super) struct Branch(Mutex<Box<dyn Detour>>);

impl Branch {
    pub(super) fn new(detour: Box<dyn Detour>) -> Self {
        Self(Mutex::new(detour))
    }

    /// The branch for a worker.
    ///
    /// # Errors
    /// The host has no timer for it.
    pub(super) fn work(self: Arc<Self>) -> io::Result<AtWork> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(AtWork { branch: self, timer, set: None, buffer: Vec::new(), asked: false })
    }

    /// The detour: nobody waits for it, as a card has one worker at a time.
    fn detour(&self) -> MutexGuard<'_, Box<dyn Detour>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A branch while a worker has it.
pub(super) struct AtWork {
    branch: Arc<Branch>,
    timer: OwnedFd,
    /// What the timer is set to.
    set: Option<Instant>,
    /// Room for a frame.
    buffer: Vec<u8>,
    /// Whether the detour has taken a frame since it was last asked for one.
    asked: bool,
}

impl AtWork {
    /// Takes a frame of the guest, with its header, if it is for the detour.
    pub(super) fn takes(&mut self, frame: &Buffers<'_>) -> bool {
        let mut head = [0; HEADER_SIZE + HEAD];
        let length = frame.peek(&mut head);
        let mut detour = self.branch.detour();
        if !detour.claims(&head[HEADER_SIZE.min(length)..length]) {
            return false;
        }
        // A longer one is lost, as on the tap.
        if frame.len() <= LARGEST_FRAME {
            self.buffer.resize(frame.len(), 0);
            frame.peek(&mut self.buffer);
            detour.take(&self.buffer[HEADER_SIZE..], Instant::now());
        }
        self.asked = true;
        true
    }

    /// Puts the next frame of the detour, with a header before it, into `buffer`: the length
    /// of both.
    pub(super) fn give(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let (header, frame) = buffer.split_at_mut(HEADER_SIZE);
        let length = self.branch.detour().give(frame, Instant::now())?;
        // Nothing is left undone of it (Virtio 1.2, 5.1.6).
        header.fill(0);
        Some(HEADER_SIZE + length.min(frame.len()))
    }

    /// Whether the detour has taken a frame since this was last asked.
    pub(super) fn was_asked(&mut self) -> bool {
        std::mem::take(&mut self.asked)
    }

    /// Readable when the detour may have a frame.
    pub(super) fn timer(&self) -> &OwnedFd {
        &self.timer
    }

    /// Sets the timer to what the detour says.
    pub(super) fn set_timer(&mut self) {
        let now = Instant::now();
        let due = self.branch.detour().due(now);
        if due == self.set {
            return;
        }
        self.set = due;
        // A time of zero would stop the timer.
        let wait = due.map(|due| due.saturating_duration_since(now).max(Duration::from_nanos(1)));
        let time = Itimerspec { it_interval: Timespec::default(), it_value: timespec(wait) };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time) {
            tracing::debug!(%error, "a detour is not called in time");
        }
    }
}

/// A wait as a timer has it: none as zero.
fn timespec(wait: Option<Duration>) -> Timespec {
    let wait = wait.unwrap_or_default();
    Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    }
}
