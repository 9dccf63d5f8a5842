//! Datagrams cut as a network card cuts them.

use super::*;

const NEEDS_CHECKSUM: u8 = 1;
const SOURCE: [u8; 4] = [10, 0, 0, 1];
const TARGET: [u8; 4] = [10, 0, 0, 2];

fn header(gso_size: u16, udp: u16) -> Vec<u8> {
    let mut header = vec![0; HEADER_SIZE];
    header[field::FLAGS] = NEEDS_CHECKSUM;
    header[field::GSO_TYPE] = 5;
    header[field::HDR_LEN].copy_from_slice(&(udp + 8).to_le_bytes());
    header[field::GSO_SIZE].copy_from_slice(&gso_size.to_le_bytes());
    header[field::CSUM_START].copy_from_slice(&udp.to_le_bytes());
    header[field::CSUM_OFFSET].copy_from_slice(&6_u16.to_le_bytes());
    header
}

/// A datagram over IPv4, in a frame with `tags`.
pub(in crate::virtio::net) fn over_ipv4(gso_size: u16, tags: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xee; 12];
    (0..tags).for_each(|_| frame.extend([0x81, 0, 0, 7]));
    frame.extend([0x08, 0x00]);
    let udp_length = u16::try_from(8 + data.len()).unwrap();
    let ip = [[0x45, 0], (20 + udp_length).to_be_bytes(), [0xff, 0xff], [0x40, 0], [64, 17]];
    let ip = ip.concat();
    let unsummed = [&ip[..], &[0, 0], &SOURCE, &TARGET].concat();
    let checksum = (!sum(&unsummed)).to_be_bytes();
    frame.extend([&ip[..], &checksum, &SOURCE, &TARGET].concat());
    let udp = 34 + 4 * tags;
    let pseudo = pseudo(&SOURCE, &TARGET, udp_length).to_be_bytes();
    frame.extend([[0x10, 0x92], [0x00, 0x35], udp_length.to_be_bytes(), pseudo].concat());
    frame.extend(data);
    [header(gso_size, udp), frame].concat()
}

fn over_ipv6(gso_size: u16, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xee; 12];
    let udp_length = u16::try_from(8 + data.len()).unwrap();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend(udp_length.to_be_bytes());
    frame.extend([17, 64]);
    frame.extend([[0x20; 16], [0x30; 16]].concat());
    let pseudo = pseudo(&[0x20; 16], &[0x30; 16], udp_length).to_be_bytes();
    frame.extend([[0x10, 0x92], [0x00, 0x35], udp_length.to_be_bytes(), pseudo].concat());
    frame.extend(data);
    [header(gso_size, 54), frame].concat()
}

/// The sum that a sender leaves for the card to go on from.
fn pseudo(source: &[u8], target: &[u8], length: u16) -> u16 {
    sum(&[source, target, &[0, 17], &length.to_be_bytes()].concat())
}

fn pieces(whole: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut pieces = Vec::new();
    cut(whole, |piece| pieces.push(piece.to_vec()))?;
    Some(pieces)
}

fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn a_datagram_over_ipv4_is_cut_into_datagrams_that_are_whole() {
    let data = data(2500);
    let pieces = pieces(&over_ipv4(1000, 0, &data)).unwrap();
    let lengths: Vec<_> = pieces.iter().map(|piece| piece.len() - HEADER_SIZE - 42).collect();
    assert_eq!(lengths, [1000, 1000, 500]);
    let parts: Vec<_> = pieces.iter().map(|piece| piece[HEADER_SIZE + 42..].to_vec()).collect();
    assert_eq!(parts.concat(), data);
    for (number, (piece, length)) in (0_u16..).zip(pieces.iter().zip([1000_u16, 1000, 500])) {
        let ip = &piece[HEADER_SIZE + 14..];
        assert_eq!(big(ip, 2), Some(28 + length));
        assert_eq!(big(ip, 4), Some(0xffff_u16.wrapping_add(number)));
        assert_eq!(sum(&ip[..20]), 0xffff, "the header's checksum is right");
        assert_eq!(big(ip, 24), Some(8 + length));
        assert_eq!(big(ip, 26), Some(pseudo(&SOURCE, &TARGET, 8 + length)));
    }
}

