//! The engine of the register rules: lists, reads and writes registers of one
//! vCPU as the rows of a release say.

use std::collections::BTreeMap;

use kedge_hv::{HvError, VcpuFeatures};
use kedge_ids::{Mpidr, RegId, VcpuId};

use crate::recording::Recording;
use crate::refusal::{Refusal, refuse};
use crate::release::{
    Ability, AtVcpuCreation, Birth, BitmapOrder, CounterBits, Freeze, Istatus, PSCI_0_1, Release,
    Row, Rule, Scope,
};
use crate::releases::id;
use crate::state::{Counters, Sve, VcpuState, VmState, number};

/// The registers of one vCPU, with all that they depend on.
pub(crate) struct Registers<'a> {
    pub(crate) release: &'a Release,
    pub(crate) host: &'a Recording,
    pub(crate) vm: &'a mut VmState,
    pub(crate) vcpu: u32,
    /// The host's counter now.
    pub(crate) now: u64,
}

/// The registers of a vCPU just reset.
pub(crate) fn at_reset(
    release: &Release,
    host: &Recording,
    features: VcpuFeatures,
    vcpu: VcpuId,
) -> BTreeMap<RegId, Vec<u8>> {
    let mut registers = host.registers(features);
    for (id, row) in release.single_rows() {
        let length = id.size().bytes();
        let value = match row.birth {
            Birth::Recorded => continue,
            Birth::Value(value) => value.to_vec(),
            Birth::Identity => (1 << 31 | Mpidr::of(vcpu).affinity()).to_le_bytes().to_vec(),
        };
        registers.insert(id, padded(value, length));
    }
    registers.retain(|id, _| release.lists(*id));
    registers
}

/// Under whose id a register's value is held.
fn held_by(row: &Row, id: RegId) -> RegId {
    match row.rule {
        Rule::CounterBits { held_by, .. } => held_by,
        _ => id,
    }
}

fn padded(mut value: Vec<u8>, length: usize) -> Vec<u8> {
    value.resize(length, 0);
    value
}

