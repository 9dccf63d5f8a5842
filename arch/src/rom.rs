//! Read-only memory: a file's bytes, where a machine has nothing else.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};

use kedge_diag::Fix;
use kedge_guest_memory::{
    Bytes as _, GuestAddress, GuestMemory, GuestMemoryError, GuestRange, MapError, map_anonymous,
};
use kedge_ids::usize_from;

use crate::layout::RAM_UNIT;
use crate::size::Size;

/// Read-only memory starts and ends at a multiple of this many bytes, the largest
/// page an arm64 host has.
const UNIT: u64 = RAM_UNIT;

/// Addresses that are taken, and what by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// What is there, in the middle of a sentence.
    pub name: String,
    /// Where.
    pub range: GuestRange,
}

/// Why read-only memory is not in its machine.
#[derive(Debug, thiserror::Error)]
pub enum RomError {
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    /// There is nothing in the file.
    #[error("the file is empty")]
    Empty,
    /// An address between two pages.
    #[error("{:#x} is not a multiple of {}", address.0, Size(UNIT))]
    Misaligned {
        /// The address asked for.
        address: GuestAddress,
    },
    /// Past the last address of the machine.
    #[error("its {} end past the machine's last address, {last:#x}", Size(*size))]
    Beyond {
        /// Its bytes, whole pages.
        size: u64,
        /// The last address of the machine.
        last: u64,
    },
    /// Something else is there.
    #[error("its {} overlap {}, from {:#x} to {:#x}", Size(*size), area.name, area.range.start.0, area.range.end() - 1)]
    Overlap {
        /// Its bytes, whole pages.
        size: u64,
        /// What is there.
        area: Area,
    },
    /// The host has no memory for it.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The file cannot be read into guest memory, or became shorter meanwhile.
    #[error("the file cannot be read into guest memory")]
    Load(#[source] GuestMemoryError),
}

impl Fix for RomError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Read(_) => "give a regular file that kedge may read".to_owned(),
            Self::Empty => "give a file with something in it".to_owned(),
            Self::Misaligned { address } => format!("place it at {:#x}", address.0 / UNIT * UNIT),
            Self::Beyond { .. } | Self::Overlap { .. } => {
                "place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"
                    .to_owned()
            }
            Self::Map(source) => return source.fix(),
            Self::Load(_) => "leave the file alone while kedge reads it".to_owned(),
        })
    }
}

/// The memory at `address` with the bytes of `file`, and zeros up to a whole page,
/// in a machine of `ipa_bits` bits of addresses where `taken` is taken.
///
/// # Errors
/// The file cannot be read, or its bytes cannot be there.
pub fn load_rom(
    file: &File,
    address: GuestAddress,
    taken: &[Area],
    ipa_bits: u8,
) -> Result<GuestMemory, RomError> {
    let mut file = file;
    let length = file.seek(SeekFrom::End(0)).map_err(RomError::Read)?;
    let range = place(address, length, taken, ipa_bits)?;
    file.rewind().map_err(RomError::Read)?;
    let memory = map_anonymous(&[range])?;
    memory
        .read_exact_volatile_from(address, &mut file, usize_from(length))
        .map_err(RomError::Load)?;
    Ok(memory)
}

