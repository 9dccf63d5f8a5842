//! Saving a paused machine: its state is read on its own thread, in the order of KVM's
//! rules, while nothing of it moves; then a worker writes it and the memory to files, and
//! the machine's thread goes on answering.
//!
//! What the interrupt controller keeps for itself of the guest's tables goes into guest
//! memory first; the memory is written last.

pub(crate) mod describe;
mod memory;
pub(crate) mod saved;
mod watched;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use kedge_arch::gic_state::{self, GicState, ItsStateV1, Tables, flush_tables};
use kedge_arch::regs;
use kedge_bus::NotAtRest;
use kedge_diag::Fix;
use kedge_firmware::{
    Born, CaptureError, RegisterState, Rules, Source, as_the_guest_reads,
    capture as capture_registers,
};
use kedge_guest_memory::{
    DirtySet, GuestMemory, GuestMemoryBackend as _, GuestMemoryRegion, TakeOutError, dirty,
};
use kedge_hv::{HvError, Hypervisor, Vcpu};
use kedge_saved_state::{
    About, Contents, Durability, Part, PendingPair, PlaceError, Section, SnapshotId,
};
use tracing::warn;

use crate::build::Built;
use crate::control::{ControlError, Reply};
use crate::run::Event;
use crate::spec::MachineSpec;
use crate::surroundings::Surroundings;
use saved::{BornV1, RegistersV2};
pub use watched::SaveProgress;
pub(crate) use watched::Watched;

/// How a machine is to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveOrder {
    /// The file for everything but its memory. One that is there is replaced, together
    /// with its memory file.
    pub state: PathBuf,
    /// The file for its memory.
    pub memory: PathBuf,
    /// How much of the memory.
    pub kind: SaveKind,
    /// Whether the snapshot is to survive the loss of the host's power.
    pub durability: Durability,
    /// What the memory file can be held against later.
    pub checksums: Checksums,
    /// What becomes of the machine, whether it could be saved or not.
    pub then: Then,
}

impl SaveOrder {
    /// Saves to these files; the machine stays paused.
    pub fn new(state: impl Into<PathBuf>, memory: impl Into<PathBuf>) -> Self {
        let (state, memory) = (state.into(), memory.into());
        Self {
            state,
            memory,
            kind: SaveKind::Full,
            durability: Durability::Cached,
            checksums: Checksums::Whole,
            then: Then::StayPaused,
        }
    }
}

/// How much of a machine's memory is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveKind {
    /// All of it.
    Full,
    /// All of it, for other machines to go on from: what is saved of this one as a
    /// difference stays one to the snapshot before.
    Copy,
    /// What was written since it was last saved or restored, which is to be noted
    /// ([`crate::Machine::note_changes`]): to be merged with that snapshot before it can
    /// be restored.
    Difference,
}

impl SaveKind {
    /// Whether the next difference is one to a snapshot of this kind.
    pub(crate) const fn is_base(self) -> bool {
        match self {
            Self::Full | Self::Difference => true,
            Self::Copy => false,
        }
    }
}

/// What is noted of a memory file to find out later whether it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Checksums of all of it. Making them takes about a third more time.
    Whole,
    /// Those of a few pages, by which a load knows it from others.
    Samples,
}

/// What becomes of a machine that was to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays paused.
    StayPaused,
    /// Its guest goes on, as by [`crate::Handle::resume`].
    Resume(crate::Clock),
}

/// A machine that was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The snapshot's id.
    pub id: SnapshotId,
    /// The guest's memory in bytes: the memory file's length.
    pub memory: u64,
    /// How many bytes of it the file has.
    pub data: u64,
}

