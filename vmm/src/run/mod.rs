//! A built machine at work: its threads, and what they report to it.

mod access;
pub(crate) mod event_loop;
mod gate;
mod hypercall;
mod suspend;
mod vcpu_thread;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

pub(crate) use access::AddressSpace;
pub(crate) use gate::{Gate, Wanted};
pub(crate) use hypercall::Calls;
pub use vcpu_thread::VcpuFailure;
pub(crate) use vcpu_thread::{ReadyVcpu, Report, Request, Shared, VcpuThread};

/// What reaches a machine's own thread.
#[derive(Debug)]
pub(crate) enum Event {
    /// From a vCPU.
    Vcpu(Report),
    /// Its user wants it to end.
    Stop,
    /// The guest's kernel has panicked, by its console, and is about to say more.
    Panicking,
    /// It has said it all.
    Panicked,
}

impl From<Report> for Event {
    fn from(report: Report) -> Self {
        Self::Vcpu(report)
    }
}

/// Why a machine's vCPUs no longer run.
#[derive(Debug)]
pub(crate) enum Halt {
    System(Request),
    Stopped,
    Panicked,
    Failed(VcpuFailure),
}

/// How long a guest that panics may go on with its report.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The vCPU threads of a machine. Dropping them stops the vCPUs.
pub(crate) struct VcpuThreads {
    threads: Vec<VcpuThread>,
    shared: Arc<Shared>,
}

impl VcpuThreads {
    /// Starts a thread for each vCPU. They wait until [`VcpuThreads::run`].
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn start(
        vcpus: Vec<ReadyVcpu>,
        shared: Arc<Shared>,
        events: &Sender<Event>,
    ) -> io::Result<Self> {
        let mut all = Self { threads: Vec::with_capacity(vcpus.len()), shared };
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let shared = Arc::clone(&all.shared);
            all.threads.push(VcpuThread::start(index, vcpu, shared, events.clone())?);
        }
        Ok(all)
    }

    /// Lets them run until something ends the machine.
    pub(crate) fn run(&self, events: &Receiver<Event>) -> Halt {
        self.shared.gate.want(Wanted::Run);
        let mut suspending = 0_u32;
        let mut deadline = None;
        loop {
            match next_event(events, deadline) {
                Event::Vcpu(Report::System(_)) if deadline.is_some() => return Halt::Panicked,
                Event::Vcpu(Report::System(request)) => return Halt::System(request),
                Event::Vcpu(Report::Failed(failure)) => return Halt::Failed(failure),
                Event::Vcpu(Report::Suspending) => {
                    suspending += 1;
                    self.want(Wanted::Hold);
                }
                Event::Vcpu(Report::Suspended) => {
                    suspending = suspending.saturating_sub(1);
                    if suspending == 0 {
                        self.shared.gate.want(Wanted::Run);
                    }
                }
                Event::Stop => return Halt::Stopped,
                Event::Panicking => deadline = deadline.or(Some(Instant::now() + LAST_WORDS)),
                Event::Panicked => return Halt::Panicked,
            }
        }
    }

    fn want(&self, wanted: Wanted) {
        self.shared.gate.want(wanted);
        self.threads.iter().for_each(VcpuThread::kick);
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.want(Wanted::Stop);
        self.threads.drain(..).for_each(VcpuThread::join);
    }
}

fn next_event(events: &Receiver<Event>, deadline: Option<Instant>) -> Event {
    let received = match deadline {
        Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
        None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
    };
    match received {
        Ok(event) => event,
        Err(RecvTimeoutError::Timeout) => Event::Panicked,
        // The machine holds a sender itself, so this cannot be; ending is safe.
        Err(RecvTimeoutError::Disconnected) => Event::Stop,
    }
}
