//! What a back end is asked for, be it the kernel or another process.

use kedge_guest_memory::{GuestMemory, WriteLog};
use vhost::{VhostBackend, VringConfigData};
use vmm_sys_util::eventfd::EventFd;

use super::BackEndError;

/// A queue as a back end gets it. Addresses are the guest's.
#[derive(Debug)]
pub(in crate::virtio) struct Place<'a> {
    /// Its index on the device.
    pub(super) index: u16,
    /// Its size, and the largest it could have.
    pub(super) size: u16,
    pub(super) max_size: u16,
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
    /// Where the back end begins in the available ring.
    pub(super) next: u16,
    /// Rung by the driver.
    pub(super) kick: &'a EventFd,
    /// To be rung for the driver.
    pub(super) call: &'a EventFd,
    /// To be rung where the ring is broken.
    pub(super) error: &'a EventFd,
}

/// What a back end is to work with.
#[derive(Debug)]
pub(in crate::virtio) struct Session<'a> {
    /// Those that the driver accepted, the transport's own among them.
    pub(super) features: u64,
    pub(super) memory: &'a GuestMemory,
    /// Where it notes what it writes, if somebody wants to know.
    pub(super) log: Option<&'a WriteLog>,
    pub(super) places: Vec<Place<'a>>,
}

/// Who serves queues.
pub(in crate::virtio) trait BackEnd: Send {
    /// The features it has, the transport's and its own among them.
    fn features(&self) -> u64;

    /// Begins to serve the queues of `session`.
    ///
    /// # Errors
    /// It does not. Some of the queues may be in use then.
    fn begin(&mut self, session: &Session<'_>) -> Result<(), BackEndError>;

    /// Serves the queues of `session` again, which it was told to leave alone.
    ///
    /// # Errors
    /// It does not.
    fn go_on(&mut self, session: &Session<'_>) -> Result<(), BackEndError>;

    /// Leaves these queues alone from now on; how far it has come in each one's available
    /// ring, by its own word. What it has taken before, it finishes.
    ///
    /// # Errors
    /// It does not answer.
    fn stop(&mut self, queues: &[u16]) -> Result<Vec<u32>, BackEndError>;

    /// Whether it may have something under way yet when [`BackEnd::stop`] returns.
    fn lingers(&self) -> bool {
        true
    }

    /// What hangs up when it ends, where it can end.
    ///
    /// # Errors
    /// The host has no file descriptor for it.
    fn connection(&self) -> Result<Option<std::os::unix::net::UnixStream>, BackEndError>;
}

/// The flag of a ring whose used elements are logged, too (`VHOST_VRING_F_LOG`).
const LOGGED: u32 = 1 << 0;

/// Tells `vhost` all of a queue, but that it may begin.
pub(super) fn place<V: VhostBackend>(
    vhost: &V,
    place: &Place<'_>,
    log: Option<&WriteLog>,
) -> vhost::Result<()> {
    let index = usize::from(place.index);
    let config = VringConfigData {
        queue_max_size: place.max_size,
        queue_size: place.size,
        flags: if log.is_some() { LOGGED } else { 0 },
        desc_table_addr: place.descriptors,
        used_ring_addr: place.used,
        avail_ring_addr: place.available,
        log_addr: log.map(|_| place.used),
    };
    vhost.set_vring_num(index, place.size)?;
    vhost.set_vring_base(index, place.next)?;
    vhost.set_vring_addr(index, &config)?;
    vhost.set_vring_call(index, place.call)?;
    vhost.set_vring_err(index, place.error)?;
    vhost.set_vring_kick(index, place.kick)
}
