//! The machine's devices: opened, given a place and a wire, hung on the
//! hypervisor's doorbells.

use std::sync::{Arc, Weak};

use kedge_arch::Layout;
use kedge_arch::fdt::PlacedDevice;
use kedge_arch::layout::Place;
use kedge_bus::{AddressMap, IrqLine, MmioDevice, Node, Stateful, Wire};
use kedge_devices::boot_timer::BootTimer;
use kedge_devices::generation::Generation;
use kedge_devices::rtc::Rtc;
use kedge_devices::serial::{SerialCounters, SerialPort};
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_devices::virtio::change::Target;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::transport::{MmioTransport, Transport};
use kedge_devices::virtio::worker::EventLoop;
use kedge_devices::vmclock::VmClock;
use kedge_diag::Trouble;
use kedge_guest_memory::{
    GuestAddress, GuestMemory, GuestMemoryRegion, GuestRange, RegisterPages, about_to_fill,
};
use kedge_hv::{Access, Vm};
use kedge_ids::Spi;
use tracing::debug;

use super::{BuildError, Parts, pci};
use crate::events;
use crate::opened::OpenDevices;
use crate::own_device::{Made, Wiring};
use crate::run::event_loop::LoopThreads;
use crate::run::{Devices, Slots};
use crate::spec::MachineSpec;
use crate::surroundings::Surroundings;

/// Where devices go.
pub(super) struct Site<'a> {
    pub(super) vm: &'a Arc<dyn Vm>,
    pub(super) layout: &'a Layout,
    pub(super) memory: &'a GuestMemory,
    /// The first memory slot that is free.
    pub(super) next_slot: u32,
}

/// The devices in their places.
pub(super) struct Placed {
    pub(super) serial: Arc<SerialPort>,
    pub(super) transports: Vec<Arc<dyn Transport>>,
    pub(super) devices: Devices,
    pub(super) slots: Option<Slots>,
    pub(super) pages: Pages,
    pub(super) map: AddressMap,
    /// The serial port first.
    pub(super) nodes: Vec<PlacedDevice>,
}

/// What tells the guest that it is another machine's or at another time. It lies in RAM,
/// without registers.
pub(super) struct Pages {
    generation: Arc<Generation>,
    pub(super) clock: Arc<VmClock>,
}

impl Pages {
    /// Writes them for a machine that was not restored.
    ///
    /// # Errors
    /// The host has no entropy.
    pub(super) fn begin(&self) -> Result<(), BuildError> {
        self.generation.begin().map_err(Trouble::new)?;
        self.clock.begin().map_err(Trouble::new)?;
        Ok(())
    }
}

/// Opens the virtio devices that are not `open` already, in the order in which the guest
/// finds them.
///
/// # Errors
/// A host resource is missing, busy, or may not be used.
pub(super) fn open(
    spec: &MachineSpec,
    open: &OpenDevices,
) -> Result<Vec<Box<dyn VirtioDevice>>, BuildError> {
    let device = |config: &dyn DeviceConfig| match open.take(config) {
        Some(device) => Ok(device),
        None => config.open(),
    };
    spec.devices.iter().map(|config| Ok(device(config.as_ref())?)).collect()
}

/// Has what the open devices count in the metrics; `opened` are those of `spec`.
pub(super) fn hand_counters_out(
    spec: &MachineSpec,
    surroundings: &Surroundings,
    opened: &[Box<dyn VirtioDevice>],
) {
    let Some(metrics) = &surroundings.metrics else { return };
    for (config, device) in spec.devices.iter().zip(opened) {
        if let Some((group, counters)) = device.counters() {
            metrics.add(group, config.kind().many.then(|| config.id()), counters);
        }
    }
}

/// Gives every device its place.
///
/// # Errors
/// There are too many, or the host lacks resources.
pub(super) fn place(
    site: &Site<'_>,
    parts: &Parts<'_>,
    virtio: Vec<Box<dyn VirtioDevice>>,
    loops: &LoopThreads,
) -> Result<Placed, BuildError> {
    let mut board = Board {
        vm: site.vm,
        devices: Vec::new(),
        ranges: Vec::new(),
        pages: Vec::new(),
        stateful: Vec::new(),
    };
    let serial = serial_port(site, parts, &mut board)?;
    real_time_clock(site, &mut board, loops.shared())?;
    if let Some(up) = parts.surroundings.on_up.clone() {
        board.add_range(site.layout.boot_timer().start, Arc::new(BootTimer::new(move || up())));
    }
    let mut loops = loops.of_devices();
    if let Some(listener) = &parts.surroundings.on_event {
        let heard = |each: EventLoop| each.heard_by(events::mishaps(listener));
        loops = loops.into_iter().map(heard).collect();
    }
    let (transports, targets, slots) = match site.layout.pci() {
        None => on_mmio(site, &mut board, virtio, &loops)?,
        Some(pci) => pci::place(site, (&mut board, pci), (parts, virtio), loops)?,
    };
    own_devices(site, parts.surroundings, &mut board)?;
    let pages = pages(site, parts, &mut board)?;
    let nodes = board.nodes();
    let devices = board.devices.into_iter().map(|(place, device)| (place.range.start.0, device));
    let map = AddressMap::new(devices.chain(board.ranges))?;
    let devices = Devices::new(board.stateful, targets);
    Ok(Placed { serial, transports, devices, slots, pages, map, nodes })
}

