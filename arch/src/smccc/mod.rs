//! Firmware calls (Arm DEN0028, the SMC Calling Convention) that the hypervisor hands
//! over instead of answering them: a table of services, each with its function ids.
//!
//! The hypervisor answers PSCI and most services itself. Of what it hands over, kedge
//! answers the services of this module; a program that embeds the machine adds its
//! own. A call that no service has is NOT_SUPPORTED, as it would be without any.

mod dispatcher;
mod filter;
mod implementations;
mod trng;

use std::fmt;
use std::ops::RangeInclusive;

use kedge_hv::Conduit;
use kedge_ids::VcpuId;

pub use dispatcher::{Clash, Dispatcher};
pub use filter::{BadFilter, filter, functions, record};
pub use implementations::Implementations;
pub use trng::Trng;

/// Function ids from one to another.
pub type Functions = RangeInclusive<u32>;

/// What a call answers in x0 to x3.
pub type Results = [u64; 4];

/// The function does not exist (DEN0028, 7.1).
pub const NOT_SUPPORTED: i64 = -1;

/// Just this in x0, zero in x1 to x3.
pub const fn only(status: i64) -> Results {
    [status.cast_unsigned(), 0, 0, 0]
}

/// Something that answers firmware calls.
///
/// The threads of all vCPUs call it, several at once, and the guest waits meanwhile:
/// it should not block for long. What the guest says is input: an answer must be found
/// for every argument. It must not panic: that ends the machine, if not the program.
///
/// A service lives as long as the machine, over any resets by the guest: what it
/// remembers of a guest is its own to forget.
pub trait Service: Send + Sync {
    /// What it is: a name or a short phrase, always the same. Messages name it so, and
    /// so does what is saved of a guest.
    fn name(&self) -> &str;

    /// The functions that it answers, always the same. Arm's architecture calls
    /// (0x80000000 to 0x8000ffff, 0xc0000000 to 0xc000ffff) cannot be had.
    fn functions(&self) -> &[Functions];

    /// Answers a call of one of these functions. Of a 32-bit function the guest looks
    /// at the low halves only.
    fn call(&self, call: &Call) -> Results;
}

impl fmt::Debug for dyn Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether `function` is of the 64-bit convention: with arguments in x1 to x17
/// (DEN0028, 2.5: bit 30).
const fn is_64_bit(function: u32) -> bool {
    function & 1 << 30 != 0
}

/// A call as the guest made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    function: u32,
    conduit: Conduit,
    vcpu: VcpuId,
    /// x1 and those after it.
    arguments: Vec<u64>,
}

impl Call {
    /// How many arguments a call of `function` has: x1 to x17, or w1 to w7 in the
    /// 32-bit convention (DEN0028, 3).
    pub const fn arguments_of(function: u32) -> usize {
        if is_64_bit(function) { 17 } else { 7 }
    }

    /// A call by `vcpu` of `function`, with the registers from x1 on. In the 32-bit
    /// convention their upper halves mean nothing, and are dropped here.
    pub fn new(function: u32, conduit: Conduit, vcpu: VcpuId, registers: &[u64]) -> Self {
        let mask = if is_64_bit(function) { u64::MAX } else { u32::MAX.into() };
        let registers = registers.iter().take(Self::arguments_of(function));
        let arguments = registers.map(|register| register & mask).collect();
        Self { function, conduit, vcpu, arguments }
    }

    /// The function's id.
    pub const fn function(&self) -> u32 {
        self.function
    }

    /// The instruction that it came by.
    pub const fn conduit(&self) -> Conduit {
        self.conduit
    }

    /// Who called.
    pub const fn vcpu(&self) -> VcpuId {
        self.vcpu
    }

    /// Argument `n`, from 1, as the function's convention has it; 0 past the last.
    pub fn argument(&self, n: usize) -> u64 {
        n.checked_sub(1).and_then(|n| self.arguments.get(n)).copied().unwrap_or(0)
    }
}

/// `0xc6000040`, or `0xc6000040 to 0xc6000041`.
pub fn describe(functions: &Functions) -> String {
    let (first, last) = (functions.start(), functions.end());
    if first == last { format!("{first:#x}") } else { format!("{first:#x} to {last:#x}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [u64; 17] = [0xffff_ffff_0000_0007; 17];

    fn call(function: u32) -> Call {
        Call::new(function, Conduit::Hvc, VcpuId(0), &FULL)
    }

    #[test]
    fn a_32_bit_call_has_seven_arguments_of_32_bits() {
        let call = call(0x8600_0042);
        assert_eq!(call.argument(1), 7);
        assert_eq!(call.argument(7), 7);
        assert_eq!(call.argument(8), 0);
    }

    #[test]
    fn a_64_bit_call_has_seventeen_whole_arguments() {
        let call = call(0xc600_0042);
        assert_eq!(call.argument(1), FULL[0]);
        assert_eq!(call.argument(17), FULL[16]);
        assert_eq!(call.argument(18), 0);
        assert_eq!(call.argument(0), 0);
    }

    #[test]
    fn functions_are_named_by_their_ids() {
        assert_eq!(describe(&(0xc600_0040..=0xc600_0041)), "0xc6000040 to 0xc6000041");
        assert_eq!(describe(&(0x8400_0053..=0x8400_0053)), "0x84000053");
    }
}
