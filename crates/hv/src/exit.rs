//! Why a vCPU came back to its user.

use kedge_guest_memory::GuestAddress;

/// Why [`crate::Vcpu::run`] returned.
#[derive(Debug)]
pub enum Exit<'a> {
    /// The guest loads from an address without memory behind it. The answer goes
    /// into `data`; the load completes when the vCPU next runs.
    MmioRead {
        /// Where.
        address: GuestAddress,
        /// 1, 2, 4 or 8 bytes to fill in, little endian.
        data: &'a mut [u8],
    },
    /// The guest stores to an address without (writable) memory behind it. The
    /// store completes when the vCPU next runs.
    MmioWrite {
        /// Where.
        address: GuestAddress,
        /// 1, 2, 4 or 8 bytes, little endian.
        data: &'a [u8],
    },
    /// The guest used an instruction on such an address that the hardware does
    /// not describe (`KVM_EXIT_ARM_NISV`). Nothing was done, the program counter
    /// stands on the instruction.
    Undecoded {
        /// The faulting address.
        address: GuestAddress,
        /// The instruction-specific syndrome of `ESR_EL2`.
        syndrome: u64,
    },
    /// A call of the SMC Calling Convention that a filter forwards. The program
    /// counter stands behind the instruction; results go into x0 to x3.
    Hypercall {
        /// The function id (w0).
        function: u32,
        /// The instruction that it came by.
        conduit: Conduit,
    },
    /// The guest asked its firmware for something that concerns the machine.
    System(SystemEvent),
    /// Somebody kicked the vCPU, or a signal arrived. The access of the exit before it is
    /// complete: that is done first (Linux, Documentation/virt/kvm/api.rst, section 5, at
    /// `KVM_EXIT_MMIO`).
    Interrupted,
    /// The hypervisor cannot run this vCPU any further.
    Failed {
        /// What it says, for a report.
        reason: String,
    },
}

/// The instruction that a call of the firmware comes by (Arm DEN0028, 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Conduit {
    /// HVC, the one of guests that start at EL1.
    Hvc,
    /// SMC, which KVM takes for the same since Linux 6.4.
    Smc,
}

/// What a guest asks of its machine through PSCI (Arm DEN0022).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemEvent {
    /// SYSTEM_OFF.
    Off,
    /// SYSTEM_OFF2: hibernate. Disks and identity are to be kept.
    Off2,
    /// SYSTEM_RESET.
    Reset,
    /// SYSTEM_RESET2: its type and cookie are in x1 and x2.
    Reset2,
    /// SYSTEM_SUSPEND: entry point and context are in x1 and x2.
    Suspend,
    /// A suspended vCPU has an interrupt to take.
    Wakeup,
    /// The guest reports its own crash.
    Crash,
}
