//! Disk images in the format qcow2 (QEMU, docs/interop/qcow2.rst) that come from who knows
//! where: such as there are, with anything in them changed.

use std::fs::File;
use std::os::unix::fs::FileExt;

use arbitrary::{Result, Unstructured};

/// Bits of entries of tables: a cluster that is nobody else's, one that is compressed, and
/// one of zeroes.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
const ZEROES: u64 = 1;

/// Where tables are, in clusters: of counts, their one block, of the first and the second
/// level; and where data begins.
const COUNTS: u64 = 1;
const COUNTS_BLOCK: u64 = 2;
const FIRST: u64 = 3;
const SECOND: u64 = 4;
const DATA: u64 = 5;

/// Clusters of the file, and those of the disk that are somewhere in it.
const CLUSTERS: u64 = 16;
const KNOWN: u64 = 8;

/// Writes an image of a disk of `size` bytes to `file`.
pub(super) fn write(file: &File, size: u64, from: &mut Unstructured<'_>) -> Result<()> {
    let bits = from.int_in_range(9..=14_u32)?;
    let cluster = 1_u64 << bits;
    let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).expect("there is room");
    file.set_len(CLUSTERS * cluster).expect("there is room");
    put(0, &header(size, bits, from)?);
    put(COUNTS * cluster, &(COUNTS_BLOCK * cluster).to_be_bytes());
    put(COUNTS_BLOCK * cluster, &[0, 1].repeat(CLUSTERS as usize));
    put(FIRST * cluster, &(SECOND * cluster | COPIED).to_be_bytes());
    for index in 0..KNOWN {
        let own = (DATA + index) * cluster;
        let entry = match from.int_in_range(0..=7)? {
            0 => 0,
            1 => own | COPIED | ZEROES,
            2 => COMPRESSED | own | u64::from(from.arbitrary::<u8>()?) << 54,
            3 => from.arbitrary()?,
            _ => own | COPIED,
        };
        put(SECOND * cluster + 8 * index, &entry.to_be_bytes());
    }
    for _ in 0..from.int_in_range(0..=6_u8)?.saturating_sub(2) {
        // Into the header, or anywhere.
        let at = match from.arbitrary()? {
            true => u64::from(from.arbitrary::<u8>()? % 112),
            false => u64::from(from.arbitrary::<u32>()?) % (CLUSTERS * cluster),
        };
        match from.arbitrary()? {
            true => put(at, &[from.arbitrary()?]),
            false => put(at & !7, &from.arbitrary::<u64>()?.to_be_bytes()),
        }
    }
    Ok(())
}

/// The header, of either version.
fn header(size: u64, bits: u32, from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let cluster = 1_u64 << bits;
    let version = from.int_in_range(2..=3_u32)?;
    // Each entry of the first level stands for a table of the second, of one cluster.
    let entries = size.div_ceil(cluster * cluster / 8);
    let mut header = b"QFI\xfb".to_vec();
    header.extend(version.to_be_bytes());
    // No other file.
    header.extend([0; 12]);
    header.extend(bits.to_be_bytes());
    header.extend(size.to_be_bytes());
    // Nothing is encrypted.
    header.extend([0; 4]);
    header.extend((entries as u32).to_be_bytes());
    header.extend((FIRST * cluster).to_be_bytes());
    header.extend((COUNTS * cluster).to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    // No snapshots; of version 3, no features, counts of 16 bits, and its own length.
    header.extend([0; 12 + 24]);
    header.extend(4_u32.to_be_bytes());
    header.extend(104_u32.to_be_bytes());
    Ok(header)
}
