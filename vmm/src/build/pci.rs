//! PCI: the virtio devices as functions on bus 0, and what leads to them.

use std::sync::{Arc, Weak};

use kedge_arch::layout::PciLayout;
use kedge_bus::{Doorbell, DoorbellPost, Message, Messages, MsiPort};
use kedge_devices::pci::{Ecam, Function, FunctionNumber, Root, Window};
use kedge_devices::virtio::change::Target;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::transport::{PciSite, PciTransport, Transport};
use kedge_devices::virtio::worker::EventLoop;
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Msi, Vm};
use tracing::debug;

use super::BuildError;
use super::devices::{Board, QUEUE_EVENT, Site, Virtio, virtio_name};

/// Gives virtio devices a number on bus 0 each, in the order in which the guest finds them.
///
/// # Errors
/// There are too many, or the host lacks resources.
pub(super) fn place(
    site: &Site<'_>,
    (board, layout): (&mut Board<'_>, PciLayout),
    virtio: Vec<Box<dyn VirtioDevice>>,
    event_loop: &EventLoop,
) -> Result<Virtio, BuildError> {
    let mut transports = Vec::<Arc<dyn Transport>>::with_capacity(virtio.len());
    let mut targets = Vec::<Arc<dyn Target>>::with_capacity(virtio.len());
    let mut functions = Vec::<(FunctionNumber, Arc<dyn Function>)>::with_capacity(virtio.len());
    for (index, device) in virtio.into_iter().enumerate() {
        let number = FunctionNumber::device(site.layout.pci_virtio(index)?);
        let number = number.expect("the map's numbers are those of a bus");
        let vm = Arc::downgrade(site.vm);
        let site = PciSite {
            memory: site.memory,
            event_loop,
            windows: &[layout.window],
            post: Arc::new(Post(Weak::clone(&vm))),
            messages: MsiPort::new(Arc::new(Sender { vm, device: number.requester() })),
        };
        let transport = PciTransport::new(device, site).map_err(BuildError::host(QUEUE_EVENT))?;
        let transport = Arc::new(transport);
        board.add_stateful(virtio_name(index), Arc::<PciTransport>::clone(&transport));
        functions.push((number, Arc::<PciTransport>::clone(&transport)));
        targets.push(Arc::<PciTransport>::clone(&transport));
        transports.push(transport);
    }
    let root = Arc::new(Root::new(functions));
    let PciLayout { config, window } = layout;
    board.add_range(config.start, Arc::new(Ecam::new(Arc::clone(&root), config.size)));
    let leads = Window::new(root, window.start.0, window.size);
    board.add_range(window.start, Arc::new(leads));
    Ok((transports, targets))
}

/// A function's way to the interrupt controller. It does not keep the machine: that goes
/// before its devices.
struct Sender {
    vm: Weak<dyn Vm>,
    device: u32,
}

impl Messages for Sender {
    fn send(&self, Message { address, data }: Message) {
        let Some(vm) = self.vm.upgrade() else { return };
        let message = Msi { device: self.device, address, data };
        if let Err(error) = vm.signal_msi(message) {
            // The guest's own doing: it has not switched the service on, or sends it elsewhere.
            debug!(%error, device = self.device, "a message is lost");
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
