//! From a specification to a machine that is ready to run.
//!
//! The order is KVM's: the machine, all vCPUs, the interrupt controller, the guest's
//! firmware; then its memory, and what refers to it. A host that cannot honour the
//! guest's profile is found out before a file is opened or memory is mapped. Everything
//! else that a mistake of the user's can break comes as early as it can, and whatever
//! was opened closes by itself when a later step fails.

mod birth;
mod cpus;
mod devices;
mod error;
mod memory;
mod metadata;
mod pci;
mod rebirth;
mod rom;
mod services;
mod tree;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use kedge_arch::Layout;
use kedge_arch::image::{self, Loaded};
use kedge_devices::serial::SerialPort;
use kedge_devices::virtio::transport::Transport;
use kedge_devices::vmclock::VmClock;
use kedge_firmware::Born;
use kedge_guest_memory::{GuestMemory, GuestRange, regions};
use kedge_hv::{Access, Gic, VcpuFeatures, Vm};
use kedge_ids::Mpidr;

pub(crate) use self::birth::{Infant, bear};
pub use self::birth::{ProfileConflict, usual_machine};
pub(crate) use self::devices::{
    CLOCK_PAGE, GENERATION, RTC, SERIAL, card_name, port_name, virtio_name,
};
pub use self::error::BuildError;
pub(crate) use self::memory::Backing;
pub(crate) use self::pci::Outlet;
pub(crate) use self::rebirth::{bear_again, examine, frequency, reassemble};
pub use self::services::ServicesError;
use crate::console::Console;
use crate::restore::Parts as SavedParts;
use crate::restore::working_set::Recorder;
use crate::run::event_loop::LoopThreads;
use crate::run::{
    AccessCounters, AddressSpace, Calls, Changes, Devices, Event, Exits, Gate, GuestTime, Shared,
    Slots, Start, VcpuThreads, Wanted,
};
use crate::spec::{Boot, MachineSpec};
use crate::surroundings::Surroundings;

/// What a machine is built from.
pub(crate) struct Parts<'a> {
    pub(crate) spec: &'a MachineSpec,
    pub(crate) born: &'a Born,
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) console: &'a Console,
    pub(crate) events: &'a Sender<Event>,
}

/// A machine ready to run. The fields are dropped in this order: vCPUs first, so
/// that no guest code runs while devices retire; the loop after the devices. The VM goes
/// before the wires that lead to it, which KVM lets go of at once then, and else one by one.
pub(crate) struct Built {
    pub(crate) threads: VcpuThreads,
    _transports: Transports,
    pub(crate) slots: Option<Slots>,
    pub(crate) gic: Box<dyn Gic>,
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) serial: Arc<SerialPort>,
    pub(crate) devices: Devices,
    pub(crate) clock_page: Arc<VmClock>,
    _loop_threads: LoopThreads,
    pub(crate) time: GuestTime,
    pub(crate) layout: Layout,
    /// What all vCPUs were initialised with, but for the one that leaves some off.
    pub(crate) features: VcpuFeatures,
    pub(crate) mpidrs: Vec<Mpidr>,
    pub(crate) memory: GuestMemory,
    pub(crate) changes: Changes,
    pub(crate) backing: Backing,
    /// Who writes down, at its first pause, which pages the guest needed until then.
    pub(crate) recorder: Option<Recorder>,
    pub(crate) roms: Vec<GuestMemory>,
    pub(crate) device_tree: Vec<u8>,
    pub(crate) start: Start,
    /// What it was restored from, until it runs: it takes a while to drop.
    pub(crate) saved: Option<SavedParts>,
}

impl Built {
    /// Leaves a machine that can wait for pages anywhere as it stands, until the process
    /// ends: nothing of it may be waited for, or find a page that is not its own.
    pub(crate) fn leave(mut self) {
        self.threads.want(Wanted::Stop);
        if let Backing::Served(watch) = std::mem::replace(&mut self.backing, Backing::None) {
            watch.leave();
        }
        std::mem::forget(self);
    }
}

/// The virtio devices of a machine; dropping them takes their queues home.
pub(crate) struct Transports(Vec<Arc<dyn Transport>>);

impl Drop for Transports {
    fn drop(&mut self) {
        self.0.iter().for_each(|transport| transport.shutdown());
    }
}

