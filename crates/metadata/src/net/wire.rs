//! The frames between a guest and the stack: one on its way in, some on their way out.

use std::collections::VecDeque;

use smoltcp::phy::{
    Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken,
};
use smoltcp::time::Instant;

/// Frames that wait for a guest, at most. Where it takes none, there is no more to say.
const MOST_WAITING: usize = 32;

/// The longest frame to a guest: an IP packet of 1500 bytes and its Ethernet header.
pub(super) const LONGEST_FRAME: usize = 1514;

/// The wire.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// From the guest.
    pub(super) incoming: Option<Vec<u8>>,
    /// To the guest.
    pub(super) outgoing: VecDeque<Vec<u8>>,
}

impl Wire {
    /// Whether it takes no frame more: what is to be sent has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.outgoing.len() >= MOST_WAITING
    }
}

impl Device for Wire {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        if self.is_full() {
            return None;
        }
        let frame = self.incoming.take()?;
        Some((Incoming(frame), Outgoing(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        (!self.is_full()).then_some(Outgoing(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = LONGEST_FRAME;
        let mut checksum = ChecksumCapabilities::default();
        // A frame of the guest comes by way of its memory: no bit gets lost there, and a
        // driver leaves its checksum to the network.
        (checksum.ipv4, checksum.tcp, checksum.icmpv4) = (Checksum::Tx, Checksum::Tx, Checksum::Tx);
        capabilities.checksum = checksum;
        capabilities
    }
}

/// A frame of the guest.
#[derive(Debug)]
pub(super) struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame to the guest.
#[derive(Debug)]
pub(super) struct Outgoing<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
