//! virtio-mmio, version 2 (Virtio 1.2, 4.2): the register file of one device.
//!
//! Where the hypervisor gives the guest memory that it cannot store to, the registers lie
//! there: loads cost no exit, not even the one that each interrupt needs. Stores come here,
//! and what they change is written there before the guest goes on.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use kedge_bus::{
    Doorbell, IrqLine, MmioDevice, Node, NotAtRest, PauseError, RestoreError, ResumeError,
    Stateful, Unsuitable, Value,
};
use kedge_guest_memory::{GuestMemory, RegisterPages};
use kedge_ids::Ring;
use kedge_saved_state::Part;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use vmm_sys_util::eventfd::EventFd;

use super::Transport;
use super::core::{Area, Core, Half};
use super::line::{Line, USED_BUFFER};
use super::signals::Signals;
use crate::virtio::change::{Change, ChangeError, Target};
use crate::virtio::device::{DeviceId, VirtioDevice};
use crate::virtio::worker::EventLoop;

/// Virtio 1.2, 4.2.2, table 4.1. All are 32 bits wide and little-endian.
#[rustfmt::skip]
pub(crate) mod reg {
    //         name                   offset     access
    pub(crate) const MAGIC_VALUE:         u64 = 0x000; //  ro  "virt"
    pub(crate) const VERSION:             u64 = 0x004; //  ro  2
    pub(crate) const DEVICE_ID:           u64 = 0x008; //  ro
    pub(crate) const VENDOR_ID:           u64 = 0x00c; //  ro
    pub(crate) const DEVICE_FEATURES:     u64 = 0x010; //  ro
    pub(crate) const DEVICE_FEATURES_SEL: u64 = 0x014; //  wo
    pub(crate) const DRIVER_FEATURES:     u64 = 0x020; //  wo
    pub(crate) const DRIVER_FEATURES_SEL: u64 = 0x024; //  wo
    pub(crate) const QUEUE_SEL:           u64 = 0x030; //  wo
    pub(crate) const QUEUE_NUM_MAX:       u64 = 0x034; //  ro
    pub(crate) const QUEUE_NUM:           u64 = 0x038; //  wo
    pub(crate) const QUEUE_READY:         u64 = 0x044; //  rw
    pub(crate) const QUEUE_NOTIFY:        u64 = 0x050; //  wo
    pub(crate) const INTERRUPT_STATUS:    u64 = 0x060; //  ro
    pub(crate) const INTERRUPT_ACK:       u64 = 0x064; //  wo
    pub(crate) const STATUS:              u64 = 0x070; //  rw
    pub(crate) const QUEUE_DESC_LOW:      u64 = 0x080; //  wo
    pub(crate) const QUEUE_DESC_HIGH:     u64 = 0x084; //  wo
    pub(crate) const QUEUE_DRIVER_LOW:    u64 = 0x090; //  wo
    pub(crate) const QUEUE_DRIVER_HIGH:   u64 = 0x094; //  wo
    pub(crate) const QUEUE_DEVICE_LOW:    u64 = 0x0a0; //  wo
    pub(crate) const QUEUE_DEVICE_HIGH:   u64 = 0x0a4; //  wo
    pub(crate) const SHM_LEN_LOW:         u64 = 0x0b0; //  ro  all ones: no such region
    pub(crate) const SHM_LEN_HIGH:        u64 = 0x0b4; //  ro
    pub(crate) const SHM_BASE_LOW:        u64 = 0x0b8; //  ro
    pub(crate) const SHM_BASE_HIGH:       u64 = 0x0bc; //  ro
    pub(crate) const QUEUE_RESET:         u64 = 0x0c0; //  rw
    pub(crate) const CONFIG_GENERATION:   u64 = 0x0fc; //  ro
    pub(crate) const CONFIG:              u64 = 0x100; //      the device's own
    pub(crate) const END:                 u64 = 0x1000;
}

/// What a driver may load, in front of the configuration space, and is not 0;
/// `InterruptStatus` is the line's.
const READABLE: [u64; 13] = [
    reg::MAGIC_VALUE,
    reg::VERSION,
    reg::DEVICE_ID,
    reg::VENDOR_ID,
    reg::DEVICE_FEATURES,
    reg::QUEUE_NUM_MAX,
    reg::QUEUE_READY,
    reg::STATUS,
    reg::SHM_LEN_LOW,
    reg::SHM_LEN_HIGH,
    reg::SHM_BASE_LOW,
    reg::SHM_BASE_HIGH,
    reg::CONFIG_GENERATION,
];
/// Bytes of the configuration space that a driver finds without an exit: no device has more.
const CONFIG_BYTES: usize = 256;