/// Builds the rest of the machine around what was born.
///
/// # Errors
/// See [`BuildError`].
pub(crate) fn assemble(parts: &Parts<'_>, infant: Infant) -> Result<Built, BuildError> {
    let Parts { spec, born, .. } = *parts;
    let Infant { limits, vm, layout, cpus, gic, dispatcher, time } = infant;
    let files = BootFiles::open(&spec.boot)?;
    let memory = memory::begin(spec, &layout)?;
    let (kernel, initrd) = load(&spec.boot, &files, &layout, &memory)?;
    let roms = rom::load(&spec.rom, &layout, &limits)?;
    let mut opened = devices::open(spec, &parts.surroundings.open)?;
    metadata::attach(spec, parts.surroundings, &mut opened)?;
    devices::hand_counters_out(spec, parts.surroundings, &opened);
    let next_slot = map_into(vm.as_ref(), &memory, &roms)?;
    if born.pv_time {
        services::place_pv_time(cpus.all(), &layout, &born.birth.abi)?;
    }

    let loop_threads = LoopThreads::new(spec.io_threads);
    let site = devices::Site { vm: &vm, layout: &layout, memory: &memory, next_slot };
    let placed = devices::place(&site, parts, opened, &loop_threads)?;
    placed.pages.begin()?;
    let tree = tree::Tree { spec, layout: &layout, initrd, cpus: &cpus, born };
    let device_tree = tree.write(&placed, parts.surroundings, &memory)?;
    cpus::set_entry(&cpus, &kernel, &layout)?;

    let infant = Infant { limits, vm, layout, cpus, gic, dispatcher, time };
    let frame = Frame { infant, memory, roms, loop_threads, placed };
    frame.into_built(device_tree, parts)
}

/// All of a machine but the threads of its vCPUs.
struct Frame {
    infant: Infant,
    memory: GuestMemory,
    roms: Vec<GuestMemory>,
    loop_threads: LoopThreads,
    placed: devices::Placed,
}

impl Frame {
    /// The machine, whose guest finds `device_tree`.
    ///
    /// # Errors
    /// The host has no more threads.
    fn into_built(self, device_tree: Vec<u8>, parts: &Parts<'_>) -> Result<Built, BuildError> {
        let Parts { surroundings, events, .. } = *parts;
        let Self { infant, memory, roms, loop_threads, placed } = self;
        let Infant { vm, layout, cpus, gic, dispatcher, time, .. } = infant;
        let devices::Placed { serial, transports, devices, slots, pages, map, .. } = placed;
        let space = AddressSpace::new(map, roms.iter().flat_map(rom::ranges).collect());
        let (gate, calls) = (Gate::new(cpus.vcpus.len()), Calls::new(dispatcher));
        let exits = surroundings.metrics.as_ref().map(|metrics| {
            let exits = Arc::new(Exits::of(cpus.vcpus.len()));
            metrics.add("vcpu", None, Arc::<Exits>::clone(&exits));
            metrics.add("bus", None, Arc::<AccessCounters>::clone(&space.counters));
            exits
        });
        let shared = Arc::new(Shared { space, gate, calls, exits });
        let features = cpus.features();
        let mpidrs = cpus.mpidrs.clone();
        let threads = VcpuThreads::start(surroundings.vcpu_threads, cpus.vcpus, shared, events)
            .map_err(BuildError::host("start a thread for each vCPU"))?;
        Ok(Built {
            threads,
            serial,
            devices,
            clock_page: pages.clock,
            _transports: Transports(transports),
            slots,
            _loop_threads: loop_threads,
            gic,
            vm,
            time,
            layout,
            features,
            mpidrs,
            changes: Changes::new(memory.clone(), None),
            backing: Backing::None,
            recorder: None,
            memory,
            roms,
            device_tree,
            start: Start::Run,
            saved: None,
        })
    }
}

/// The files a machine boots from.
struct BootFiles {
    kernel: File,
    initrd: Option<File>,
}

impl BootFiles {
    fn open(boot: &Boot) -> Result<Self, BuildError> {
        let open = |path: &PathBuf| {
            open_file(path).map_err(|source| BuildError::Open { path: path.clone(), source })
        };
        Ok(Self {
            kernel: open(&boot.kernel)?,
            initrd: boot.initrd.as_ref().map(open).transpose()?,
        })
    }
}

/// Opens a file to read, and nothing that would be waited for or has no content.
fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    // A directory opens, and says that it is of the largest size.
    if file.metadata()?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    Ok(file)
}

fn load(
    boot: &Boot,
    files: &BootFiles,
    layout: &Layout,
    memory: &GuestMemory,
) -> Result<(Loaded, Option<GuestRange>), BuildError> {
    let kernel = image::load_kernel(&files.kernel, boot.kernel_format, memory, layout)
        .map_err(|source| BuildError::Kernel { path: boot.kernel.clone(), source })?;
    let initrd = match (&files.initrd, &boot.initrd) {
        (Some(file), Some(path)) => Some(
            image::load_initrd(file, memory, layout, &kernel)
                .map_err(|source| BuildError::Initrd { path: path.clone(), source })?,
        ),
        _ => None,
    };
    Ok((kernel, initrd))
}

/// Gives the guest its RAM and what it may only read, a memory slot for each region. The next
/// slot.
fn map_into(vm: &dyn Vm, memory: &GuestMemory, roms: &[GuestMemory]) -> Result<u32, BuildError> {
    let ram = regions(memory).into_iter().map(|region| (region, Access::ReadWrite));
    let roms = roms.iter().flat_map(regions).map(|region| (region, Access::ReadOnly));
    let mut next = 0;
    for (region, access) in ram.chain(roms) {
        vm.map_ram(next, region, access)?;
        next += 1;
    }
    Ok(next)
}
