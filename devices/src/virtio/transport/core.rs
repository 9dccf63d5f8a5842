//! What every transport has in common: the device's status, the negotiation of
//! features, the set-up of queues, and where the queues are (Virtio 1.2, 2.1,
//! 2.2, 2.6 and 3.1).
//!
//! A queue is either here, as state, or in the device's worker. A guest that
//! breaks the rules gets what the specification has for it: features that are
//! not accepted, or a device that needs a reset.

mod change;
mod rest;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use kedge_diag::Fix;
use kedge_guest_memory::GuestMemory;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueState, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::rest::Rest;
use super::signals::{Notifier, Signals};
use crate::virtio::device::{Activation, ActiveQueue, VirtioDevice};
use crate::virtio::worker::{EventLoop, LoopError};

/// The features every device has through its transport.
const TRANSPORT_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_F_RING_RESET
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// A part of a split virtqueue (2.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// The descriptor table.
    Descriptor,
    /// The available ring.
    Driver,
    /// The used ring.
    Device,
}

/// Half of a 64-bit address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Bits 0 to 31.
    Low,
    /// Bits 32 to 63.
    High,
}

/// Why queues could not move into the device's worker.
#[derive(Debug, thiserror::Error)]
enum ActivateError {
    #[error("queue {index} is not as the specification wants it")]
    Queue { index: u16, source: virtio_queue::Error },
    #[error("the host has no file descriptor for a doorbell")]
    Doorbell(#[source] io::Error),
    #[error(transparent)]
    Loop(LoopError),
}

impl Fix for ActivateError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Doorbell(_) => Some("raise the limit of open files (ulimit -n)".to_owned()),
            Self::Loop(source) => source.fix(),
            Self::Queue { .. } => None,
        }
    }
}

/// A device and the state of its negotiation.
pub(super) struct Core<N> {
    device: Box<dyn VirtioDevice>,
    memory: GuestMemory,
    event_loop: EventLoop,
    signals: Arc<Signals<N>>,
    doorbells: Arc<[EventFd]>,
    status: u32,
    /// Accepted by the driver, and whether it accepted any from 64 on.
    features: u64,
    strange_features: bool,
    queues: Vec<QueueState>,
    active: bool,
    rest: Rest,
    /// Offered: all there is, or what a restored guest was promised of it.
    promised: u64,
    pub(super) device_features_select: u32,
    pub(super) driver_features_select: u32,
    pub(super) queue_select: u32,
}

