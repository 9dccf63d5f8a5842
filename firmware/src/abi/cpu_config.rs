//! Firecracker's `/cpu-config` bodies (custom CPU templates), as promises on top of a
//! profile.
//!
//! A body sets bits of registers by their ids, vCPU features by KVM's numbers, and names
//! KVM capabilities that a host must have (or need not: `!`). Bits of firmware and ID
//! registers become promises; where the profile promises otherwise, nothing is silently
//! given up, the body is refused.

use kedge_diag::Fix;
use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;
use serde::Deserialize;

use super::cpu::{IdPromise, Implementation};
use super::document::{BadDocument, Key, Presence, Shape, Text, Trail, tree};
use super::form::FEATURES;
use super::{GuestAbi, read};
use crate::hex::Hex;
use crate::probe::identity;
use crate::register::{Domain, Firmware};
use crate::symbols::BadFwValue;

/// A `/cpu-config` body.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CpuConfig {
    #[serde(default, deserialize_with = "or_none")]
    kvm_capabilities: Vec<String>,
    #[serde(default, deserialize_with = "or_none")]
    vcpu_features: Vec<FeatureModifier>,
    #[serde(default, deserialize_with = "or_none")]
    reg_modifiers: Vec<RegModifier>,
}

/// Bits of a word of `KVM_ARM_VCPU_INIT`'s features.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct FeatureModifier {
    index: u32,
    bitmap: Bitmap,
}

/// Bits of a register.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct RegModifier {
    addr: Hex,
    bitmap: Bitmap,
}

/// A null is an empty list.
fn or_none<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Vec<T>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Bits that are set or cleared, the others being left: `0b1x0`, the lowest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Bitmap {
    /// The bits that are set or cleared.
    mask: u128,
    /// Those that are set.
    value: u128,
}

impl Bitmap {
    const MOST: usize = 128;

    fn parse(text: &str) -> Option<Self> {
        let digits: Vec<_> =
            text.strip_prefix("0b")?.bytes().filter(|byte| *byte != b'_').collect();
        if !(1..=Self::MOST).contains(&digits.len()) {
            return None;
        }
        digits.iter().try_fold(Self { mask: 0, value: 0 }, |Self { mask, value }, digit| {
            let (given, set) = match digit {
                b'0' => (1, 0),
                b'1' => (1, 1),
                b'x' => (0, 0),
                _ => return None,
            };
            Some(Self { mask: mask << 1 | given, value: value << 1 | set })
        })
    }

    /// Mask and value, if they lie in the low 64 bits.
    fn low(self) -> Option<(u64, u64)> {
        Some((u64::try_from(self.mask).ok()?, u64::try_from(self.value).ok()?))
    }
}

impl TryFrom<String> for Bitmap {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is no bitmap like `0b1x0`"))
    }
}

const BITMAP: Text = Text {
    wanted: "bits such as \"0b1x0\": set, left, cleared; at most 128, the lowest last",
    pattern: "^0b[01x_]+$",
    legal: |text| Bitmap::parse(text).is_some(),
};

const ADDR: Text = Text {
    wanted: "a register's id, such as \"0x603000000013c020\"",
    pattern: "^0x[0-9A-Fa-f]{1,16}$",
    legal: |text| Hex::parse(text).is_some(),
};

const CAPABILITY: Text = Text {
    wanted: "a KVM capability's number as a text, such as \"170\" or \"!170\"",
    pattern: "^!?[0-9]{1,9}$",
    legal: |text| capability(text).is_some(),
};

fn capability(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('!').unwrap_or(text);
    let plain = digits.len() <= 9 && digits.bytes().all(|digit| digit.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

const fn nullable(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, about, presence: Presence::Nullable, shape }
}

const fn needed(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, about, presence: Presence::Needed, shape }
}

#[rustfmt::skip]
const FORM: Shape = Shape::Object(&[
    nullable("kvm_capabilities", Shape::List(&Shape::Text(&CAPABILITY)), "KVM capabilities to ask for"),
    nullable("vcpu_features", Shape::List(&Shape::Object(&[
        needed("index", Shape::Number { from: 0, to: 6, step: 1 }, "a word of the features, 0 to 6"),
        needed("bitmap", Shape::Text(&BITMAP), "its bits"),
    ])), "vCPU features"),
    nullable("reg_modifiers", Shape::List(&Shape::Object(&[
        needed("addr", Shape::Text(&ADDR), "the register's id"),
        needed("bitmap", Shape::Text(&BITMAP), "its bits"),
    ])), "bits of registers"),
]);

