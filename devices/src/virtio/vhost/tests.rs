//! What back ends may say, and what not.

use super::answers::{Nonsense, answer_length, base, queues};

#[test]
fn a_back_end_stops_where_it_can_have_come_to() {
    assert_eq!(base(7, (0, 16), 7), Ok(7));
    assert_eq!(base(3, (0, 16), 0xfffd), Ok(3), "indices wrap");
    assert_eq!(base(23, (0, 16), 7), Ok(23));
    let taken = |taken| Err(Nonsense::Taken { queue: 1, taken, size: 16 });
    assert_eq!(base(24, (1, 16), 7), taken(17));
    assert_eq!(base(6, (1, 16), 7), taken(0xffff), "it gave back more than it took");
    assert_eq!(base(0x1_0000, (1, 16), 7), taken(0x1_0000));
}

#[test]
fn a_back_end_has_queues() {
    assert_eq!(queues(3), Ok(3));
    assert_eq!(queues(0), Err(Nonsense::Queues(0)));
    assert_eq!(queues(u64::MAX), Err(Nonsense::Queues(u64::MAX)));
}

#[test]
fn an_answer_says_what_it_answers_and_how_long_it_is() {
    let header = |words: [u32; 3]| words.map(u32::to_ne_bytes).concat().try_into().unwrap();
    assert_eq!(answer_length(header([6, 0b101, 8]), 6), Ok(8));
    for wrong in [[7, 0b101, 8], [6, 0b001, 8], [6, 0b110, 8], [6, 0b101, 257]] {
        assert_eq!(answer_length(header(wrong), 6), Err(Nonsense::Answer { request: 6 }));
    }
}
