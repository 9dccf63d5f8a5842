//! Giving one register of the destination its saved value, or as much of it as it
//! takes.

use kedge_hv::HvError;
use kedge_ids::RegId;

use super::destination::Destination;
use super::rules::number;
use crate::hex::RegValue;
use crate::plan::Verdict;

/// The parts in which a register's value is taken or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// Each bit by itself.
    Bits,
    /// Each four bits by themselves.
    Fields,
    /// One value.
    Whole,
}

/// What may be otherwise than saved.
#[derive(Clone, Debug, Default)]
pub(super) struct Tolerance {
    /// Bits that stay as the destination has them if it does not take the saved ones,
    /// and why a guest can live with it.
    pub(super) keep: Vec<(u64, String)>,
    /// Bits that the destination makes others of, and why a guest can live with it.
    pub(super) normalised: Vec<(u64, String)>,
    /// The operator allows any difference.
    pub(super) allowed: bool,
}

impl Tolerance {
    /// Why a guest can live with all of `bits` being otherwise, if it can.
    fn reason(&self, bits: u64, taken: bool) -> Option<String> {
        let normalised = if taken { self.normalised.as_slice() } else { &[] };
        let reasons = || self.keep.iter().chain(normalised).filter(|(mask, _)| mask & bits != 0);
        let covered = reasons().fold(0, |all, (mask, _)| all | mask);
        if bits & !covered != 0 {
            return None;
        }
        let mut whys: Vec<&str> = reasons().map(|(_, why)| why.as_str()).collect();
        whys.dedup();
        Some(whys.join("; "))
    }
}

/// What became of a saved value.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    /// What the register read before.
    pub(super) born: RegValue,
    /// What it reads now.
    pub(super) now: RegValue,
    pub(super) fate: Fate,
}

/// How far a saved value was taken.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// It is what the register reads.
    Kept,
    /// Nobody knows what the register reads: it is taken to be settable.
    Presumed,
    /// These bits are otherwise, and a guest can live with it.
    Adapted(String),
    /// The register took the value and reads otherwise.
    Altered,
    /// The register does not take these bits of it.
    Refused(u64),
}

impl Settled {
    /// Of a register that reads `value`, as it is to.
    pub(super) fn kept(value: &RegValue) -> Self {
        Self { born: value.clone(), now: value.clone(), fate: Fate::Kept }
    }
}

/// What may become of a register, for those that do not read right already.
pub(super) type How<'h> = &'h dyn Fn() -> (Parts, Tolerance);

/// Gives `id` of a vCPU the value `wanted`, or what it takes of it. Nothing is written
/// where it reads so already.
pub(super) fn settle(
    destination: &mut dyn Destination,
    (vcpu, id): (usize, RegId),
    wanted: &RegValue,
    how: How<'_>,
) -> Result<Settled, HvError> {
    if !destination.knows(vcpu, id) {
        destination.offer(vcpu, id, wanted)?;
        let now = destination.read(vcpu, id)?;
        return Ok(Settled { born: now.clone(), now, fate: Fate::Presumed });
    }
    let born = destination.read(vcpu, id)?;
    if born == *wanted {
        return Ok(Settled { now: born.clone(), born, fate: Fate::Kept });
    }
    let (parts, tolerance) = how();
    if born.0.len() != wanted.0.len() {
        return Ok(Settled { now: born.clone(), born, fate: Fate::Refused(u64::MAX) });
    }
    if destination.offer(vcpu, id, wanted).is_ok() {
        let now = destination.read(vcpu, id)?;
        let fate = match difference(&now, wanted) {
            Some(0) => Fate::Kept,
            bits => match bits.and_then(|bits| tolerance.reason(bits, true)) {
                Some(why) => Fate::Adapted(why),
                None if tolerance.allowed => Fate::Adapted(ALLOWED.to_owned()),
                None => Fate::Altered,
            },
        };
        return Ok(Settled { born, now, fate });
    }
    if destination.shown(vcpu, id).as_ref() == Some(wanted) {
        // The guest reads it all the same: only the kernel says otherwise.
        return Ok(Settled { now: born.clone(), born, fate: Fate::Kept });
    }
    let excess = excess(destination, (vcpu, id), (&born, wanted), parts);
    let nearest = mixed(wanted, &born, excess);
    if destination.offer(vcpu, id, &nearest).is_err() {
        // It reads as it did, or it could not be read: no register has a third way.
        let _ = destination.offer(vcpu, id, &born);
    }
    let now = destination.read(vcpu, id)?;
    let left = difference(&now, wanted);
    let fate = match left.and_then(|bits| tolerance.reason(bits, false)) {
        Some(why) => Fate::Adapted(why),
        None if tolerance.allowed => Fate::Adapted(ALLOWED.to_owned()),
        None => Fate::Refused(left.unwrap_or(u64::MAX)),
    };
    Ok(Settled { born, now, fate })
}

const ALLOWED: &str = "the operator allows it";

/// The bits in which two values of up to 64 bits differ; nothing where longer ones do.
fn difference(one: &RegValue, other: &RegValue) -> Option<u64> {
    match one == other {
        true => Some(0),
        false if one.0.len() > 8 || one.0.len() != other.0.len() => None,
        false => Some(number(one) ^ number(other)),
    }
}

/// The parts of `wanted` that are refused, each offered alone; all that differs, where
/// each alone is taken.
fn excess(
    destination: &mut dyn Destination,
    (vcpu, id): (usize, RegId),
    (born, wanted): (&RegValue, &RegValue),
    parts: Parts,
) -> u64 {
    let Some(differing) = difference(born, wanted) else { return u64::MAX };
    let step = match parts {
        Parts::Bits => 1,
        Parts::Fields => 4,
        Parts::Whole => return differing,
    };
    let mut excess = 0;
    for shift in (0..u64::BITS).step_by(step) {
        let part = (1_u64 << step).wrapping_sub(1) << shift;
        if differing & part != 0 {
            let alone = mixed(born, wanted, part);
            let refused = destination.offer(vcpu, id, &alone).is_err();
            excess |= if refused { differing & part } else { 0 };
        }
    }
    if excess == 0 { differing } else { excess }
}

/// `value` with the bits of `mask` taken from `other`.
fn mixed(value: &RegValue, other: &RegValue, mask: u64) -> RegValue {
    let mask = mask.to_le_bytes().into_iter().chain(std::iter::repeat(if mask == u64::MAX {
        0xff
    } else {
        0
    }));
    let bytes = value.0.iter().zip(&other.0).zip(mask);
    RegValue(bytes.map(|((value, other), mask)| value & !mask | other & mask).collect())
}

impl Fate {
    /// The verdict, with what `refusal` makes of the bits that were refused; all bits,
    /// where the register altered the value.
    pub(super) fn verdict(&self, refusal: impl FnOnce(Refusal) -> Verdict) -> Verdict {
        match self {
            Self::Kept | Self::Presumed => Verdict::Keep,
            Self::Adapted(why) => Verdict::adapt(why),
            Self::Altered => refusal(Refusal::Altered),
            Self::Refused(bits) => refusal(Refusal::Bits(*bits)),
        }
    }
}

/// What was refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// The value was taken, and something else made of it.
    Altered,
    /// These bits.
    Bits(u64),
}
