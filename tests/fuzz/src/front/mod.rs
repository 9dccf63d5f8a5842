//! How a driver reaches its device: the registers of virtio-mmio, or a function of PCI. What
//! both have is named here; what only one has, it does by itself.

mod mmio;
mod pci;

use arbitrary::{Result, Unstructured};
use kedge_bus::Stateful;
use kedge_devices::virtio::change::Target;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::worker::EventLoop;
use kedge_guest_memory::GuestMemory;

pub(crate) use mmio::Mmio;
pub(crate) use pci::Pci;

/// What a driver needs to set up a device (Virtio 1.2, 3.1).
#[derive(Clone, Copy)]
pub(crate) enum Register {
    Status,
    DeviceFeaturesSelect,
    DeviceFeatures,
    DriverFeaturesSelect,
    DriverFeatures,
    QueueSelect,
    QueueSize,
    QueueReady,
    QueueReset,
    Descriptors,
    Available,
    Used,
}

/// Where a device is put: the guest's RAM, and who works.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) memory: GuestMemory,
    pub(crate) event_loop: EventLoop,
}

/// A device behind registers.
pub(crate) trait Front {
    /// `device` in `place`, and nothing done to it yet.
    fn new(device: Box<dyn VirtioDevice>, place: &Place) -> Self;

    /// Makes the registers be where [`Front::load`] and [`Front::store`] look for them.
    fn reach(&self);

    /// Loads a register; of [`Register::QueueSize`], the most that it can be.
    fn load(&self, register: Register) -> u32;

    /// Stores to a register.
    fn store(&self, register: Register, value: u32);

    /// Rings a queue's doorbell.
    fn ring(&self, queue: u32);

    /// Where the device's own registers are.
    const CONFIG: u16;

    /// Loads from wherever the driver pleases.
    fn read(&self, offset: u16, data: &mut [u8]);

    /// Stores there.
    fn write(&self, offset: u16, data: &[u8]);

    /// Something happens that only such a front has.
    ///
    /// # Errors
    /// The input has no more bytes.
    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()>;

    /// Whose state is saved.
    fn parts(&self) -> Vec<&dyn Stateful>;

    /// What is changed at run time.
    fn target(&self) -> &dyn Target;

    /// Another of its kind takes its place, with `device()` behind it and nothing saved of it
    /// yet. This one is gone before.
    fn exchange(&mut self, device: impl FnOnce() -> Box<dyn VirtioDevice>, place: &Place);

    /// Takes the queues home.
    fn shutdown(&self);
}
