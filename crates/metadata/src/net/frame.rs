//! Whose a frame is, by its first bytes.

use std::net::Ipv4Addr;

use super::MAC;

/// What a frame for the service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who asks for its Ethernet address, or answers where it asked (RFC 826).
    Arp,
    /// The first segment of a connection (RFC 9293, 3.1).
    Syn,
    /// Another segment.
    Tcp,
    /// Anything else over IP.
    Other,
}

/// Where things are in an Ethernet frame without tags.
mod at {
    use std::ops::Range;

    pub(super) const SENDER: Range<usize> = 6..12;
    pub(super) const ETHERTYPE: Range<usize> = 12..14;
    /// Of ARP for IPv4.
    pub(super) const TARGET: Range<usize> = 38..42;
    /// Of IPv4 (RFC 791, 3.1).
    pub(super) const VERSION: usize = 14;
    pub(super) const PROTOCOL: usize = 23;
    pub(super) const SOURCE: Range<usize> = 26..30;
    pub(super) const DESTINATION: Range<usize> = 30..34;
    /// Of TCP, from its own beginning.
    pub(super) const FLAGS: usize = 13;
}

const ARP: [u8; 2] = [8, 6];
const IPV4: [u8; 2] = [8, 0];
const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// What a frame that begins with `head` is to the service at `address`. None where it is not
/// for it.
pub(super) fn kind(head: &[u8], address: Ipv4Addr) -> Option<Kind> {
    let address = &address.octets()[..];
    let ethertype = head.get(at::ETHERTYPE)?;
    if ethertype == ARP {
        return (head.get(at::TARGET)? == address).then_some(Kind::Arp);
    }
    if ethertype != IPV4 || head.get(at::DESTINATION)? != address {
        return None;
    }
    if head.get(at::PROTOCOL) != Some(&TCP) {
        return Some(Kind::Other);
    }
    let header = usize::from(head.get(at::VERSION)? & 0xf) * 4;
    let flags = head.get(at::VERSION + header + at::FLAGS).copied().unwrap_or_default();
    Some(if flags & (SYN | ACK) == SYN { Kind::Syn } else { Kind::Tcp })
}

/// Somebody on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    mac: [u8; 6],
    address: [u8; 4],
}

/// Who sent an IP packet.
pub(super) fn sender(frame: &[u8]) -> Option<Neighbour> {
    let mac = frame.get(at::SENDER)?.try_into().ok()?;
    let address = frame.get(at::SOURCE)?.try_into().ok()?;
    Some(Neighbour { mac, address })
}

/// The frame by which a neighbour would tell the service, at `address`, where it is: an ARP
/// reply (RFC 826).
pub(super) fn introduction(neighbour: &Neighbour, address: Ipv4Addr) -> Vec<u8> {
    // Ethernet, IPv4, their addresses' lengths, reply.
    const REPLY: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 2];
    let Neighbour { mac, address: own } = neighbour;
    [&MAC[..], mac, &ARP, &REPLY, mac, own, &MAC, &address.octets()].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

    fn frame(ethertype: [u8; 2], place: usize) -> [u8; 64] {
        let mut frame = [0; 64];
        frame[12..14].copy_from_slice(&ethertype);
        frame[14] = 0x45;
        frame[place..place + 4].copy_from_slice(&ADDRESS.octets());
        frame
    }

    #[test]
    fn frames_to_the_address_are_known_by_what_they_are() {
        assert_eq!(kind(&frame(ARP, 38), ADDRESS), Some(Kind::Arp));
        let mut segment = frame(IPV4, 30);
        assert_eq!(kind(&segment, ADDRESS), Some(Kind::Other));
        segment[23] = TCP;
        assert_eq!(kind(&segment, ADDRESS), Some(Kind::Tcp));
        segment[47] = SYN;
        assert_eq!(kind(&segment, ADDRESS), Some(Kind::Syn));
        segment[47] = SYN | ACK;
        assert_eq!(kind(&segment, ADDRESS), Some(Kind::Tcp));
    }

    #[test]
    fn frames_to_others_are_not_for_the_service() {
        assert_eq!(kind(&frame(ARP, 30), ADDRESS), None);
        assert_eq!(kind(&frame(IPV4, 26), ADDRESS), None);
        assert_eq!(kind(&frame([0x86, 0xdd], 30), ADDRESS), None);
        assert_eq!(kind(&frame(ARP, 38)[..41], ADDRESS), None);
        assert_eq!(kind(&[], ADDRESS), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_somebodys(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = kind(&bytes, ADDRESS);
        }
    }
}