impl CpuConfig {
    /// Reads a body.
    ///
    /// # Errors
    /// It is none for arm64.
    pub fn read(bytes: &[u8]) -> Result<Self, BadDocument> {
        let (text, tree) = tree(bytes)?;
        FORM.check(&tree, &Trail::Whole).map_err(|at| at.place(text))?;
        read::from_text(text)
    }
}

/// Why a CPU configuration does not go with a profile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayError {
    /// The profile promises something else.
    #[error(
        "the CPU configuration sets bits {bits:#x} of {register} to {asked}, and `{profile}` promises {promised}"
    )]
    Conflict {
        /// The register.
        register: String,
        /// The bits that differ.
        bits: u64,
        /// What the profile promises of them.
        promised: String,
        /// What they would be.
        asked: String,
        /// The profile's name.
        profile: String,
    },
    /// Bits that nobody promises.
    #[error(
        "the CPU configuration leaves bits {bits:#x} of {register}, and `{profile}` does not promise them"
    )]
    Open {
        /// The register.
        register: String,
        /// The bits.
        bits: u64,
        /// The profile's name.
        profile: String,
    },
    /// A value that a firmware register cannot have.
    #[error(transparent)]
    Firmware(#[from] BadFwValue),
    /// Bits that the register does not have.
    #[error("{register} has 64 bits, and the CPU configuration gives more")]
    TooWide {
        /// The register.
        register: String,
    },
    /// A register that is there twice.
    #[error("{register} is there twice in the CPU configuration")]
    Twice {
        /// The register.
        register: String,
    },
    /// A register of which nothing can be promised.
    #[error("{id} is {what}, which kedge or the guest sets: nothing can be promised of it")]
    NotPromised {
        /// Its id.
        id: RegId,
        /// What it is.
        what: &'static str,
    },
    /// A feature that the profile rules out, or in.
    #[error("the CPU configuration {} the vCPU feature `{feature}`, and `{profile}` promises otherwise", wants(*on))]
    Feature {
        /// The feature.
        feature: &'static str,
        /// Whether it is to be on.
        on: bool,
        /// The profile's name.
        profile: String,
    },
    /// A feature that no profile decides on.
    #[error("bit {bit} of word {index} of the vCPU features cannot be {}", u8::from(*on))]
    NoFeature {
        /// The word.
        index: u32,
        /// The bit.
        bit: u32,
        /// Whether it is to be on.
        on: bool,
    },
    /// A feature of which some bits are on.
    #[error("the vCPU feature `{feature}` is bits {bits:#x}, and the CPU configuration gives some")]
    HalfFeature {
        /// The feature.
        feature: &'static str,
        /// Its bits.
        bits: u32,
    },
    /// A capability that follows from nothing that is promised.
    #[error("the KVM capability {0} is none that the vCPUs' features need")]
    Capability(u32),
}

fn wants(on: bool) -> &'static str {
    if on { "wants" } else { "does not want" }
}

impl Fix for OverlayError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Conflict { profile, .. } | Self::Feature { profile, .. } => format!(
                "leave it out of the CPU configuration, or use a profile that promises it, or \
                 nothing of it, instead of `{profile}`"
            ),
            Self::Open { .. } => "write each of these bits as 0 or 1".to_owned(),
            Self::Firmware(source) => return source.fix(),
            Self::TooWide { .. } => "write `x` for the bits above, or leave them out".to_owned(),
            Self::Twice { .. } => "make one entry of the two".to_owned(),
            Self::NotPromised { .. } => "leave it out".to_owned(),
            Self::NoFeature { .. } => {
                let names: Vec<_> =
                    FEATURES.iter().map(|name| format!("{:#x} {name}", feature(name).0)).collect();
                format!("write `x` there; kedge has, in word 0: {}", names.join(", "))
            }
            Self::HalfFeature { .. } => "give all of them the same value".to_owned(),
            Self::Capability(_) => {
                "leave it out: kedge asks the host for what the machine needs".to_owned()
            }
        })
    }
}

