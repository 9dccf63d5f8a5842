//! A detour beside a network: somebody in the machine whom the guest reaches through a
//! network card, and whose frames the card's network never sees.

use std::time::Instant;

/// Bytes of a frame, from its Ethernet header on, that are enough to tell whose it is: those
/// of an ARP request for IPv4, which go further than an IPv4 header without options.
pub const HEAD: usize = 42;

/// Somebody on the guest's side of a card's network. It is called by one worker at a time,
/// on a thread that others wait for: no call may wait.
pub trait Detour: Send {
    /// Whether a frame of the guest is for it alone. `head` is its beginning: [`HEAD`] bytes,
    /// or all of it where it is shorter.
    fn claims(&self, head: &[u8]) -> bool;

    /// Takes a frame of the guest that it claims. Checksums may be left undone, and the frame
    /// be longer than the card's MTU allows, up to an IP packet of 64 KiB.
    fn take(&mut self, frame: &[u8], now: Instant);

    /// Puts its next frame for the guest, of at most `to`'s length, to the beginning of `to`:
    /// its length. None where there is none now.
    fn give(&mut self, to: &mut [u8], now: Instant) -> Option<usize>;

    /// When it may have a frame for the guest though none comes before. None: never.
    fn due(&mut self, now: Instant) -> Option<Instant>;
}
