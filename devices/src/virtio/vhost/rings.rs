//! Queues on their way to a back end and home again.
//!
//! A back end says how far it has come in the available ring, and finishes what it took;
//! a queue is home when all of that is in the used ring. A back end that has ended, or
//! talks nonsense, gets nothing back: its queues are home at once, and broken.

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kedge_diag::Trouble;
use kedge_guest_memory::{Address, Bytes, GuestAddress, GuestMemory, WriteLog, dirty};
use virtio_queue::QueueT;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::BackEndError;
use super::alarm::Alarm;
use super::answers::{self, LOG_ALL};
use super::back_end::{BackEnd, Place, Session};
use super::worker::{CallWorker, Ears};
use crate::virtio::device::{Activation, ActiveQueue};
use crate::virtio::worker::{LoopError, Running, stop};

/// How long a back end may take to finish what it took where nobody says how long. Under a
/// fuzzer there is less of it.
const PATIENCE: Duration = Duration::from_millis(if cfg!(fuzzing) { 20 } else { 10_000 });
/// How long to wait between two looks at that.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// Queues that a back end has.
pub(in crate::virtio) struct AtWork {
    lent: Vec<Lent>,
    features: u64,
    memory: GuestMemory,
    /// Where the back end notes what it writes.
    log: Option<WriteLog>,
    alarm: Arc<Alarm>,
    running: Option<Running>,
}

/// One of them.
struct Lent {
    active: ActiveQueue,
    call: EventFd,
    error: EventFd,
    /// The used index of which the driver was told before.
    told: u16,
}

impl std::fmt::Debug for AtWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AtWork").field("features", &self.features).finish_non_exhaustive()
    }
}

/// Gives the queues of `activation` to `back_end`, which serves `device`: "disk `root`".
///
/// # Errors
/// The back end does not take them, or the host is out of resources.
pub(in crate::virtio) fn lend(
    back_end: &mut (impl BackEnd + ?Sized),
    activation: Activation,
    device: String,
) -> Result<AtWork, LoopError> {
    let resource = |error: BackEndError| LoopError::Resource(Trouble::new(error));
    let alarm = Alarm::new(device, &activation);
    let Activation { memory, features, queues, interrupt: _, event_loop } = activation;
    let log = log_for(back_end, &memory).map_err(resource)?;
    let lent = queues.into_iter().map(Lent::new).collect::<Result<Vec<_>, _>>();
    let mut at_work =
        AtWork { lent: lent.map_err(resource)?, features, memory, log, alarm, running: None };
    let connection = back_end.connection().map_err(resource)?;
    let ears = at_work.lent.iter().map(Lent::ears).collect::<Result<_, _>>().map_err(resource)?;
    let worker = CallWorker { ears, connection, alarm: Arc::clone(&at_work.alarm) };
    back_end.begin(&at_work.session()).map_err(resource)?;
    match event_loop.start(Box::new(worker)) {
        Ok(running) => at_work.running = Some(running),
        Err(error) => {
            // Nobody hears it: it must not work on.
            let _ = back_end.stop(&at_work.indices());
            return Err(error);
        }
    }
    Ok(at_work)
}

/// Where `back_end` is to note what it writes, if changes of `memory` are noted.
fn log_for(
    back_end: &(impl BackEnd + ?Sized),
    memory: &GuestMemory,
) -> Result<Option<WriteLog>, BackEndError> {
    if !dirty::is_tracked(memory) || back_end.features() & LOG_ALL == 0 {
        return Ok(None);
    }
    let log = WriteLog::new(memory);
    log.map(Some).map_err(|source| BackEndError::Host { what: "memory for a log", source })
}

/// Takes the queues in `slot` home from `back_end`, by `deadline` where there is one. There
/// are none where nothing is at work.
///
/// # Errors
/// The loop is gone; or it is [`LoopError::Late`], and then the back end works on.
pub(in crate::virtio) fn take_home(
    slot: &mut Option<AtWork>,
    back_end: &mut (impl BackEnd + ?Sized),
    deadline: Option<Instant>,
) -> Result<Vec<ActiveQueue>, LoopError> {
    let Some(mut at_work) = slot.take() else { return Ok(Vec::new()) };
    if at_work.finish(back_end, deadline).is_err() {
        *slot = Some(at_work);
        return Err(LoopError::Late);
    }
    stop(&mut at_work.running, None)?;
    Ok(at_work.retire())
}

/// It is at something yet, and works on.
struct Late;

