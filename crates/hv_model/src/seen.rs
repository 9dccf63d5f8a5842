//! What a guest reads in system registers: where a kernel leaves a register to the
//! processor, that is not what it tells its user.

use std::sync::Arc;

use kedge_guest_memory::{GuestAddress, RamRegion};
use kedge_hv::{HvError, PmuEvents, VcpuFeatures};
use kedge_ids::RegId;

use crate::refusal::{Refusal, refuse};
use crate::registers::Registers;
use crate::release::{AbsentMonitors, Hiding};
use crate::state::number;

/// The events that performance monitors can have, by number: those of PMUv3p1 on.
const EVENTS: u32 = 1 << 16;
/// What the registers of events tell of: 32 from 0 on and 32 from 0x4000 on, the second
/// one of the 32 behind either.
const PMCEID: [(RegId, [u16; 2]); 2] =
    [(RegId::system(3, 3, 9, 12, 6), [0, 0x4000]), (RegId::system(3, 3, 9, 12, 7), [32, 0x4020])];

const CCSIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 0);
const CSSELR_EL1: RegId = RegId::system(3, 2, 0, 0, 0);
/// The size of each cache, by the value of `CSSELR_EL1`.
const CACHES: u64 = 0x6020_0000_0011_0000;

/// Whether an id is a system register's.
pub(crate) fn is_system(id: RegId) -> bool {
    (RegId::system(2, 0, 0, 0, 0)..=RegId::system(3, 7, 15, 15, 7)).contains(&id)
}

/// Memory as a guest's that reads registers.
pub(crate) fn memory() -> Result<Arc<RamRegion>, HvError> {
    const SIZE: usize = 64 << 10;
    let region = RamRegion::from_range(GuestAddress(0), SIZE, None);
    region.map(Arc::new).map_err(|_| HvError::new("read registers as a guest", libc::ENOMEM))
}

impl Registers<'_> {
    /// What the guest reads in a register, if it may read it.
    pub(crate) fn seen(&self, id: RegId) -> Option<u64> {
        let vcpu = &self.vm.vcpus[&self.vcpu];
        let features = vcpu.features?;
        if let Some((_, firsts)) = PMCEID.into_iter().find(|(register, _)| *register == id) {
            return match self.release.absent_monitors {
                _ if features.contains(VcpuFeatures::PMU_V3) => {
                    Some(self.host.seen(id).unwrap_or(0) & !self.hidden(firsts))
                }
                AbsentMonitors::ReadAsZero => Some(0),
                AbsentMonitors::Undefined => None,
            };
        }
        if id == CCSIDR_EL1 {
            let cache = RegId(CACHES | vcpu.raw(CSSELR_EL1));
            return Some(vcpu.regs.get(&cache).map_or(0, |size| number(size)));
        }
        let born = self.host.registers(features).get(&id).map(|born| number(born));
        let value = vcpu.regs.contains_key(&id).then(|| self.stored(self.release.row(id), id));
        let value = value.map(|value| number(&value));
        if value == born { self.host.seen(id).or(value) } else { value }
    }

    /// The bits of hidden events: 32 from either of `firsts` on.
    fn hidden(&self, firsts: [u16; 2]) -> u64 {
        let events = (0..64).map(|bit| (bit, firsts[usize::from(bit >= 32)] + bit % 32));
        let is_hidden = |event: u16| {
            let of =
                |said: &PmuEvents| event.checked_sub(said.first).is_some_and(|n| n < said.count);
            self.vm.hidden_events.iter().any(of)
        };
        let hidden = events.filter(|(_, event)| is_hidden(*event));
        hidden.fold(0, |bits, (bit, _)| bits | 1 << bit)
    }

    /// Hides events of the performance monitors.
    pub(crate) fn hide_events(&mut self, events: PmuEvents) -> Result<(), HvError> {
        let PmuEvents { first, count } = events;
        let vcpu = &self.vm.vcpus[&self.vcpu];
        let refusal = match vcpu.features {
            Some(features) if features.contains(VcpuFeatures::PMU_V3) => {
                let late = self.vm.ran && self.release.hiding == Hiding::UntilRun;
                if vcpu.pmu.is_some() {
                    Some(Refusal::HideLate)
                } else if count == 0 || u32::from(first) + u32::from(count) > EVENTS {
                    Some(Refusal::HideBeyond)
                } else {
                    late.then_some(Refusal::HideLate)
                }
            }
            _ => Some(Refusal::HideWithoutPmu),
        };
        match refusal {
            Some(refusal) => refuse(self.release, refusal),
            None => {
                self.vm.hidden_events.push(events);
                Ok(())
            }
        }
    }
}