/// `MagicValue`.
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// `VendorID`: who implements the device.
const VENDOR: u32 = u32::from_le_bytes(*b"kdge");

/// A virtio device behind its registers.
#[derive(Debug)]
pub struct MmioTransport {
    device_id: DeviceId,
    signals: Arc<Signals<Line>>,
    doorbells: Arc<[EventFd]>,
    core: Mutex<Core<Line>>,
    /// Where the driver finds the registers without an exit.
    shown: OnceLock<RegisterPages>,
}

impl MmioTransport {
    /// `device`, reset; its queues will lie in `memory` and be worked on by
    /// `event_loop`.
    ///
    /// # Errors
    /// The host has no file descriptors for the doorbells.
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        irq: IrqLine,
        event_loop: EventLoop,
    ) -> io::Result<Self> {
        let device_id = device.device_id();
        let signals = Arc::new(Signals::new(device.as_ref(), &event_loop, Line::new(irq)?));
        let core = Core::new(device, memory, event_loop, Arc::clone(&signals))?;
        let (doorbells, core, shown) = (core.doorbells(), Mutex::new(core), OnceLock::new());
        Ok(Self { device_id, signals, doorbells, core, shown })
    }

    /// Has the driver find the registers in `pages` from now on, which lie where the device
    /// is in the guest's addresses and begin with it. The guest does not run yet.
    pub fn show_in(&self, pages: RegisterPages) {
        self.signals.notifier().show_in(&pages);
        // There is one place for them.
        let _ = self.shown.set(pages);
        self.refresh(&self.core());
    }

    /// Writes down what the driver finds without an exit. Whatever `core` changes after that
    /// is written when it is let go of the next time.
    fn refresh(&self, core: &Core<Line>) {
        let Some(shown) = self.shown.get() else { return };
        for offset in READABLE {
            shown.set(offset, self.register(core, offset));
        }
        if self.signals.is_broken() {
            // It may have broken while the status was written.
            shown.set_bits(reg::STATUS, VIRTIO_CONFIG_S_NEEDS_RESET);
        }
        let mut config = [0; CONFIG_BYTES];
        core.read_config(0, &mut config);
        for (offset, word) in (reg::CONFIG..).step_by(4).zip(config.as_chunks().0) {
            shown.set(offset, u32::from_le_bytes(*word));
        }
    }

    /// [`Transport::shutdown`].
    pub fn shutdown(&self) {
        self.core().recall();
    }

    fn core(&self) -> MutexGuard<'_, Core<Line>> {
        // A panic elsewhere leaves the registers as some guest could.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, core: &Core<Line>, offset: u64) -> u32 {
        match offset {
            reg::MAGIC_VALUE => MAGIC,
            reg::VERSION => 2,
            reg::DEVICE_ID => self.device_id.number(),
            reg::VENDOR_ID => VENDOR,
            reg::DEVICE_FEATURES => core.device_features(),
            reg::QUEUE_NUM_MAX => core.queue_max_size(),
            reg::QUEUE_READY => u32::from(core.queue_ready()),
            reg::STATUS => core.status(),
            reg::SHM_LEN_LOW..=reg::SHM_BASE_HIGH => u32::MAX,
            reg::CONFIG_GENERATION => self.signals.generation(),
            // Registers to write only, QueueReset when it is done, and gaps.
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, value: u32) {
        match offset {
            // The driver does so all the time, and changes no register.
            reg::QUEUE_NOTIFY => self.notify(value),
            reg::INTERRUPT_ACK => self.signals.notifier().acknowledge(value),
            _ => {
                let mut core = self.core();
                write_to(&mut core, offset, value);
                self.refresh(&core);
            }
        }
    }

    /// Rings a doorbell: what a notification does that the hypervisor did not
    /// turn into a ring itself.
    fn notify(&self, index: u32) {
        let doorbell = usize::try_from(index).ok().and_then(|index| self.doorbells.get(index));
        if let Some(doorbell) = doorbell {
            // It only fails when it was rung 2^64 - 2 times and not answered.
            let _ = doorbell.write(1);
        }
    }
}

