//! A machine as its user holds it: built, run, stopped.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use kedge_diag::Fix;
use kedge_firmware::Born;
use kedge_guest_memory::GuestAddress;
use kedge_hv::{HvError, Hypervisor, SystemEvent};
use tracing::info;

use crate::build::{BuildError, Built, Infant, Parts, assemble, bear, bear_again, reassemble};
use crate::console::{Console, SerialInput};
use crate::control::{ControlError, Handle, Lifecycle, Shown};
use crate::events::MachineEvent;
use crate::restore::{Restoration, RestoreError, WantedMemory};
use crate::run::{Event, Halt, Life, Request, Requests, Start, Summons, VcpuFailure};
use crate::save::Subject;
use crate::spec::{MachineSpec, OnReset};
use crate::surroundings::Surroundings;

/// Why a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest powered off.
    Off,
    /// The guest hibernated (PSCI SYSTEM_OFF2): it goes on from its disks, which are
    /// to be kept, as is all by which it knows its machine.
    Hibernated,
    /// The guest reset, and its specification says to end then.
    Reset(Reset),
    /// Its user stopped it.
    Stopped,
    /// The guest's kernel panicked, by its console, and the specification says to
    /// end then.
    Panicked,
}

/// How a guest reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// As from power-on (PSCI SYSTEM_RESET).
    Cold,
    /// In a way of its choice (PSCI SYSTEM_RESET2; Arm DEN0022, 5.22).
    Chosen {
        /// 0: warm, with memory as it is; from 0x80000000 on: the platform's own.
        kind: u64,
        /// What the guest wants passed on, in a meaning that its kind gives it.
        cookie: u64,
    },
}

/// Why a machine could not run on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A vCPU cannot go on.
    #[error("the guest cannot run any further")]
    Vcpu(#[source] VcpuFailure),
    /// The file that the guest's memory is mapped from has become shorter, or cannot be
    /// read any more.
    #[error("the guest's memory at {address:#x} is gone: its memory file was changed or is lost")]
    MemoryLost {
        /// The guest physical address.
        address: u64,
    },
    /// Another process had the guest's memory, and has ended. What is left of the machine,
    /// its memory and its threads, waits for pages until this process ends, which had
    /// better be soon.
    #[error("the page server has ended, which had the guest's memory")]
    PageServerEnded,
    /// The guest reported its own crash.
    #[error("the guest reported that it crashed")]
    Crashed,
    /// A restored guest was to go on at once.
    #[error("the restored guest cannot go on")]
    NotResumed(#[source] ControlError),
    /// After a reset the machine could not be built again.
    #[error("the machine could not be built again after the guest's reset")]
    Rebuild(#[source] BuildError),
}

impl Fix for RunError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Rebuild(source) => source.fix(),
            Self::NotResumed(source) => source.fix(),
            Self::MemoryLost { .. } => Some(
                "leave the memory files of snapshots alone while guests run from them".to_owned(),
            ),
            Self::PageServerEnded => {
                Some("keep it running while guests do, and load the snapshot once more".to_owned())
            }
            Self::Vcpu(_) | Self::Crashed => None,
        }
    }
}

/// Ends a machine, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper(Handle);

impl Stopper {
    /// [`Machine::run`] returns [`Ended::Stopped`] soon. Nothing where the machine
    /// is gone.
    pub fn stop(&self) {
        self.0.stop();
    }
}

/// A machine.
pub struct Machine {
    spec: MachineSpec,
    hypervisor: Arc<dyn Hypervisor>,
    surroundings: Surroundings,
    console: Console,
    handle: Handle,
    events: Sender<Event>,
    /// Absent once it has ended: nobody answers any more.
    requests: Option<Requests>,
    born: Born,
    notes_changes: bool,
    /// Absent once it has run, but for the time it runs again after a reset.
    built: Option<Built>,
}

