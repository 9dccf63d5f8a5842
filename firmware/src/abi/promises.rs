//! Values promised of firmware registers, in the registers' own words.

use std::collections::BTreeMap;
use std::collections::btree_map::{IntoIter, Iter};
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::hex::Hex;
use crate::register::{Firmware, FwReg};

/// A value for each of some firmware registers, in the order of their ids. As JSON, an
/// object: `{"psci_version": "1.1", "std_bmap": "trng", "0x6030000000160009": "0x0"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promises(BTreeMap<Firmware, u64>);

impl Promises {
    /// Promises of known registers.
    pub fn of(promises: impl IntoIterator<Item = (FwReg, u64)>) -> Self {
        promises.into_iter().map(|(reg, value)| (Firmware::Known(reg), value)).collect()
    }

    /// What is promised of `firmware`.
    pub fn get(&self, firmware: Firmware) -> Option<u64> {
        self.0.get(&firmware).copied()
    }

    /// Promises `value` of `firmware`, whatever was promised before.
    pub fn set(&mut self, firmware: Firmware, value: u64) {
        self.0.insert(firmware, value);
    }

    /// Takes a promise back.
    pub fn remove(&mut self, firmware: Firmware) {
        self.0.remove(&firmware);
    }

    /// All of them.
    pub fn iter(&self) -> Iter<'_, Firmware, u64> {
        self.0.iter()
    }

    /// Whether nothing is promised.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Firmware, u64)> for Promises {
    fn from_iter<I: IntoIterator<Item = (Firmware, u64)>>(promises: I) -> Self {
        Self(promises.into_iter().collect())
    }
}

impl IntoIterator for Promises {
    type Item = (Firmware, u64);
    type IntoIter = IntoIter<Firmware, u64>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Promises {
    type Item = (&'a Firmware, &'a u64);
    type IntoIter = Iter<'a, Firmware, u64>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Serialize for Promises {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts =
            self.iter().map(|(firmware, value)| (firmware.to_string(), firmware.format(*value)));
        serializer.collect_map(texts)
    }
}

impl<'de> Deserialize<'de> for Promises {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;

        impl<'de> Visitor<'de> for Texts {
            type Value = Promises;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Promises, A::Error> {
                let mut promises = Promises::default();
                while let Some((name, text)) = map.next_entry::<String, String>()? {
                    let (firmware, value) = promise(&name, &text)?;
                    promises.set(firmware, value);
                }
                Ok(promises)
            }
        }

        deserializer.deserialize_map(Texts)
    }
}

/// The promise that is written so.
fn promise<E: Error>(name: &str, text: &str) -> Result<(Firmware, u64), E> {
    let firmware: Firmware = name.parse().map_err(E::custom)?;
    let value = match firmware {
        Firmware::Known(reg) => reg.parse(text).map_err(E::custom)?,
        Firmware::Unknown(_) => {
            let wrong = || E::custom(format!("`{text}` is no number like `0x1f`"));
            Hex::parse(text).ok_or_else(wrong)?.0
        }
    };
    Ok((firmware, value))
}
