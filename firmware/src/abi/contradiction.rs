//! Parts of a profile that do not go together.

use kedge_diag::Fix;
use kedge_ids::RegId;

use super::GuestAbi;
use super::builtin::builtin;
use super::cpu::{CpuAbi, IdPromise, Implementation, Varying};
use super::diff::{self, Difference};
use super::document::Path;
use super::machine::{FilterAction, FilterRange, MachineAbi};
use super::promises::Promises;
use crate::probe::{PMCR_EL0, identity};
use crate::register::{Firmware, FwReg};

/// Two parts of a profile of which only one can be true.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// A built-in profile's name for something else.
    #[error("`{name}` is built in, and this is not it: {differs}")]
    NameTaken {
        /// The name.
        name: String,
        /// The first difference.
        differs: String,
    },
    /// A value that says something of bits that are not promised.
    #[error("the value of {register} has bits that its mask leaves out: {bits:#x}")]
    OutsideMask {
        /// The register.
        register: String,
        /// The bits.
        bits: u64,
    },
    /// Two entries for one register.
    #[error("{register} is there twice")]
    RegisterTwice {
        /// The register.
        register: String,
    },
    /// A register that identifies nothing.
    #[error("{id} is no ID register")]
    NoIdRegister {
        /// Its id.
        id: RegId,
    },
    /// A name that belongs to another register.
    #[error("{id} is {register}, not {name}")]
    OtherName {
        /// The register's id.
        id: RegId,
        /// Its name.
        register: String,
        /// The name given.
        name: String,
    },
    /// Bits that are promised, or left open, in two places.
    #[error("bits {bits:#x} of {register} are {once} and also {again}")]
    BitsTwice {
        /// The register.
        register: String,
        /// The bits.
        bits: u64,
        /// What they are in one place.
        once: &'static str,
        /// What they are in the other.
        again: &'static str,
    },
    /// A CPU's identity that is promised and not said.
    #[error("the implementation is promised, and no value of MIDR_EL1 is")]
    NoMidr,
    /// A feature that is there twice.
    #[error("the feature `{0}` is there twice")]
    FeatureTwice(String),
    /// Vector lengths of vCPUs that have no vectors.
    #[error("there are SVE lengths, and the features do not have `sve`")]
    NoSve,
    /// Vector lengths that do not go up.
    #[error("the SVE length {after} stands after {before}")]
    SveOrder {
        /// The length before.
        before: u32,
        /// The length after it.
        after: u32,
    },
    /// A set of vector lengths that no CPU has.
    #[error("the SVE length {missing} is missing: a CPU has every power of two below its longest")]
    SveGap {
        /// The length.
        missing: u32,
    },
    /// A range that ends after the last function.
    #[error("the range of {count} functions from {base:#010x} goes past 0xffffffff")]
    RangeWraps {
        /// Its first function.
        base: u32,
        /// How many there are.
        count: u32,
    },
    /// A range with functions that cannot be filtered.
    #[error("the range of {count} functions from {base:#010x} has some of {first:#x} to {last:#x}")]
    RangeReserved {
        /// Its first function.
        base: u32,
        /// How many there are.
        count: u32,
        /// The first that cannot be filtered.
        first: u32,
        /// The last.
        last: u32,
    },
    /// Two ranges with functions in common.
    #[error("the ranges from {base:#010x} and from {other:#010x} overlap")]
    RangesOverlap {
        /// One's first function.
        base: u32,
        /// The other's.
        other: u32,
    },
    /// One interrupt for two purposes.
    #[error("{one} and {other} have the same interrupt, {intid}")]
    SamePpi {
        /// One.
        one: &'static str,
        /// The other.
        other: &'static str,
        /// The interrupt.
        intid: u32,
    },
    /// Functions that a guest is told of and nobody answers.
    #[error("`{register}` offers `{bit}`, and nobody answers its function {function:#010x}")]
    Unanswered {
        /// The register.
        register: FwReg,
        /// The bit.
        bit: &'static str,
        /// A function that the bit opens.
        function: u32,
    },
}