impl Machine {
    /// Builds what `spec` describes, ready to run.
    ///
    /// # Errors
    /// The specification contradicts itself or the host, or something it names
    /// cannot be had. Nothing is left behind then.
    pub fn build(
        mut spec: MachineSpec,
        hypervisor: Arc<dyn Hypervisor>,
        surroundings: Surroundings,
    ) -> Result<Self, BuildError> {
        spec.check_slots()?;
        spec.arrange()?;
        spec.fill_slots()?;
        let (infant, born) = bear(&spec, hypervisor.as_ref(), &surroundings, None)?;
        let mut machine = Self::around(spec, hypervisor, surroundings, born)?;
        machine.assemble(infant)?;
        Ok(machine)
    }

    /// Restores the machine of `restoration`; its guest goes on where it was saved, once
    /// it is told to.
    ///
    /// # Errors
    /// This host cannot give the guest what it was saved with, or something that the
    /// machine needs cannot be had. Nothing is left behind then.
    pub fn restore(
        mut restoration: Restoration<'_>,
        hypervisor: Arc<dyn Hypervisor>,
        surroundings: Surroundings,
    ) -> Result<Self, RestoreError> {
        restoration.spec.check_slots().map_err(BuildError::from)?;
        restoration.spec.arrange().map_err(BuildError::from)?;
        restoration.check()?;
        let reborn = bear_again(&restoration, hypervisor.as_ref(), &surroundings)?;
        let Restoration { spec, resume, saved, memory, pages, working_set, allow: _ } = restoration;
        let wanted = WantedMemory { source: memory, pages, working_set };
        let born = saved.parts.born.clone();
        let mut machine = Self::around(spec, hypervisor, surroundings, born)?;
        let mut built = reassemble(&machine.parts(), (&saved, &wanted), reborn)?;
        built.saved = Some(saved.parts);
        built.start = resume.map_or(Start::Paused, Start::GoOn);
        machine.take(built);
        machine.requests.iter().for_each(|requests| requests.show(Lifecycle::Paused));
        Ok(machine)
    }

    /// A machine that is still to be built, and its console.
    fn around(
        spec: MachineSpec,
        hypervisor: Arc<dyn Hypervisor>,
        surroundings: Surroundings,
        born: Born,
    ) -> Result<Self, BuildError> {
        let (events, arriving) = mpsc::channel();
        let console = Console::open(&spec, &surroundings, &events)?;
        let shown = Shown::new();
        let summons = Summons::default();
        let handle = Handle::new(events.clone(), shown.clone(), summons.clone());
        Ok(Self {
            spec,
            hypervisor,
            surroundings,
            console,
            handle,
            events,
            requests: Some(Requests::new(arriving, shown, summons)),
            born,
            notes_changes: false,
            built: None,
        })
    }

    /// Notes what the guest's memory was written to, from now on and over resets: what
    /// [`crate::SaveKind::Difference`] saves.
    ///
    /// # Errors
    /// The hypervisor refuses.
    pub fn note_changes(&mut self) -> Result<(), BuildError> {
        self.notes_changes = true;
        Ok(self.note_if_wanted()?)
    }

    fn note_if_wanted(&mut self) -> Result<(), HvError> {
        match &mut self.built {
            Some(Built { changes, vm, .. }) if self.notes_changes => changes.note(vm.as_ref()),
            _ => Ok(()),
        }
    }

    /// What the guest was born with, for life: resets do not change it.
    pub fn born(&self) -> &Born {
        &self.born
    }

    /// The device tree the guest finds, as a flattened blob; empty once the machine
    /// has ended.
    pub fn device_tree(&self) -> &[u8] {
        self.built.as_ref().map_or(&[], |built| built.device_tree.as_slice())
    }

