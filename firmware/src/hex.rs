//! Numbers as texts in hexadecimal, `0x10001`: JSON's own numbers lose bits past 2^53.

use std::fmt;

use kedge_ids::RegId;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// A 64-bit value or mask.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex(pub u64);

impl Hex {
    /// The number that `text` is: `0x`, then 1 to 16 digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (number, length) = Self::parse_front(text.as_bytes())?;
        (length == text.len()).then_some(number)
    }

    /// The number at the front of `text`, and how many bytes it has.
    pub(crate) fn parse_front(text: &[u8]) -> Option<(Self, usize)> {
        let rest = text.strip_prefix(b"0x")?;
        let (mut number, mut digits) = (0_u64, 0);
        for byte in rest {
            let value = DIGITS[usize::from(*byte)];
            if value >= 16 {
                break;
            }
            number = number << 4 | u64::from(value);
            digits += 1;
        }
        (1..=16).contains(&digits).then_some((Self(number), digits + 2))
    }
}

/// What each byte is as a digit; 16, where it is none.
const DIGITS: [u8; 256] = {
    let mut digits = [16; 256];
    let (mut rest, mut byte): (&mut [u8], u8) = (&mut digits, 0);
    while let Some((digit, others)) = rest.split_first_mut() {
        *digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => 16,
        };
        (rest, byte) = (others, byte.wrapping_add(1));
    }
    digits
};

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Hex;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Hex, E> {
                let wrong = || E::custom(format!("`{text}` is no number like `0x1f`"));
                Hex::parse(text).ok_or_else(wrong)
            }

            /// The number, little endian: of a text that has been read already.
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Hex, E> {
                let wrong = || E::invalid_length(bytes.len(), &"8 bytes");
                bytes.try_into().map(|bytes| Hex(u64::from_le_bytes(bytes))).map_err(|_| wrong())
            }
        }

        deserializer.deserialize_str(Number)
    }
}

/// The value of a register of any size: its little-endian bytes, as many as its id says.
/// As a text, all its hexadecimal digits, the highest first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegValue(pub Vec<u8>);

impl RegValue {
    /// The value, if the register has 64 bits.
    pub fn as_u64(&self) -> Option<u64> {
        let bytes = self.0.as_slice().try_into().ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

impl RegValue {
    /// The value of a register of up to 64 bits as a number.
    pub(crate) fn number(&self) -> u64 {
        self.0.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Whether no bit of it is set.
    pub(crate) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// As much of `number` as `register` has bits, up to 64.
    pub(crate) fn sized(register: RegId, number: u64) -> Self {
        let mut bytes = number.to_le_bytes().to_vec();
        bytes.truncate(register.size().bytes());
        Self(bytes)
    }
}

impl From<u64> for RegValue {
    fn from(value: u64) -> Self {
        Self(value.to_le_bytes().to_vec())
    }
}

impl fmt::Display for RegValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= size_of::<u64>() {
            return write!(f, "0x{:0digits$x}", self.number(), digits = 2 * self.0.len());
        }
        f.write_str("0x")?;
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RegValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for RegValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RegValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = RegValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<RegValue, E> {
                let wrong = || E::custom(format!("`{text}` is no value like `0x001f`"));
                bytes(text).ok_or_else(wrong)
            }
        }

        deserializer.deserialize_str(Digits)
    }
}

fn bytes(text: &str) -> Option<RegValue> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    if digits.is_empty() || digits.len() % 2 != 0 {
        return None;
    }
    let byte = |pair: &[u8]| {
        pair.iter().try_fold(0_u8, |byte, digit| {
            let digit = DIGITS[usize::from(*digit)];
            (digit < 16).then_some(byte << 4 | digit)
        })
    };
    digits.rchunks(2).map(byte).collect::<Option<_>>().map(RegValue)
}

/// `#[serde(with = "hex::id")]`.
pub(crate) mod id {
    use super::{Deserialize, Deserializer, Hex, RegId, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(id: &RegId, serializer: S) -> Result<S::Ok, S::Error> {
        Hex(id.0).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RegId, D::Error> {
        Hex::deserialize(deserializer).map(|hex| RegId(hex.0))
    }
}

/// `#[serde(with = "hex::ids")]`.
pub(crate) mod ids {
    use super::{Deserialize, Deserializer, Hex, RegId, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        ids: &[RegId],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(|id| Hex(id.0)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<RegId>, D::Error> {
        let ids = Vec::<Hex>::deserialize(deserializer)?;
        Ok(ids.into_iter().map(|hex| RegId(hex.0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_of_any_size_survives_its_text(value in prop::collection::vec(any::<u8>(), 1..=256)) {
            let value = RegValue(value);
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<RegValue>(&text).unwrap(), value);
        }

        #[test]
        fn a_number_survives_its_text(value: u64) {
            let text = serde_json::to_string(&Hex(value)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Hex>(&text).unwrap(), Hex(value));
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let text = serde_json::to_string(&text).unwrap();
            let _ = serde_json::from_str::<Hex>(&text);
            let _ = serde_json::from_str::<RegValue>(&text);
        }
    }

    #[test]
    fn texts_are_hexadecimal() {
        assert_eq!(Hex(0x1_0001).to_string(), "0x10001");
        assert_eq!(RegValue::from(0x1_0001).to_string(), "0x0000000000010001");
        let error = serde_json::from_str::<Hex>("\"12\"").unwrap_err();
        assert_eq!(Hex::parse("0x+1"), None);
        assert_eq!(Hex::parse("0x00000000000000001"), None);
        assert!(error.to_string().starts_with("`12` is no number like `0x1f`"), "{error}");
    }
}
