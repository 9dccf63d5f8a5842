//! Firmware calls with all that they answer (Arm DEN0028, the SMC Calling
//! Convention), by the conduit that the device tree names: HVC.

// UNSAFETY: a firmware call may do anything to the machine.
#![expect(unsafe_code)]

use core::arch::asm;
use core::fmt;

/// What a call answers in x0 to x3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer(pub [u64; 4]);

impl Answer {
    /// NOT_SUPPORTED.
    pub const NOT_SUPPORTED: i64 = -1;

    /// x0 as a status.
    #[must_use]
    pub const fn status(self) -> i64 {
        self.0[0].cast_signed()
    }
}

/// x0 as a status where it is an error, otherwise all registers up to the last that
/// is not zero.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest =
            self.0.iter().rposition(|value| *value != 0).map_or(&[][..], |last| &self.0[1..=last]);
        match self.status() {
            status @ -16..0 => write!(f, "{status}")?,
            _ => write!(f, "{:#x}", self.0[0])?,
        }
        rest.iter().try_for_each(|value| write!(f, " {value:#x}"))
    }
}

/// Calls the firmware.
pub fn call(function: u32, arguments: [u64; 3]) -> Answer {
    let mut x = [u64::from(function), arguments[0], arguments[1], arguments[2]];
    // SAFETY: the tests' guests pass no addresses of Rust objects.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") x[0],
            inout("x1") x[1],
            inout("x2") x[2],
            inout("x3") x[3],
            clobber_abi("C"),
        );
    }
    Answer(x)
}
