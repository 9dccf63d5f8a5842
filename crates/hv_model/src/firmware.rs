//! The firmware that KVM shows a guest: PSCI (Arm DEN0022) in the version the
//! machine chose, and the services of the SMC Calling Convention (Arm DEN0028)
//! that its bitmaps leave on.

use kedge_hv::{Access, Conduit, MpState, SmcccAction, SystemEvent, VcpuFeatures};
use kedge_ids::{Mpidr, RegId, VcpuId};

use crate::memory::slot_at;
use crate::registers::{Registers, at_reset};
use crate::release::{Ability, Answer, CpuOnReset, PSCI_0_1, Service};
use crate::releases::id;
use crate::state::number;

/// What became of a firmware call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// The guest goes on with these values in x0 to x3.
    Answered([u64; 4]),
    /// The machine's user has to do something.
    Event(SystemEvent),
    /// The machine's user answers.
    Forwarded,
    /// The calling vCPU is off.
    Off,
}

/// A function of PSCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Psci {
    Version,
    CpuSuspend,
    CpuOff,
    CpuOn,
    AffinityInfo,
    MigrateInfoType,
    Features,
    SystemOff,
    SystemReset,
    SystemSuspend,
    SystemReset2,
    SystemOff2,
}

const V0_2: u64 = 0x2;
const V1_0: u64 = 0x1_0000;
const V1_1: u64 = 0x1_0001;
const V1_3: u64 = 0x1_0003;

