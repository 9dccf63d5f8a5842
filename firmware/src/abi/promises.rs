//! Values promised of firmware registers, in the registers' own words.

use std::collections::BTreeMap;
use std::collections::btree_map::{IntoIter, Iter};

use serde::de::{Deserialize, Deserializer, Error};
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
        let texts = BTreeMap::<String, String>::deserialize(deserializer)?;
        let promise = |(name, text): (String, String)| {
            let firmware: Firmware = name.parse().map_err(D::Error::custom)?;
            let value = match firmware {
                Firmware::Known(reg) => reg.parse(&text).map_err(D::Error::custom)?,
                Firmware::Unknown(_) => {
                    let value = Hex::parse(&text).map(|hex| hex.0);
                    value.ok_or_else(|| {
                        D::Error::custom(format!("`{text}` is no number like `0x1f`"))
                    })?
                }
            };
            Ok((firmware, value))
        };
        texts.into_iter().map(promise).collect()
    }
}
