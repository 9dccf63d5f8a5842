//! The common configuration (Virtio 1.2, 4.1.4.3): through it drivers negotiate and set up
//! queues.

use kedge_ids::{u64_from, usize_from};

use super::place::size;
use super::vectors::{NO_VECTOR, Vectors};
use crate::virtio::transport::core::{Area, Core, Half};
use crate::virtio::transport::signals::Signals;

/// `virtio_pci_common_cfg`.
#[rustfmt::skip]
pub(crate) mod reg {
    //         name                   offset          bits  access
    pub(crate) const DEVICE_FEATURE_SELECT: u64 = 0x00; //  32  rw
    pub(crate) const DEVICE_FEATURE:        u64 = 0x04; //  32  ro
    pub(crate) const DRIVER_FEATURE_SELECT: u64 = 0x08; //  32  rw
    pub(crate) const DRIVER_FEATURE:        u64 = 0x0c; //  32  rw
    pub(crate) const CONFIG_MSIX_VECTOR:    u64 = 0x10; //  16  rw
    pub(crate) const NUM_QUEUES:            u64 = 0x12; //  16  ro
    pub(crate) const DEVICE_STATUS:         u64 = 0x14; //   8  rw
    pub(crate) const CONFIG_GENERATION:     u64 = 0x15; //   8  ro
    pub(crate) const QUEUE_SELECT:          u64 = 0x16; //  16  rw
    pub(crate) const QUEUE_SIZE:            u64 = 0x18; //  16  rw
    pub(crate) const QUEUE_MSIX_VECTOR:     u64 = 0x1a; //  16  rw
    pub(crate) const QUEUE_ENABLE:          u64 = 0x1c; //  16  rw
    pub(crate) const QUEUE_NOTIFY_OFF:      u64 = 0x1e; //  16  ro
    pub(crate) const QUEUE_DESC:            u64 = 0x20; //  64  rw  as two halves
    pub(crate) const QUEUE_DRIVER:          u64 = 0x28; //  64  rw
    pub(crate) const QUEUE_DEVICE:          u64 = 0x30; //  64  rw
    // 0x38, queue_notify_data, means nothing without its feature.
    pub(crate) const QUEUE_RESET:           u64 = 0x3a; //  16  rw
}

/// The common configuration of a device, while its lock is held.
pub(super) struct Common<'a> {
    pub(super) core: &'a mut Core<Vectors>,
    pub(super) signals: &'a Signals<Vectors>,
}

