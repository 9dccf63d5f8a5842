//! A KVM virtual machine's file and the memory behind it, tied together so that
//! the memory outlives every guest instruction.

// UNSAFETY: giving memory to a guest lets the guest write it.
#![expect(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kedge_guest_memory::{Address, GuestMemoryRegion, RamRegion};
use kedge_hv::{Access, DirtyLog, HvError};
use kedge_ids::{u64_from, usize_from};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use libc::{EEXIST, ENOENT};

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
    ram: Mutex<BTreeMap<u32, Slot>>,
    /// Shared peripheral interrupts of the controller, once there is one.
    pub(crate) spis: OnceLock<u32>,
    ran: AtomicBool,
}

/// A memory slot.
#[derive(Debug)]
struct Slot {
    region: Arc<RamRegion>,
    access: Access,
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
        let mut ram = self.ram();
        if ram.contains_key(&slot) {
            // KVM would move the slot, if it is of the same length.
            return Err(HvError::new(CALL, EEXIST));
        }
        let new = Slot { region, access };
        self.set_slot(slot, &new, DirtyLog::Off, CALL)?;
        ram.insert(slot, new);
        Ok(())
    }

    /// Switches the log of written pages of memory slot `slot`.
    pub(crate) fn set_dirty_log(&self, slot: u32, log: DirtyLog) -> Result<(), HvError> {
        const CALL: &str = "switch the log of a memory slot's written pages";
        let ram = self.ram();
        let known = ram.get(&slot).ok_or(HvError::new(CALL, ENOENT))?;
        self.set_slot(slot, known, log, CALL)
    }

    /// Reads and clears the log of written pages of memory slot `slot`.
    ///
    /// The call protects the pages that it tells again before it returns. Telling and
    /// protecting can be had apart (`KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`), which serves
    /// whoever copies memory while it is written: a machine is saved while it stands.
    pub(crate) fn take_dirty_log(&self, slot: u32) -> Result<Vec<u64>, HvError> {
        const CALL: &str = "read the log of a memory slot's written pages";
        let ram = self.ram();
        let known = ram.get(&slot).ok_or(HvError::new(CALL, ENOENT))?;
        // The length is what says how much the kernel writes: it has to be the slot's.
        self.fd.get_dirty_log(slot, usize_from(known.region.len())).map_err(refused(CALL))
    }

    /// The memory slots.
    fn ram(&self) -> MutexGuard<'_, BTreeMap<u32, Slot>> {
        // A panic elsewhere leaves the table as it was: it changes in one step.
        self.ram.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells KVM of a memory slot.
    fn set_slot(
        &self,
        slot: u32,
        Slot { region, access }: &Slot,
        log: DirtyLog,
        call: &'static str,
    ) -> Result<(), HvError> {
        let access = match access {
            Access::ReadWrite => 0,
            Access::ReadOnly => KVM_MEM_READONLY,
        };
        let log = match log {
            DirtyLog::On => KVM_MEM_LOG_DIRTY_PAGES,
            DirtyLog::Off => 0,
        };
        let range = kvm_userspace_memory_region {
            slot,
            flags: access | log,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: u64_from(region.as_ptr().expose_provenance()),
        };
        // SAFETY: the range is exactly `region`'s mapping. `ram` keeps it mapped for
        // as long as guest code can run (see `Machine`), and host code reaches it
        // only through vm-memory, which makes no references into it. A slot that is
        // told again is the same but for its log.
        unsafe { self.fd.set_user_memory_region(range) }.map_err(refused(call))
    }
}
