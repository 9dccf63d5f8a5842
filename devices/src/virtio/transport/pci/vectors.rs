//! How a function reaches its driver: through a vector for each queue and one for the
//! configuration, as the driver chooses (Virtio 1.2, 4.1.5.1.2).

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use crate::pci::Msix;
use crate::virtio::transport::signals::Notifier;

/// `VIRTIO_MSI_NO_VECTOR`: whatever happens, nobody is told.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// `ISR status` (4.1.4.5): buffers were used.
const USED_BUFFER: u32 = 1 << 0;
/// The configuration or `DEVICE_NEEDS_RESET` changed.
const CONFIG_CHANGE: u32 = 1 << 1;

/// What is told through which vector.
#[derive(Debug)]
pub(super) struct Vectors {
    pub(super) msix: Msix,
    isr: AtomicU32,
    config: AtomicU16,
    queues: Vec<AtomicU16>,
}

impl Vectors {
    /// For this many queues, told through none of these vectors yet.
    pub(super) fn new(msix: Msix, queues: usize) -> Self {
        let queues = (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect();
        Self { msix, isr: AtomicU32::new(0), config: AtomicU16::new(NO_VECTOR), queues }
    }

    /// `ISR status`, which is clear once it was read.
    pub(super) fn take_isr(&self) -> u32 {
        self.isr.swap(0, Ordering::SeqCst)
    }

    /// The vector of the configuration.
    pub(super) fn config_vector(&self) -> u16 {
        self.config.load(Ordering::SeqCst)
    }

    /// The driver chooses the vector of the configuration.
    pub(super) fn set_config_vector(&self, vector: u16) {
        self.config.store(self.existing(vector), Ordering::SeqCst);
    }

    /// The vector of a queue.
    pub(super) fn queue_vector(&self, index: usize) -> u16 {
        self.queues.get(index).map_or(NO_VECTOR, |own| own.load(Ordering::SeqCst))
    }

    /// The driver chooses the vector of a queue.
    pub(super) fn set_queue_vector(&self, index: usize, vector: u16) {
        if let Some(own) = self.queues.get(index) {
            own.store(self.existing(vector), Ordering::SeqCst);
        }
    }

    /// The vectors of all queues.
    pub(super) fn queue_vectors(&self) -> Vec<u16> {
        (0..self.queues.len()).map(|index| self.queue_vector(index)).collect()
    }

    /// A vector that there is, or none: that the driver reads back (4.1.5.1.2.1).
    fn existing(&self, vector: u16) -> u16 {
        if vector < self.msix.count() { vector } else { NO_VECTOR }
    }
}

impl Notifier for Vectors {
    fn used(&self, index: u16) {
        // With MSI-X, the vector says it.
        if !self.msix.is_enabled() {
            self.isr.fetch_or(USED_BUFFER, Ordering::SeqCst);
        }
        self.msix.notify(self.queue_vector(index.into()));
    }

    fn config(&self) {
        self.isr.fetch_or(CONFIG_CHANGE, Ordering::SeqCst);
        self.msix.notify(self.config_vector());
    }

    fn reset(&self) {
        self.isr.store(0, Ordering::SeqCst);
        self.config.store(NO_VECTOR, Ordering::SeqCst);
        self.queues.iter().for_each(|queue| queue.store(NO_VECTOR, Ordering::SeqCst));
        self.msix.forget_pending();
    }

    fn unacknowledged(&self) -> u32 {
        self.isr.load(Ordering::SeqCst)
    }

    fn restore(&self, unacknowledged: u32) {
        self.isr.store(unacknowledged, Ordering::SeqCst);
    }

    /// A message is an interrupt, or waits in the table, by the time it is sent: none was on
    /// its way. But where the tables of interrupts could not be kept whole, one too many does
    /// no harm: the driver finds no reason for it.
    fn remind(&self) {
        self.queue_vectors().into_iter().for_each(|vector| self.msix.notify(vector));
    }
}