    /// Something to ask the machine by, while it runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Something to end the machine with.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.handle())
    }

    /// The way to the guest's serial port.
    pub fn serial_input(&self) -> SerialInput {
        self.console.input()
    }

    /// Runs the guest until the machine ends. By then nothing of it is left: no
    /// thread, no guest memory, no device. Run again, it is [`Ended::Stopped`].
    ///
    /// # Errors
    /// The guest cannot run any further.
    pub fn run(&mut self) -> Result<Ended, RunError> {
        self.run_telling(|| {})
    }

    /// As [`Machine::run`], and calls `begun` on this thread once nothing can keep the guest
    /// from running any more: or, where it was restored to be paused, from being asked to.
    ///
    /// # Errors
    /// As [`Machine::run`]. With [`RunError::NotResumed`], `begun` was not called.
    pub fn run_telling(&mut self, begun: impl FnOnce()) -> Result<Ended, RunError> {
        let end = self.run_lives(begun);
        self.surroundings.tell(|| MachineEvent::stopped(&end));
        self.console.close();
        // Whoever still waits for an answer learns that there is none.
        self.requests = None;
        end
    }

    /// Runs one machine after another until one ends that no other follows.
    fn run_lives(&mut self, begun: impl FnOnce()) -> Result<Ended, RunError> {
        let mut begun = Some(begun);
        loop {
            let (Some(mut built), Some(requests)) = (self.built.take(), &mut self.requests) else {
                return Ok(Ended::Stopped);
            };
            let subject = Subject {
                spec: &mut self.spec,
                born: &self.born,
                hypervisor: self.hypervisor.as_ref(),
                surroundings: &self.surroundings,
            };
            let life = Life::new(&mut built, subject, (requests, &self.events));
            let halt = life.live(|| begun.take().into_iter().for_each(|begun| begun()));
            self.console.detach();
            match halt {
                Halt::PageServerEnded => built.leave(),
                _ => drop(built),
            }
            match ended(halt)? {
                Ended::Reset(reset) if self.spec.on_reset == OnReset::Restart => {
                    self.surroundings.tell(|| MachineEvent::Reset(reset));
                    // Whatever kind it asked for, it gets a cold one: nothing of the
                    // machine stays.
                    info!(?reset, "the guest resets");
                    self.restart().map_err(RunError::Rebuild)?;
                }
                end => return Ok(end),
            }
        }
    }

    /// Builds the machine anew: KVM keeps too much over a reset of its vCPUs.
    fn restart(&mut self) -> Result<(), BuildError> {
        self.requests.iter_mut().for_each(Requests::keep_for_next_life);
        let hypervisor = self.hypervisor.as_ref();
        let (infant, _) = bear(&self.spec, hypervisor, &self.surroundings, Some(&self.born))?;
        self.assemble(infant)
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            spec: &self.spec,
            born: &self.born,
            surroundings: &self.surroundings,
            console: &self.console,
            events: &self.events,
        }
    }

    fn assemble(&mut self, infant: Infant) -> Result<(), BuildError> {
        let built = assemble(&self.parts(), infant)?;
        self.take(built);
        Ok(self.note_if_wanted()?)
    }

    fn take(&mut self, built: Built) {
        self.console.attach(&built.serial);
        self.built = Some(built);
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("spec", &self.spec).finish_non_exhaustive()
    }
}

fn ended(halt: Halt) -> Result<Ended, RunError> {
    let Request { event, arguments: [kind, cookie] } = match halt {
        Halt::System(request) => request,
        Halt::Stopped => return Ok(Ended::Stopped),
        Halt::Panicked => return Ok(Ended::Panicked),
        Halt::Failed(failure) => return Err(RunError::Vcpu(failure)),
        Halt::MemoryLost(GuestAddress(address)) => return Err(RunError::MemoryLost { address }),
        Halt::PageServerEnded => return Err(RunError::PageServerEnded),
        Halt::NotResumed(error) => return Err(RunError::NotResumed(error)),
    };
    match event {
        SystemEvent::Off => Ok(Ended::Off),
        SystemEvent::Off2 => Ok(Ended::Hibernated),
        SystemEvent::Reset => Ok(Ended::Reset(Reset::Cold)),
        SystemEvent::Reset2 => Ok(Ended::Reset(Reset::Chosen { kind, cookie })),
        // The vCPU threads keep the other events to themselves.
        SystemEvent::Crash | SystemEvent::Suspend | SystemEvent::Wakeup => Err(RunError::Crashed),
    }
}
