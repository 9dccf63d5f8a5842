//! The header of an arm64 Image (Linux, Documentation/arch/arm64/booting.rst, 3)
//! and the PE/COFF header that makes it an EFI application.

use super::KernelError;

/// Bytes of an Image header.
pub(super) const SIZE: usize = 64;
/// Where a kernel built before Linux 3.17, which does not say, expects to be.
const TEXT_OFFSET_BEFORE_3_17: u64 = 0x8_0000;

#[rustfmt::skip]
mod field {
    pub(super) const TEXT_OFFSET: usize = 8;
    pub(super) const IMAGE_SIZE:  usize = 16;
    pub(super) const FLAGS:       usize = 24;
    pub(super) const MAGIC:       usize = 56;
    pub(super) const PE_OFFSET:   usize = 60;
}

#[rustfmt::skip]
pub(super) mod pe {
    /// Which processors it is for.
    pub(in crate::image) const MACHINE:    usize = 4;
    pub(super) const SECTIONS:             usize = 6;
    pub(super) const OPTIONAL_HEADER_SIZE: usize = 20;
    pub(super) const OPTIONAL_HEADER:      usize = 24;
    pub(super) const SECTION:              usize = 40;
    pub(super) const RAW_SIZE:             usize = 16;
    pub(super) const RAW_OFFSET:           usize = 20;
    // In the optional header.
    pub(super) const PE32_PLUS:            u16   = 0x20b;
    pub(super) const DIRECTORIES:          usize = 108;
    pub(super) const SIGNATURE_DIRECTORY:  u32   = 4;
    pub(super) const SIGNATURE:            usize = 144;
}

/// The pages a kernel was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Kib4,
    /// 16 KiB.
    Kib16,
    /// 64 KiB.
    Kib64,
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// From a multiple of 2 MiB to the kernel's first byte.
    pub(super) text_offset: u64,
    /// Bytes of memory that the kernel takes from its first byte on, 0 where it
    /// does not say.
    pub(super) image_size: u64,
    /// The pages it was built for, where it says so.
    pub(super) page_size: Option<PageSize>,
}

impl Header {
    /// The header at the start of `head`, if there is one.
    ///
    /// # Errors
    /// The kernel is big-endian.
    pub(super) fn parse(head: &[u8]) -> Result<Option<Self>, KernelError> {
        if !is_image(head) {
            return Ok(None);
        }
        let read = |at| u64_at(head, at).unwrap_or(0);
        let image_size = read(field::IMAGE_SIZE);
        if image_size == 0 {
            let text_offset = TEXT_OFFSET_BEFORE_3_17;
            return Ok(Some(Self { text_offset, image_size, page_size: None }));
        }
        let flags = read(field::FLAGS);
        if flags & 1 != 0 {
            return Err(KernelError::BigEndian);
        }
        let page_size = match flags >> 1 & 3 {
            1 => Some(PageSize::Kib4),
            2 => Some(PageSize::Kib16),
            3 => Some(PageSize::Kib64),
            _ => None,
        };
        Ok(Some(Self { text_offset: read(field::TEXT_OFFSET), image_size, page_size }))
    }
}

/// Whether `head` is the beginning of an arm64 Image.
pub(super) fn is_image(head: &[u8]) -> bool {
    head.get(field::MAGIC..).is_some_and(|rest| rest.starts_with(b"ARM\x64"))
}

/// How long the file is at least, as its PE/COFF header has it: to the end of the
/// last section, or of the signature behind them. The size in the Image header
/// counts memory that no file fills.
pub(super) fn least_file_size(head: &[u8]) -> Option<u64> {
    let pe = pe_header(head)?;
    let sections = usize::from(u16_at(pe, pe::SECTIONS)?);
    let table = pe::OPTIONAL_HEADER + usize::from(u16_at(pe, pe::OPTIONAL_HEADER_SIZE)?);
    let end = |n| {
        let section = pe.get(table + n * pe::SECTION..)?;
        let (offset, size) = (u32_at(section, pe::RAW_OFFSET)?, u32_at(section, pe::RAW_SIZE)?);
        Some(u64::from(offset) + u64::from(size))
    };
    (0..sections).map_while(end).chain(end_of_signature(pe)).max()
}

/// Where the signature for Secure Boot ends, if there is one.
fn end_of_signature(pe: &[u8]) -> Option<u64> {
    let optional = pe.get(pe::OPTIONAL_HEADER..)?;
    let directories = u32_at(optional, pe::DIRECTORIES)?;
    if u16_at(optional, 0)? != pe::PE32_PLUS || directories <= pe::SIGNATURE_DIRECTORY {
        return None;
    }
    let offset = u32_at(optional, pe::SIGNATURE)?;
    let size = u32_at(optional, pe::SIGNATURE + 4)?;
    Some(u64::from(offset) + u64::from(size))
}

/// The PE/COFF header of an EFI application and what follows it.
pub(super) fn pe_header(head: &[u8]) -> Option<&[u8]> {
    let offset = usize::try_from(u32_at(head, field::PE_OFFSET)?).ok()?;
    let pe = head.get(offset..)?;
    (head.starts_with(b"MZ") && pe.starts_with(b"PE\0\0")).then_some(pe)
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}