impl Fix for Contradiction {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::NameTaken { name, .. } => {
                format!("give it a name of its own, such as `{name}-1`")
            }
            Self::OutsideMask { .. } => "clear them in `value`, or add them to `mask`".to_owned(),
            Self::RegisterTwice { .. } => "make one entry of the two".to_owned(),
            Self::NoIdRegister { id } if Firmware::of(*id).is_some() => {
                "promise it in `firmware`".to_owned()
            }
            Self::NoIdRegister { .. } => "leave it out: it can be promised nowhere".to_owned(),
            Self::OtherName { .. } => "correct the id or the name".to_owned(),
            Self::BitsTwice { .. } | Self::FeatureTwice(_) => "leave one of them out".to_owned(),
            Self::NoMidr => "add MIDR_EL1, 0x603000000013c000, to `id_registers`; or write \
                 \"implementation\": \"host\""
                .to_owned(),
            Self::NoSve => "leave `sve_lengths` out, or add `sve` to `features`".to_owned(),
            Self::SveOrder { .. } => "sort them, each once".to_owned(),
            Self::SveGap { missing } => format!("add {missing}"),
            Self::RangeWraps { .. } => "count the functions again".to_owned(),
            Self::RangeReserved { .. } => {
                "leave those out: KVM answers them, whatever the filter says".to_owned()
            }
            Self::RangesOverlap { .. } => "let each function be in one range".to_owned(),
            Self::SamePpi { .. } => "give each an interrupt of its own, from 16 to 31".to_owned(),
            Self::Unanswered { function, .. } => format!(
                "add to `smccc_filter`: {{ \"base\": \"{function:#x}\", \"count\": 1, \"action\": \
                 \"forward\" }}"
            ),
        })
    }
}

type Found = Result<(), (Path, Contradiction)>;

/// Looks for the first contradiction, and where it stands.
pub(super) fn find(abi: &GuestAbi) -> Found {
    let root = Path::default();
    name(abi, &root.key("name"))?;
    cpu(&abi.cpu, &root.key("cpu"))?;
    machine(&abi.machine, &root.key("machine"))?;
    answered(&abi.firmware, &abi.machine.smccc_filter, &root.key("firmware"))
}

fn name(abi: &GuestAbi, path: &Path) -> Found {
    let Some(built_in) = builtin(&abi.name) else { return Ok(()) };
    match diff::profiles(&built_in, abi).into_iter().next() {
        None => Ok(()),
        Some(first) => {
            let Difference { subject, part, one, other } = first;
            let said = |side: Option<String>| side.unwrap_or_else(|| "not promised".to_owned());
            let part = if part.is_empty() { part } else { format!(" {part}") };
            let differs =
                format!("`{subject}`{part} is {} here and {} there", said(other), said(one));
            let name = abi.name.clone();
            Err((path.clone(), Contradiction::NameTaken { name, differs }))
        }
    }
}

fn cpu(cpu: &CpuAbi, path: &Path) -> Found {
    features(cpu, path)?;
    id_registers(cpu, path)?;
    varying(cpu, path)?;
    let midr = cpu.id_registers.iter().any(|promise| promise.id == MIDR_EL1);
    if cpu.implementation == Implementation::Promised && !midr {
        return Err((path.key("implementation"), Contradiction::NoMidr));
    }
    sve(cpu, &path.key("sve_lengths"))
}

/// `MIDR_EL1`.
const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);

fn features(cpu: &CpuAbi, path: &Path) -> Found {
    let features = cpu.features.as_deref().unwrap_or_default();
    for (nth, feature) in features.iter().enumerate() {
        if features.iter().take(nth).any(|before| before == feature) {
            let path = path.key("features").entry(nth);
            return Err((path, Contradiction::FeatureTwice(feature.clone())));
        }
    }
    Ok(())
}

fn id_registers(cpu: &CpuAbi, path: &Path) -> Found {
    let registers = &cpu.id_registers;
    // A baseline has them in order, and then none twice.
    let sorted = registers.is_sorted_by(|one, other| one.id < other.id);
    for (nth, IdPromise { id, name, value, mask }) in registers.iter().enumerate() {
        // Most are right, and need no place.
        let here = || path.key("id_registers").entry(nth);
        named(*id, name, &here)?;
        let register = || identity::name(*id);
        if value.0 & !mask.0 != 0 {
            let (register, bits) = (register(), value.0 & !mask.0);
            return Err((here().key("value"), Contradiction::OutsideMask { register, bits }));
        }
        if !sorted && registers.iter().take(nth).any(|before| before.id == *id) {
            let register = register();
            return Err((here().key("id"), Contradiction::RegisterTwice { register }));
        }
    }
    Ok(())
}

fn named(id: RegId, name: &str, path: &dyn Fn() -> Path) -> Found {
    if !identity::is_identification(id) {
        return Err((path().key("id"), Contradiction::NoIdRegister { id }));
    }
    if name.is_empty() || !identity::is_name_of_another(name, id) {
        return Ok(());
    }
    let (register, name) = (identity::name(id), name.to_owned());
    Err((path().key("name"), Contradiction::OtherName { id, register, name }))
}

const PROMISED: &str = "promised";
const VARYING: &str = "left to vary";

