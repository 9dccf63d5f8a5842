//! What a machine takes from the process around it: outputs, entropy and time
//! are parameters, so that a test can choose them.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use kedge_arch::smccc::{Service, record};
use kedge_diag::Trouble;
use kedge_firmware::{Notes, NotesOf, ServiceRecord};
use kedge_guest_memory::Lost;
use kedge_hv::VcpuFeatures;
use kedge_metadata::Service as MetadataService;
use kedge_metrics::Registry;

use crate::events::MachineEvent;
use crate::machine::RunError;
use crate::opened::OpenDevices;
use crate::own_device::{OwnDevice, Wanted, Wiring};

/// What hears of a machine's events.
pub(crate) type EventListener = Arc<dyn Fn(&MachineEvent) + Send + Sync>;

/// What hears that a guest is up.
type UpListener = Arc<dyn Fn() + Send + Sync>;

/// What hears of a `Kernel panic` line on the guest's console.
pub type PanicListener = Box<dyn FnMut(&str) + Send>;

/// What hears of guest RAM that is a file's.
pub type MemoryGuard = Box<dyn FnMut(Arc<Lost>) + Send>;

/// What hears that a machine waits for good.
pub type StuckListener = Box<dyn FnMut(&RunError) + Send>;

/// Names a metadata service.
type MetadataSource = Arc<dyn Fn() -> Arc<MetadataService> + Send + Sync>;

/// Fills a buffer with random bytes.
pub type Entropy = fn(&mut [u8]) -> io::Result<()>;

/// The process around a machine.
#[derive(Clone)]
pub struct Surroundings {
    /// Where the serial port's output goes that no file takes.
    pub(crate) output: Arc<Mutex<Box<dyn Write + Send>>>,
    pub(crate) on_panic: Arc<Mutex<PanicListener>>,
    guard: Arc<Mutex<MemoryGuard>>,
    on_stuck: Arc<Mutex<StuckListener>>,
    pub(crate) entropy: Entropy,
    pub(crate) services: Vec<Arc<dyn Service>>,
    pub(crate) devices: Vec<Wanted>,
    notes: Option<Arc<dyn Notes>>,
    pub(crate) metadata: Option<MetadataSource>,
    pub(crate) metrics: Option<Registry>,
    pub(crate) on_event: Option<EventListener>,
    pub(crate) on_up: Option<UpListener>,
    pub(crate) open: OpenDevices,
    pub(crate) vcpu_threads: &'static str,
}

impl Surroundings {
    /// Surroundings with the serial port's output at `output`, the host's entropy,
    /// and nobody to hear of a panic.
    pub fn new(output: impl Write + Send + 'static) -> Self {
        Self {
            output: Arc::new(Mutex::new(Box::new(output))),
            on_panic: Arc::new(Mutex::new(Box::new(|_| {}))),
            guard: Arc::new(Mutex::new(Box::new(|_| {}))),
            on_stuck: Arc::new(Mutex::new(Box::new(|_| {}))),
            entropy: host_entropy,
            services: Vec::new(),
            devices: Vec::new(),
            notes: None,
            metadata: None,
            metrics: None,
            on_event: None,
            on_up: None,
            open: OpenDevices::default(),
            vcpu_threads: "vcpu",
        }
    }

    /// With `listener` to hear of each line of a panic.
    #[must_use]
    pub fn on_panic(mut self, listener: impl FnMut(&str) + Send + 'static) -> Self {
        self.on_panic = Arc::new(Mutex::new(Box::new(listener)));
        self
    }

    /// With `guard` to hear of guest RAM that is a file's, before anything touches it. Who
    /// shortens the file takes pages away, and the kernel raises SIGBUS in who touches one,
    /// be it this process: a handler, which is the process's own, has to ask
    /// [`Lost::replace`]. Then the machine ends with [`RunError::MemoryLost`]; without a
    /// handler, the process does.
    #[must_use]
    pub fn guarding(mut self, guard: impl FnMut(Arc<Lost>) + Send + 'static) -> Self {
        self.guard = Arc::new(Mutex::new(Box::new(guard)));
        self
    }

    /// With `listener` to hear of it where [`crate::Machine::run`] cannot return: a page
    /// server has ended, and the machine's own thread waits for a page. It waits until the
    /// process ends, which the listener has to see to. It is called on another thread.
    #[must_use]
    pub fn on_stuck(mut self, listener: impl FnMut(&RunError) + Send + 'static) -> Self {
        self.on_stuck = Arc::new(Mutex::new(Box::new(listener)));
        self
    }

    pub(crate) fn guard(&self, lost: Arc<Lost>) {
        (self.guard.lock().unwrap_or_else(PoisonError::into_inner))(lost);
    }

