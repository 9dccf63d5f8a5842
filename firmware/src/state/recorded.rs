//! A machine that a host would make, foretold from what was recorded of the host: where
//! a plan can be made without the host.

use std::collections::BTreeMap;

use kedge_diag::Fix;
use kedge_hv::{HvError, VcpuFeatures};
use kedge_ids::RegId;

use super::RegisterState;
use super::class::Holder;
use super::destination::{Destination, RegList};
use super::rules::number;
use crate::abi::{GuestAbi, Implementation};
use crate::hex::{Hex, RegValue};
use crate::host::{FoundCpu, FoundFirmware, FoundIdReg, FoundScope, HostAbi, Takes, names};
use crate::plan::identity::is_implementation;
use crate::register::{Firmware, FwReg};

const PSCI_0_1: u64 = 0x1;
/// `KVM_REG_SIZE_U512` bytes of vector lengths: bit n for the length of (n + 1) * 128.
const VECTORS: usize = 64;

/// A recorded host cannot make the machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host has vCPUs without {}", missing.join(", "))]
pub struct MissingFeatures {
    /// The names of the features that it does not have.
    pub missing: Vec<String>,
}

impl Fix for MissingFeatures {
    fn fix(&self) -> Option<String> {
        Some("restore it on a host that has them".to_owned())
    }
}

/// A machine of a recorded host, as it is before anything was written to it.
///
/// What it lists, what firmware and ID registers read and what they take is as the host
/// was recorded. A recording says less than a host:
///
/// - values were tried one at a time, fields with all others as they are; that they go
///   together, or that the list stays when ID registers change, only the host shows;
/// - it holds no values of other registers than these and no tries at them. They are
///   not known ([`Destination::knows`]) until they are given a value, and take any.
///
/// So a refusal of a plan for it is one that the host would give, and the absence of
/// refusals is a promise of firmware, ID registers and lists alone.
#[derive(Clone, Debug)]
pub struct Recorded<'a> {
    host: &'a HostAbi,
    cpu: FoundCpu,
    /// Whether the registers that say who made the CPU can be chosen.
    chosen: bool,
    has_psci_0_2: bool,
    list: RegList,
    machine: BTreeMap<RegId, RegValue>,
    vcpus: Vec<BTreeMap<RegId, RegValue>>,
}

impl<'a> Recorded<'a> {
    /// A machine for a guest of this profile, of so many vCPUs with these features.
    ///
    /// # Errors
    /// The host does not have all of the features.
    pub fn new(
        host: &'a HostAbi,
        abi: &GuestAbi,
        features: VcpuFeatures,
        vcpus: usize,
    ) -> Result<Self, MissingFeatures> {
        let names = names(features);
        let has = |name: &&String| host.limits.features.contains(name);
        let missing: Vec<_> = names.iter().filter(|name| !has(name)).cloned().collect();
        if !missing.is_empty() {
            return Err(MissingFeatures { missing });
        }
        let cpu = host.cpu_with(&names);
        let others = cpu.registers.iter().filter(|id| Firmware::of(**id).is_none());
        let firmware = host.firmware.iter().map(|found| found.id);
        let identity = cpu.id_registers.iter().map(|found| found.id);
        let list = others.copied().chain(firmware).chain(identity).collect();
        let chosen = abi.cpu.implementation == Implementation::Promised;
        Ok(Self {
            chosen: chosen && host.abilities.writable_imp_ids,
            has_psci_0_2: features.contains(VcpuFeatures::PSCI_0_2),
            host,
            cpu,
            list,
            machine: BTreeMap::new(),
            vcpus: vec![BTreeMap::new(); vcpus],
        })
    }

    /// A machine for the guest that `state` was saved of.
    ///
    /// # Errors
    /// As [`Recorded::new`].
    pub fn for_state(host: &'a HostAbi, state: &RegisterState) -> Result<Self, MissingFeatures> {
        Self::new(host, &state.birth.abi, state.features, state.vcpus.len())
    }

    fn firmware(&self, id: RegId) -> Option<&FoundFirmware> {
        self.host.firmware.iter().find(|found| found.id == id)
    }

    /// PSCI of vCPUs without its feature is 0.1 on every kernel; only others were probed.
    fn is_psci_0_1(&self, id: RegId) -> bool {
        id == FwReg::PsciVersion.spec().id && !self.has_psci_0_2
    }

    /// What a new machine reads, where it was recorded.
    fn born(&self, id: RegId) -> Option<RegValue> {
        if self.is_psci_0_1(id) {
            return Some(RegValue::from(PSCI_0_1));
        }
        if id == RegId::SVE_VLS {
            return Some(vectors(&self.host.limits.sve_lengths));
        }
        let identity = self.cpu.id_register(id).map(|found| RegValue::sized(id, found.value.0));
        identity.or_else(|| self.firmware(id).map(|found| found.default.clone()))
    }

    fn current(&self, vcpu: usize, id: RegId) -> Option<RegValue> {
        let own = self.vcpus.get(vcpu).and_then(|own| own.get(&id));
        own.or_else(|| self.machine.get(&id)).cloned().or_else(|| self.born(id))
    }

