//! PCI: the virtio devices as functions on bus 0, ports to slots, and what leads to them.

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use kedge_arch::layout::PciLayout;
use kedge_bus::{Doorbell, DoorbellPost, Message, Messages, MsiPort};
use kedge_devices::pci::{Ecam, Function, FunctionNumber, Root, RootPort, Window};
use kedge_devices::virtio::change::Target;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::transport::{PciSite, PciTransport, Transport};
use kedge_devices::virtio::worker::EventLoop;
use kedge_guest_memory::{GuestAddress, GuestMemory, GuestRange};
use kedge_hv::{Msi, Vm};
use tracing::debug;

use super::devices::{Board, QUEUE_EVENT, Site, Virtio, card_name, port_name, virtio_name};
use super::{BuildError, Parts};
use crate::run::{Event, Slots};

/// Gives virtio devices a number on bus 0 each, in the order in which the guest finds them,
/// and puts those in their slots that came while it ran.
///
/// # Errors
/// There are too many, or the host lacks resources.
pub(super) fn place(
    site: &Site<'_>,
    (board, layout): (&mut Board<'_>, PciLayout),
    (parts, virtio): (&Parts<'_>, Vec<Box<dyn VirtioDevice>>),
    loops: Vec<EventLoop>,
) -> Result<Virtio, BuildError> {
    let outlet = Outlet {
        vm: Arc::downgrade(site.vm),
        memory: site.memory.clone(),
        loops,
        window: layout.window,
    };
    let mut transports = Vec::<Arc<dyn Transport>>::with_capacity(virtio.len());
    let mut targets = Vec::<Arc<dyn Target>>::with_capacity(virtio.len());
    let mut functions = Vec::<(FunctionNumber, Arc<dyn Function>)>::with_capacity(virtio.len());
    let mut virtio = virtio.into_iter();
    for (index, device) in virtio.by_ref().take(parts.spec.built_in()).enumerate() {
        let number = FunctionNumber::device(site.layout.pci_virtio(index)?);
        let number = number.expect("the map's numbers are those of a bus");
        let transport = outlet.attach(device, index, Requester::Fixed(number.requester()));
        let transport = transport.map_err(BuildError::host(QUEUE_EVENT))?;
        board.add_stateful(virtio_name(index), Arc::<PciTransport>::clone(&transport));
        functions.push((number, Arc::<PciTransport>::clone(&transport)));
        targets.push(Arc::<PciTransport>::clone(&transport));
        transports.push(transport);
    }
    let ports = ports(&outlet, parts);
    for (slot, (_, port)) in (1..).zip(&ports) {
        board.add_stateful(port_name(slot), Arc::<RootPort>::clone(port));
    }
    let root = Arc::new(Root::new(functions).with_ports(ports.clone()));
    let mut slots = Slots::new(outlet, ports.into_iter().map(|(_, port)| port).collect());
    for (device, &slot) in virtio.zip(&parts.spec.plugged) {
        let card = slots.begin_with(slot, device).map_err(BuildError::host(QUEUE_EVENT))?;
        board.add_stateful(card_name(slot), Arc::<PciTransport>::clone(&card));
        targets.push(card);
    }
    let PciLayout { config, window } = layout;
    board.add_range(config.start, Arc::new(Ecam::new(Arc::clone(&root), config.size)));
    let leads = Window::new(root, window.start.0, window.size);
    board.add_range(window.start, Arc::new(leads));
    Ok((transports, targets, Some(slots)))
}

/// The device on bus 0 whose functions are the ports: past those of virtio devices.
const PORTS: u8 = 31;

/// The ports of the slots.
fn ports(outlet: &Outlet, parts: &Parts<'_>) -> Vec<(FunctionNumber, Arc<RootPort>)> {
    let numbers = (0..parts.spec.pci_slots).map_while(|function| {
        FunctionNumber::device(PORTS).and_then(|device| device.beside(function))
    });
    let port = |(slot, number): (u8, FunctionNumber)| {
        let (events, messages) = (parts.events.clone(), Requester::Fixed(number.requester()));
        // Whose machine is gone hears nothing.
        let let_go = Box::new(move || drop(events.send(Event::LetGo(slot))));
        let messages = outlet.messages(messages);
        (number, Arc::new(RootPort::new(slot, &[outlet.window], messages, let_go)))
    };
    (1..).zip(numbers).map(port).collect()
}

/// What a function is attached to.
pub(crate) struct Outlet {
    vm: Weak<dyn Vm>,
    memory: GuestMemory,
    /// Where devices work, in turn.
    loops: Vec<EventLoop>,
    window: GuestRange,
}

impl Outlet {
    /// `device`, which is number `index`, as a function whose messages come from `requester`.
    ///
    /// # Errors
    /// The host has no file descriptors for its doorbells.
    fn attach(
        &self,
        device: Box<dyn VirtioDevice>,
        index: usize,
        requester: Requester,
    ) -> io::Result<Arc<PciTransport>> {
        let site = PciSite {
            memory: &self.memory,
            event_loop: &self.loops[index % self.loops.len()],
            windows: &[self.window],
            post: Arc::new(Post(Weak::clone(&self.vm))),
            messages: self.messages(requester),
        };
        PciTransport::new(device, site).map(Arc::new)
    }

    /// `device` as the function behind `port`, that of slot `number`.
    ///
    /// # Errors
    /// As for a function anywhere.
    pub(crate) fn behind(
        &self,
        port: &RootPort,
        number: u8,
        device: Box<dyn VirtioDevice>,
    ) -> io::Result<Arc<PciTransport>> {
        self.attach(device, number.into(), Requester::Behind(port.bus()))
    }

    fn messages(&self, requester: Requester) -> MsiPort {
        MsiPort::new(Arc::new(Sender { vm: Weak::clone(&self.vm), requester }))
    }
}

/// Who sends messages: bus, device and function.
enum Requester {
    /// A function on bus 0.
    Fixed(u32),
    /// The first one on a bus that the guest numbers.
    Behind(Arc<AtomicU8>),
}

/// A function's way to the interrupt controller. It does not keep the machine: that goes
/// before its devices.
struct Sender {
    vm: Weak<dyn Vm>,
    requester: Requester,
}

impl Messages for Sender {
    fn send(&self, Message { address, data }: Message) {
        let Some(vm) = self.vm.upgrade() else { return };
        let device = match &self.requester {
            Requester::Fixed(number) => *number,
            Requester::Behind(bus) => u32::from(bus.load(Ordering::SeqCst)) << 8,
        };
        if let Err(error) = vm.signal_msi(Msi { device, address, data }) {
            // The guest's own doing: it has not switched the service on, or sends it elsewhere.
            debug!(%error, device, "a message is lost");
        }
    }
}

/// Where doorbells hang.
struct Post(Weak<dyn Vm>);

impl DoorbellPost for Post {
    fn hang(&self, address: u64, bell: &Doorbell) -> bool {
        let address = GuestAddress(address.saturating_add(bell.offset));
        let hung = |vm: Arc<dyn Vm>| vm.connect_doorbell(address, bell.ring, &bell.event).is_ok();
        self.0.upgrade().is_some_and(hung)
    }

    fn take_down(&self, address: u64, bell: &Doorbell) {
        let address = GuestAddress(address.saturating_add(bell.offset));
        if let Some(vm) = self.0.upgrade() {
            // It hangs there: it was hung up.
            let _ = vm.disconnect_doorbell(address, bell.ring, &bell.event);
        }
    }
}