    pub(crate) fn is_stuck(&self, error: &RunError) {
        (self.on_stuck.lock().unwrap_or_else(PoisonError::into_inner))(error);
    }

    /// With another source of the seeds in the device tree, and of what the guest gets
    /// where the machine answers its calls for entropy.
    #[must_use]
    pub fn with_entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// With `service` to answer its functions, which the hypervisor then leaves to it,
    /// whatever it would have answered itself. That takes Linux 6.4.
    ///
    /// What a service answers is part of what the guest was promised: it is on record as
    /// what the guest was born with, and a program without it cannot restore the guest.
    #[must_use]
    pub fn with_service(mut self, service: impl Service + 'static) -> Self {
        self.services.push(Arc::new(service));
        self
    }

    /// With a device of the program's own, which `make` makes whenever the machine is built:
    /// at first, when it is restored, and after a reset of its guest.
    ///
    /// The first one has its registers at 0x50000000, each of up to 15 others 1 MiB above the
    /// one before; each has an interrupt of its own. The guest finds all of that in the device
    /// tree, by [`MmioDevice::node`](crate::mmio::MmioDevice::node). Devices are part of what
    /// the guest was promised: a program without them, or with others, or in another order,
    /// cannot restore the guest. They take the interrupts of as many virtio devices, of which
    /// a machine has up to 92 on MMIO.
    #[must_use]
    pub fn with_device(
        mut self,
        name: impl Into<String>,
        make: impl Fn(Wiring) -> Result<OwnDevice, Trouble> + Send + Sync + 'static,
    ) -> Self {
        self.devices.push(Wanted::new(name.into(), make));
        self
    }

    /// With `notes` on this host: what one machine has asked it, the next need not ask again.
    #[must_use]
    pub fn with_notes(mut self, notes: impl Notes + 'static) -> Self {
        self.notes = Some(Arc::new(notes));
        self
    }

    /// With `service` to name what is behind the network cards of a machine that is to have
    /// a metadata service; other machines do not ask for it. Without it such a machine has
    /// one of its own, which is empty.
    #[must_use]
    pub fn with_metadata(
        mut self,
        service: impl Fn() -> Arc<MetadataService> + Send + Sync + 'static,
    ) -> Self {
        self.metadata = Some(Arc::new(service));
        self
    }

    /// With `registry` to be handed what the machine's parts count.
    #[must_use]
    pub fn with_metrics(mut self, registry: &Registry) -> Self {
        self.metrics = Some(registry.clone());
        self
    }

    /// With `listener` to hear of what becomes of the machine. It is called on the machine's
    /// threads, which wait for it: it must not keep them.
    #[must_use]
    pub fn on_event(mut self, listener: impl Fn(&MachineEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(listener));
        self
    }

    /// With a boot timer, as Firecracker has it: a guest that is up writes the byte 123 to
    /// the address 0x40000000, and `listener` hears of it. A vCPU waits for it.
    #[must_use]
    pub fn on_up(mut self, listener: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_up = Some(Arc::new(listener));
        self
    }

    /// With `name`, and the number behind it, for what the threads of vCPUs are called, in
    /// place of `vcpu`. Linux shows 15 bytes of it.
    #[must_use]
    pub fn naming_vcpus(mut self, name: &'static str) -> Self {
        self.vcpu_threads = name;
        self
    }

    /// Tells whoever listens of an event, which is made for them alone.
    pub(crate) fn tell(&self, event: impl FnOnce() -> MachineEvent) {
        if let Some(listener) = &self.on_event {
            listener(&event());
        }
    }

    /// With devices that are open already: the machine takes those that are its own.
    #[must_use]
    pub fn with_open(mut self, open: &OpenDevices) -> Self {
        self.open = open.clone();
        self
    }

    /// The notes on machines whose vCPUs have these features.
    pub(crate) fn notes(&self, features: VcpuFeatures) -> Option<NotesOf<'_>> {
        self.notes.as_deref().map(|notes| NotesOf { notes, features })
    }

    /// What is on record of its services.
    pub(crate) fn services_on_record(&self) -> Vec<ServiceRecord> {
        self.services.iter().map(|service| record(service.as_ref())).collect()
    }

    /// The same for a guest that was born with these services, and with no others.
    pub(crate) fn with_only(&self, born: &[ServiceRecord]) -> Self {
        let mut only = self.clone();
        only.services.retain(|service| born.contains(&record(service.as_ref())));
        only
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("services", &self.services).finish_non_exhaustive()
    }
}

fn host_entropy(buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        filled +=
            rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}