/// The functions from 0.2 on: number, whether there is a 64-bit form, first
/// version.
#[rustfmt::skip]
const PSCI: &[(u32, Forms, u64, Psci)] = &[
    (0,  Forms::Word, V0_2, Psci::Version),
    (1,  Forms::Both, V0_2, Psci::CpuSuspend),
    (2,  Forms::Word, V0_2, Psci::CpuOff),
    (3,  Forms::Both, V0_2, Psci::CpuOn),
    (4,  Forms::Both, V0_2, Psci::AffinityInfo),
    (6,  Forms::Word, V0_2, Psci::MigrateInfoType),
    (8,  Forms::Word, V0_2, Psci::SystemOff),
    (9,  Forms::Word, V0_2, Psci::SystemReset),
    (10, Forms::Word, V1_0, Psci::Features),
    (14, Forms::Both, V1_0, Psci::SystemSuspend),
    (18, Forms::Both, V1_1, Psci::SystemReset2),
    (21, Forms::Both, V1_3, Psci::SystemOff2),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forms {
    Word,
    Both,
}

const WORD: u32 = 0x8400_0000;
const DOUBLE: u32 = 0xc400_0000;
const TRNG: std::ops::RangeInclusive<u32> = 0x8400_0050..=0x8400_0053;
const TRNG_RND64: u32 = 0xc400_0053;
/// KVM's own ids for PSCI 0.1.
const OFF_0_1: u32 = 0x95c1_ba5f;
const ON_0_1: u32 = 0x95c1_ba60;
const PV_TIME_FEATURES: u64 = 0xc500_0020;
const PV_TIME_ST: u64 = 0xc500_0021;
/// Bytes of a record of stolen time (Arm DEN0057, 3.2.3).
const RECORD: usize = 64;
const SMCCC_VERSION: u32 = 0x8000_0000;

const SUCCESS: u64 = 0;
const NOT_SUPPORTED: u64 = negative(1);
const INVALID_PARAMETERS: u64 = negative(2);
const ALREADY_ON: u64 = negative(4);
const INTERNAL_FAILURE: u64 = negative(6);

const fn negative(code: u64) -> u64 {
    0_u64.wrapping_sub(code)
}

const fn only(x0: u64) -> Called {
    Called::Answered([x0, 0, 0, 0])
}

impl Registers<'_> {
    /// The calling vCPU asks for `function` with these arguments.
    pub(crate) fn call(&mut self, function: u32, arguments: [u64; 3], conduit: Conduit) -> Called {
        if conduit == Conduit::Smc && self.release.smc_calls == Ability::Absent {
            return Called::Answered([NOT_SUPPORTED, arguments[0], arguments[1], arguments[2]]);
        }
        let said = self.vm.filter.iter().find(|range| {
            function.checked_sub(range.base).is_some_and(|offset| offset < range.count)
        });
        match said.map(|range| range.action) {
            Some(SmcccAction::Deny) => return only(NOT_SUPPORTED),
            Some(SmcccAction::Forward) => return Called::Forwarded,
            Some(SmcccAction::Handle) | None => {}
        }
        let version = self.psci_version();
        if version == PSCI_0_1 {
            match function {
                OFF_0_1 => return self.cpu_off(),
                ON_0_1 => return only(self.cpu_on(arguments, INVALID_PARAMETERS)),
                _ => {}
            }
        } else if let Some(function) = self.psci(function, version) {
            return self.psci_call(function, arguments);
        }
        self.service(function, arguments[0])
    }

    /// The function of PSCI that an id stands for in this version.
    fn psci(&self, id: u32, version: u64) -> Option<Psci> {
        let row = PSCI.iter().find(|(number, forms, ..)| {
            id == WORD | number || (*forms == Forms::Both && id == DOUBLE | number)
        });
        let (.., since, function) = row?;
        let able = *function != Psci::SystemSuspend || self.vm.suspend == Ability::Present;
        (version >= *since && able).then_some(*function)
    }

    fn psci_call(&mut self, function: Psci, arguments: [u64; 3]) -> Called {
        let [first, second, _] = arguments;
        match function {
            Psci::Version => only(self.psci_version()),
            Psci::CpuSuspend => only(SUCCESS),
            Psci::CpuOff => self.cpu_off(),
            Psci::CpuOn => only(self.cpu_on(arguments, ALREADY_ON)),
            Psci::AffinityInfo => only(self.affinity_info(first, second)),
            Psci::MigrateInfoType => only(2),
            Psci::Features => only(self.psci_features(first)),
            Psci::SystemOff => self.event(SystemEvent::Off),
            Psci::SystemReset => self.event(SystemEvent::Reset),
            Psci::SystemSuspend => Called::Event(SystemEvent::Suspend),
            Psci::SystemReset2 if first == 0 || first >= 0x8000_0000 => {
                self.event(SystemEvent::Reset2)
            }
            Psci::SystemOff2 if first <= 1 && second == 0 => self.event(SystemEvent::Off2),
            Psci::SystemReset2 | Psci::SystemOff2 => only(INVALID_PARAMETERS),
        }
    }

    fn psci_features(&self, function: u64) -> u64 {
        let Ok(function) = u32::try_from(function) else { return NOT_SUPPORTED };
        match self.psci(function, self.psci_version()) {
            _ if function == SMCCC_VERSION => SUCCESS,
            Some(Psci::SystemOff2) => 1,
            Some(_) => SUCCESS,
            None => NOT_SUPPORTED,
        }
    }

    /// The end of the machine: no vCPU runs again before its user says so.
    fn event(&mut self, event: SystemEvent) -> Called {
        for vcpu in self.vm.vcpus.values_mut() {
            vcpu.mp = MpState::Stopped;
        }
        let caller = self.vm.vcpus.get_mut(&self.vcpu).expect("the caller exists");
        caller.put(RegId::x(0), INTERNAL_FAILURE);
        Called::Event(event)
    }

    fn cpu_off(&mut self) -> Called {
        let caller = self.vm.vcpus.get_mut(&self.vcpu).expect("the caller exists");
        caller.mp = MpState::Stopped;
        Called::Off
    }

    fn cpu_on(&mut self, [target, entry, context]: [u64; 3], already_on: u64) -> u64 {
        let Some(index) = self.vcpu_at(target) else { return INVALID_PARAMETERS };
        let vcpu = self.vm.vcpus.get_mut(&index).expect("it was just found");
        if vcpu.mp != MpState::Stopped {
            return already_on;
        }
        vcpu.mp = MpState::Runnable;
        vcpu.start = Some((entry, context));
        if self.release.cpu_on_reset == CpuOnReset::WhenRead {
            self.start(index);
        }
        // The counter only saturates at 2^64 - 2 pending wake-ups.
        let _ = self.vm.vcpus[&index].wake.write(1);
        SUCCESS
    }

    /// Resets a vCPU that CPU_ON has turned on.
    pub(crate) fn start(&mut self, index: u32) {
        let Some(vcpu) = self.vm.vcpus.get_mut(&index) else { return };
        let Some((entry, context)) = vcpu.start.take() else { return };
        let features = vcpu.features.unwrap_or(VcpuFeatures::NONE);
        let mpidr = vcpu.raw(RegId::MPIDR_EL1);
        vcpu.regs = at_reset(self.release, self.host, features, VcpuId(index));
        vcpu.put(RegId::MPIDR_EL1, mpidr);
        vcpu.put(RegId::PC, entry);
        vcpu.put(RegId::x(0), context);
        vcpu.base = None;
    }

    fn vcpu_at(&self, affinity: u64) -> Option<u32> {
        let at = |mpidr| Mpidr::from_register(mpidr).affinity() == affinity;
        let mut vcpus = self.vm.vcpus.iter();
        vcpus.find(|(_, vcpu)| at(vcpu.raw(RegId::MPIDR_EL1))).map(|(index, _)| *index)
    }

    fn affinity_info(&self, target: u64, lowest_level: u64) -> u64 {
        const ON: u64 = 0;
        const OFF: u64 = 1;
        let Ok(level @ 0..=3) = u32::try_from(lowest_level) else { return INVALID_PARAMETERS };
        let mask = u64::MAX << (8 * level);
        let matching = |mpidr| Mpidr::from_register(mpidr).affinity() & mask == target & mask;
        let mut found = INVALID_PARAMETERS;
        for vcpu in self.vm.vcpus.values().filter(|v| matching(v.raw(RegId::MPIDR_EL1))) {
            match vcpu.mp {
                MpState::Stopped => found = OFF,
                _ => return ON,
            }
        }
        found
    }

    fn service(&mut self, function: u32, argument: u64) -> Called {
        let Some(service) = self.open_service(function) else { return only(NOT_SUPPORTED) };
        match service.answer {
            Answer::Values(values) => Called::Answered(values),
            Answer::VendorFeatures => Called::Answered([
                self.bitmap(id::VENDOR_HYP_BMAP),
                0,
                self.bitmap(id::VENDOR_HYP_BMAP_2),
                0,
            ]),
            Answer::ArchFeatures => only(self.arch_features(argument)),
            Answer::TrngFeatures => only(trng_features(argument)),
            Answer::PvTimeFeatures => only(self.pv_time_features(argument)),
            Answer::PvTimeRecord => only(self.pv_time_record()),
        }
    }

    fn pv_time_features(&self, function: u64) -> u64 {
        let known = [PV_TIME_FEATURES, PV_TIME_ST].contains(&(function & 0xffff_ffff));
        let placed = self.vm.vcpus[&self.vcpu].pv_time.is_some();
        if known && placed { SUCCESS } else { NOT_SUPPORTED }
    }

    /// Tells the guest where the record of stolen time is, and zeroes it.
    fn pv_time_record(&mut self) -> u64 {
        let Some(address) = self.vm.vcpus[&self.vcpu].pv_time else { return NOT_SUPPORTED };
        let slot = slot_at(self.vm, address, RECORD).filter(|s| s.access == Access::ReadWrite);
        // What the host has lost is not the guest's to know.
        let _ = slot.and_then(|slot| slot.write(address, &[0; RECORD]));
        address
    }

    /// What answers `function`, unless it is switched off.
    fn open_service(&self, function: u32) -> Option<&'static Service> {
        let mut services = self.release.services.iter();
        services.find(|service| service.function == function && self.is_open(service.gate))
    }

    fn is_open(&self, gate: Option<(RegId, u64)>) -> bool {
        gate.is_none_or(|(id, bit)| self.bitmap(id) & bit != 0)
    }

    fn bitmap(&self, id: RegId) -> u64 {
        self.get(id).map_or(0, |value| number(&value))
    }

    fn arch_features(&self, function: u64) -> u64 {
        match function {
            0x8000_8000 => workaround(self.bitmap(id::WORKAROUND_1)),
            0x8000_3fff => workaround(self.bitmap(id::WORKAROUND_3)),
            0x8000_7fff => match self.bitmap(id::WORKAROUND_2) {
                2 => SUCCESS,
                3 => negative(2),
                _ => NOT_SUPPORTED,
            },
            PV_TIME_FEATURES if self.open_service(0xc500_0020).is_some() => SUCCESS,
            _ => NOT_SUPPORTED,
        }
    }
}

/// What ARCH_FEATURES says of a host mitigated to `level`.
fn workaround(level: u64) -> u64 {
    match level {
        1 => SUCCESS,
        2 => 1,
        _ => NOT_SUPPORTED,
    }
}

fn trng_features(function: u64) -> u64 {
    match u32::try_from(function) {
        Ok(function) if TRNG.contains(&function) || function == TRNG_RND64 => SUCCESS,
        _ => NOT_SUPPORTED,
    }
}
