//! A kernel's file into guest memory.

use std::fs::File;

use kedge_guest_memory::{GuestAddress, GuestMemory, GuestRange};
use kedge_ids::u64_from;
use serde::{Deserialize, Serialize};

use super::content::{Content as _, Part};
use super::header::{Header, PageSize, least_file_size};
use super::ram::Ram;
use super::sniff::{Kind, sniff};
use super::unpack::{Compression, Unpacker};
use super::{KernelError, vmlinux, zboot};
use crate::Layout;

/// Bytes unpacked at once.
const BLOCK: usize = 64 << 10;

/// How to take a kernel's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelFormat {
    /// By what the file says it is.
    #[default]
    Auto,
    /// As code without header, loaded and entered at RAM base + 0x80000.
    Flat,
}

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Where the first vCPU begins.
    pub entry: GuestAddress,
    /// What the kernel takes of memory, what it clears for itself included.
    pub range: GuestRange,
    /// The pages it was built for, where it says so.
    pub page_size: Option<PageSize>,
}

/// Loads the kernel in `file` into `memory`, which is RAM as `layout` has it and
/// still all zeros. The file is read from its beginning, wherever it stands.
///
/// An Image goes to the lowest multiple of 2 MiB that leaves room below, plus its
/// text offset. An ELF file's segments go where they are linked to, if that is in
/// RAM; a vmlinux, which is linked to virtual addresses, goes where its Image
/// would; any other to the lowest address congruent modulo 2 MiB to the one it
/// is linked to.
///
/// # Errors
/// The file is no arm64 kernel, is damaged, or does not fit.
pub fn load_kernel(
    file: &File,
    format: KernelFormat,
    memory: &GuestMemory,
    layout: &Layout,
) -> Result<Loaded, KernelError> {
    let ram = Ram::new(memory, layout);
    let file = Part::whole(file).map_err(KernelError::Read)?;
    let head = file.head().map_err(KernelError::Read)?;
    match format {
        KernelFormat::Flat if head.is_empty() => Err(KernelError::Empty),
        KernelFormat::Flat => load_flat(file, ram),
        KernelFormat::Auto => match sniff(&head)? {
            Kind::Image => load_image(file, &head, ram),
            Kind::Elf => vmlinux::load(&file, ram),
            Kind::Packed(compression) => load_packed(file, compression, ram),
            Kind::Zboot => {
                let (payload, compression) = zboot::payload(file, &head)?;
                load_packed(payload, compression, ram)
            }
        },
    }
}

fn load_flat(file: Part<'_>, ram: Ram<'_>) -> Result<Loaded, KernelError> {
    let range = ram.range(ram.floor(), file.len())?;
    ram.fill(range, &file, 0)?;
    Ok(Loaded { entry: range.start, range, page_size: None })
}

fn load_image(file: Part<'_>, head: &[u8], ram: Ram<'_>) -> Result<Loaded, KernelError> {
    let header = Header::parse(head)?.ok_or(KernelError::Unknown)?;
    check_whole(head, file.len())?;
    let start = ram.lowest(header.text_offset);
    let range = ram.range(start, file.len().max(header.image_size))?;
    ram.fill(GuestRange::new(start, file.len()), &file, 0)?;
    Ok(Loaded { entry: range.start, range, page_size: header.page_size })
}

/// Checks that an Image is as long as its headers say.
fn check_whole(head: &[u8], holds: u64) -> Result<(), KernelError> {
    match least_file_size(head) {
        Some(needs) if needs > holds => Err(KernelError::Truncated { holds, needs }),
        _ => Ok(()),
    }
}

fn load_packed(
    packed: Part<'_>,
    compression: Compression,
    ram: Ram<'_>,
) -> Result<Loaded, KernelError> {
    let mut unpacker = Unpacker::new(compression, packed)?;
    let mut head = vec![0; BLOCK];
    let filled = unpacker.fill(&mut head)?;
    head.truncate(filled);
    match sniff(&head)? {
        Kind::Image => load_unpacked_image(unpacker, &head, ram),
        Kind::Elf => {
            let elf = unpacker.all(head, ram.size())?;
            vmlinux::load(&elf.as_slice(), ram)
        }
        Kind::Zboot | Kind::Packed(_) => Err(KernelError::Nested),
    }
}

fn load_unpacked_image(
    mut unpacker: Unpacker<'_>,
    head: &[u8],
    ram: Ram<'_>,
) -> Result<Loaded, KernelError> {
    let header = Header::parse(head)?.ok_or(KernelError::Unknown)?;
    let start = ram.lowest(header.text_offset);
    ram.range(start, header.image_size)?;
    ram.write(start, head)?;
    let mut size = u64_from(head.len());
    let mut block = vec![0; BLOCK];
    loop {
        let filled = unpacker.fill(&mut block)?;
        if filled == 0 {
            break;
        }
        ram.write(start.saturating_add(size), &block[..filled])?;
        size += u64_from(filled);
    }
    check_whole(head, size)?;
    let range = ram.range(start, size.max(header.image_size))?;
    Ok(Loaded { entry: range.start, range, page_size: header.page_size })
}
