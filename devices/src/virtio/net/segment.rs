//! Datagrams of UDP that a guest leaves to its card to cut (UDP segmentation
//! offload, `VIRTIO_NET_HDR_GSO_UDP_L4`), cut here where the host's tap does not:
//! before Linux 6.2. So a guest has the same card on every host.
//!
//! Each piece has the headers of the whole, with its own lengths; its checksum is
//! left to the host as the whole one's was.

use std::ops::Range;

use virtio_bindings::virtio_net::{VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_UDP_L4};

use crate::tap::HEADER_SIZE;

/// The most pieces of a datagram, as in the kernel (`UDP_MAX_SEGMENTS`).
const MOST: usize = 128;

/// Fields of the header before a frame (5.1.6).
mod field {
    use std::ops::Range;

    pub(super) const FLAGS: usize = 0;
    pub(super) const GSO_TYPE: usize = 1;
    pub(super) const HDR_LEN: Range<usize> = 2..4;
    pub(super) const GSO_SIZE: Range<usize> = 4..6;
    pub(super) const CSUM_START: Range<usize> = 6..8;
    pub(super) const CSUM_OFFSET: Range<usize> = 8..10;
}

/// The bytes of an Ethernet header without tags, and of a tag.
const ETHERNET: usize = 14;
const TAG: usize = 4;

/// Types of what is in an Ethernet frame.
const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const TYPE_TAGS: [u16; 2] = [0x8100, 0x88a8];

/// What UDP is called in IP's headers (RFC 768).
const PROTOCOL_UDP: u8 = 17;

/// The bytes of headers without options.
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

/// The checksum within UDP's header.
const UDP_CHECKSUM: u16 = 6;

/// Whether a frame behind `header` is datagrams of UDP to be cut.
pub(super) fn is_for_us(header: &[u8]) -> bool {
    let kind = header.get(field::GSO_TYPE).copied().map(u32::from);
    kind == Some(VIRTIO_NET_HDR_GSO_UDP_L4)
}

/// Where things are in a frame to be cut; all within it.
struct Layout {
    /// The Internet header's version and start.
    version: Version,
    ip: usize,
    /// Where UDP's header starts, and the data behind it.
    udp: usize,
    data: usize,
    /// The bytes of data in each piece but the last.
    size: usize,
}

enum Version {
    Four,
    Six,
}

/// Cuts `whole`, a frame with its header for which [`is_for_us`] holds, and hands
/// each piece with a header of its own to `send`. None where it cannot be cut: it
/// is not what its header says, or would be more pieces than the kernel makes.
pub(super) fn cut(whole: &[u8], mut send: impl FnMut(&[u8])) -> Option<()> {
    let (header, frame) = whole.split_at_checked(HEADER_SIZE)?;
    let layout = layout(header, frame)?;
    let data = frame.get(layout.data..)?;
    if data.len().div_ceil(layout.size) > MOST {
        return None;
    }
    let mut piece = Vec::with_capacity(HEADER_SIZE + layout.data + layout.size);
    for (number, data) in (0..).zip(data.chunks(layout.size)) {
        piece.clear();
        piece.extend_from_slice(header);
        piece[field::GSO_TYPE] = 0;
        piece[field::HDR_LEN].fill(0);
        piece[field::GSO_SIZE].fill(0);
        piece.extend_from_slice(&frame[..layout.data]);
        write_lengths(&mut piece[HEADER_SIZE..], &layout, number, data.len())?;
        piece.extend_from_slice(data);
        send(&piece);
    }
    Some(())
}

fn layout(header: &[u8], frame: &[u8]) -> Option<Layout> {
    let needs_checksum = u32::from(header[field::FLAGS]) & VIRTIO_NET_HDR_F_NEEDS_CSUM != 0;
    let size = usize::from(little(header, field::GSO_SIZE)?);
    let udp = usize::from(little(header, field::CSUM_START)?);
    if !needs_checksum || size == 0 || little(header, field::CSUM_OFFSET)? != UDP_CHECKSUM {
        return None;
    }
    let data = udp + UDP;
    if frame.len() <= data {
        return None;
    }
    let mut ip = ETHERNET;
    let mut kind = big(frame, ip - 2)?;
    while TYPE_TAGS.contains(&kind) && ip < ETHERNET + 2 * TAG {
        ip += TAG;
        kind = big(frame, ip - 2)?;
    }
    let version = match kind {
        TYPE_IPV4 => {
            let first = *frame.get(ip)?;
            let length = usize::from(first & 0xf) * 4;
            let right = first >> 4 == 4 && length >= IPV4 && ip + length == udp;
            let is_udp = *frame.get(ip + 9)? == PROTOCOL_UDP;
            // Neither an offset nor more to come.
            let is_fragment = big(frame, ip + 6)? & 0x3fff != 0;
            (right && is_udp && !is_fragment).then_some(Version::Four)?
        }
        // Headers between the two stay as they are.
        TYPE_IPV6 => (*frame.get(ip)? >> 4 == 6 && ip + IPV6 <= udp).then_some(Version::Six)?,
        _ => return None,
    };
    Some(Layout { version, ip, udp, data, size })
}

/// Writes what the headers in `frame` say of a piece with `length` bytes of data.
fn write_lengths(frame: &mut [u8], layout: &Layout, number: u16, length: usize) -> Option<()> {
    let &Layout { ref version, ip, udp, .. } = layout;
    let datagram = u16::try_from(UDP + length).ok()?;
    match version {
        Version::Four => {
            let packet = u16::try_from(udp - ip).ok()?.checked_add(datagram)?;
            put(frame, ip + 2, packet);
            let identification = big(frame, ip + 4)?.wrapping_add(number);
            put(frame, ip + 4, identification);
            put(frame, ip + 10, 0);
            let checksum = !sum(&frame[ip..udp]);
            put(frame, ip + 10, checksum);
        }
        Version::Six => {
            put(frame, ip + 4, u16::try_from(udp - ip - IPV6).ok()?.checked_add(datagram)?);
        }
    }
    // What is there is the sum of the addresses and the whole's length.
    let (whole, partial) = (big(frame, udp + 4)?, big(frame, udp + 6)?);
    put(frame, udp + 4, datagram);
    put(frame, udp + 6, add(add(partial, !whole), datagram));
    Some(())
}

/// The sum of RFC 1071 over an even number of bytes.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]]));
    words.fold(0, add)
}

fn add(a: u16, b: u16) -> u16 {
    let (sum, carried) = a.overflowing_add(b);
    sum.wrapping_add(carried.into())
}

fn little(bytes: &[u8], range: Range<usize>) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(range)?.try_into().ok()?))
}

fn big(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Writes within headers that are there: [`layout`] has looked.
fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
pub(super) mod tests;
