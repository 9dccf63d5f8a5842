//! What a kernel's file is, by its first bytes.

use kedge_ids::u64_from;

use super::KernelError;
use super::header::{self, is_image, pe_header, u16_at};
use super::unpack::Compression;
use super::zboot;

/// A kind of file that can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An arm64 Image.
    Image,
    /// An ELF file, of whatever architecture.
    Elf,
    /// An EFI application that unpacks a kernel.
    Zboot,
    /// Something compressed.
    Packed(Compression),
}

/// The magic numbers of compressions that are not unpacked here.
const OTHER_COMPRESSIONS: [(&[u8], &str); 5] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x5d\0\0", "lzma"),
    (b"\x89LZO\0\r\n\x1a\n", "lzo"),
    (b"PK\x03\x04", "zip"),
];

/// The magic numbers of other architectures' kernels, and where they are.
const OTHER_KERNELS: [(usize, &[u8], &str); 3] = [
    (0x202, b"HdrS", "x86 (a bzImage)"),
    (0x30, b"RISCV\0\0\0", "RISC-V"),
    (0x24, b"\x18\x28\x6f\x01", "32-bit Arm (a zImage)"),
];

const EXTRACT: &str = "extract the arm64 Image from it and boot that";

/// The magic numbers of what is no kernel by itself.
const OTHER_FILES: [(&[u8], &str, &str); 4] = [
    (b"\x27\x05\x19\x56", "a U-Boot image", EXTRACT),
    (b"\xd0\x0d\xfe\xed", "a device tree or FIT image", EXTRACT),
    (b"ANDROID!", "an Android boot image", EXTRACT),
    (b"07070", "a cpio archive", "give it as the initrd, and a kernel as the kernel"),
];

/// Machine types of EFI applications (PE/COFF specification, 3.3.1).
const PE_MACHINES: [(u16, &str); 9] = [
    (0x14c, "x86"),
    (0x8664, "x86-64"),
    (0x1c0, "32-bit Arm"),
    (0x1c2, "32-bit Arm"),
    (0x1c4, "32-bit Arm"),
    (0x5032, "RISC-V"),
    (0x5064, "RISC-V"),
    (0x6232, "LoongArch"),
    (0x6264, "LoongArch"),
];

/// What begins with `head`.
///
/// # Errors
/// Nothing that can be loaded; the error says what else it is.
pub(super) fn sniff(head: &[u8]) -> Result<Kind, KernelError> {
    if head.is_empty() {
        return Err(KernelError::Empty);
    }
    if let Some(compression) = Compression::of(head) {
        return Ok(Kind::Packed(compression));
    }
    match head {
        _ if is_image(head) => Ok(Kind::Image),
        _ if zboot::is_zboot(head) => Ok(Kind::Zboot),
        _ if head.starts_with(b"\x7fELF") => Ok(Kind::Elf),
        _ if head.starts_with(b"MZ") && head.len() < header::SIZE => Err(KernelError::Truncated {
            holds: u64_from(head.len()),
            needs: u64_from(header::SIZE),
        }),
        _ => Err(unsuitable(head)),
    }
}

fn unsuitable(head: &[u8]) -> KernelError {
    let architecture = |name: &str| KernelError::Architecture { architecture: name.to_owned() };
    let at = |offset: usize| head.get(offset..).unwrap_or_default();
    if let Some((.., name)) =
        OTHER_KERNELS.iter().find(|(offset, magic, _)| at(*offset).starts_with(magic))
    {
        return architecture(name);
    }
    if let Some((_, name)) = OTHER_COMPRESSIONS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return KernelError::Compression { name: (*name).to_owned() };
    }
    if let Some((_, what, cure)) = OTHER_FILES.iter().find(|(magic, ..)| head.starts_with(magic)) {
        return KernelError::Unsuitable { what, cure };
    }
    let Some(machine) = pe_header(head).and_then(|pe| u16_at(pe, header::pe::MACHINE)) else {
        return KernelError::Unknown;
    };
    match PE_MACHINES.iter().find(|(number, _)| *number == machine) {
        Some((_, name)) => architecture(name),
        None => KernelError::Unsuitable { what: "an EFI application", cure: EXTRACT },
    }
}