/// Virtio devices in their places, all as those that are changed while the guest runs, and
/// the slots, with what is in them.
pub(super) type Virtio = (Vec<Arc<dyn Transport>>, Vec<Arc<dyn Target>>, Option<Slots>);

/// Gives virtio devices a page of registers and a wire each.
fn on_mmio(
    site: &Site<'_>,
    board: &mut Board<'_>,
    virtio: Vec<Box<dyn VirtioDevice>>,
    loops: &[EventLoop],
) -> Result<Virtio, BuildError> {
    let mut transports = Vec::<Arc<dyn Transport>>::with_capacity(virtio.len());
    let mut targets = Vec::<Arc<dyn Target>>::with_capacity(virtio.len());
    let pages = register_pages(site, virtio.len())?;
    for ((index, device), event_loop) in virtio.into_iter().enumerate().zip(loops.iter().cycle()) {
        let place = site.layout.virtio(index)?;
        let irq = board.wire(place.spi);
        let transport = MmioTransport::new(device, site.memory.clone(), irq, event_loop.clone())
            .map_err(BuildError::host(QUEUE_EVENT))?;
        if let Some(pages) = &pages {
            let start = place.range.start.0 - pages.region().start_addr().0;
            transport.show_in(pages.part(start, place.range.size));
        }
        let transport = Arc::new(transport);
        board.add(&virtio_name(index), place, &transport)?;
        targets.push(Arc::<MmioTransport>::clone(&transport));
        transports.push(transport);
    }
    Ok((transports, targets, None))
}

