//! Small kernels for tests, built by hand.

use std::fs::File;
use std::io::{Seek as _, Write as _};

use kedge_guest_memory::{Bytes as _, GuestAddress, GuestMemory, map_anonymous};
use kedge_hv::{Limits, VcpuFeatures};

use crate::{GicChoice, Layout};

/// Bytes of the sample Image: more than are unpacked at once.
pub(super) const SIZE: usize = 200 << 10;

/// A machine's memory and its layout.
pub(super) fn machine(memory: u64) -> (GuestMemory, Layout) {
    let limits = Limits {
        ipa_bits: 40,
        vcpus: 512,
        slot_bytes: 1 << 40,
        slots: 32,
        features: VcpuFeatures::NONE,
    };
    let layout = Layout::new(memory, 1, GicChoice::V3 { its: true }, &limits).unwrap();
    (map_anonymous(layout.ram()).unwrap(), layout)
}

/// A file that holds `bytes`, standing at its end.
pub(super) fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file
}

/// What guest memory holds.
pub(super) fn read(memory: &GuestMemory, at: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

/// Bytes that look different everywhere and compress well.
pub(super) fn pattern(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (chunk, value) in bytes.chunks_mut(256).zip((0..251).cycle()) {
        chunk.fill(value);
    }
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The header of an arm64 Image over [`pattern`].
pub(super) struct Image {
    pub(super) text_offset: u64,
    pub(super) image_size: u64,
    pub(super) flags: u64,
}

impl Image {
    /// What a kernel of today says: little-endian, 4 KiB pages, anywhere.
    pub(super) const fn today() -> Self {
        Self { text_offset: 0, image_size: 1 << 20, flags: 0xa }
    }

    pub(super) fn build(&self) -> Vec<u8> {
        self.sized(SIZE)
    }

    pub(super) fn sized(&self, size: usize) -> Vec<u8> {
        let mut bytes = pattern(size);
        bytes[..64].fill(0);
        put(&mut bytes, 8, &self.text_offset.to_le_bytes());
        put(&mut bytes, 16, &self.image_size.to_le_bytes());
        put(&mut bytes, 24, &self.flags.to_le_bytes());
        put(&mut bytes, 56, b"ARM\x64");
        bytes
    }
}

/// `image` as an EFI application for `machine`: a PE/COFF header at 64 with two
/// sections that end where the file does.
pub(super) fn with_efi_stub(mut image: Vec<u8>, machine: u16) -> Vec<u8> {
    let end = u32::try_from(image.len()).unwrap();
    put(&mut image, 0, b"MZ");
    put(&mut image, 60, &64_u32.to_le_bytes());
    put(&mut image, 64, b"PE\0\0");
    put(&mut image, 68, &machine.to_le_bytes());
    put(&mut image, 70, &2_u16.to_le_bytes());
    put(&mut image, 84, &0xa0_u16.to_le_bytes());
    let table = 64 + 24 + 0xa0;
    put(&mut image, table + 16, &0x1000_u32.to_le_bytes());
    put(&mut image, table + 20, &0x1000_u32.to_le_bytes());
    put(&mut image, table + 40 + 16, &(end - 0x2000).to_le_bytes());
    put(&mut image, table + 40 + 20, &0x2000_u32.to_le_bytes());
    image
}

/// `image`, which has an EFI stub, signed for Secure Boot with 1000 bytes.
pub(super) fn signed(mut image: Vec<u8>) -> Vec<u8> {
    let optional = 64 + 24;
    put(&mut image, optional, &0x20b_u16.to_le_bytes());
    put(&mut image, optional + 108, &6_u32.to_le_bytes());
    let end = u32::try_from(image.len()).unwrap();
    put(&mut image, optional + 144, &end.to_le_bytes());
    put(&mut image, optional + 148, &1000_u32.to_le_bytes());
    image.resize(image.len() + 1000, 0x5a);
    image
}

/// A zboot image around `payload`, packed by what it calls `name`.
pub(super) fn zboot(payload: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = vec![0x5a; 0x400];
    bytes[..64].fill(0);
    put(&mut bytes, 0, b"MZ\0\0zimg");
    put(&mut bytes, 8, &0x400_u32.to_le_bytes());
    put(&mut bytes, 12, &u32::try_from(payload.len()).unwrap().to_le_bytes());
    put(&mut bytes, 24, name.as_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&u32::try_from(SIZE).unwrap().to_le_bytes());
    bytes
}

/// A segment of an ELF file: type, virtual and physical address, contents,
/// bytes of memory.
pub(super) type Segment<'a> = (u32, u64, u64, &'a [u8], u64);

/// An ELF file for `machine` that begins at `entry`.
pub(super) fn elf(machine: u16, entry: u64, segments: &[Segment<'_>]) -> Vec<u8> {
    let mut bytes = vec![0; 0x1000];
    put(&mut bytes, 0, b"\x7fELF\x02\x01\x01");
    put(&mut bytes, 16, &2_u16.to_le_bytes());
    put(&mut bytes, 18, &machine.to_le_bytes());
    put(&mut bytes, 20, &1_u32.to_le_bytes());
    put(&mut bytes, 24, &entry.to_le_bytes());
    put(&mut bytes, 32, &64_u64.to_le_bytes());
    put(&mut bytes, 54, &56_u16.to_le_bytes());
    put(&mut bytes, 56, &u16::try_from(segments.len()).unwrap().to_le_bytes());
    for (n, (kind, virt, phys, contents, memory)) in segments.iter().enumerate() {
        let at = 64 + n * 56;
        let offset = u64::try_from(bytes.len()).unwrap();
        let size = u64::try_from(contents.len()).unwrap();
        put(&mut bytes, at, &kind.to_le_bytes());
        for (field, value) in [(8, offset), (16, *virt), (24, *phys), (32, size), (40, *memory)] {
            put(&mut bytes, at + field, &value.to_le_bytes());
        }
        bytes.extend_from_slice(contents);
    }
    bytes
}

/// `bytes` in gzip's format.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// `bytes` in LZ4's legacy format.
pub(super) fn legacy_lz4(bytes: &[u8]) -> Vec<u8> {
    let mut packed = 0x184c_2102_u32.to_le_bytes().to_vec();
    for block in bytes.chunks(8 << 20) {
        let block = lz4_flex::block::compress(block);
        packed.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
        packed.extend_from_slice(&block);
    }
    packed
}
