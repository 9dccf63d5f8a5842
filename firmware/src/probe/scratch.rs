//! Machines to try things on: two vCPUs, to write through one and read through the
//! other; never run.

use std::sync::Arc;

use kedge_hv::{HvError, Hypervisor, Vcpu, VcpuFeatures, Vm, VmConfig};
use kedge_ids::{RegId, VcpuId};

use super::ProbeError;
use crate::hex::RegValue;
use crate::register::Firmware;

/// The address bits of a scratch machine: as many as any host has, or all there are.
const IPA_BITS: u8 = 40;

/// What every vCPU here has: PSCI 0.2 or later.
pub(super) const PLAIN: VcpuFeatures = VcpuFeatures::PSCI_0_2;

/// A machine without vCPUs.
pub(super) fn vm(hypervisor: &dyn Hypervisor) -> Result<Arc<dyn Vm>, HvError> {
    let ipa_bits = hypervisor.limits().ipa_bits.min(IPA_BITS);
    hypervisor.create_vm(&VmConfig::new(ipa_bits))
}

/// The SVE vector lengths in bits, ascending.
pub(super) fn sve_lengths(hypervisor: &dyn Hypervisor) -> Result<Vec<u32>, ProbeError> {
    if !hypervisor.limits().features.contains(VcpuFeatures::SVE) {
        return Ok(Vec::new());
    }
    let mut vcpu = vm(hypervisor)?.create_vcpu(VcpuId(0))?;
    vcpu.init(PLAIN | VcpuFeatures::SVE)?;
    Ok(lengths(&read(vcpu.as_ref(), RegId::SVE_VLS)?))
}

/// The vector lengths in bits, ascending, of a value of the register `SVE_VLS`.
pub(crate) fn lengths(register: &[u8]) -> Vec<u32> {
    let bits = register.iter().flat_map(|byte| (0..u8::BITS).map(move |bit| byte >> bit & 1 != 0));
    // Bit n of the register: vectors of (n + 1) times 128 bits.
    let lengths = (1..).zip(bits).filter(|(_, can)| *can);
    lengths.map(|(quadwords, _): (u32, _)| quadwords * 128).collect()
}

fn read(vcpu: &dyn Vcpu, id: RegId) -> Result<Vec<u8>, ProbeError> {
    vcpu.reg(id).map_err(|source| unreadable(id, source))
}

/// A register of up to 64 bits.
fn number(vcpu: &dyn Vcpu, id: RegId) -> Result<u64, ProbeError> {
    read(vcpu, id).map(|value| RegValue(value).number())
}

fn set_number(vcpu: &dyn Vcpu, id: RegId, value: u64) -> Result<(), HvError> {
    vcpu.set_reg(id, &RegValue::sized(id, value).0)
}

fn unreadable(id: RegId, source: HvError) -> ProbeError {
    let register = Firmware::of(id).map_or_else(|| id.to_string(), |known| known.to_string());
    ProbeError::Read { register, source }
}

/// What became of a value written through the first vCPU.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trial {
    /// The value.
    pub(super) value: u64,
    /// The write was no error.
    pub(super) accepted: bool,
    /// The write was no error, and the register then read as the value.
    pub(super) stored: bool,
    /// The register read otherwise than before.
    pub(super) changed: bool,
    /// The second vCPU read the same.
    pub(super) seen_beside: bool,
}

/// A scratch machine, and the means to make another when it is spoilt.
pub(super) struct Bench<'a> {
    hypervisor: &'a dyn Hypervisor,
    features: VcpuFeatures,
    vcpus: [Box<dyn Vcpu>; 2],
}

impl<'a> Bench<'a> {
    /// A machine whose vCPUs have PSCI 0.2 and `feature`.
    pub(super) fn new(
        hypervisor: &'a dyn Hypervisor,
        feature: VcpuFeatures,
    ) -> Result<Self, ProbeError> {
        let features = feature | PLAIN;
        Ok(Self { hypervisor, features, vcpus: machine(hypervisor, features)? })
    }

    /// All registers of a vCPU.
    pub(super) fn list(&self) -> Result<Vec<RegId>, ProbeError> {
        Ok(self.vcpus[0].reg_list()?)
    }

    /// The value of a register.
    pub(super) fn read(&self, id: RegId) -> Result<Vec<u8>, ProbeError> {
        read(self.vcpus[0].as_ref(), id)
    }

    /// The value of a register of up to 64 bits.
    pub(super) fn number(&self, id: RegId) -> Result<u64, ProbeError> {
        number(self.vcpus[0].as_ref(), id)
    }

    /// Writes each of `values` to a register of up to 64 bits through one vCPU, and looks through
    /// both. For each value, and at last for the next register, it is as if nothing had
    /// been written before.
    pub(super) fn trials(
        &mut self,
        id: RegId,
        values: impl IntoIterator<Item = u64>,
    ) -> Result<Vec<Trial>, ProbeError> {
        let born = self.both(id)?;
        let trials = values.into_iter().map(|value| self.trial(id, value, born));
        let trials = trials.collect::<Result<_, _>>()?;
        // A refused write changes nothing; that is looked at once for all of them.
        if self.both(id)? != born {
            self.vcpus = machine(self.hypervisor, self.features)?;
        }
        Ok(trials)
    }

    fn trial(&mut self, id: RegId, value: u64, born: [u64; 2]) -> Result<Trial, ProbeError> {
        if set_number(self.vcpus[0].as_ref(), id, value).is_err() {
            return Ok(Trial { value, ..Trial::default() });
        }
        let now = self.both(id)?;
        if now != born {
            let back = set_number(self.vcpus[0].as_ref(), id, born[0]);
            if back.is_err() || self.both(id)? != born {
                self.vcpus = machine(self.hypervisor, self.features)?;
            }
        }
        Ok(Trial {
            value,
            accepted: true,
            stored: now[0] == value,
            changed: now[0] != born[0],
            seen_beside: now[1] == now[0],
        })
    }

    fn both(&self, id: RegId) -> Result<[u64; 2], ProbeError> {
        let [first, second] = &self.vcpus;
        Ok([number(first.as_ref(), id)?, number(second.as_ref(), id)?])
    }
}

fn machine(
    hypervisor: &dyn Hypervisor,
    features: VcpuFeatures,
) -> Result<[Box<dyn Vcpu>; 2], ProbeError> {
    let vm = vm(hypervisor)?;
    let mut vcpus = [vm.create_vcpu(VcpuId(0))?, vm.create_vcpu(VcpuId(1))?];
    for vcpu in &mut vcpus {
        vcpu.init(features)?;
        if features.contains(VcpuFeatures::SVE) {
            vcpu.finalize_sve()?;
        }
    }
    Ok(vcpus)
}
