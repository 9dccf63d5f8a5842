//! Guest accesses to addresses without (writable) memory: who answers, and what
//! the guest gets where nobody does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kedge_bus::AddressMap;
use kedge_guest_memory::{GuestAddress, GuestRange};
use kedge_hv::{HvError, Vcpu};
use kedge_ids::u64_from;
use kedge_metrics::Counters;
use tracing::debug;

/// Accesses that no device took, since the machine was built.
#[derive(Debug, Default)]
pub(crate) struct AccessCounters {
    /// Loads nobody answered: the guest read ones.
    pub(crate) unowned_loads: AtomicU64,
    /// Stores nobody took: they did nothing.
    pub(crate) unowned_stores: AtomicU64,
    /// External aborts given to the guest.
    pub(crate) aborts: AtomicU64,
}

impl Counters for AccessCounters {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        to("unowned_loads", self.unowned_loads.load(Ordering::Relaxed));
        to("unowned_stores", self.unowned_stores.load(Ordering::Relaxed));
        to("aborts", self.aborts.load(Ordering::Relaxed));
    }
}

/// The guest's address space outside its RAM.
#[derive(Debug)]
pub(crate) struct AddressSpace {
    pub(crate) devices: AddressMap,
    /// Memory that the guest may not store to.
    pub(crate) read_only: Vec<GuestRange>,
    pub(crate) counters: Arc<AccessCounters>,
}

/// What became of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    /// It is done, or did nothing.
    Done,
    /// It went to read-only memory: the guest is to get an external abort.
    Aborts,
}

impl AddressSpace {
    /// The address space of a machine with `devices`.
    pub(crate) fn new(devices: AddressMap, read_only: Vec<GuestRange>) -> Self {
        Self { devices, read_only, counters: Arc::default() }
    }

    /// Answers a load. Where no device does, the guest reads ones, as from a bus
    /// that nobody drives.
    pub(crate) fn load(&self, address: GuestAddress, data: &mut [u8]) {
        let answered = self
            .devices
            .find(address.0, u64_from(data.len()))
            .is_ok_and(|found| found.device.read(found.offset, data).is_ok());
        if !answered {
            data.fill(0xff);
            let before = self.counters.unowned_loads.fetch_add(1, Ordering::Relaxed);
            if before < LOGGED {
                debug!(address = address.0, length = data.len(), "load from nowhere reads as ones");
            }
        }
    }

    /// Takes a store.
    pub(crate) fn store(&self, address: GuestAddress, data: &[u8]) -> Store {
        let within = |range: &GuestRange| (range.start.0..range.end()).contains(&address.0);
        if self.read_only.iter().any(within) {
            return Store::Aborts;
        }
        let taken = self
            .devices
            .find(address.0, u64_from(data.len()))
            .is_ok_and(|found| found.device.write(found.offset, data).is_ok());
        if !taken {
            let before = self.counters.unowned_stores.fetch_add(1, Ordering::Relaxed);
            if before < LOGGED {
                debug!(address = address.0, length = data.len(), "store to nowhere does nothing");
            }
        }
        Store::Done
    }

    /// Gives the guest an external abort for the access it is at.
    ///
    /// # Errors
    /// The hypervisor refuses.
    pub(crate) fn abort(&self, vcpu: &mut dyn Vcpu) -> Result<(), HvError> {
        let before = self.counters.aborts.fetch_add(1, Ordering::Relaxed);
        if before < LOGGED {
            debug!(vcpu = vcpu.id().0, "external abort");
        }
        vcpu.inject_external_abort()
    }
}

/// A guest can do these at will: only the first few of each kind are logged.
const LOGGED: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> AddressSpace {
        AddressSpace::new(AddressMap::default(), vec![GuestRange::new(0x1000, 0x1000)])
    }

    #[test]
    fn a_load_nobody_answers_reads_as_ones_and_is_counted() {
        let space = nothing();
        let mut data = [0; 4];
        space.load(GuestAddress(0x5000), &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(space.counters.unowned_loads.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn only_a_store_to_read_only_memory_aborts() {
        let space = nothing();
        assert_eq!(space.store(GuestAddress(0x1fff), &[0]), Store::Aborts);
        assert_eq!(space.store(GuestAddress(0x2000), &[0]), Store::Done);
        assert_eq!(space.counters.unowned_stores.load(Ordering::Relaxed), 1);
    }
}