impl GuestAbi {
    /// The profile with what `config` asks for. It is another profile, named after this
    /// one and what it promises; unless it promises nothing new.
    ///
    /// # Errors
    /// It promises otherwise already, or asks for what cannot be promised.
    pub fn overlay(&self, config: &CpuConfig) -> Result<Self, OverlayError> {
        let mut abi = self.clone();
        for (nth, modifier) in config.reg_modifiers.iter().enumerate() {
            let before = config.reg_modifiers.iter().take(nth);
            if before.into_iter().any(|other| other.addr == modifier.addr) {
                return Err(OverlayError::Twice { register: named(RegId(modifier.addr.0)) });
            }
            abi.register(modifier)?;
        }
        abi.vcpu_features(&config.vcpu_features)?;
        abi.capabilities(&config.kvm_capabilities)?;
        if abi != *self {
            let suffix = format!("cpu-config-{}", abi.digest());
            abi.rename(self, &suffix);
        }
        Ok(abi)
    }

    fn register(&mut self, modifier: &RegModifier) -> Result<(), OverlayError> {
        let id = RegId(modifier.addr.0);
        let firmware = Firmware::of(id);
        if firmware.is_none() && !identity::is_identification(id) {
            return Err(OverlayError::NotPromised { id, what: kind(id) });
        }
        let bits = modifier.bitmap.low();
        let (mask, value) = bits.ok_or_else(|| OverlayError::TooWide { register: named(id) })?;
        match firmware {
            _ if mask == 0 => Ok(()),
            Some(firmware) => self.firmware_bits(firmware, mask, value),
            None => self.id_bits(id, mask, value),
        }
    }

    /// Read, modify, and what comes out must be what went in or what nobody promised.
    fn firmware_bits(
        &mut self,
        firmware: Firmware,
        mask: u64,
        value: u64,
    ) -> Result<(), OverlayError> {
        let domain = firmware.spec().map(|spec| spec.domain);
        let level = matches!(domain, Some(Domain::Level(_)));
        let promises = if level { &mut self.levels } else { &mut self.firmware };
        if let Some(promised) = promises.get(firmware) {
            let words = |bits: u64, whole| format!("{bits:#x} (`{}`)", firmware.format(whole));
            let asked = promised & !mask | value;
            return match asked ^ promised {
                0 => Ok(()),
                bits => Err(OverlayError::Conflict {
                    register: firmware.to_string(),
                    bits,
                    promised: words(promised & bits, promised),
                    asked: words(asked & bits, asked),
                    profile: self.name.clone(),
                }),
            };
        }
        let all = domain.map_or(u64::MAX, Domain::mask);
        if all & !mask != 0 {
            let (register, profile) = (firmware.to_string(), self.name.clone());
            return Err(OverlayError::Open { register, bits: all & !mask, profile });
        }
        if let Firmware::Known(reg) = firmware {
            reg.check(value)?;
        }
        promises.set(firmware, value);
        Ok(())
    }

    fn id_bits(&mut self, id: RegId, mask: u64, value: u64) -> Result<(), OverlayError> {
        let conflict = |bits, promised, profile: &str| OverlayError::Conflict {
            register: identity::name(id),
            bits,
            promised,
            asked: format!("{:#x}", value & bits),
            profile: profile.to_owned(),
        };
        let varying = self.cpu.varying.iter().filter(|varying| varying.id == id);
        let varying = varying.fold(0, |all, varying| all | varying.mask.0) & mask;
        if varying != 0 {
            return Err(conflict(varying, "nothing, they vary".to_owned(), &self.name));
        }
        // Who sets these wants the guest to take its CPU for another.
        if identity::is_implementation(id) {
            self.cpu.implementation = Implementation::Promised;
        }
        let promises = &mut self.cpu.id_registers;
        let Some(promise) = promises.iter_mut().find(|promise| promise.id == id) else {
            let (name, value, mask) = (identity::name(id), Hex(value), Hex(mask));
            promises.push(IdPromise { id, name, value, mask });
            return Ok(());
        };
        let bits = (promise.value.0 ^ value) & promise.mask.0 & mask;
        if bits != 0 {
            return Err(conflict(bits, format!("{:#x}", promise.value.0 & bits), &self.name));
        }
        promise.value = Hex(promise.value.0 | value);
        promise.mask = Hex(promise.mask.0 | mask);
        Ok(())
    }

