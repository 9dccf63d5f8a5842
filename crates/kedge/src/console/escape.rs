//! The keys that a terminal keeps from the guest: Ctrl-A and one more, as in
//! QEMU, kvmtool and minicom.

use std::mem;

/// Ctrl-A.
const ESCAPE: u8 = 0x01;

/// What the keys are, for whoever asks with Ctrl-A h; Ctrl-A x does `quits`.
pub(super) fn help(quits: &str) -> String {
    format!(
        "
kedge: Ctrl-A x  {quits}
       Ctrl-A a  send Ctrl-A to the guest
       Ctrl-A h  this list
"
    )
}

/// What the user wants of kedge itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// End the machine.
    Quit,
    /// List the keys.
    Help,
}

/// Where in a sequence the user is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Escape {
    /// Not in one.
    #[default]
    Plain,
    /// Ctrl-A came; the next key decides.
    Begun,
}

impl Escape {
    /// Takes a key; what is for the guest goes to `guest`.
    pub(super) fn take(&mut self, key: u8, guest: &mut Vec<u8>) -> Option<Wish> {
        match (mem::take(self), key) {
            (Self::Plain, ESCAPE) => *self = Self::Begun,
            (Self::Plain, key) => guest.push(key),
            (Self::Begun, b'x') => return Some(Wish::Quit),
            (Self::Begun, b'h') => return Some(Wish::Help),
            (Self::Begun, b'a') => guest.push(ESCAPE),
            (Self::Begun, ESCAPE) => {
                guest.push(ESCAPE);
                *self = Self::Begun;
            }
            // No sequence of kedge's: the guest gets what was typed.
            (Self::Begun, key) => guest.extend([ESCAPE, key]),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What reaches the guest of these keys, and the wishes among them.
    fn typed(keys: &[u8]) -> (Vec<u8>, Vec<Wish>) {
        let (mut escape, mut guest) = (Escape::default(), Vec::new());
        let wishes = keys.iter().filter_map(|&key| escape.take(key, &mut guest)).collect();
        (guest, wishes)
    }

    #[test]
    fn plain_keys_reach_the_guest() {
        assert_eq!(typed(b"ls\r\x03x"), (b"ls\r\x03x".to_vec(), vec![]));
    }

    #[test]
    fn ctrl_a_x_quits() {
        assert_eq!(typed(b"a\x01x"), (b"a".to_vec(), vec![Wish::Quit]));
    }

    #[test]
    fn ctrl_a_a_sends_ctrl_a() {
        assert_eq!(typed(b"\x01ab"), (b"\x01b".to_vec(), vec![]));
    }

    #[test]
    fn ctrl_a_h_asks_for_help_and_leaves_the_rest_to_the_guest() {
        assert_eq!(typed(b"a\x01hb"), (b"ab".to_vec(), vec![Wish::Help]));
    }

    #[test]
    fn an_unknown_sequence_reaches_the_guest_whole() {
        assert_eq!(typed(b"\x01k"), (b"\x01k".to_vec(), vec![]));
    }

    #[test]
    fn ctrl_a_pressed_twice_still_waits_for_its_key() {
        assert_eq!(typed(b"\x01\x01x"), (b"\x01".to_vec(), vec![Wish::Quit]));
    }
}