/// Why a machine cannot be saved. Nothing of the snapshot is left, and one that it was to
/// replace is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// Registers cannot be read.
    #[error(transparent)]
    Registers(#[from] CaptureError),
    /// The interrupt controller cannot be read.
    #[error(transparent)]
    Gic(#[from] gic_state::CaptureError),
    /// A device is at work.
    #[error(transparent)]
    Device(#[from] NotAtRest),
    /// The guest's memory cannot be read.
    #[error(transparent)]
    Memory(#[from] TakeOutError),
    /// There is nothing that a difference could be to.
    #[error("there is no snapshot of this machine since which its changes are noted")]
    NoBase,
    /// What was written cannot be found out.
    #[error("cannot tell which memory the guest has written to")]
    Changes(#[source] HvError),
    /// The files cannot be written.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Whoever watched wanted no more of it.
    #[error("the save was cancelled by who had asked for it")]
    Cancelled,
    /// The host has no thread to write with.
    #[error("the host cannot start a thread to save with")]
    Thread(#[source] io::Error),
}

impl Fix for SaveError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Registers(source) => source.fix(),
            Self::Gic(source) => source.fix(),
            Self::Device(source) => source.fix(),
            Self::Place(source) => source.fix(),
            Self::Memory(source) => source.fix(),
            Self::NoBase => Some(
                "save all of it first, in a machine whose changes are noted: `--track-changes`, \
                 or \"track_dirty_pages\": true"
                    .to_owned(),
            ),
            Self::Changes(source) => source.fix(),
            Self::Cancelled => None,
            Self::Thread(_) => Some("raise the limits of the process (ulimit -a)".to_owned()),
        }
    }
}

/// What of a machine is not in its threads and devices.
pub(crate) struct Subject<'a> {
    /// Its devices may change while it runs.
    pub(crate) spec: &'a mut MachineSpec,
    pub(crate) born: &'a Born,
    pub(crate) hypervisor: &'a dyn Hypervisor,
    pub(crate) surroundings: &'a Surroundings,
}

/// A machine's state, read and not written yet.
pub(crate) struct Captured {
    about: About,
    sections: Vec<Section>,
    /// Shared with the machine, which must not go on while it is written.
    memory: GuestMemory,
    /// What was written to since the last snapshot, where that is noted.
    changed: Option<DirtySet>,
    contents: Contents,
}

impl Captured {
    /// Reads the state of a paused machine.
    ///
    /// # Errors
    /// Something of it cannot be read.
    pub(crate) fn read(
        built: &Built,
        subject: &Subject<'_>,
        kind: SaveKind,
    ) -> Result<Self, SaveError> {
        let contents = match (kind, built.changes.base()) {
            (SaveKind::Full | SaveKind::Copy, _) => Contents::Full,
            (SaveKind::Difference, Some(of)) => Contents::Difference { of },
            (SaveKind::Difference, None) => return Err(SaveError::NoBase),
        };
        let gic = built.gic.as_ref();
        if let Tables::Lost(error) = flush_tables(gic)? {
            warn!(%error, "the guest's tables of interrupts cannot be saved: it spoilt them");
        }
        let abilities = subject.hypervisor.abilities();
        let spis = describe::spis(&built.layout);
        let gic_state = GicState::capture(gic, &built.mpidrs, spis)?;
        let its = ItsStateV1::capture(gic)?;
        let registers = registers(built, subject)?;
        let mut sections = vec![
            Section::required(Part::of(&describe::machine(subject.spec, &built.roms))),
            Section::required(Part::of(&born(subject.born))),
            Section::required(Part::of(&describe::layout(
                &built.layout,
                subject.spec,
                &subject.surroundings.devices,
            ))),
            Section::required(Part::of(&built.time.saved(abilities.counter_hz))),
            Section::required(gic_state.to_part()),
        ];
        sections.extend(its.map(|its| Section::required(Part::of(&its))));
        sections.extend(built.devices.save()?);
        let about = describe::about(subject.spec, &registers);
        sections.push(Section::required(Part::of(&RegistersV2::of(&registers))));
        // Last: all that was done until here may have written to memory.
        let changed = built.changes.take(built.vm.as_ref()).map_err(SaveError::Changes)?;
        Ok(Self { about, sections, memory: built.memory.clone(), changed, contents })
    }

    /// Writes it to files and puts them in place.
    ///
    /// # Errors
    /// The host cannot, or whoever watches wants no more of it.
    fn write(mut self, order: &SaveOrder, mut watched: Watched) -> Result<Saved, SaveError> {
        let total = self.memory.iter().map(GuestMemoryRegion::len).sum();
        watched.begin(total).map_err(|_| SaveError::Cancelled)?;
        let pair = PendingPair::create(&order.state, &order.memory, self.contents)?;
        let what = match self.contents {
            Contents::Full => None,
            Contents::Difference { .. } => self.changed.as_ref(),
        };
        let form = (self.about.page_size, order.checksums);
        let image = memory::write(&pair, (&self.memory, what), form, &mut watched)?;
        watched.reach(total).map_err(|_| SaveError::Cancelled)?;
        let (identity, data) = (image.identity().clone(), image.data_bytes());
        pair.commit(&self.about, &image, &self.sections, order.durability)?;
        if order.kind.is_base() {
            self.changed = None;
        }
        Ok(Saved { id: identity.id, memory: identity.length, data })
    }
}

impl Drop for Captured {
    /// What was not saved is for the next save to save.
    fn drop(&mut self) {
        if let Some(changed) = &self.changed {
            dirty::put_back(&self.memory, changed);
        }
    }
}

fn born(born: &Born) -> BornV1 {
    // The profile and the firmware registers are with the registers; warnings are not state.
    let Born { birth: _, gic, gicd_revision, system_suspend, pv_time, services, warnings: _ } =
        born;
    BornV1 {
        gic: *gic,
        gicd_revision: *gicd_revision,
        system_suspend: *system_suspend,
        pv_time: *pv_time,
        services: services.clone(),
    }
}

fn registers(built: &Built, subject: &Subject<'_>) -> Result<RegisterState, SaveError> {
    let hypervisor = subject.hypervisor;
    let source = Source { features: built.features, abilities: hypervisor.abilities() };
    let (birth, rows) = (subject.born.birth.clone(), regs::rows());
    let mut registers = built.threads.gate().visit(|home| {
        let vcpus: Vec<&dyn Vcpu> = home.iter().map(|vcpu| vcpu.as_ref()).collect();
        let mut registers = capture_registers(&vcpus, &source, birth, &Rules::new(&rows))?;
        if let Some(first) = vcpus.first() {
            as_the_guest_reads(&mut registers, *first, hypervisor)?;
        }
        Ok::<_, CaptureError>(registers)
    })?;
    // The host's counter has gone on since the guest's stood still.
    built.time.put_into(&mut registers);
    Ok(registers)
}

/// A save that is under way.
pub(crate) struct Saving {
    thread: JoinHandle<Result<Saved, SaveError>>,
    reply: Reply<Saved>,
    kind: SaveKind,
    then: Then,
    state: PathBuf,
}

impl Saving {
    /// Starts to write `captured`; `events` gets [`Event::Written`] once that is done.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn begin(
        captured: Captured,
        (order, watched): (SaveOrder, Watched),
        reply: Reply<Saved>,
        events: &Sender<Event>,
    ) -> Result<Self, (Reply<Saved>, SaveError)> {
        let (kind, then, events) = (order.kind, order.then, events.clone());
        let state = order.state.clone();
        let builder = thread::Builder::new().name("save".to_owned());
        let thread = builder.spawn(move || {
            // By its end, nobody shares the machine's memory any more.
            let saved = captured.write(&order, watched);
            // A machine that is gone waits for the thread itself.
            let _ = events.send(Event::Written);
            saved
        });
        match thread {
            Ok(thread) => Ok(Self { thread, reply, kind, then, state }),
            Err(error) => Err((reply, SaveError::Thread(error))),
        }
    }

    /// Leaves it to itself: what it waits for does not come. Who waits for it learns that
    /// there is no answer.
    pub(crate) fn abandon(self) {
        let Self { thread: _, reply: _, kind: _, then: _, state: _ } = self;
    }

    /// How much is saved.
    pub(crate) const fn kind(&self) -> SaveKind {
        self.kind
    }

    /// The state file that it is in once it is done.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Waits for its end; what then, and whom to tell.
    pub(crate) fn finish(self) -> (Then, Reply<Saved>, Result<Saved, ControlError>) {
        let Self { thread, reply, kind: _, then, state: _ } = self;
        let saved = match thread.join() {
            Ok(saved) => saved.map_err(ControlError::Save),
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (then, reply, saved)
    }
}
