//! ELF kernels (System V ABI, 4 and 5): a vmlinux, or any program for bare metal.

use ::elf::abi;
use ::elf::endian::LittleEndian;
use ::elf::file::{Class, FileHeader, parse_ident};
use ::elf::segment::{ProgramHeader, SegmentTable};
use kedge_guest_memory::{GuestAddress, GuestRange};
use kedge_ids::u64_from;

use super::KernelError;
use super::content::Content;
use super::header::{self, Header};
use super::kernel::Loaded;
use super::ram::Ram;
use crate::layout::{RAM_BASE, RAM_MOST};

/// Bytes of an ELF file's header.
const FILE_HEADER: u64 = 64;
/// Bytes of a program header.
const PROGRAM_HEADER: u16 = 56;

const MACHINES: [(u16, &str); 11] = [
    (abi::EM_386, "x86"),
    (abi::EM_X86_64, "x86-64"),
    (abi::EM_ARM, "32-bit Arm"),
    (abi::EM_RISCV, "RISC-V"),
    (258, "LoongArch"),
    (abi::EM_PPC, "PowerPC"),
    (abi::EM_PPC64, "PowerPC"),
    (abi::EM_S390, "s390"),
    (abi::EM_MIPS, "MIPS"),
    (abi::EM_SPARC, "SPARC"),
    (abi::EM_SPARCV9, "SPARC"),
];

/// Loads the ELF file `content`.
pub(super) fn load(content: &impl Content, ram: Ram<'_>) -> Result<Loaded, KernelError> {
    let header = file_header(content)?;
    let segments = segments(content, &header)?;
    let (entry, image) = entry(content, &header, &segments)?;
    let lowest = segments.iter().map(|segment| segment.p_paddr).min().unwrap_or(0);
    let start = match image {
        Some(image) => ram.lowest(image.text_offset),
        None if (RAM_BASE..RAM_BASE + RAM_MOST).contains(&lowest) => entry,
        None => ram.lowest(Ram::offset(lowest)).wrapping_add(entry.wrapping_sub(lowest)),
    };
    // Addresses move by this, around 2^64 where need be; each is checked below.
    let shift = start.wrapping_sub(entry);
    let mut end = ram.range(start, image.map_or(0, |image| image.image_size))?.end();
    let mut first = start;
    for segment in &segments {
        let address = segment.p_paddr.wrapping_add(shift);
        let range = ram.range(address, segment.p_memsz)?;
        ram.fill(GuestRange::new(address, segment.p_filesz), content, segment.p_offset)?;
        first = first.min(address);
        end = end.max(range.end());
    }
    Ok(Loaded {
        entry: GuestAddress(start),
        range: GuestRange::new(first, end - first),
        page_size: image.and_then(|image| image.page_size),
    })
}

/// The file's header, if it is a program for arm64.
fn file_header(content: &impl Content) -> Result<FileHeader<LittleEndian>, KernelError> {
    let mut bytes = [0; 64];
    check_part(content, 0, FILE_HEADER)?;
    content.read_at(0, &mut bytes).map_err(KernelError::Read)?;
    let machine = [bytes[18], bytes[19]];
    let big_endian = bytes[abi::EI_DATA] == abi::ELFDATA2MSB;
    let machine =
        if big_endian { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    if machine != abi::EM_AARCH64 {
        let known = MACHINES.iter().find(|(number, _)| *number == machine);
        let architecture =
            known.map_or_else(|| format!("ELF machine {machine}"), |(_, name)| (*name).to_owned());
        return Err(KernelError::Architecture { architecture });
    }
    if big_endian {
        return Err(KernelError::BigEndian);
    }
    let (ident, rest) = bytes.split_at(abi::EI_NIDENT);
    let header = parse_ident(ident).and_then(|ident| FileHeader::parse_tail(ident, rest));
    let header = header.map_err(|_| KernelError::Elf { what: "its header is damaged" })?;
    match header.e_type {
        _ if header.class != Class::ELF64 => Err(KernelError::Elf { what: "it is not 64-bit" }),
        abi::ET_EXEC | abi::ET_DYN => Ok(header),
        _ => Err(KernelError::Unsuitable {
            what: "an ELF file that cannot run",
            cure: "give a linked kernel",
        }),
    }
}

/// The segments to load.
fn segments(
    content: &impl Content,
    header: &FileHeader<LittleEndian>,
) -> Result<Vec<ProgramHeader>, KernelError> {
    if header.e_phnum > 0 && header.e_phentsize != PROGRAM_HEADER {
        return Err(KernelError::Elf { what: "its program headers have an odd size" });
    }
    let mut table = vec![0; usize::from(header.e_phnum) * usize::from(PROGRAM_HEADER)];
    check_part(content, header.e_phoff, u64_from(table.len()))?;
    content.read_at(header.e_phoff, &mut table).map_err(KernelError::Read)?;
    let table: SegmentTable<'_, _> = SegmentTable::new(LittleEndian, Class::ELF64, &table);
    if table.iter().any(|segment| segment.p_type == abi::PT_INTERP) {
        return Err(KernelError::Unsuitable {
            what: "a program for Linux",
            cure: "give a kernel; programs belong into the guest's disk or initrd",
        });
    }
    let loads = |segment: &ProgramHeader| segment.p_type == abi::PT_LOAD && segment.p_memsz > 0;
    let segments: Vec<_> = table.iter().filter(loads).collect();
    for segment in &segments {
        check_part(content, segment.p_offset, segment.p_filesz)?;
        if segment.p_filesz > segment.p_memsz {
            return Err(KernelError::Elf { what: "a segment is larger than its memory" });
        }
    }
    Ok(segments)
}

/// Checks that `content` holds `size` bytes from `at` on.
fn check_part(content: &impl Content, at: u64, size: u64) -> Result<(), KernelError> {
    let (holds, needs) = (content.len(), at.saturating_add(size));
    if needs > holds { Err(KernelError::Truncated { holds, needs }) } else { Ok(()) }
}

/// The physical address of the entry as linked, and the Image header that a
/// vmlinux has there.
fn entry(
    content: &impl Content,
    file: &FileHeader<LittleEndian>,
    segments: &[ProgramHeader],
) -> Result<(u64, Option<Header>), KernelError> {
    let inside = |segment: &&ProgramHeader| {
        file.e_entry.checked_sub(segment.p_vaddr).is_some_and(|at| at < segment.p_memsz)
    };
    let segment = segments.iter().find(inside);
    let segment =
        segment.ok_or(KernelError::Elf { what: "its entry is in none of its segments" })?;
    let offset = file.e_entry - segment.p_vaddr;
    let linked = segment.p_paddr.wrapping_add(offset);
    if segment.p_filesz.saturating_sub(offset) < u64_from(header::SIZE) {
        return Ok((linked, None));
    }
    let mut head = [0; header::SIZE];
    let at = segment.p_offset.saturating_add(offset);
    content.read_at(at, &mut head).map_err(KernelError::Read)?;
    Ok((linked, Header::parse(&head)?))
}