impl Registers<'_> {
    fn vcpu(&self) -> &VcpuState {
        &self.vm.vcpus[&self.vcpu]
    }

    fn vcpu_mut(&mut self) -> &mut VcpuState {
        self.vm.vcpus.get_mut(&self.vcpu).expect("vCPUs are never removed from a machine")
    }

    fn refuse<T>(&self, refusal: Refusal) -> Result<T, HvError> {
        refuse(self.release, refusal)
    }

    /// The ids of all registers, ascending.
    pub(crate) fn list(&self) -> Result<Vec<RegId>, HvError> {
        match (self.vcpu().features, self.vcpu().sve) {
            _ if self.vm.dead => self.refuse(Refusal::Dead),
            (None, _) => self.refuse(Refusal::NotInitialised),
            (_, Sve::Choosing) => self.refuse(Refusal::SveUnfinished),
            _ => Ok(self.vcpu().regs.keys().copied().filter(|id| !self.is_hidden(*id)).collect()),
        }
    }

    /// Whether an ID register says that there is no such register.
    fn is_hidden(&self, id: RegId) -> bool {
        self.release.hidden.iter().any(|(ids, by, shift)| {
            let field = || number(&self.stored(self.release.row(*by), *by)) >> shift & 0xf;
            ids.contains(id) && field() == 0
        })
    }

    /// The row of a register that there is.
    fn find(&self, id: RegId) -> Result<&'static Row, HvError> {
        if self.vm.dead {
            return self.refuse(Refusal::Dead);
        }
        if self.vcpu().features.is_none() {
            return self.refuse(Refusal::NotInitialised);
        }
        if id.0 & !SIZE & !LOW_HALF != ARM64 {
            return self.refuse(Refusal::OtherArch);
        }
        if self.vcpu().regs.contains_key(&id) && !self.is_hidden(id) {
            return Ok(self.release.row(id));
        }
        let hidden = id.coprocessor() == CORE && self.host.has_plain(id);
        self.refuse(if hidden { Refusal::HiddenCore } else { Refusal::NoRegister })
    }

    /// The value stored for a register that there is.
    pub(crate) fn stored(&self, row: &Row, id: RegId) -> Vec<u8> {
        let id = held_by(row, id);
        let own = &self.vcpu().regs[&id];
        match row.scope {
            Scope::Vcpu => own.clone(),
            Scope::Vm => self.vm.shared.get(&id).unwrap_or(own).clone(),
        }
    }

    pub(crate) fn store(&mut self, row: &Row, id: RegId, value: &[u8]) {
        let id = held_by(row, id);
        let values = match row.scope {
            Scope::Vcpu => &mut self.vcpu_mut().regs,
            Scope::Vm => &mut self.vm.shared,
        };
        values.insert(id, value.to_vec());
    }

    /// Reads a register.
    pub(crate) fn get(&self, id: RegId) -> Result<Vec<u8>, HvError> {
        let row = self.find(id)?;
        let stored = self.stored(row, id);
        let computed = match row.rule {
            Rule::PsciVersion => self.psci_version(),
            Rule::Counter(_) => self.now.wrapping_sub(number(&stored)),
            Rule::PmuControl => self.pmu_control(number(&stored)),
            Rule::CounterBits { written, .. } => number(&stored) & self.counter_bits(written),
            Rule::TimerControl(istatus) => self.timer_control(id, number(&stored), istatus),
            Rule::SveState if self.vcpu().sve == Sve::Choosing => {
                return self.refuse(Refusal::SveUnfinished);
            }
            _ => return Ok(stored),
        };
        Ok(computed.to_le_bytes().to_vec())
    }

    /// The PSCI version that the guest is offered through this vCPU.
    pub(crate) fn psci_version(&self) -> u64 {
        let id = RegId::PSCI_VERSION;
        let has_0_2 = self.vcpu().features.is_some_and(|f| f.contains(VcpuFeatures::PSCI_0_2));
        match number(&self.stored(self.release.row(id), id)) {
            _ if !has_0_2 => PSCI_0_1,
            UNWRITTEN => self.release.newest_psci(),
            version => version,
        }
    }

    fn timer_control(&self, id: RegId, stored: u64, istatus: Istatus) -> u64 {
        let (counter, compare) = if id == id::TIMER_CTL {
            (id::TIMER_CNT, id::TIMER_CVAL)
        } else {
            (id::PTIMER_CNT, id::PTIMER_CVAL)
        };
        let offset = self.stored(self.release.row(counter), counter);
        let due = self.now.wrapping_sub(number(&offset)) >= self.vcpu().raw(compare);
        let shown = due && istatus == Istatus::Computed;
        stored & !ISTATUS | if shown { ISTATUS } else { 0 }
    }

    /// Writes a register.
    pub(crate) fn set(&mut self, id: RegId, value: &[u8]) -> Result<(), HvError> {
        let row = self.find(id)?;
        if value.len() != id.size().bytes() {
            return self.refuse(Refusal::Length);
        }
        let checked = self.checked(row, id, value);
        let late = match row.rule {
            Rule::Bitmap { order, .. } => order == BitmapOrder::UnknownFirst,
            Rule::ImpId(_) => self.vm.imp_ids == Ability::Absent,
            _ => false,
        };
        if late && checked.is_err() {
            return checked.map(drop);
        }
        if self.vm.ran && row.freeze != Freeze::Never {
            let equal = row.freeze == Freeze::Run && self.get(id)? == value;
            return if equal { Ok(()) } else { self.refuse(Refusal::Frozen) };
        }
        if let Some(value) = checked? {
            self.store(row, id, &value);
        }
        if row.rule == Rule::PmuControl {
            self.choose_counters(number(value));
        }
        Ok(())
    }

    /// The control register of the performance monitors, with the machine's number of
    /// counters.
    fn pmu_control(&self, stored: u64) -> u64 {
        self.vm.pmu_counters.map_or(stored, |counters| stored & !COUNTERS | counters)
    }

    /// The bits of counters that a user reads and writes.
    fn counter_bits(&self, written: CounterBits) -> u64 {
        const CYCLES: u64 = 1 << 31;
        let control = self.pmu_control(self.vcpu().raw(PMCR_EL0));
        let events = (1 << ((control & COUNTERS) >> COUNTERS.trailing_zeros())) - 1;
        if written == CounterBits::Any { u64::MAX } else { CYCLES | events }
    }

    /// Takes a number of counters that the host has, before the first run.
    fn choose_counters(&mut self, wanted: u64) {
        let features = self.vcpu().features.unwrap_or_default();
        let host = self.host.registers(features);
        let most = host.get(&PMCR_EL0).map_or(0, |value| number(value) & COUNTERS);
        if !self.vm.ran && wanted & COUNTERS <= most {
            self.vm.pmu_counters = Some(wanted & COUNTERS);
        }
    }

    /// What is to be stored when `value` is written, if anything.
    fn checked(&self, row: &Row, id: RegId, value: &[u8]) -> Result<Option<Vec<u8>>, HvError> {
        let now = self.stored(row, id);
        let (old, new) = (number(&now), number(value));
        let allow = |legal: bool, stored: Option<Vec<u8>>| {
            if legal { Ok(stored) } else { self.refuse(Refusal::BadValue) }
        };
        let as_is = || Some(value.to_vec());
        match row.rule {
            Rule::Stored => Ok(as_is()),
            Rule::Ignored => Ok(None),
            Rule::Fixed => allow(now == value, None),
            Rule::Masked(mask) => allow((old ^ new) & !mask == 0, as_is()),
            Rule::PsciVersion => allow(self.psci_versions().contains(&new), as_is()),
            Rule::Level(mask) => allow(new & !mask == 0 && new <= old, None),
            Rule::SsbdLevel => allow(ssbd(new).is_some_and(|level| level <= old), None),
            Rule::Bitmap { known, .. } => allow(new & !known == 0, as_is()),
            Rule::Fields => self.fields(id, old, new),
            Rule::PmuControl => {
                Ok(Some((old & !PMU_SWITCHES | new & PMU_SWITCHES).to_le_bytes().to_vec()))
            }
            Rule::CounterBits { written, .. } => {
                let bits = new & self.counter_bits(written);
                let value = match written {
                    CounterBits::Any | CounterBits::Assigned => bits,
                    CounterBits::Set => old | bits,
                    CounterBits::Cleared => old & !bits,
                };
                Ok(Some(value.to_le_bytes().to_vec()))
            }
            Rule::ImpId(_) if self.vm.imp_ids == Ability::Absent => allow(old == new, None),
            Rule::ImpId(mask) => allow(old == new || new & !mask == 0, as_is()),
            Rule::CacheSize => allow(new & LINE >= self.host.plain(id) & LINE, as_is()),
            Rule::Counter(_) if self.vm.counters == Counters::Offset => Ok(None),
            Rule::Counter(_) => Ok(Some(self.now.wrapping_sub(new).to_le_bytes().to_vec())),
            Rule::ProcessorState => allow(self.modes().contains(&(new & 0x1f)), as_is()),
            Rule::TimerControl(istatus) => Ok(Some(timer_switches(new, istatus))),
            Rule::VectorLengths => self.vector_lengths(value),
            Rule::SveState if self.vcpu().sve == Sve::Choosing => {
                self.refuse(Refusal::SveUnfinished)
            }
            Rule::SveState => Ok(Some(self.within_length(value))),
        }
    }

    /// The modes of EL0 and EL1, as PSTATE.M encodes them (Arm DDI 0487, C5.2.19).
    fn modes(&self) -> &'static [u64] {
        match self.vcpu().features {
            Some(features) if features.contains(VcpuFeatures::EL1_32BIT) => {
                &[0x10, 0x11, 0x12, 0x13, 0x17, 0x1b, 0x1f]
            }
            _ => &[0x0, 0x4, 0x5],
        }
    }

    /// The versions that this vCPU may choose.
    fn psci_versions(&self) -> &[u64] {
        match self.vcpu().features {
            Some(features) if features.contains(VcpuFeatures::PSCI_0_2) => self.release.psci,
            _ => &[PSCI_0_1],
        }
    }

    /// An ID register, four bits at a time.
    fn fields(&self, id: RegId, old: u64, new: u64) -> Result<Option<Vec<u8>>, HvError> {
        let mut stored = old;
        for shift in (0..u64::BITS).step_by(4) {
            let (was, wanted) = (old >> shift & 0xf, new >> shift & 0xf);
            let accepted = self.host.accepted(id, shift);
            let bit = 1_u16 << wanted;
            if was == wanted || accepted.lost & bit != 0 {
                continue;
            }
            if accepted.kept & bit == 0 {
                return self.refuse(Refusal::BadValue);
            }
            stored = stored & !(0xf << shift) | wanted << shift;
        }
        Ok(Some(stored.to_le_bytes().to_vec()))
    }

    /// What vector state keeps: as much as the longest length has, of sixteen times the
    /// shortest that there could be.
    fn within_length(&self, value: &[u8]) -> Vec<u8> {
        let longest = longest(&self.vcpu().regs[&RegId::SVE_VLS]).map_or(0, |bit| bit + 1);
        let kept = value.len() * longest / 16;
        padded(value[..kept.min(value.len())].to_vec(), value.len())
    }

    /// Every length of the host's up to the longest one chosen.
    fn vector_lengths(&self, value: &[u8]) -> Result<Option<Vec<u8>>, HvError> {
        if self.vcpu().sve != Sve::Choosing {
            return self.refuse(Refusal::SveFinished);
        }
        let features = self.vcpu().features.unwrap_or_default();
        let host = &self.host.registers(features)[&RegId::SVE_VLS];
        let Some(longest) = longest(value) else {
            return self.refuse(Refusal::SveLengths);
        };
        if (0..=longest).all(|bit| is_set(value, bit) == is_set(host, bit)) {
            Ok(Some(value.to_vec()))
        } else {
            self.refuse(Refusal::SveLengths)
        }
    }
}