/// The driver stores to a register of the negotiation.
fn write_to(core: &mut Core<Line>, offset: u64, value: u32) {
    match offset {
        reg::DEVICE_FEATURES_SEL => core.device_features_select = value,
        reg::DRIVER_FEATURES => core.accept_features(value),
        reg::DRIVER_FEATURES_SEL => core.driver_features_select = value,
        reg::STATUS => core.set_status(value),
        reg::QUEUE_SEL => core.queue_select = value,
        reg::QUEUE_NUM => core.set_queue_size(value),
        reg::QUEUE_READY if value == 1 => core.enable_queue(),
        reg::QUEUE_READY if value == 0 => core.reset_queue(),
        reg::QUEUE_RESET if value == 1 => core.reset_queue(),
        reg::QUEUE_DESC_LOW => core.set_queue_address(Area::Descriptor, Half::Low, value),
        reg::QUEUE_DESC_HIGH => core.set_queue_address(Area::Descriptor, Half::High, value),
        reg::QUEUE_DRIVER_LOW => core.set_queue_address(Area::Driver, Half::Low, value),
        reg::QUEUE_DRIVER_HIGH => core.set_queue_address(Area::Driver, Half::High, value),
        reg::QUEUE_DEVICE_LOW => core.set_queue_address(Area::Device, Half::Low, value),
        reg::QUEUE_DEVICE_HIGH => core.set_queue_address(Area::Device, Half::High, value),
        // Registers to read only, and gaps.
        _ => {}
    }
}

impl Transport for MmioTransport {
    fn shutdown(&self) {
        Self::shutdown(self);
    }
}

impl MmioDevice for MmioTransport {
    fn size(&self) -> u64 {
        reg::END
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            self.core().read_config(offset, data);
            return Ok(());
        }
        let length = data.len();
        let register = <&mut [u8; 4]>::try_from(data).map_err(|_| Unsuitable { offset, length })?;
        if !offset.is_multiple_of(4) {
            return Err(Unsuitable { offset, length });
        }
        *register = match offset {
            // Each interrupt asks for it, and nothing else of the device.
            reg::INTERRUPT_STATUS => self.signals.notifier().look(),
            _ => self.register(&self.core(), offset),
        }
        .to_le_bytes();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        if let Some(offset) = offset.checked_sub(reg::CONFIG) {
            let mut core = self.core();
            core.write_config(offset, data);
            self.refresh(&core);
            return Ok(());
        }
        let unsuitable = Unsuitable { offset, length: data.len() };
        let register = <[u8; 4]>::try_from(data).map_err(|_| unsuitable)?;
        if !offset.is_multiple_of(4) {
            return Err(unsuitable);
        }
        self.write_register(offset, u32::from_le_bytes(register));
        Ok(())
    }

    fn node(&self) -> Node {
        Node::new("virtio_mmio", &["virtio,mmio"]).with("dma-coherent", Value::Empty)
    }

    fn doorbells(&self) -> Vec<Doorbell> {
        // A doorbell that the host has no file descriptor for is not hung up:
        // the driver's stores then ring it through `QueueNotify`, only slower.
        let rings = (0..).zip(self.doorbells.iter());
        let notifications = rings.filter_map(|(value, doorbell)| {
            let event = doorbell.try_clone().ok()?;
            Some(Doorbell { offset: reg::QUEUE_NOTIFY, ring: Ring::Word(value), event })
        });
        let acknowledgement = self.signals.notifier().acknowledgement().map(|event| {
            // Two loads and stores are what an interrupt costs a driver: this is one less.
            Doorbell { offset: reg::INTERRUPT_ACK, ring: Ring::Word(USED_BUFFER), event }
        });
        notifications.chain(acknowledgement).collect()
    }
}

impl Stateful for MmioTransport {
    fn name(&self) -> String {
        self.core().name()
    }

    fn pause(&self, deadline: Instant) -> Result<(), PauseError> {
        self.core().pause(deadline)
    }

    fn resume(&self) -> Result<(), ResumeError> {
        let mut core = self.core();
        let resumed = core.resume();
        self.refresh(&core);
        resumed
    }

    fn save(&self) -> Result<Part, NotAtRest> {
        Ok(Part::of(&self.core().save()?))
    }

    fn restore(&self, saved: &Part) -> Result<(), RestoreError> {
        let mut core = self.core();
        let restored = core.restore(saved);
        self.refresh(&core);
        restored.map_err(|source| RestoreError { device: core.name(), source })
    }
}

impl Target for MmioTransport {
    fn change(&self, change: &Change, deadline: Instant) -> Result<(), ChangeError> {
        let mut core = self.core();
        let changed = core.change(change, deadline);
        self.refresh(&core);
        core.tell(changed?);
        Ok(())
    }
}
