//! A host as it was recorded: which registers its vCPUs list, with which values,
//! and which values the fields of its ID registers accept.
//!
//! One fact to a line; `#` starts a comment. Numbers are hexadecimal but for
//! those of `limits` and a field's shift.
//!
//! ```text
//! limits ipa_bits=48 vcpus=512 slots=32767 features=0x7f
//! counter 62500000           ticks of its counter in a second, decimal
//! mask ID MASK               the bits of an ID register that it says can change
//! plain ID VALUE             a register of a vCPU without features
//! pmu|sve|ptrauth ID VALUE   one that this feature adds, or to which it gives
//!                            another value
//! sve ID -                   one that it takes away
//! field ID SHIFT KEPT LOST   bit v of KEPT: the four bits at SHIFT accept the
//!                            value v; bit v of LOST: they accept and drop it
//! seen ID VALUE              what a guest reads in a register of which the kernel
//!                            tells its user nothing, or something else, as long as
//!                            nobody has changed it; some only with `pmu`
//! ```

use std::collections::BTreeMap;

use kedge_hv::{Limits, VcpuFeatures};
use kedge_ids::RegId;

use crate::state::number;

/// Bytes of RAM in one memory slot: KVM counts its pages in 31 bits.
const SLOT_BYTES: u64 = (1 << 31) * 4096 - 4096;

/// What a feature does to registers: none is one that it takes away.
type Changes = BTreeMap<RegId, Option<Vec<u8>>>;

/// A recorded host.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What it can give any machine.
    pub limits: Limits,
    plain: BTreeMap<RegId, Vec<u8>>,
    features: Vec<(VcpuFeatures, Changes)>,
    fields: BTreeMap<(RegId, u32), Accepted>,
    masks: BTreeMap<RegId, u64>,
    seen: BTreeMap<RegId, u64>,
    /// Ticks of its counter in a second.
    pub counter_hz: u32,
}

/// The values that four bits of an ID register accept, bit v for value v.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Stored as they are.
    pub kept: u16,
    /// Accepted and dropped: the field stays as it was.
    pub lost: u16,
}

/// A line that says nothing a recording can hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the recording is not understood")]
pub struct BadRecording {
    /// Its number, from 1.
    pub line: usize,
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// A line is not understood.
    pub fn parse(text: &str) -> Result<Self, BadRecording> {
        let mut host = Self {
            limits: Limits {
                ipa_bits: 40,
                vcpus: 1,
                slot_bytes: SLOT_BYTES,
                slots: 32,
                features: VcpuFeatures::NONE,
            },
            plain: BTreeMap::new(),
            features: Vec::new(),
            fields: BTreeMap::new(),
            masks: BTreeMap::new(),
            seen: BTreeMap::new(),
            counter_hz: 62_500_000,
        };
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if !line.starts_with('#') && !words.is_empty() {
                host.line(&words).ok_or(BadRecording { line: index + 1 })?;
            }
        }
        Ok(host)
    }

    fn line(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            ["limits", ref limits @ ..] => limits.iter().try_for_each(|limit| self.limit(limit)),
            ["field", id, shift, kept, lost] => {
                let id = RegId(u64::from_str_radix(id, 16).ok()?);
                let accepted = Accepted {
                    kept: u16::from_str_radix(kept, 16).ok()?,
                    lost: u16::from_str_radix(lost, 16).ok()?,
                };
                self.fields.insert((id, shift.parse().ok()?), accepted);
                Some(())
            }
            ["counter", hz] => {
                self.counter_hz = hz.parse().ok()?;
                Some(())
            }
            ["mask", id, mask] => {
                let id = RegId(u64::from_str_radix(id, 16).ok()?);
                self.masks.insert(id, u64::from_str_radix(mask, 16).ok()?);
                Some(())
            }
            ["seen", id, value] => {
                let id = RegId(u64::from_str_radix(id, 16).ok()?);
                self.seen.insert(id, u64::from_str_radix(value, 16).ok()?);
                Some(())
            }
            ["plain", id, value] => {
                let id = RegId(u64::from_str_radix(id, 16).ok()?);
                self.plain.insert(id, bytes(value, id.size().bytes())?);
                Some(())
            }
            [feature, id, value] => {
                let id = RegId(u64::from_str_radix(id, 16).ok()?);
                let value = match value {
                    "-" => None,
                    value => Some(bytes(value, id.size().bytes())?),
                };
                self.feature(feature_named(feature)?).insert(id, value);
                Some(())
            }
            _ => None,
        }
    }

    fn limit(&mut self, limit: &str) -> Option<()> {
        let (name, value) = limit.split_once('=')?;
        match name {
            "ipa_bits" => self.limits.ipa_bits = value.parse().ok()?,
            "vcpus" => self.limits.vcpus = value.parse().ok()?,
            "slots" => self.limits.slots = value.parse().ok()?,
            "features" => {
                let bits = value.strip_prefix("0x")?;
                self.limits.features = VcpuFeatures(u32::from_str_radix(bits, 16).ok()?);
            }
            _ => return None,
        }
        Some(())
    }

    fn feature(&mut self, feature: VcpuFeatures) -> &mut Changes {
        let index = self.features.iter().position(|(which, _)| *which == feature);
        let index = index.unwrap_or_else(|| {
            self.features.push((feature, BTreeMap::new()));
            self.features.len() - 1
        });
        &mut self.features[index].1
    }

    /// The registers of a vCPU with these features, as they are after its reset.
    pub fn registers(&self, features: VcpuFeatures) -> BTreeMap<RegId, Vec<u8>> {
        let mut registers = self.plain.clone();
        for (_, changes) in self.features.iter().filter(|(which, _)| features.contains(*which)) {
            for (id, value) in changes {
                match value {
                    None => drop(registers.remove(id)),
                    Some(value) => self.change(&mut registers, *id, value),
                }
            }
        }
        registers
    }

    /// Two features may touch one ID register, each its own fields: what they
    /// change against the plain vCPU adds up.
    fn change(&self, registers: &mut BTreeMap<RegId, Vec<u8>>, id: RegId, value: &[u8]) {
        let zeros = vec![0; value.len()];
        let plain = self.plain.get(&id).unwrap_or(&zeros);
        let now = registers.entry(id).or_insert_with(|| zeros.clone());
        for ((now, plain), value) in now.iter_mut().zip(plain).zip(value) {
            *now ^= plain ^ value;
        }
    }

    /// Whether a vCPU without features has this register.
    pub fn has_plain(&self, id: RegId) -> bool {
        self.plain.contains_key(&id)
    }

    /// The value of a register of a vCPU without features; 0 where it has none.
    pub(crate) fn plain(&self, id: RegId) -> u64 {
        self.plain.get(&id).map_or(0, |value| number(value))
    }

    /// The bits of `id` that the host says can change.
    pub fn mask(&self, id: RegId) -> u64 {
        self.masks.get(&id).copied().unwrap_or(0)
    }

    /// What a guest reads in `id`, where the kernel does not tell.
    pub fn seen(&self, id: RegId) -> Option<u64> {
        self.seen.get(&id).copied()
    }

    /// Whether its CPUs have the extension for reliability (FEAT_RAS), whose syndrome
    /// an SError can carry.
    pub fn has_ras(&self) -> bool {
        const ID_AA64PFR0_EL1: RegId = RegId::system(3, 0, 0, 4, 0);
        self.plain.get(&ID_AA64PFR0_EL1).is_some_and(|value| number(value) >> 28 & 0xf != 0)
    }

    /// What the four bits at `shift` of `id` accept besides the value they have.
    pub fn accepted(&self, id: RegId, shift: u32) -> Accepted {
        self.fields.get(&(id, shift)).copied().unwrap_or_default()
    }
}