/// The range for `length` bytes at `address`.
fn place(
    address: GuestAddress,
    length: u64,
    taken: &[Area],
    ipa_bits: u8,
) -> Result<GuestRange, RomError> {
    if length == 0 {
        return Err(RomError::Empty);
    }
    if !address.0.is_multiple_of(UNIT) {
        return Err(RomError::Misaligned { address });
    }
    let last = 1_u64.checked_shl(ipa_bits.into()).map_or(u64::MAX, |end| end - 1);
    let size = length.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX);
    if address.0.checked_add(size).is_none_or(|end| end - 1 > last) {
        return Err(RomError::Beyond { size, last });
    }
    let range = GuestRange { start: address, size };
    let overlaps =
        |area: &&Area| range.start.0 < area.range.end() && area.range.start.0 < range.end();
    match taken.iter().find(overlaps) {
        Some(area) => Err(RomError::Overlap { size, area: area.clone() }),
        None => Ok(range),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kedge_diag::report;
    use kedge_hv::{Limits, VcpuFeatures};
    use proptest::prelude::*;

    use super::*;
    use crate::{GicChoice, Layout};

    const HOST: Limits = Limits {
        ipa_bits: 40,
        vcpus: 512,
        slot_bytes: 1 << 43,
        slots: 32,
        features: VcpuFeatures::NONE,
    };

    fn taken() -> Vec<Area> {
        Layout::new(2 << 20, 1, GicChoice::V3 { its: true }, &HOST).unwrap().areas()
    }

    fn refused(address: u64, length: u64, expected: &Expect) {
        let error = place(GuestAddress(address), length, &taken(), 40).unwrap_err();
        expected.assert_eq(&report(&error));
    }

    #[test]
    fn it_is_as_large_as_its_file_in_whole_pages() {
        let placed = |length| place(GuestAddress(0x1000_0000), length, &taken(), 40).unwrap();
        assert_eq!(placed(1), GuestRange::new(0x1000_0000, 0x1_0000));
        assert_eq!(placed(0x1_0000), GuestRange::new(0x1000_0000, 0x1_0000));
        assert_eq!(placed(0x1_0001), GuestRange::new(0x1000_0000, 0x2_0000));
    }

    #[test]
    fn it_may_be_right_beside_ram() {
        place(GuestAddress(0x7fff_0000), 0x1_0000, &taken(), 40).unwrap();
        place(GuestAddress(0x8020_0000), 0x1_0000, &taken(), 40).unwrap();
        place(GuestAddress(0xff_ffff_0000), 0x1_0000, &taken(), 40).unwrap();
    }

    #[test]
    fn its_file_must_have_something_in_it() {
        refused(
            0x1000_0000,
            0,
            &expect![[r#"
                error: the file is empty
                  fix: give a file with something in it"#]],
        );
    }

    #[test]
    fn it_starts_at_a_page() {
        refused(
            0x1000_1000,
            1,
            &expect![[r#"
                error: 0x10001000 is not a multiple of 64 KiB
                  fix: place it at 0x10000000"#]],
        );
    }

    #[test]
    fn it_overlaps_nothing() {
        refused(
            0x8000_0000,
            1,
            &expect![[r#"
            error: its 64 KiB overlap the machine's memory, from 0x80000000 to 0x801fffff
              fix: place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"#]],
        );
        refused(
            0x3fff_0000,
            0x1_0001,
            &expect![[r#"
            error: its 128 KiB overlap the devices' registers, from 0x40000000 to 0x4005efff
              fix: place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"#]],
        );
        refused(
            0x0801_0000,
            1,
            &expect![[r#"
            error: its 64 KiB overlap the interrupt controller, from 0x8000000 to 0xc09ffff
              fix: place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"#]],
        );
    }

    #[test]
    fn it_ends_within_the_machines_addresses() {
        refused(
            0xff_ffff_0000,
            0x1_0001,
            &expect![[r#"
            error: its 128 KiB end past the machine's last address, 0xffffffffff
              fix: place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"#]],
        );
        refused(
            0xffff_ffff_ffff_0000,
            1,
            &expect![[r#"
            error: its 64 KiB end past the machine's last address, 0xffffffffff
              fix: place it elsewhere: a machine has nothing of its own from 0x10000000 to 0x3fffffff"#]],
        );
    }

    proptest! {
        #[test]
        fn any_request_is_answered(address: u64, length: u64, bits in 0_u8..) {
            let placed = place(GuestAddress(address), length, &taken(), bits);
            prop_assert!(placed.err().is_none_or(|error| error.fix().is_some()));
        }
    }
}
