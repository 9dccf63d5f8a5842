//! The demands that kedge was designed from, each by its number, shown on a real
//! kernel; those that no kernel of today can show are tests of the crate `firmware`.
//!
//! The demands come from discussions of the kernel's developers about registers that
//! are firmware: which of them a VMM has to know, who owns them, and what a guest may
//! rely on.

mod kvm;
mod negotiation;
mod opened;
mod psci;
mod registers;
mod scope;

use crate::host::Need;
use crate::suite::Suite;

/// The kernel has the bitmaps of services.
const BITMAPS: Need = Need::Kernel(5, 19);
/// ID registers can be written.
const WRITABLE_IDS: Need = Need::Kernel(6, 7);

const PSCI_VERSION: u64 = 0x6030_0000_0014_0000;
const STD_BMAP: u64 = 0x6030_0000_0016_0000;
const STD_HYP_BMAP: u64 = 0x6030_0000_0016_0001;
const VENDOR_HYP_BMAP: u64 = 0x6030_0000_0016_0002;

pub(crate) fn tests(suite: &mut Suite) {
    registers::tests(suite);
    scope::tests(suite);
    negotiation::tests(suite);
    psci::tests(suite);
    opened::tests(suite);
}

/// A register of the firmware's banks.
const fn is_firmware(id: u64) -> bool {
    matches!(id >> 16 & 0xfff, 0x14 | 0x16)
}

/// A register that is one for the whole machine from the first kernel on that lets
/// anybody write it: firmware, and what identifies the processor (op0 3, op1 0, CRn 0,
/// CRm 1 to 7, and `CTR_EL0`).
const fn is_whole_vm(id: u64) -> bool {
    const CTR_EL0: u64 = 0x6030_0000_0013_d801;
    is_firmware(id) || is_identity(id) || id == CTR_EL0
}

/// An ID register.
const fn is_identity(id: u64) -> bool {
    const FIRST: u64 = 0x6030_0000_0013_c008;
    const LAST: u64 = 0x6030_0000_0013_c03f;
    FIRST <= id && id <= LAST
}