    fn vcpu_features(&mut self, modifiers: &[FeatureModifier]) -> Result<(), OverlayError> {
        let (mut mask, mut value) = (0, 0);
        for modifier in modifiers {
            let Some((given, set)) = modifier.bitmap.low() else {
                return Err(OverlayError::NoFeature { index: modifier.index, bit: 64, on: true });
            };
            let owned = if modifier.index == 0 { features_mask() } else { 0 };
            refuse_others(modifier.index, given & !owned, set & !owned)?;
            mask |= given & owned;
            value |= set & owned;
        }
        if mask == 0 {
            return Ok(());
        }
        for name in FEATURES {
            let bits = u64::from(feature(name).0);
            let (given, set) = (mask & bits, value & bits);
            if given != 0 && (given != bits || (set != 0 && set != bits)) {
                return Err(OverlayError::HalfFeature { feature: name, bits: feature(name).0 });
            }
            let on = set == bits;
            let promised = self.cpu.features.as_ref().map(|all| all.iter().any(|one| one == name));
            if given != 0 && promised.is_some_and(|promised| promised != on) {
                return Err(OverlayError::Feature {
                    feature: name,
                    on,
                    profile: self.name.clone(),
                });
            }
        }
        if self.cpu.features.is_none() {
            let on = |name: &&&str| value & u64::from(feature(name).0) != 0;
            let features = FEATURES.iter().filter(on).map(|name| (*name).to_owned());
            self.cpu.features = Some(features.collect());
        }
        Ok(())
    }

    /// A capability is asked for with the feature that needs it, and then follows from it.
    fn capabilities(&self, asked: &[String]) -> Result<(), OverlayError> {
        let has = |name: &str| self.cpu.features.iter().flatten().any(|feature| feature == name);
        // What need not be there is not asked for anyway.
        for text in asked.iter().filter(|text| !text.starts_with('!')) {
            let number = capability(text).unwrap_or(u32::MAX);
            let row = CAPABILITIES.iter().find(|row| row.0 == number);
            if !row.is_some_and(|row| row.1.is_none_or(has)) {
                return Err(OverlayError::Capability(number));
            }
        }
        Ok(())
    }
}

/// KVM capabilities, and the feature that each goes with; nothing for one that every
/// machine needs (Linux, include/uapi/linux/kvm.h).
const CAPABILITIES: &[(u32, Option<&str>)] = &[
    (102, None),
    (126, Some("pmu")),
    (170, Some("sve")),
    (171, Some("ptrauth")),
    (172, Some("ptrauth")),
];

/// The bits of a feature.
fn feature(name: &str) -> VcpuFeatures {
    VcpuFeatures::named(name).unwrap_or(VcpuFeatures::NONE)
}

fn features_mask() -> u64 {
    FEATURES.iter().fold(0, |all, name| all | u64::from(feature(name).0))
}

/// kedge decides on these itself: what it does anyway can be asked for.
fn refuse_others(index: u32, given: u64, set: u64) -> Result<(), OverlayError> {
    let fixed = if index == 0 { u64::from(VcpuFeatures::PSCI_0_2.0) } else { 0 };
    let wrong = given & (set ^ fixed);
    if wrong == 0 {
        return Ok(());
    }
    let bit = wrong.trailing_zeros();
    Err(OverlayError::NoFeature { index, bit, on: set >> bit & 1 != 0 })
}

/// Which register it is, for a reader.
fn named(id: RegId) -> String {
    match Firmware::of(id) {
        Some(firmware) => firmware.to_string(),
        None if identity::is_identification(id) => identity::name(id),
        None => id.to_string(),
    }
}

fn kind(id: RegId) -> &'static str {
    match id.coprocessor() {
        0x10 => "a core register",
        0x11 => "a description of a cache",
        0x13 => "a system register",
        0x15 => "an SVE register",
        _ => "an unknown register",
    }
}
