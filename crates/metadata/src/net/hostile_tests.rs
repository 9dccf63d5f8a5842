//! The stack under guests that mean it ill: whatever frames come, it stays whole and small,
//! and serves others.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::stack::Stack;
use super::tests::{Guest, config, service};

const ADDRESS: [u8; 4] = [169, 254, 169, 254];

/// A frame of which the service believes that it is its own, with anything else in it.
fn arp() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 42..80).prop_map(|mut frame| {
        frame[12..14].copy_from_slice(&[8, 6]);
        frame[38..42].copy_from_slice(&ADDRESS);
        frame
    })
}

/// The same over IP, where most of the header is as it should be more often than not.
fn ip() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 34..400);
    (bytes, any::<[bool; 4]>(), 0_u8..16).prop_map(|(mut frame, sane, header)| {
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[30..34].copy_from_slice(&ADDRESS);
        let [length, version, protocol, port] = sane;
        if length {
            let length = u16::try_from(frame.len() - 14).unwrap();
            frame[16..18].copy_from_slice(&length.to_be_bytes());
        }
        if version {
            frame[14] = 0x40 | if header < 12 { 5 } else { header };
        }
        if protocol {
            frame[23] = 6;
        }
        if port && frame.len() > 54 {
            frame[36..38].copy_from_slice(&80_u16.to_be_bytes());
            frame[46] = 0x50 | (frame[46] & 0xf);
        }
        frame
    })
}

/// A segment from a well-known place with anything in its TCP header, options and data.
fn segment() -> impl Strategy<Value = Vec<u8>> {
    let rest = prop::collection::vec(any::<u8>(), 0..200);
    let header = (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), 5_u8..16);
    (0_u8..3, header, rest).prop_map(|(port, (sequence, ack, flags, window, words), rest)| {
        let mut tcp = vec![0xa0, port, 0, 80];
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([words << 4, flags]);
        tcp.extend(window.to_be_bytes());
        tcp.extend([0, 0, 0, 0]);
        tcp.extend(rest);
        let length = u16::try_from(20 + tcp.len()).unwrap().to_be_bytes();
        let mut frame = vec![6, 1, 0x23, 0x45, 0x67, 1, 6, 0, 0, 0, 0, 9, 8, 0];
        frame.extend([0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 9]);
        frame.extend(ADDRESS);
        frame.extend(tcp);
        frame
    })
}

/// What a guest does, and how long it then waits, in milliseconds.
fn deeds() -> impl Strategy<Value = Vec<(Vec<u8>, u16, bool)>> {
    let any_frame = prop::collection::vec(any::<u8>(), 0..100);
    let frame = prop_oneof![2 => arp(), 3 => ip(), 6 => segment(), 1 => any_frame];
    prop::collection::vec((frame, 0_u16..5000, any::<bool>()), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_frames_harm_the_service_or_who_else_asks(deeds in deeds()) {
        let mut guest = Guest::new(service());
        for (frame, wait, reads) in deeds {
            guest.stack.take(&frame, guest.now);
            let mut room = [0; 2048];
            while reads && guest.stack.give(&mut room, guest.now).is_some() {}
            guest.now += Duration::from_millis(wait.into());
            prop_assert!(guest.stack.size() <= 30 + 32);
        }
        // Whoever was there before has been quiet for long.
        guest.now += Duration::from_secs(3);
        let answer = guest.get("/a");
        prop_assert!(answer.ends_with("\r\n\r\nb"), "{}", answer);
    }

    #[test]
    fn a_timer_is_never_for_the_past_for_good(deeds in deeds()) {
        let mut stack = Stack::new(service(), &config("V2"), 3);
        let mut now = Instant::now();
        for (frame, ..) in deeds {
            stack.take(&frame, now);
        }
        // A worker that has room does all there is to do at once.
        let mut room = [0; 2048];
        for _ in 0..200 {
            let mut frames = 0;
            while stack.give(&mut room, now).is_some() {
                frames += 1;
                prop_assert!(frames < 5000);
            }
            let Some(due) = stack.due() else { return Ok(()) };
            prop_assert!(due > now);
            now = due;
        }
    }
}