fn varying(cpu: &CpuAbi, path: &Path) -> Found {
    let promised = cpu.id_registers.iter().map(|promise| (promise.id, promise.mask.0, PROMISED));
    let mut taken: Vec<_> = promised.collect();
    for (nth, Varying { id, name, mask, reason: _ }) in cpu.varying.iter().enumerate() {
        let here = || path.key("varying").entry(nth);
        // Nobody can choose who made the monitors, and so it is no promise.
        if *id != PMCR_EL0 {
            named(*id, name, &here)?;
        }
        let clash = taken.iter().find(|(other, bits, _)| other == id && bits & mask.0 != 0);
        if let Some((_, bits, once)) = clash {
            let (bits, register) = (bits & mask.0, identity::name(*id));
            let clash = Contradiction::BitsTwice { register, bits, once, again: VARYING };
            return Err((here().key("mask"), clash));
        }
        taken.push((*id, mask.0, VARYING));
    }
    Ok(())
}

fn sve(cpu: &CpuAbi, path: &Path) -> Found {
    let Some(lengths) = &cpu.sve_lengths else { return Ok(()) };
    if cpu.features.as_ref().is_some_and(|features| !features.iter().any(|name| name == "sve")) {
        return Err((path.clone(), Contradiction::NoSve));
    }
    for (nth, pair) in lengths.windows(2).enumerate() {
        if let &[before, after] = pair
            && before >= after
        {
            return Err((path.entry(nth + 1), Contradiction::SveOrder { before, after }));
        }
    }
    let longest = lengths.last().copied().unwrap_or(128);
    let powers = (0..).map(|shift| 128_u32 << shift).take_while(|length| *length <= longest);
    let missing = powers
        .filter(|power| *power < longest || lengths.is_empty())
        .find(|power| !lengths.contains(power));
    match missing {
        Some(missing) => Err((path.clone(), Contradiction::SveGap { missing })),
        None => Ok(()),
    }
}

fn machine(machine: &MachineAbi, path: &Path) -> Found {
    filter(&machine.smccc_filter, &path.key("smccc_filter"))?;
    let timers = path.key("timer_ppis");
    let users = [
        ("the virtual timer", machine.timer_ppis.virtual_timer, timers.key("virtual_timer")),
        ("the physical timer", machine.timer_ppis.physical_timer, timers.key("physical_timer")),
        ("the performance monitors", machine.pmu_ppi, path.key("pmu_ppi")),
    ];
    for (nth, (other, intid, path)) in users.iter().enumerate() {
        if let Some((one, ..)) = users.iter().take(nth).find(|user| user.1 == *intid) {
            return Err((path.clone(), Contradiction::SamePpi { one, other, intid: *intid }));
        }
    }
    Ok(())
}

/// Functions that KVM lets nobody filter (Linux, arch/arm64/kvm/hypercalls.c).
const RESERVED: [(u32, u32); 2] = [(0x8000_0000, 0x8000_ffff), (0xc000_0000, 0xc000_ffff)];

fn filter(ranges: &[FilterRange], path: &Path) -> Found {
    let mut taken: Vec<(u32, u32)> = Vec::new();
    for (nth, range) in ranges.iter().enumerate() {
        let here = path.entry(nth);
        let (base, last) = bounds(range).map_err(|wraps| (here.key("count"), wraps))?;
        let meets = |&&(first, end): &&(u32, u32)| first <= last && base <= end;
        if let Some(&(first, last)) = RESERVED.iter().find(meets) {
            let count = range.count;
            let reserved = Contradiction::RangeReserved { base, count, first, last };
            return Err((here.key("base"), reserved));
        }
        if let Some(&(other, _)) = taken.iter().find(meets) {
            return Err((here.key("base"), Contradiction::RangesOverlap { base, other }));
        }
        taken.push((base, last));
    }
    Ok(())
}

/// The first and the last function of a range.
fn bounds(range: &FilterRange) -> Result<(u32, u32), Contradiction> {
    let base = u32::try_from(range.base.0).unwrap_or(u32::MAX);
    let last = range.count.checked_sub(1).and_then(|more| base.checked_add(more));
    let last = last.ok_or(Contradiction::RangeWraps { base, count: range.count })?;
    Ok((base, last))
}

/// KVM only tells a guest of the functions behind `vendor_hyp_bmap_2`.
fn answered(firmware: &Promises, ranges: &[FilterRange], path: &Path) -> Found {
    let register = FwReg::VendorHypBmap2;
    let value = firmware.get(Firmware::Known(register)).unwrap_or(0);
    let forwarded = |function: u32| {
        ranges.iter().filter(|range| range.action == FilterAction::Forward).any(|range| {
            bounds(range).is_ok_and(|(first, last)| (first..=last).contains(&function))
        })
    };
    let bits = register.spec().domain.symbols().iter().filter(|bit| value & bit.value != 0);
    for bit in bits {
        if let Some(&function) = bit.opens.iter().find(|function| !forwarded(**function)) {
            let path = path.key(register.spec().name);
            let bit = bit.name;
            return Err((path, Contradiction::Unanswered { register, bit, function }));
        }
    }
    Ok(())
}
