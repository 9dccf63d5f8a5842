//! A guest of a few instructions that tells what it reads in system registers.

use std::sync::Arc;

use kedge_guest_memory::{Bytes, GuestAddress, MemoryRegionAddress, RamRegion};
use kedge_hv::{Exit, HvError, Vcpu};
use kedge_ids::RegId;
use libc::{EFAULT, EINVAL, ENOMEM};

const CALL: &str = "read registers as a guest";

/// Where the memory lies: around the vectors, which begin at 0 after a reset.
const MEMORY: GuestAddress = GuestAddress(0);
/// Bytes of it: a page of any host.
const SIZE: usize = 64 << 10;
/// A synchronous exception of EL1 on its own stack (Arm DDI 0487, D1.3.1.5).
const VECTOR: u64 = 0x200;
/// Where the code is.
const CODE: u64 = 0x1000;
/// Where there is nothing: stores leave the guest.
const DEVICE: u64 = 1 << 30;
/// The same for an instruction that the guest may not execute.
const UNDEFINED: u64 = DEVICE + 8;

/// What is executed for each register (Arm DDI 0487, C6.2).
const STR_X0_X1: u32 = 0xf900_0020;
const MRS_X0: u32 = 0xd520_0000;
/// Tells, and goes on behind the store that comes next.
const TELL_UNDEFINED: [u32; 5] = [
    0xd538_4023, // mrs x3, elr_el1
    0x9100_2063, // add x3, x3, #8
    0xd518_4023, // msr elr_el1, x3
    0xf900_0040, // str x0, [x2]
    0xd69f_03e0, // eret
];

/// Memory with a guest that stores the value of each register. All of it is written
/// before the guest runs: later it may be in caches that the guest does not look into.
pub(crate) fn that_reads(ids: &[RegId]) -> Result<Arc<RamRegion>, HvError> {
    let code = ids.iter().map(|id| Ok([mrs(*id)?, STR_X0_X1])).collect::<Result<Vec<_>, _>>()?;
    let region = RamRegion::from_range(MEMORY, SIZE, None);
    let region = region.map_err(|_| HvError::new(CALL, ENOMEM))?;
    for (at, words) in [(VECTOR, TELL_UNDEFINED.as_slice()), (CODE, code.as_flattened())] {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let written = region.write_slice(&bytes, MemoryRegionAddress(at));
        written.map_err(|_| HvError::new(CALL, EINVAL))?;
    }
    Ok(Arc::new(region))
}

/// The instruction that reads a register into x0: its encoding is the id's.
fn mrs(id: RegId) -> Result<u32, HvError> {
    const ANY: RegId = RegId::system(3, 7, 15, 15, 7);
    const FIRST: RegId = RegId::system(2, 0, 0, 0, 0);
    let encoding = u32::try_from(id.0 & 0xffff).map_err(|_| HvError::new(CALL, EINVAL))?;
    match (FIRST..=ANY).contains(&id) {
        true => Ok(MRS_X0 | encoding << 5),
        false => Err(HvError::new(CALL, EINVAL)),
    }
}

/// Lets the vCPU begin with the guest.
pub(crate) fn start(vcpu: &dyn Vcpu) -> Result<(), HvError> {
    let registers = [(RegId::PC, CODE), (RegId::x(1), DEVICE), (RegId::x(2), UNDEFINED)];
    registers.into_iter().try_for_each(|(id, value)| vcpu.set_reg64(id, value))
}

/// What the guest tells next: a value, or that it may not read the register.
pub(crate) fn next_value(vcpu: &mut dyn Vcpu) -> Result<Option<u64>, HvError> {
    loop {
        return match vcpu.run()? {
            Exit::MmioWrite { address: GuestAddress(DEVICE), data } => {
                let bytes = data.try_into().map_err(|_| HvError::new(CALL, EFAULT))?;
                Ok(Some(u64::from_le_bytes(bytes)))
            }
            Exit::MmioWrite { address: GuestAddress(UNDEFINED), .. } => Ok(None),
            Exit::Interrupted => continue,
            _ => Err(HvError::new(CALL, EFAULT)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_read_by_the_instruction_of_its_encoding() {
        assert_eq!(mrs(RegId::system(3, 3, 0, 0, 1)).unwrap(), 0xd53b_0020); // CTR_EL0
        assert_eq!(mrs(RegId::system(3, 3, 9, 12, 6)).unwrap(), 0xd53b_9cc0); // PMCEID0_EL0
    }

    #[test]
    fn what_is_no_system_register_is_refused() {
        assert_eq!(mrs(RegId::PC).unwrap_err().errno(), EINVAL);
        assert_eq!(mrs(RegId::PSCI_VERSION).unwrap_err().errno(), EINVAL);
    }

    #[test]
    fn more_registers_than_memory_are_refused() {
        let many = vec![RegId::MPIDR_EL1; SIZE];
        assert_eq!(that_reads(&many).unwrap_err().errno(), EINVAL);
    }
}