#[test]
fn the_host_does_the_checksums_of_pieces_and_nothing_else() {
    let pieces = pieces(&over_ipv4(10, 0, &data(30))).unwrap();
    for piece in pieces {
        assert_eq!(piece[..HEADER_SIZE], [NEEDS_CHECKSUM, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]);
    }
}

#[test]
fn a_datagram_over_ipv6_is_cut_too() {
    let pieces = pieces(&over_ipv6(1000, &data(1700))).unwrap();
    for (piece, length) in pieces.iter().zip([1000_u16, 700]) {
        let ip = &piece[HEADER_SIZE + 14..];
        assert_eq!(big(ip, 4), Some(8 + length));
        assert_eq!(big(ip, 44), Some(8 + length));
        assert_eq!(big(ip, 46), Some(pseudo(&[0x20; 16], &[0x30; 16], 8 + length)));
    }
    assert_eq!(pieces.len(), 2);
}

#[test]
fn tags_in_front_stay() {
    for tags in [1, 2] {
        let pieces = pieces(&over_ipv4(100, tags, &data(150))).unwrap();
        let tagged = usize::from(4 * tags);
        assert_eq!(pieces[1].len(), HEADER_SIZE + 42 + tagged + 50);
        assert_eq!(pieces[1][HEADER_SIZE + 12..][..2], [0x81, 0]);
    }
    assert!(pieces(&over_ipv4(100, 3, &data(150))).is_none());
}

#[test]
fn a_datagram_shorter_than_a_piece_stays_one() {
    assert_eq!(pieces(&over_ipv4(1000, 0, &data(7))).unwrap().len(), 1);
}

#[test]
fn more_pieces_than_the_kernel_makes_are_refused() {
    assert_eq!(pieces(&over_ipv4(10, 0, &data(1280))).unwrap().len(), 128);
    assert!(pieces(&over_ipv4(10, 0, &data(1281))).is_none());
}

#[test]
fn what_is_not_as_its_header_says_is_refused() {
    let right = over_ipv4(100, 0, &data(150));
    assert!(pieces(&right).is_some());
    type Change = fn(&mut [u8]);
    let changes: [(&str, Change); 11] = [
        ("no checksum to do", |whole| whole[field::FLAGS] = 0),
        ("pieces of nothing", |whole| whole[field::GSO_SIZE].fill(0)),
        ("another checksum", |whole| whole[field::CSUM_OFFSET][0] = 16),
        ("UDP out of the frame", |whole| whole[field::CSUM_START].fill(0xff)),
        ("UDP elsewhere", |whole| whole[field::CSUM_START][0] = 38),
        ("UDP in front of IP", |whole| whole[field::CSUM_START][0] = 2),
        ("another version", |whole| whole[HEADER_SIZE + 14] = 0x65),
        ("an IP header too short", |whole| whole[HEADER_SIZE + 14] = 0x44),
        ("TCP", |whole| whole[HEADER_SIZE + 23] = 6),
        ("a fragment", |whole| whole[HEADER_SIZE + 20] = 0x20),
        ("ARP", |whole| whole[HEADER_SIZE + 13] = 6),
    ];
    for (what, change) in changes {
        let mut wrong = right.clone();
        change(&mut wrong);
        assert!(pieces(&wrong).is_none(), "{what}");
    }
}

proptest::proptest! {
    #[test]
    fn whatever_a_guest_sends_does_no_harm(
        whole in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        at in 0..120_usize,
        six: bool,
    ) {
        let mut bent = if six { over_ipv6(100, &data(150)) } else { over_ipv4(100, 0, &data(150)) };
        let end = bent.len().min(at + whole.len());
        if at < end {
            bent[at..end].copy_from_slice(&whole[..end - at]);
        }
        let _ = pieces(&bent);
        let _ = pieces(&bent[..at]);
        let _ = pieces(&whole);
    }
}
