//! A vCPU's thread: runs guest code, answers its accesses, and reports what
//! concerns the whole machine.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;

use kedge_hv::{Exit, HvError, Kick, MpState, SystemEvent, Vcpu, VcpuFeatures};
use kedge_ids::RegId;

use super::Event;
use super::access::{AddressSpace, Store};
use super::exits::Exits;
use super::gate::{Gate, Passed};
use super::hypercall::{Calls, Unanswered};
use super::suspend;

/// What a vCPU thread tells its machine.
#[derive(Debug)]
pub(crate) enum Report {
    /// The guest asked for something that ends or rebuilds the machine.
    System(Request),
    /// vCPU `index` asked for SYSTEM_SUSPEND and waits for the others to be held.
    Suspending,
    /// It has learned what it wanted to know: the others may go on.
    Suspended,
    /// The last vCPU has come home.
    AllHome,
    /// The vCPU cannot run any further.
    Failed(VcpuFailure),
}

/// Something that a guest asks of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) event: SystemEvent,
    /// x1 and x2: zero but for SYSTEM_RESET2.
    pub(crate) arguments: [u64; 2],
}

/// Why a vCPU cannot run any further.
#[derive(Debug, thiserror::Error)]
pub enum VcpuFailure {
    /// The hypervisor refused a call.
    #[error("vCPU {index} cannot go on at pc {pc:#x}")]
    Refused {
        /// Which vCPU.
        index: usize,
        /// Where its program counter stood, 0 where it cannot be read.
        pc: u64,
        /// What the hypervisor refused.
        source: HvError,
    },
    /// The hypervisor gave up on it.
    #[error("vCPU {index} stopped: {reason}")]
    GaveUp {
        /// Which vCPU.
        index: usize,
        /// In the hypervisor's words.
        reason: String,
    },
    /// A service of the program around the machine panicked over a call of its guest.
    #[error("`{service}` panicked over the firmware call {function:#x} of vCPU {index}")]
    ServicePanicked {
        /// Which vCPU.
        index: usize,
        /// The service's name.
        service: String,
        /// The function that the guest called.
        function: u32,
    },
}

/// What all vCPU threads of a machine share.
pub(crate) struct Shared {
    pub(crate) space: AddressSpace,
    pub(crate) gate: Gate<Box<dyn Vcpu>>,
    pub(crate) calls: Calls,
    /// Where somebody may ask for them.
    pub(crate) exits: Option<Arc<Exits>>,
}

/// A vCPU ready to run.
pub(crate) struct ReadyVcpu {
    pub(crate) vcpu: Box<dyn Vcpu>,
    /// What it was initialised with, to the bit: Linux before 6.5 refuses a reset
    /// with anything else.
    pub(crate) features: VcpuFeatures,
}

/// A vCPU's thread, seen from its machine.
pub(crate) struct VcpuThread {
    kick: Arc<dyn Kick>,
    thread: JoinHandle<()>,
}

impl VcpuThread {
    /// Starts the thread of vCPU number `index`, which has this name and is at home then until it is to
    /// run.
    ///
    /// # Errors
    /// The host has no more threads, or the hypervisor cannot bind the vCPU to one.
    pub(crate) fn start(
        (index, name): (usize, String),
        ready: ReadyVcpu,
        shared: &Arc<Shared>,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let ReadyVcpu { mut vcpu, features } = ready;
        let (ready, bound) = mpsc::sync_channel(1);
        let runner = Runner { index, features, shared: Arc::clone(shared), events };
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(
            move || match vcpu.kicker() {
                Ok(kick) => {
                    // The machine waits for it below.
                    let _ = ready.send(Ok((kick, vcpu)));
                    runner.run();
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            },
        )?;
        match bound
            .recv()
            .map_err(io::Error::other)
            .and_then(|bound| bound.map_err(io::Error::other))
        {
            Ok((kick, vcpu)) => {
                shared.gate.place(index, vcpu);
                Ok(Self { kick: kick.into(), thread })
            }
            Err(error) => {
                // It ends by itself; the vCPU goes with it.
                let _ = thread.join();
                Err(error)
            }
        }
    }

    /// Gets it out of guest code, to look at the gate.
    pub(crate) fn kick(&self) {
        self.kick.kick();
    }

    /// What kicks it.
    pub(super) fn kicker(&self) -> Arc<dyn Kick> {
        Arc::clone(&self.kick)
    }

    /// Waits for its end.
    pub(crate) fn join(self) {
        // A panic there has been reported by its hook; the machine ends either way.
        let _ = self.thread.join();
    }
}

/// A vCPU thread needs little stack, no device handler recurses; a large one could
/// end up on a huge page.
const STACK_BYTES: usize = 128 * 1024;

/// What a step of guest code led to.
enum Next {
    GoOn,
    LookAtGate,
    Suspend,
    End(Report),
}

/// Whether a vCPU's thread goes on.
#[derive(PartialEq, Eq)]
enum Life {
    GoesOn,
    /// It does, and no access of its guest is half done.
    Interrupted,
    Ends,
}

struct Runner {
    index: usize,
    features: VcpuFeatures,
    shared: Arc<Shared>,
    events: Sender<Event>,
}

impl Runner {
    /// Runs guest code, or has the vCPU at home, until the machine stops or this vCPU
    /// ends it. Whoever changes the gate kicks the vCPU, so it need not look at it
    /// otherwise.
    fn run(&self) {
        let Some(mut vcpu) = self.shared.gate.leave(self.index) else { return };
        let mut half_done = false;
        loop {
            let power = || vcpu.mp_state().unwrap_or(MpState::Runnable);
            match self.shared.gate.pass(self.index, power) {
                Passed::Run => match self.run_guest(vcpu.as_mut()) {
                    Life::GoesOn => half_done = true,
                    Life::Interrupted => half_done = false,
                    Life::Ends => return,
                },
                Passed::Home => {
                    if half_done && self.complete(vcpu.as_mut()) == Life::Ends {
                        return;
                    }
                    let all_home = || self.tell(Report::AllHome);
                    vcpu = self.shared.gate.stay(self.index, vcpu, all_home);
                }
                Passed::Stop => return,
            }
        }
    }

