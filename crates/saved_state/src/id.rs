//! The identity of a snapshot: its memory file is kept under it while another
//! takes its place, and a difference names the snapshot it follows by it.

use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

const BYTES: usize = 16;

/// 128 random bits; as text, 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId([u8; BYTES]);

impl SnapshotId {
    /// The id of these bits.
    pub const fn new(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }

    /// An id that no other snapshot has.
    ///
    /// # Errors
    /// The host gives no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; BYTES];
        // Up to 256 bytes come whole (getrandom(2)).
        getrandom(&mut bytes, GetRandomFlags::empty())?;
        Ok(Self(bytes))
    }

    /// Its bits as a number.
    pub const fn bits(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.bits())
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotId({self})")
    }
}

/// A text that is no snapshot's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no snapshot's id: those have 32 hexadecimal digits")]
pub struct NotAnId {
    /// The text.
    pub text: String,
}

impl FromStr for SnapshotId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let is_digit = |c: &u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
        let well_formed = text.len() == 2 * BYTES && text.as_bytes().iter().all(is_digit);
        let bits = well_formed.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        bits.map(Self::new).ok_or_else(|| NotAnId { text: text.to_owned() })
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = NotAnId;

    fn try_from(text: String) -> Result<Self, NotAnId> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_digits_and_read_back() {
        let id = SnapshotId::new(0xfeed);
        assert_eq!(id.to_string(), "0000000000000000000000000000feed");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn other_texts_are_no_ids() {
        for text in ["", "feed", "+000000000000000000000000000feed", &"F".repeat(32)] {
            assert_eq!(text.parse::<SnapshotId>(), Err(NotAnId { text: text.to_owned() }));
        }
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(SnapshotId::random().unwrap(), SnapshotId::random().unwrap());
    }
}