fn feature_named(name: &str) -> Option<VcpuFeatures> {
    match name {
        "pmu" => Some(VcpuFeatures::PMU_V3),
        "sve" => Some(VcpuFeatures::SVE),
        "ptrauth" => Some(VcpuFeatures::PTRAUTH),
        _ => None,
    }
}

/// A hexadecimal number of any length as `length` little-endian bytes.
fn bytes(hex: &str, length: usize) -> Option<Vec<u8>> {
    let mut value = vec![0; length];
    for (index, digit) in hex.chars().rev().enumerate() {
        let digit = u8::try_from(digit.to_digit(16)?).ok()?;
        *value.get_mut(index / 2)? |= digit << (4 * (index % 2));
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_FEATURES: &str = "\
# A host.
limits ipa_bits=44 vcpus=8 slots=16 features=0x1c
plain 603000000013c020 11
plain 603000000013c028 6
plain 6040000000100054 0
sve 603000000013c020 21
sve 6040000000100054 -
sve 6080000000150000 0
pmu 603000000013c020 13
";
    const ID: RegId = RegId(0x6030_0000_0013_c020);

    #[test]
    fn a_feature_adds_changes_and_takes_away_registers() {
        let host = Recording::parse(TWO_FEATURES).unwrap();
        let sve = host.registers(VcpuFeatures::SVE);
        assert_eq!(sve[&ID], [0x21, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sve[&RegId(0x6080_0000_0015_0000)].len(), 256);
        assert!(!sve.contains_key(&RegId(0x6040_0000_0010_0054)));
    }

    #[test]
    fn two_features_change_one_register_each_its_own_fields() {
        let host = Recording::parse(TWO_FEATURES).unwrap();
        let both = host.registers(VcpuFeatures::SVE | VcpuFeatures::PMU_V3);
        assert_eq!(both[&ID][0], 0x23);
    }

    #[test]
    fn a_line_that_means_nothing_is_named() {
        let error = Recording::parse("# fine\nplain 12\n").unwrap_err();
        assert_eq!(error.to_string(), "line 2 of the recording is not understood");
    }
}