/// What creating a vCPU does to the machine's counters.
pub(crate) fn restart_counters(release: &Release, vm: &mut VmState, now: u64) {
    if vm.counters == Counters::Offset {
        return;
    }
    for (id, row) in release.single_rows() {
        let Rule::Counter(at_creation) = row.rule else { continue };
        let offset: u64 = match at_creation {
            AtVcpuCreation::Restarts => now,
            AtVcpuCreation::FollowsHost => 0,
            AtVcpuCreation::Kept => continue,
        };
        vm.shared.insert(id, offset.to_le_bytes().to_vec());
    }
}

/// Gives all counters of the machine one distance from the host's, for good.
pub(crate) fn offset_counters(release: &Release, vm: &mut VmState, offset: u64) {
    vm.counters = Counters::Offset;
    for (id, row) in release.single_rows() {
        if matches!(row.rule, Rule::Counter(_)) {
            vm.shared.insert(id, offset.to_le_bytes().to_vec());
        }
    }
}

fn timer_switches(value: u64, istatus: Istatus) -> Vec<u8> {
    let width = match istatus {
        Istatus::Computed => u64::from(u32::MAX),
        Istatus::Hidden => u64::MAX,
    };
    (value & width & !ISTATUS).to_le_bytes().to_vec()
}

/// The highest bit of a set of vector lengths: n for n + 1 times 128 bits.
fn longest(lengths: &[u8]) -> Option<usize> {
    (0..512).rev().find(|bit| is_set(lengths, *bit))
}

