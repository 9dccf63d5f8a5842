//! A KVM virtual machine's file and the memory behind it, tied together so that
//! the memory outlives every guest instruction.

// UNSAFETY: giving memory to a guest lets the guest write it.
#![expect(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kedge_guest_memory::{Address, GuestMemoryRegion, RamRegion};
use kedge_hv::{Access, HvError};
use kedge_ids::u64_from;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use libc::EEXIST;

use crate::attribute::refused;

/// A machine as the kernel sees it.
///
/// Every vCPU and every interrupt controller holds an `Arc` of it and declares
/// its own file before; `fd` stands before `ram`. Files are closed in that
/// order, and KVM runs guest code, or writes guest memory, only on behalf of one
/// of them: when a region is unmapped, nothing is left that could reach it.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) fd: VmFd,
    /// By number of the memory slot. Slots are never taken back.
    ram: Mutex<BTreeMap<u32, Arc<RamRegion>>>,
    /// Shared peripheral interrupts of the controller, once there is one.
    pub(crate) spis: OnceLock<u32>,
    ran: AtomicBool,
}

impl Machine {
    /// A machine with no memory yet.
    pub(crate) fn new(fd: VmFd) -> Self {
        Self { fd, ram: Mutex::default(), spis: OnceLock::new(), ran: AtomicBool::new(false) }
    }

    /// Notes that a vCPU is about to be entered.
    pub(crate) fn runs(&self) {
        // vCPUs come here at every entry: the line that they share stays unwritten.
        if !self.has_run() {
            self.ran.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a vCPU was ever entered.
    pub(crate) fn has_run(&self) -> bool {
        self.ran.load(Ordering::Relaxed)
    }

    /// Gives `region` to the guest as memory slot `slot`, for good.
    pub(crate) fn map_ram(
        &self,
        slot: u32,
        region: Arc<RamRegion>,
        access: Access,
    ) -> Result<(), HvError> {
        const CALL: &str = "give the guest its memory";
        // A panic elsewhere leaves the table as it was: it changes in one step.
        let mut ram = self.ram.lock().unwrap_or_else(PoisonError::into_inner);
        if ram.contains_key(&slot) {
            // KVM would move the slot, if it is of the same length.
            return Err(HvError::new(CALL, EEXIST));
        }
        let range = kvm_userspace_memory_region {
            slot,
            flags: match access {
                Access::ReadWrite => 0,
                Access::ReadOnly => KVM_MEM_READONLY,
            },
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: u64_from(region.as_ptr().expose_provenance()),
        };
        // SAFETY: the range is exactly `region`'s mapping. `ram` keeps it mapped for
        // as long as guest code can run (see `Machine`), and host code reaches it
        // only through vm-memory, which makes no references into it.
        unsafe { self.fd.set_user_memory_region(range) }.map_err(refused(CALL))?;
        ram.insert(slot, region);
        Ok(())
    }
}
