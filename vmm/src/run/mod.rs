//! A built machine at work: its threads, and what they report to it.

mod access;
mod changes;
mod devices;
pub(crate) mod event_loop;
mod exits;
mod gate;
mod guest_time;
mod hypercall;
mod life;
pub(crate) mod lost_memory;
pub(crate) mod page_server;
mod plug;
mod requests;
mod slots;
mod summons;
mod suspend;
mod vcpu_thread;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use kedge_guest_memory::GuestAddress;
use kedge_hv::Vcpu;

pub(crate) use access::{AccessCounters, AddressSpace};
pub(crate) use changes::Changes;
pub(crate) use devices::{Devices, DevicesError};
pub(crate) use exits::Exits;
pub(crate) use gate::{Gate, Wanted};
pub(crate) use guest_time::GuestTime;
pub(crate) use hypercall::Calls;
pub(crate) use life::{Life, Start};
pub use plug::PlugError;
pub(crate) use requests::Requests;
pub(crate) use slots::Slots;
pub(crate) use summons::{Crew, Summons};
pub use vcpu_thread::VcpuFailure;
pub(crate) use vcpu_thread::{ReadyVcpu, Report, Request, Shared, VcpuThread};

use crate::control::{Control, ControlError};

/// What reaches a machine's own thread.
#[derive(Debug)]
pub(crate) enum Event {
    /// From a vCPU.
    Vcpu(Report),
    /// Its user asks for something.
    Control(Control),
    /// The guest's kernel has panicked, by its console, and is about to say more.
    Panicking,
    /// It has said it all.
    Panicked,
    /// The guest's memory is gone at this address.
    MemoryLost(GuestAddress),
    /// Who has the guest's memory has ended.
    PageServerEnded,
    /// The guest has let go of what is in this slot.
    LetGo(u8),
    /// What was to be saved is written, or cannot be.
    Written,
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
    MemoryLost(GuestAddress),
    PageServerEnded,
    /// A restored guest was to go on, and cannot.
    NotResumed(ControlError),
}

/// The vCPU threads of a machine. Dropping them stops the vCPUs.
pub(crate) struct VcpuThreads {
    threads: Vec<VcpuThread>,
    shared: Arc<Shared>,
}

impl VcpuThreads {
    /// Starts a thread for each vCPU. Their vCPUs are at home
    /// until they are to run.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn start(
        name: &str,
        vcpus: Vec<ReadyVcpu>,
        shared: Arc<Shared>,
        events: &Sender<Event>,
    ) -> io::Result<Self> {
        let mut all = Self { threads: Vec::with_capacity(vcpus.len()), shared };
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let name = format!("{name}{index}");
            let thread = VcpuThread::start((index, name), vcpu, &all.shared, events.clone())?;
            all.threads.push(thread);
        }
        Ok(all)
    }

    /// Where they are while they do not run.
    pub(crate) fn gate(&self) -> &Gate<Box<dyn Vcpu>> {
        &self.shared.gate
    }

    /// Says what is wanted of them.
    pub(crate) fn want(&self, wanted: Wanted) {
        if self.gate().want(wanted) == Wanted::Run {
            // Nobody else is in guest code, or about to be.
            self.threads.iter().for_each(VcpuThread::kick);
        }
    }

    /// Those who can be sent home by others.
    pub(crate) fn crew(&self) -> Crew {
        let kicks = self.threads.iter().map(VcpuThread::kicker).collect();
        Crew { shared: Arc::clone(&self.shared), kicks }
    }

    /// Does something to the first vCPU, which is at home as all are: what it holds for
    /// the whole machine is reached through it.
    pub(crate) fn with_first<T>(&self, act: impl FnOnce(&dyn Vcpu) -> T) -> T {
        self.gate().visit(|home| act(home[0].as_ref()))
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.want(Wanted::Stop);
        self.threads.drain(..).for_each(VcpuThread::join);
    }
}
