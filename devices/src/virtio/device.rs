//! What a transport needs of a virtio device.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use kedge_diag::Trouble;
use kedge_guest_memory::GuestMemory;
use kedge_metrics::Counters;
use kedge_saved_state::Part;
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use super::change::{Change, ChangeError, Changed};
use super::detour::Detour;
use super::worker::{EventLoop, LoopError};

/// What kind of device it is (Virtio 1.2, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceId {
    /// Network card (5.1).
    Net,
    /// Block device (5.2).
    Block,
    /// Entropy device (5.4).
    Rng,
    /// Socket device (5.10).
    Vsock,
}

impl DeviceId {
    /// The number that drivers know it by.
    pub const fn number(self) -> u32 {
        match self {
            Self::Net => 1,
            Self::Block => 2,
            Self::Rng => 4,
            Self::Vsock => 19,
        }
    }
}

/// Tells the driver that something happened. Transports implement it.
pub trait Interrupt: Send + Sync {
    /// Buffers of queue `index` were used.
    fn used(&self, index: u16);
    /// The device is in a state only a reset leads out of (2.1.1): what a guest
    /// gets that corrupts its own rings. `why` goes to the log, at a limited rate.
    fn needs_reset(&self, why: &dyn fmt::Display);
}

/// A queue on its way into a worker.
#[derive(Debug)]
pub struct ActiveQueue {
    /// Its index on the device.
    pub index: u16,
    /// The ring.
    pub queue: Queue,
    /// Rung by the driver when it made buffers available.
    pub doorbell: EventFd,
}

/// All a device needs to start work.
pub struct Activation {
    /// The guest's RAM.
    pub memory: GuestMemory,
    /// The features the driver accepted: a subset of those offered.
    pub features: u64,
    /// The queues that the driver enabled, in order of their indices.
    pub queues: Vec<ActiveQueue>,
    /// The way to the driver.
    pub interrupt: Arc<dyn Interrupt>,
    /// Where the worker runs.
    pub event_loop: EventLoop,
}

impl fmt::Debug for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Activation")
            .field("features", &self.features)
            .field("queues", &self.queues)
            .finish_non_exhaustive()
    }
}

/// A virtio device behind any transport.
///
/// While the driver negotiates, queues belong to the transport. `activate` moves
/// them into the device's worker, `deactivate` moves them back: exact inverses,
/// so that a device whose queues are home can be saved, reset or unplugged.
pub trait VirtioDevice: Send {
    /// What kind of device it is.
    fn device_id(&self) -> DeviceId;

    /// What an error calls it: "disk `root`".
    fn name(&self) -> String;

    /// The features offered, without the transport's own (`VIRTIO_F_VERSION_1`
    /// and the ring features are the transport's).
    fn features(&self) -> u64;

    /// Of the transport's own features, those that who serves the queues has, too.
    fn bears(&self) -> u64 {
        u64::MAX
    }

    /// The largest size of each queue: powers of two up to 32768.
    fn queue_sizes(&self) -> &[u16];

    /// Loads from the configuration space. Bytes the device does not have stay
    /// as they are (the transport presets zeros).
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Stores to the configuration space. Fields that are read-only stay.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// What it counts, and what kind of thing metrics call it: `net`.
    fn counters(&self) -> Option<(&'static str, Arc<dyn Counters>)> {
        None
    }

    /// Puts somebody beside its network, before it is first active. A device without one
    /// has no place for it.
    ///
    /// # Errors
    /// This process does not see what goes over its network.
    fn set_detour(&mut self, _detour: Box<dyn Detour>) -> Result<(), Trouble> {
        Ok(())
    }

    /// Starts work.
    ///
    /// # Errors
    /// The event loop is gone or out of resources. The transport then reports
    /// `NEEDS_RESET`.
    fn activate(&mut self, activation: Activation) -> Result<(), LoopError>;

    /// Lets requests in flight finish and takes the queues back. Nothing where
    /// the device is not active. What comes from the host from then on waits
    /// there, and what the device holds for its driver it keeps.
    ///
    /// # Errors
    /// The event loop is gone; or [`LoopError::Late`]: it was not done by
    /// `deadline`, and works on.
    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError>;

    /// Becomes what `change` says, while its queues are home.
    ///
    /// # Errors
    /// It cannot. It is as it was.
    fn change(&mut self, change: &Change) -> Result<Changed, Trouble> {
        Err(Trouble::new(ChangeError::Fixed { noun: change.kind().noun }))
    }

    /// The driver has reset the device, whose queues are home: what the device
    /// held for it is nobody's any more.
    fn reset(&mut self) {}

    /// What it takes to go on elsewhere, besides the transport's and the queues'
    /// state. To be called while the queues are home.
    fn save(&self) -> Part;

    /// Takes up what was saved of a device like it, before it is first active.
    /// What the guest was promised comes before what the host has now; where the
    /// host's resource cannot keep the promise, it is an error.
    ///
    /// # Errors
    /// The part is damaged or of another device, or the host's resource has
    /// changed. The device is then of no further use.
    fn restore(&mut self, saved: &Part) -> Result<(), Trouble>;
}