impl<N: Notifier + 'static> Core<N> {
    /// `device`, reset, signalling through `signals`.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub(super) fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        event_loop: EventLoop,
        signals: Arc<Signals<N>>,
    ) -> io::Result<Self> {
        let sizes = device.queue_sizes();
        let queues = sizes.iter().map(|&size| Ok(Queue::new(size)?.state()));
        let queues =
            queues.collect::<Result<_, virtio_queue::Error>>().map_err(io::Error::other)?;
        let doorbells = sizes.iter().map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC));
        let doorbells = doorbells.collect::<io::Result<_>>()?;
        Ok(Self {
            device,
            memory,
            event_loop,
            signals,
            doorbells,
            status: 0,
            features: 0,
            strange_features: false,
            queues,
            active: false,
            rest: Rest::None,
            promised: u64::MAX,
            device_features_select: 0,
            driver_features_select: 0,
            queue_select: 0,
        })
    }

    /// The queues' doorbells, by index.
    pub(super) fn doorbells(&self) -> Arc<[EventFd]> {
        Arc::clone(&self.doorbells)
    }

    /// The selected word of the features offered.
    pub(super) fn device_features(&self) -> u32 {
        match self.device_features_select {
            0 => low(self.offered()),
            1 => low(self.offered() >> 32),
            _ => 0,
        }
    }

    /// The driver accepts `word` of the selected word of features; too late once
    /// they are agreed on (3.1.1).
    pub(super) fn accept_features(&mut self, word: u32) {
        if self.has(VIRTIO_CONFIG_S_FEATURES_OK) {
            return;
        }
        match self.driver_features_select {
            0 => self.features = self.features >> 32 << 32 | u64::from(word),
            1 => self.features = u64::from(word) << 32 | u64::from(low(self.features)),
            _ => self.strange_features |= word != 0,
        }
    }

    /// The selected word of the features that the driver accepts.
    pub(super) fn driver_features(&self) -> u32 {
        match self.driver_features_select {
            0 => low(self.features),
            1 => low(self.features >> 32),
            _ => 0,
        }
    }

    /// The status (2.1).
    pub(super) fn status(&self) -> u32 {
        let broken = self.signals.is_broken();
        self.status | if broken { VIRTIO_CONFIG_S_NEEDS_RESET } else { 0 }
    }

    /// The driver reports progress, or resets the device with 0. Bits are set
    /// only: a reset alone clears them.
    pub(super) fn set_status(&mut self, status: u32) {
        if status == 0 {
            return self.reset();
        }
        let plain = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FAILED;
        let new = status & !self.status;
        self.status |= new & plain;
        if new & VIRTIO_CONFIG_S_FEATURES_OK != 0 && self.agrees() {
            self.status |= VIRTIO_CONFIG_S_FEATURES_OK;
        }
        if new & VIRTIO_CONFIG_S_DRIVER_OK != 0 && self.has(VIRTIO_CONFIG_S_FEATURES_OK) {
            self.status |= VIRTIO_CONFIG_S_DRIVER_OK;
            self.start();
        }
    }

    /// The largest size of the selected queue; 0 where there is no such queue.
    pub(super) fn queue_max_size(&self) -> u32 {
        self.queue().map_or(0, |queue| u32::from(queue.max_size))
    }

    /// How many queues there are.
    pub(super) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The selected queue's size; 0 where there is no such queue.
    pub(super) fn queue_size(&self) -> u16 {
        self.queue().map_or(0, |queue| queue.size)
    }

    /// Where a part of the selected queue is.
    pub(super) fn queue_address(&self, area: Area) -> u64 {
        self.queue().map_or(0, |queue| match area {
            Area::Descriptor => queue.desc_table,
            Area::Driver => queue.avail_ring,
            Area::Device => queue.used_ring,
        })
    }

    /// The driver chooses the selected queue's size.
    pub(super) fn set_queue_size(&mut self, size: u32) {
        if let Some(queue) = self.resting_queue() {
            // What is no size at all is refused with the queue.
            queue.size = u16::try_from(size).unwrap_or(0);
        }
    }

    /// The driver places a part of the selected queue.
    pub(super) fn set_queue_address(&mut self, area: Area, half: Half, value: u32) {
        let Some(queue) = self.resting_queue() else { return };
        let address = match area {
            Area::Descriptor => &mut queue.desc_table,
            Area::Driver => &mut queue.avail_ring,
            Area::Device => &mut queue.used_ring,
        };
        *address = match half {
            Half::Low => *address >> 32 << 32 | u64::from(value),
            Half::High => u64::from(value) << 32 | u64::from(low(*address)),
        };
    }

    /// Whether the selected queue is in use.
    pub(super) fn queue_ready(&self) -> bool {
        self.queue().is_some_and(|queue| queue.ready)
    }

    /// The selected queue is set up. One that is not in RAM, misaligned or of an
    /// impossible size is not taken, and the device needs a reset.
    pub(super) fn enable_queue(&mut self) {
        let memory = self.memory.clone();
        let select = self.queue_select;
        let Some(queue) = self.resting_queue() else { return };
        let wanted = QueueState { ready: true, ..*queue };
        match Queue::try_from(wanted) {
            Ok(valid) if valid.is_valid(&memory) => {
                self.recall();
                if let Some(queue) = self.resting_queue() {
                    *queue = wanted;
                }
                self.go_on();
            }
            Ok(_) => self.fail(&format_args!("queue {select} is not in RAM")),
            Err(error) => self.fail(&format_args!("queue {select}: {error}")),
        }
    }

    /// The selected queue is forgotten; the others go on (2.6.1, 4.2.2.2).
    pub(super) fn reset_queue(&mut self) {
        if self.queue().is_none() {
            return;
        }
        self.recall();
        if let Some(queue) = self.queue_mut() {
            *queue = unused(queue.max_size);
        }
        self.go_on();
    }

    /// Loads from the device's configuration space.
    pub(super) fn read_config(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        self.device.read_config(offset, data);
    }

    /// Stores to the device's configuration space.
    pub(super) fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    /// Takes the queues back from the device's worker, if they are there.
    pub(super) fn recall(&mut self) {
        if let Err(error) = self.bring_home(None) {
            self.fail(&error);
        }
    }

    /// The same, by `deadline` where there is one. If it is missed, the queues stay
    /// where they are.
    fn bring_home(&mut self, deadline: Option<Instant>) -> Result<(), LoopError> {
        if !self.active {
            return Ok(());
        }
        let queues = self.device.deactivate(deadline);
        self.active = matches!(queues, Err(LoopError::Late));
        for active in queues? {
            if let Some(home) = self.queues.get_mut(usize::from(active.index)) {
                *home = active.queue.state();
            }
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.recall();
        self.device.reset();
        self.status = 0;
        self.features = 0;
        self.strange_features = false;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.queue_select = 0;
        for queue in &mut self.queues {
            *queue = unused(queue.max_size);
        }
        for doorbell in self.doorbells.iter() {
            // It only fails when nobody rang.
            let _ = doorbell.read();
        }
        self.signals.reset();
    }

    /// The driver is ready: the queues go to work.
    fn start(&mut self) {
        if self.rest != Rest::None {
            return;
        }
        if self.signals.is_broken() {
            // It broke before the driver could be told.
            self.signals.notifier().config();
        } else if let Err(error) = self.activate() {
            self.fail(&error);
        }
    }

    /// Back to work after [`Core::recall`], where the driver is ready.
    fn go_on(&mut self) {
        if self.has(VIRTIO_CONFIG_S_DRIVER_OK) && !self.signals.is_broken() {
            self.start();
        }
    }

    fn activate(&mut self) -> Result<(), ActivateError> {
        let event_idx = self.features & (1 << VIRTIO_RING_F_EVENT_IDX) != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        for (index, (state, doorbell)) in
            (0..).zip(self.queues.iter_mut().zip(self.doorbells.iter()))
        {
            if !state.ready {
                continue;
            }
            state.event_idx_enabled = event_idx;
            let queue =
                Queue::try_from(*state).map_err(|source| ActivateError::Queue { index, source })?;
            // A worker before this one may have answered and not acted.
            doorbell.write(1).map_err(ActivateError::Doorbell)?;
            let doorbell = doorbell.try_clone().map_err(ActivateError::Doorbell)?;
            queues.push(ActiveQueue { index, queue, doorbell });
        }
        let interrupt = Arc::clone(&self.signals);
        let activation = Activation {
            memory: self.memory.clone(),
            features: self.features,
            queues,
            interrupt,
            event_loop: self.event_loop.clone(),
        };
        self.device.activate(activation).map_err(ActivateError::Loop)?;
        self.active = true;
        Ok(())
    }

    fn fail(&self, why: &dyn fmt::Display) {
        self.signals.mark_broken(why);
        if self.has(VIRTIO_CONFIG_S_DRIVER_OK) {
            self.signals.notifier().config();
        }
    }

    /// The features that there are.
    fn available(&self) -> u64 {
        // Queues come home for a reset of one of them: that is nobody else's business.
        let borne = self.device.bears() | 1 << VIRTIO_F_RING_RESET;
        self.device.features() | TRANSPORT_FEATURES & borne
    }

    fn offered(&self) -> u64 {
        self.available() & self.promised
    }

    /// Whether the device can work with what the driver accepted (2.2, 6.2).
    fn agrees(&self) -> bool {
        let modern = self.features & (1 << VIRTIO_F_VERSION_1) != 0;
        modern && self.features & !self.offered() == 0 && !self.strange_features
    }

    fn has(&self, status: u32) -> bool {
        self.status & status != 0
    }

    fn queue(&self) -> Option<&QueueState> {
        usize::try_from(self.queue_select).ok().and_then(|index| self.queues.get(index))
    }

    fn queue_mut(&mut self) -> Option<&mut QueueState> {
        usize::try_from(self.queue_select).ok().and_then(|index| self.queues.get_mut(index))
    }

    /// The selected queue, if it is not in use: only then it can be set up.
    fn resting_queue(&mut self) -> Option<&mut QueueState> {
        self.queue_mut().filter(|queue| !queue.ready)
    }
}

impl<N> fmt::Debug for Core<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("device", &self.device.device_id())
            .field("status", &self.status)
            .field("features", &self.features)
            .field("queues", &self.queues)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

/// A queue as it is after a reset.
fn unused(max_size: u16) -> QueueState {
    QueueState { max_size, size: max_size, ..QueueState::default() }
}

/// Bits 0 to 31.
fn low(word: u64) -> u32 {
    u32::try_from(word & u64::from(u32::MAX)).expect("32 bits are left")
}