impl Common<'_> {
    /// Loads, of whatever width.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let all = self.bytes();
        for (at, byte) in (usize_from(offset)..).zip(data) {
            *byte = all.get(at).copied().unwrap_or(0);
        }
    }

    /// All of it.
    fn bytes(&self) -> [u8; 0x40] {
        let Self { core, signals } = self;
        let mut all = [0; 0x40];
        let mut put = |at: u64, field: &[u8]| {
            all[usize_from(at)..][..field.len()].copy_from_slice(field);
        };
        put(reg::DEVICE_FEATURE_SELECT, &core.device_features_select.to_le_bytes());
        put(reg::DEVICE_FEATURE, &core.device_features().to_le_bytes());
        put(reg::DRIVER_FEATURE_SELECT, &core.driver_features_select.to_le_bytes());
        put(reg::DRIVER_FEATURE, &core.driver_features().to_le_bytes());
        put(reg::CONFIG_MSIX_VECTOR, &signals.notifier().config_vector().to_le_bytes());
        put(reg::NUM_QUEUES, &narrow(u64_from(core.queue_count())).to_le_bytes());
        let [status, ..] = core.status().to_le_bytes();
        let [generation, ..] = signals.generation().to_le_bytes();
        put(reg::DEVICE_STATUS, &[status]);
        put(reg::CONFIG_GENERATION, &[generation]);
        put(reg::QUEUE_SELECT, &narrow(core.queue_select.into()).to_le_bytes());
        put(reg::QUEUE_SIZE, &core.queue_size().to_le_bytes());
        let vector = signals.notifier().queue_vector(self.selected());
        put(reg::QUEUE_MSIX_VECTOR, &vector.to_le_bytes());
        put(reg::QUEUE_ENABLE, &u16::from(core.queue_ready()).to_le_bytes());
        let doorbell = if self.selected() < core.queue_count() { core.queue_select } else { 0 };
        put(reg::QUEUE_NOTIFY_OFF, &narrow(doorbell.into()).to_le_bytes());
        put(reg::QUEUE_DESC, &core.queue_address(Area::Descriptor).to_le_bytes());
        put(reg::QUEUE_DRIVER, &core.queue_address(Area::Driver).to_le_bytes());
        put(reg::QUEUE_DEVICE, &core.queue_address(Area::Device).to_le_bytes());
        all
    }

    /// Stores to one field with its own width, or to half or all of one of 64 bits. Whether
    /// it was that; else nothing changes.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        match *data {
            [byte] if offset == reg::DEVICE_STATUS => self.core.set_status(byte.into()),
            [a, b] if offset.is_multiple_of(2) && offset < size::COMMON => {
                self.write_16(offset, u16::from_le_bytes([a, b]));
            }
            [a, b, c, d] if offset.is_multiple_of(4) && offset < size::COMMON => {
                self.write_32(offset, u32::from_le_bytes([a, b, c, d]));
            }
            [a, b, c, d, e, f, g, h]
                if matches!(offset, reg::QUEUE_DESC | reg::QUEUE_DRIVER | reg::QUEUE_DEVICE) =>
            {
                self.write_32(offset, u32::from_le_bytes([a, b, c, d]));
                self.write_32(offset + 4, u32::from_le_bytes([e, f, g, h]));
            }
            _ => return false,
        }
        true
    }

    fn write_16(&mut self, offset: u64, value: u16) {
        let selected = self.selected();
        let vectors = self.signals.notifier();
        match offset {
            reg::CONFIG_MSIX_VECTOR => vectors.set_config_vector(value),
            reg::QUEUE_SELECT => self.core.queue_select = value.into(),
            reg::QUEUE_SIZE => self.core.set_queue_size(value.into()),
            reg::QUEUE_MSIX_VECTOR => vectors.set_queue_vector(selected, value),
            reg::QUEUE_ENABLE if value == 1 => self.core.enable_queue(),
            reg::QUEUE_RESET if value == 1 => {
                self.core.reset_queue();
                vectors.set_queue_vector(selected, NO_VECTOR);
            }
            // Fields to read only, and halves of others.
            _ => {}
        }
    }

    fn write_32(&mut self, offset: u64, value: u32) {
        const DESC_HIGH: u64 = reg::QUEUE_DESC + 4;
        const DRIVER_HIGH: u64 = reg::QUEUE_DRIVER + 4;
        const DEVICE_HIGH: u64 = reg::QUEUE_DEVICE + 4;
        let core = &mut *self.core;
        match offset {
            reg::DEVICE_FEATURE_SELECT => core.device_features_select = value,
            reg::DRIVER_FEATURE_SELECT => core.driver_features_select = value,
            reg::DRIVER_FEATURE => core.accept_features(value),
            reg::QUEUE_DESC => core.set_queue_address(Area::Descriptor, Half::Low, value),
            DESC_HIGH => core.set_queue_address(Area::Descriptor, Half::High, value),
            reg::QUEUE_DRIVER => core.set_queue_address(Area::Driver, Half::Low, value),
            DRIVER_HIGH => core.set_queue_address(Area::Driver, Half::High, value),
            reg::QUEUE_DEVICE => core.set_queue_address(Area::Device, Half::Low, value),
            DEVICE_HIGH => core.set_queue_address(Area::Device, Half::High, value),
            // Fields to read only, and several of 16 bits at once.
            _ => {}
        }
    }

    /// The selected queue's index, of a queue or not.
    fn selected(&self) -> usize {
        usize_from(self.core.queue_select.into())
    }
}

/// The lowest 16 bits.
fn narrow(word: u64) -> u16 {
    u16::try_from(word & u64::from(u16::MAX)).expect("16 bits are left")
}