fn is_set(bitmap: &[u8], bit: usize) -> bool {
    bitmap.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
}

/// The level that a value of WORKAROUND_2 asks for: of the four there are, KVM
/// tells two apart.
fn ssbd(value: u64) -> Option<u64> {
    match value {
        SSBD_NOT_AVAIL | SSBD_UNKNOWN => Some(SSBD_NOT_AVAIL),
        SSBD_AVAIL | SSBD_AVAIL_ENABLED | SSBD_NOT_REQUIRED => Some(SSBD_NOT_REQUIRED),
        _ => None,
    }
}

/// The architecture's nibble of an id; the rest of the upper half is the size.
const ARM64: u64 = 0x6 << 60;
const SIZE: u64 = 0xf << 52;
const LOW_HALF: u64 = 0xffff_ffff;
const CORE: u64 = 0x10;
/// `CCSIDR_EL1`.LineSize.
const LINE: u64 = 7;
const PMCR_EL0: RegId = RegId::system(3, 3, 9, 12, 0);
/// `PMCR_EL0`.N.
const COUNTERS: u64 = 0x1f << 11;
/// The bits of `PMCR_EL0` that a vCPU holds.
const PMU_SWITCHES: u64 = 0xff;
/// The PSCI version of a machine whose user has chosen none.
const UNWRITTEN: u64 = 0;
const ISTATUS: u64 = 1 << 2;
const SSBD_NOT_AVAIL: u64 = 0;
const SSBD_UNKNOWN: u64 = 1;
const SSBD_AVAIL: u64 = 2;
const SSBD_AVAIL_ENABLED: u64 = 2 | 1 << 4;
const SSBD_NOT_REQUIRED: u64 = 3;