    /// What a register reads once it was given a value; nothing where it does not take
    /// it.
    fn stored(&self, vcpu: usize, id: RegId, value: &RegValue) -> Option<RegValue> {
        let now = self.current(vcpu, id);
        let Some(now) = now else { return Some(value.clone()) };
        if now == *value {
            return Some(now);
        }
        if value.0.len() != now.0.len() || self.is_psci_0_1(id) {
            return None;
        }
        if id == RegId::SVE_VLS {
            return self.takes_vectors(value).then(|| value.clone());
        }
        if let Some(found) = self.cpu.id_register(id) {
            let any = self.chosen && is_implementation(id);
            let goal = number(value);
            let stored = if any { Some(goal) } else { stored_fields(found, number(&now), goal) };
            return stored.map(|stored| RegValue::sized(id, stored));
        }
        match self.firmware(id) {
            Some(found) => stored_firmware(found, value),
            None => Some(value.clone()),
        }
    }

    /// Whether vCPUs can be made with just these lengths: up to the longest of them, all
    /// that the host has and no others.
    fn takes_vectors(&self, value: &RegValue) -> bool {
        let longest = (1..).step_by(128).map(|bits: u32| bits + 127);
        let bytes = value.0.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 != 0));
        let wanted: Vec<u32> =
            bytes.zip(longest).filter(|(is, _)| *is).map(|(_, length)| length).collect();
        let lengths = &self.host.limits.sve_lengths;
        !wanted.is_empty() && lengths.starts_with(&wanted)
    }

    /// Whether each vCPU holds the register by itself.
    fn is_own(&self, id: RegId) -> bool {
        let identity = self.cpu.id_register(id).map(|found| found.scope);
        let scope = identity.or_else(|| self.firmware(id).map(|found| found.scope));
        match scope {
            Some(scope) => scope == FoundScope::Vcpu,
            None => Holder::of(id, |_| true) == Holder::Vcpu,
        }
    }
}

/// The bit of each length.
fn vectors(lengths: &[u32]) -> RegValue {
    let mut bytes = vec![0_u8; VECTORS];
    let bits =
        lengths.iter().filter_map(|length| usize::try_from(length / 128).ok()?.checked_sub(1));
    for bit in bits {
        if let Some(byte) = bytes.get_mut(bit / 8) {
            *byte |= 1 << (bit % 8);
        }
    }
    RegValue(bytes)
}

/// What an ID register reads once it was given `goal`, field by field.
fn stored_fields(found: &FoundIdReg, now: u64, goal: u64) -> Option<u64> {
    let mut stored = now;
    for shift in FoundIdReg::shifts() {
        let nibble = |value: u64| value >> shift & 0xf;
        let drops = found.fields.iter().find(|field| field.shift == shift);
        let drops = drops.map_or(0, |field| field.drops.0);
        if nibble(goal) == nibble(now) || drops >> nibble(goal) & 1 != 0 {
            continue;
        }
        if found.takes(shift) >> nibble(goal) & 1 == 0 {
            return None;
        }
        stored = stored & !(0xf << shift) | goal & 0xf << shift;
    }
    Some(stored)
}

/// What a firmware register reads once it was given a value.
fn stored_firmware(found: &FoundFirmware, value: &RegValue) -> Option<RegValue> {
    if *value == found.default {
        return Some(value.clone());
    }
    let number = value.as_u64()?;
    match &found.takes {
        Takes::Values(values) => values.contains(&Hex(number)).then(|| value.clone()),
        Takes::Levels(levels) => levels.contains(&Hex(number)).then(|| found.default.clone()),
        Takes::Bits { bits, empty } => {
            (number & !bits.0 == 0 && (number != 0 || *empty)).then(|| value.clone())
        }
        Takes::Untried => None,
    }
}

impl Destination for Recorded<'_> {
    fn vcpus(&self) -> usize {
        self.vcpus.len()
    }

    fn has_run(&self) -> bool {
        false
    }

    fn ptp(&self) -> bool {
        self.host.abilities.ptp
    }

    fn list(&self, _: usize) -> Result<RegList, HvError> {
        Ok(self.list.clone())
    }

    fn knows(&self, vcpu: usize, id: RegId) -> bool {
        self.current(vcpu, id).is_some()
    }

    fn read(&self, vcpu: usize, id: RegId) -> Result<RegValue, HvError> {
        const ENOENT: i32 = 2;
        self.current(vcpu, id).ok_or_else(|| HvError::new("read what was not recorded", ENOENT))
    }

    fn shown(&self, _: usize, id: RegId) -> Option<RegValue> {
        let found = self.cpu.id_register(id).filter(|_| !self.machine.contains_key(&id))?;
        found.guest.map(|guest| RegValue::sized(id, guest.0))
    }

    fn offer(&mut self, vcpu: usize, id: RegId, value: &RegValue) -> Result<(), HvError> {
        const EINVAL: i32 = 22;
        let stored = self.stored(vcpu, id, value);
        let stored = stored.ok_or_else(|| HvError::new("write a register as recorded", EINVAL))?;
        let own = self.is_own(id).then(|| self.vcpus.get_mut(vcpu)).flatten();
        own.unwrap_or(&mut self.machine).insert(id, stored);
        Ok(())
    }
}