    /// Runs guest code until the gate is to be looked at.
    fn run_guest(&self, vcpu: &mut dyn Vcpu) -> Life {
        loop {
            match self.step(vcpu) {
                Ok(Next::GoOn) => {}
                // Whatever was half done is finished before the kernel looks for signals
                // (Linux, Documentation/virt/kvm/api.rst, section 5, at `KVM_EXIT_MMIO`).
                Ok(Next::LookAtGate) => return Life::Interrupted,
                Ok(Next::Suspend) => return self.suspend(vcpu),
                Ok(Next::End(report)) => return self.end(report),
                Err(source) => return self.end(self.refused(vcpu, source)),
            }
        }
    }

    /// Completes the guest's last access: of a vCPU at home, the registers are all there
    /// is of it.
    fn complete(&self, vcpu: &mut dyn Vcpu) -> Life {
        match vcpu.complete_access() {
            Ok(()) => Life::GoesOn,
            Err(source) => self.end(self.refused(vcpu, source)),
        }
    }

    fn step(&self, vcpu: &mut dyn Vcpu) -> Result<Next, HvError> {
        let space = &self.shared.space;
        let exit = vcpu.run()?;
        let exits = self.shared.exits.as_ref();
        let _answering = exits.map(|exits| exits.begin(self.index, &exit));
        match exit {
            Exit::MmioRead { address, data } => space.load(address, data),
            Exit::MmioWrite { address, data } => {
                if space.store(address, data) == Store::Aborts {
                    space.abort(vcpu)?;
                }
            }
            Exit::Undecoded { .. } => space.abort(vcpu)?,
            Exit::Hypercall { function, conduit } => {
                match self.shared.calls.answer(vcpu, function, conduit) {
                    Ok(()) => {}
                    Err(Unanswered::Refused(source)) => return Err(source),
                    Err(Unanswered::Panicked(service)) => {
                        let index = self.index;
                        let failure = VcpuFailure::ServicePanicked { index, service, function };
                        return Ok(Next::End(Report::Failed(failure)));
                    }
                }
            }
            Exit::System(SystemEvent::Suspend) => return Ok(Next::Suspend),
            Exit::System(SystemEvent::Wakeup) => vcpu.set_mp_state(MpState::Runnable)?,
            Exit::System(event) => {
                return Ok(Next::End(Report::System(request(vcpu, event)?)));
            }
            Exit::Interrupted => return Ok(Next::LookAtGate),
            Exit::Failed { reason } => {
                let index = self.index;
                return Ok(Next::End(Report::Failed(VcpuFailure::GaveUp { index, reason })));
            }
        }
        Ok(Next::GoOn)
    }

    /// SYSTEM_SUSPEND: only the last vCPU that is on may ask for it (Arm DEN0022,
    /// 5.20). The machine holds the others while this one looks.
    fn suspend(&self, vcpu: &mut dyn Vcpu) -> Life {
        self.tell(Report::Suspending);
        let Some(others_off) = self.shared.gate.others_off(self.index) else { return Life::Ends };
        let answered = if others_off {
            suspend::enter(vcpu, self.features)
        } else {
            suspend::set_result(vcpu, suspend::DENIED)
        };
        self.tell(Report::Suspended);
        match answered {
            Ok(()) => Life::GoesOn,
            Err(source) => self.end(self.refused(vcpu, source)),
        }
    }

    fn refused(&self, vcpu: &dyn Vcpu, source: HvError) -> Report {
        let pc = vcpu.reg64(RegId::PC).unwrap_or(0);
        Report::Failed(VcpuFailure::Refused { index: self.index, pc, source })
    }

    fn end(&self, report: Report) -> Life {
        self.tell(report);
        Life::Ends
    }

    fn tell(&self, report: Report) {
        // A machine that is gone has told this thread to stop.
        let _ = self.events.send(report.into());
    }
}

/// What `event` asks for. KVM has narrowed the arguments of a 32-bit call.
fn request(vcpu: &dyn Vcpu, event: SystemEvent) -> Result<Request, HvError> {
    let arguments = match event {
        SystemEvent::Reset2 => [vcpu.reg64(RegId::x(1))?, vcpu.reg64(RegId::x(2))?],
        _ => [0; 2],
    };
    Ok(Request { event, arguments })
}
