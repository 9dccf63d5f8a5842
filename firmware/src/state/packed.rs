//! Registers as bytes, which is how a snapshot holds them: they are most of a state file,
//! and a restore waits until they are read.
//!
//! Of each register its id, 8 bytes, and then its value, as many bytes as the id says
//! ([`RegId::size`]); both little-endian, one register after the other, in order.

use kedge_ids::RegId;

use super::SavedRegister;
use crate::hex::RegValue;

/// These registers as bytes.
pub fn pack(registers: &[SavedRegister]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(registers.len() * 2 * size_of::<u64>());
    for SavedRegister { id, value } in registers {
        bytes.extend(id.0.to_le_bytes());
        let end = bytes.len() + id.size().bytes();
        bytes.extend(&value.0);
        // A value has as many bytes as its id says.
        bytes.resize(end, 0);
    }
    bytes
}

/// The registers that were packed as `bytes`; nothing, where those end in the middle of
/// one.
pub fn unpack(mut bytes: &[u8]) -> Option<Vec<SavedRegister>> {
    // Nearly all of them have 64 bits.
    let mut registers = Vec::with_capacity(bytes.len() / (2 * size_of::<u64>()));
    while !bytes.is_empty() {
        let (id, behind) = bytes.split_first_chunk()?;
        let id = RegId(u64::from_le_bytes(*id));
        let (value, behind) = behind.split_at_checked(id.size().bytes())?;
        registers.push(SavedRegister { id, value: RegValue(value.to_vec()) });
        bytes = behind;
    }
    Some(registers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn registers() -> impl Strategy<Value = Vec<SavedRegister>> {
        let one = (any::<u64>(), 0_u64..=8, any::<[u8; 32]>()).prop_map(|(id, size, bytes)| {
            let id = RegId(id & !(0xf << 52) | size << 52);
            let value = bytes.into_iter().cycle().take(id.size().bytes()).collect();
            SavedRegister { id, value: RegValue(value) }
        });
        prop::collection::vec(one, 0..9)
    }

    proptest! {
        #[test]
        fn registers_of_any_size_survive(registers in registers()) {
            prop_assert_eq!(unpack(&pack(&registers)), Some(registers));
        }

        #[test]
        fn no_end_of_them_can_be_missing(registers in registers(), cut in 1_usize..=8) {
            let packed = pack(&registers);
            prop_assume!(!packed.is_empty());
            // Less than a register.
            prop_assert_eq!(unpack(&packed[..packed.len() - cut]), None);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let _ = unpack(&bytes);
        }
    }
}