/// Memory in which the guest finds the registers of `count` virtio devices without an exit.
/// None where there cannot be any: a device has 4 KiB, and some hosts have larger pages; or
/// RAM has all memory slots.
fn register_pages(site: &Site<'_>, count: usize) -> Result<Option<RegisterPages>, BuildError> {
    let Some(last) = count.checked_sub(1) else { return Ok(None) };
    let (first, last) = (site.layout.virtio(0)?.range, site.layout.virtio(last)?.range);
    let range = GuestRange::new(first.start.0, last.end() - first.start.0);
    let pages = RegisterPages::new(range)?;
    match site.vm.map_ram(site.next_slot, Arc::clone(pages.region()), Access::ReadOnly) {
        Ok(()) => Ok(Some(pages)),
        Err(error) if error.errno() == libc::EINVAL => {
            debug!(%error, "the guest's loads of registers of virtio devices are exits");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn serial_port(
    site: &Site<'_>,
    parts: &Parts<'_>,
    board: &mut Board<'_>,
) -> Result<Arc<SerialPort>, BuildError> {
    let place = site.layout.serial();
    let drained = parts.console.drained().map_err(BuildError::host(EVENT))?;
    let port = SerialPort::new(parts.console.output(), board.wire(place.spi), drained);
    let port = Arc::new(port);
    if let Some(metrics) = &parts.surroundings.metrics {
        metrics.add("uart", None, Arc::<SerialCounters>::clone(port.counters()));
    }
    board.add(SERIAL, place, &port)?;
    Ok(port)
}

fn real_time_clock(
    site: &Site<'_>,
    board: &mut Board<'_>,
    event_loop: EventLoop,
) -> Result<(), BuildError> {
    let place = site.layout.rtc();
    let rtc = Rtc::on_host_time(event_loop, board.wire(place.spi));
    board.add(RTC, place, &rtc)
}

/// Places what the program around the machine brings along.
fn own_devices(
    site: &Site<'_>,
    surroundings: &Surroundings,
    board: &mut Board<'_>,
) -> Result<(), BuildError> {
    for (index, wanted) in surroundings.devices.iter().enumerate() {
        let Place { spi, .. } = site.layout.own_device(index, 0)?;
        let wiring = Wiring { irq: board.wire(spi), memory: site.memory.clone() };
        let Made { bytes, registers, state } = wanted.make(wiring)?;
        let place = site.layout.own_device(index, bytes)?;
        board.hang_up(place, registers.as_ref())?;
        board.devices.push((place, registers));
        board.add_stateful(wanted.saved_name(), state);
    }
    Ok(())
}

fn pages(site: &Site<'_>, parts: &Parts<'_>, board: &mut Board<'_>) -> Result<Pages, BuildError> {
    let place = site.layout.clock_page();
    let clock = VmClock::new(site.memory.clone(), place.range, board.wire(place.spi));
    let clock = Arc::new(clock);
    board.add_page(CLOCK_PAGE, place, (clock.node(), Arc::<VmClock>::clone(&clock)));
    let place = site.layout.generation();
    // A page of it is written, not a huge one.
    about_to_fill(site.memory, place.range);
    let entropy = Arc::new(parts.surroundings.entropy);
    let irq = board.wire(place.spi);
    let generation = Generation::new(site.memory.clone(), place.range.start, irq, entropy);
    let generation = Arc::new(generation);
    let node = generation.node();
    board.add_page(GENERATION, place, (node, Arc::<Generation>::clone(&generation)));
    Ok(Pages { generation, clock })
}

/// What devices are called in a saved machine.
pub(crate) const SERIAL: &str = "serial";
pub(crate) const RTC: &str = "rtc";
pub(crate) const CLOCK_PAGE: &str = "clock page";
pub(crate) const GENERATION: &str = "generation";

/// What the virtio device at this place among the others is called there.
pub(crate) fn virtio_name(index: usize) -> String {
    format!("virtio {index}")
}

/// What the port of a slot, and a device in it, are called there; from 1.
pub(crate) fn port_name(slot: u8) -> String {
    format!("port {slot}")
}

pub(crate) fn card_name(slot: u8) -> String {
    format!("card {slot}")
}

const EVENT: &str = "make an event";
pub(super) const QUEUE_EVENT: &str = "make an event for a virtio queue";

/// What is soldered so far.
pub(super) struct Board<'a> {
    vm: &'a Arc<dyn Vm>,
    devices: Vec<(Place, Arc<dyn MmioDevice>)>,
    /// What lies at an address and has a node of another kind.
    ranges: Vec<(u64, Arc<dyn MmioDevice>)>,
    /// Devices without registers.
    pages: Vec<(Place, Node)>,
    /// By their names in a saved machine.
    stateful: Vec<(String, Arc<dyn Stateful>)>,
}

impl Board<'_> {
    /// A wire to the interrupt controller's input `spi`.
    fn wire(&self, spi: Spi) -> IrqLine {
        IrqLine::new(Arc::new(Input { vm: Arc::downgrade(self.vm), spi }))
    }

    fn add<D: MmioDevice + Stateful + 'static>(
        &mut self,
        name: &str,
        place: Place,
        device: &Arc<D>,
    ) -> Result<(), BuildError> {
        self.hang_up(place, device.as_ref())?;
        self.devices.push((place, Arc::<D>::clone(device)));
        self.stateful.push((name.to_owned(), Arc::<D>::clone(device)));
        Ok(())
    }

    /// Hangs up the doorbells of `device`.
    fn hang_up(&self, place: Place, device: &dyn MmioDevice) -> Result<(), BuildError> {
        for bell in device.doorbells() {
            let address = GuestAddress(place.range.start.0.saturating_add(bell.offset));
            self.vm.connect_doorbell(address, bell.ring, &bell.event)?;
        }
        Ok(())
    }

    /// Adds a range of addresses whose node the device tree writes by itself.
    pub(super) fn add_range(&mut self, start: GuestAddress, range: Arc<dyn MmioDevice>) {
        self.ranges.push((start.0, range));
    }

    /// Adds what pauses, is saved and goes on, and has its addresses from others.
    pub(super) fn add_stateful(&mut self, name: String, device: Arc<dyn Stateful>) {
        self.stateful.push((name, device));
    }

    /// Adds a device that has no registers.
    fn add_page(&mut self, name: &str, place: Place, (node, device): (Node, Arc<dyn Stateful>)) {
        self.pages.push((place, node));
        self.stateful.push((name.to_owned(), device));
    }

    fn nodes(&self) -> Vec<PlacedDevice> {
        let devices = self.devices.iter().map(|(place, device)| (*place, device.node()));
        let placed = |(place, node): (Place, Node)| PlacedDevice {
            address: place.range.start,
            size: place.range.size,
            interrupt: Some(place.spi),
            node,
        };
        devices.chain(self.pages.iter().cloned()).map(placed).collect()
    }
}

/// An input of the interrupt controller. It does not keep the machine: that goes before its
/// devices.
struct Input {
    vm: Weak<dyn Vm>,
    spi: Spi,
}

impl Wire for Input {
    fn pulse(&self) {
        let Some(vm) = self.vm.upgrade() else { return };
        if let Err(error) = vm.pulse_irq(self.spi) {
            debug!(%error, spi = self.spi.intid(), "an edge is lost");
        }
    }
}