impl AtWork {
    fn session(&self) -> Session<'_> {
        let places = self.lent.iter().map(Lent::place).collect();
        Session { features: self.features, memory: &self.memory, log: self.log.as_ref(), places }
    }

    /// Has `back_end` leave the queues alone and finish what it took.
    fn finish(
        &mut self,
        back_end: &mut (impl BackEnd + ?Sized),
        deadline: Option<Instant>,
    ) -> Result<(), Late> {
        if self.alarm.is_raised() {
            return Ok(());
        }
        match back_end.stop(&self.indices()) {
            Ok(bases) if !back_end.lingers() => {
                self.come_home(&bases);
                return Ok(());
            }
            Ok(bases) => self.come_to(&bases),
            Err(error) => self.alarm.raise(&error),
        }
        let until = deadline.unwrap_or_else(|| Instant::now() + PATIENCE);
        while !self.alarm.is_raised() && !self.is_finished() {
            if Instant::now() < until {
                std::thread::sleep(BETWEEN_LOOKS);
            } else if deadline.is_none() {
                self.alarm.raise(&"its back end does not finish what it has taken");
            } else {
                return self.go_on(back_end);
            }
        }
        Ok(())
    }

    /// The back end goes on, after all.
    fn go_on(&self, back_end: &mut (impl BackEnd + ?Sized)) -> Result<(), Late> {
        match back_end.go_on(&self.session()) {
            Ok(()) => Err(Late),
            Err(error) => {
                self.alarm.raise(&error);
                Ok(())
            }
        }
    }

    /// Takes up how far the back end says that it has come in each queue.
    fn come_to(&mut self, bases: &[u32]) {
        for (lent, &said) in self.lent.iter_mut().zip(bases) {
            let (index, size) = (lent.active.index, lent.active.queue.size());
            match answers::base(said, (index, size), used(&lent.active, &self.memory)) {
                Ok(base) => lent.active.queue.set_next_avail(base),
                Err(nonsense) => self.alarm.raise(&nonsense),
            }
        }
    }

    /// Takes up how far a back end has come that has given back all that it took.
    fn come_home(&mut self, bases: &[u32]) {
        for (lent, &said) in self.lent.iter_mut().zip(bases) {
            // Indices are modulo 2^16.
            let base = u16::try_from(said & u32::from(u16::MAX)).unwrap_or_default();
            lent.active.queue.set_next_avail(base);
            if used(&lent.active, &self.memory) != base {
                let index = lent.active.index;
                let why = format_args!("queue {index}: somebody else wrote its used index");
                self.alarm.interrupt.needs_reset(&why);
            }
        }
    }

    /// The indices of the queues.
    fn indices(&self) -> Vec<u16> {
        self.lent.iter().map(|lent| lent.active.index).collect()
    }

    /// Whether all that was taken is given back.
    fn is_finished(&self) -> bool {
        let is_home =
            |lent: &Lent| lent.active.queue.next_avail() == used(&lent.active, &self.memory);
        self.lent.iter().all(is_home)
    }

    /// The queues, as the rings say that they are.
    fn retire(self) -> Vec<ActiveQueue> {
        let Self { lent, memory, log, alarm, .. } = self;
        note_writes(log.as_ref(), &memory, &alarm);
        let home = |lent: Lent| {
            let Lent { mut active, told, .. } = lent;
            let used = used(&active, &memory);
            active.queue.set_next_used(used);
            if alarm.is_raised() {
                active.queue.set_next_avail(used);
            }
            if used != told {
                // What it rang for last may not have been heard.
                alarm.interrupt.used(active.index);
            }
            active
        };
        lent.into_iter().map(home).collect()
    }
}

/// Records what a back end has written, as its `log` says. One that keeps none may have
/// written to any page.
fn note_writes(log: Option<&WriteLog>, memory: &GuestMemory, alarm: &Alarm) {
    match log {
        Some(log) => log.add_to(memory),
        None if dirty::is_tracked(memory) => {
            alarm.cannot_log();
            dirty::add_all(memory);
        }
        None => {}
    }
}

/// The used index of a queue (2.7.8), modulo 2^16.
fn used(active: &ActiveQueue, memory: &GuestMemory) -> u16 {
    // The ring was found to be in RAM before it was lent.
    let index = GuestAddress(active.queue.used_ring()).checked_add(2);
    index.and_then(|index| memory.load(index, Ordering::SeqCst).ok()).map_or(0, u16::from_le)
}

impl Lent {
    fn new(active: ActiveQueue) -> Result<Self, BackEndError> {
        let event = || {
            let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
            event.map_err(|source| BackEndError::Host { what: DESCRIPTOR, source })
        };
        let told = Wrapping(active.queue.next_used()).0;
        Ok(Self { active, call: event()?, error: event()?, told })
    }

    fn ears(&self) -> Result<Ears, BackEndError> {
        let clone = |event: &EventFd| {
            event.try_clone().map_err(|source| BackEndError::Host { what: DESCRIPTOR, source })
        };
        let (call, error) = (clone(&self.call)?, clone(&self.error)?);
        Ok(Ears { index: self.active.index, call, error })
    }

    fn place(&self) -> Place<'_> {
        let Self { active: ActiveQueue { index, queue, doorbell }, call, error, .. } = self;
        Place {
            index: *index,
            size: queue.size(),
            max_size: queue.max_size(),
            descriptors: queue.desc_table(),
            available: queue.avail_ring(),
            used: queue.used_ring(),
            next: queue.next_avail(),
            kick: doorbell,
            call,
            error,
        }
    }
}

pub(super) const DESCRIPTOR: &str = "file descriptor";
