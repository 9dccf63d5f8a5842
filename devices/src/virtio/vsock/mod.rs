//! Virtio socket device (Virtio 1.2, 5.10): streams, and where they are asked for messages,
//! between programs of the guest and programs of the host, which find each other by the
//! guest's port and a path.
//!
//! The host's side is Firecracker's (docs/vsock.md): a program of the host connects to the
//! device's Unix socket, writes `CONNECT <port>\n`, and reads `OK <port>\n` once a program
//! of the guest has accepted; one of the guest that connects to port P of the host reaches
//! whoever listens at that socket's path with `_P` behind it.
//!
//! Connections that carry messages are sockets of the kind SEQPACKET on both sides. A
//! program of the host asks for one at the path with `_seqpacket` behind it, in a message of
//! the same words; for one of the guest, whoever listens at `_P` decides which kind it is.
//!
//! Connections last while the device does, whether its queues are at work or not; a reset
//! ends them, and a saved machine has none: its guest is told so when it goes on, and its
//! programs that listen do not notice.

mod config;
mod connection;
mod links;
mod listen;
mod messages;
mod metrics;
mod packet;
pub mod saved;
mod syscalls;
mod worker;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kedge_diag::Trouble;
use kedge_metrics::Counters;
use kedge_saved_state::{Part, StateError};

use super::device::{Activation, ActiveQueue, DeviceId, VirtioDevice};
use super::worker::{LoopError, Running, stop};
pub use config::{KIND, VsockConfig};
use links::{Ends, Links};
pub use listen::ListenError;
use listen::Listener;
pub use metrics::VsockMetrics;
use packet::Kind;
use saved::VsockV1;
use worker::VsockWorker;

/// The queues' indices (5.10.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENT: u16 = 2;

/// The largest size of each queue.
const QUEUE_SIZES: [u16; 3] = [256, 256, 256];

/// `VIRTIO_VSOCK_F_STREAM` (5.10.3); streams are also what there is where the driver accepts
/// nothing.
const STREAMS: u64 = 1;
/// `VIRTIO_VSOCK_F_SEQPACKET`.
const MESSAGES: u64 = 1 << 1;

/// The most connections at once, with those that are asked for. Each may have a buffer of
/// 64 KiB each way, while a program of either side does not read.
const MOST_CONNECTIONS: usize = match () {
    () if cfg!(test) => 64,
    () if cfg!(fuzzing) => 16,
    () => 4096,
};

/// The host's first port for connections to the guest; those below are for programs that
/// wait for the guest's.
const FIRST_PORT: u32 = 1 << 30;

/// Where connections are while no worker is there.
#[derive(Clone, Debug, Default)]
struct Shelf(Arc<Mutex<Links>>);

impl Shelf {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A vsock device.
pub struct Vsock {
    cid: u32,
    listener: Arc<Listener>,
    shelf: Shelf,
    metrics: Arc<VsockMetrics>,
    running: Option<Running>,
}

impl Vsock {
    /// The device of the guest with address `cid`, which programs of the host ask at
    /// `listener` for connections.
    fn new(cid: u32, listener: Listener) -> Self {
        Self {
            cid,
            listener: Arc::new(listener),
            shelf: Shelf::default(),
            metrics: Arc::default(),
            running: None,
        }
    }

    /// What the device has done so far.
    pub fn metrics(&self) -> &Arc<VsockMetrics> {
        &self.metrics
    }
}

impl VirtioDevice for Vsock {
    fn device_id(&self) -> DeviceId {
        DeviceId::Vsock
    }

    fn name(&self) -> String {
        "the vsock device".to_owned()
    }

    fn counters(&self) -> Option<(&'static str, Arc<dyn Counters>)> {
        Some(("vsock", Arc::<VsockMetrics>::clone(&self.metrics)))
    }

    fn features(&self) -> u64 {
        STREAMS | if self.listener.has(Kind::Seqpacket) { MESSAGES } else { 0 }
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    /// `struct virtio_vsock_config` (5.10.4): the guest's address.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = u64::from(self.cid).to_le_bytes();
        let fields = usize::try_from(offset).ok().and_then(|offset| space.get(offset..));
        for (byte, field) in data.iter_mut().zip(fields.unwrap_or_default()) {
            *byte = *field;
        }
    }

    fn activate(&mut self, activation: Activation) -> Result<(), LoopError> {
        let event_loop = activation.event_loop.clone();
        let ends = Ends {
            guest_cid: self.cid.into(),
            listener: Arc::clone(&self.listener),
            has_messages: activation.features & MESSAGES != 0,
            metrics: Arc::clone(&self.metrics),
        };
        let worker = VsockWorker::new(activation, ends, &self.shelf);
        self.running = Some(event_loop.start(Box::new(worker))?);
        Ok(())
    }

    fn deactivate(&mut self, deadline: Option<Instant>) -> Result<Vec<ActiveQueue>, LoopError> {
        stop(&mut self.running, deadline)
    }

    /// The connections end: their streams close.
    fn reset(&mut self) {
        self.shelf.links().clear();
    }

    fn save(&self) -> Part {
        let next_port = self.shelf.links().next_port;
        Part::of(&VsockV1 { guest_cid: self.cid, next_port })
    }

    fn restore(&mut self, saved: &Part) -> Result<(), Trouble> {
        let saved: VsockV1 = saved.read().map_err(Trouble::new)?;
        let VsockV1 { guest_cid, next_port } = check(saved).map_err(Trouble::new)?;
        self.cid = guest_cid;
        let mut links = self.shelf.links();
        links.next_port = next_port;
        links.reset_due = true;
        Ok(())
    }
}

/// `saved` if a device can be so.
fn check(saved: VsockV1) -> Result<VsockV1, StateError> {
    let VsockV1 { guest_cid, next_port } = saved;
    if !config::CIDS.contains(&guest_cid) {
        return Err(StateError::field::<VsockV1>("guest_cid", format!("is {guest_cid}, reserved")));
    }
    if next_port < FIRST_PORT {
        let problem = format!("is {next_port}, below {FIRST_PORT}");
        return Err(StateError::field::<VsockV1>("next_port", problem));
    }
    Ok(saved)
}

impl fmt::Debug for Vsock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vsock").field("listener", &self.listener).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod restore_tests;
#[cfg(test)]
mod tests;
