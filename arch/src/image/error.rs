//! Why a kernel is not loaded.

use std::io;

use kedge_diag::Fix;
use kedge_guest_memory::{GuestAddress, GuestMemoryError};

use super::unpack::Compression;
use crate::layout::RAM_BASE;
use crate::size::Size;

/// Why a kernel is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The file cannot be read.
    #[error("the kernel cannot be read")]
    Read(#[source] io::Error),
    /// There is nothing in the file.
    #[error("the kernel is empty")]
    Empty,
    /// The file ends before what its headers speak of.
    #[error("the kernel is truncated: it holds {holds} bytes, its headers speak of {needs}")]
    Truncated {
        /// Bytes there are.
        holds: u64,
        /// Bytes there should be.
        needs: u64,
    },
    /// The file ends before its compressed data do.
    #[error("the kernel is truncated: its {compression} data break off")]
    BrokenOff {
        /// What packed it.
        compression: Compression,
    },
    /// The compressed data make no sense.
    #[error("the kernel is damaged: its {compression} data make no sense")]
    Damaged {
        /// What packed it.
        compression: Compression,
        /// What the unpacker says.
        source: io::Error,
    },
    /// It is for other processors.
    #[error("the kernel is for {architecture}, not for arm64")]
    Architecture {
        /// The processors' name.
        architecture: String,
    },
    /// It is for arm64 with big-endian data, which no kedge guest starts in.
    #[error("the kernel is big-endian")]
    BigEndian,
    /// A known kind of file, but nothing to boot.
    #[error("the kernel is {what}, which kedge does not boot")]
    Unsuitable {
        /// What it is.
        what: &'static str,
        /// What to do about it.
        cure: &'static str,
    },
    /// Nothing that is known.
    #[error("the kernel is in no format that kedge knows")]
    Unknown,
    /// It was packed by a program whose format is not known here.
    #[error("the kernel is compressed with {name}, which kedge does not unpack")]
    Compression {
        /// The program's name.
        name: String,
    },
    /// Unpacked, it is something packed again.
    #[error("the kernel is compressed twice")]
    Nested,
    /// The ELF file contradicts itself.
    #[error("the kernel's ELF file makes no sense: {what}")]
    Elf {
        /// What is wrong.
        what: &'static str,
    },
    /// It does not fit into memory.
    #[error(
        "the kernel needs memory up to {}, the machine has {}",
        Size(end.saturating_sub(RAM_BASE)),
        Size(*memory)
    )]
    TooLarge {
        /// The first guest address behind it.
        end: u64,
        /// RAM in bytes.
        memory: u64,
    },
    /// It is linked to where it cannot be.
    #[error("the kernel belongs at {start:#x}, but what lies below {floor:#x} is not for kernels")]
    TooLow {
        /// Its first address.
        start: u64,
        /// The lowest address for a kernel.
        floor: u64,
    },
    /// The guest's memory cannot be written, or the file became shorter meanwhile.
    #[error("the kernel cannot be read into guest memory at {:#x}", address.0)]
    Load {
        /// Where it belongs.
        address: GuestAddress,
        /// What went wrong.
        source: GuestMemoryError,
    },
}

impl Fix for KernelError {
    fn fix(&self) -> Option<String> {
        let cure = match self {
            Self::Read(_) => "give a regular file that kedge may read",
            Self::Empty
            | Self::Truncated { .. }
            | Self::BrokenOff { .. }
            | Self::Damaged { .. }
            | Self::Elf { .. } => "get the file again: it was not built or copied whole",
            Self::Architecture { .. } => "give a kernel built for arm64 (aarch64)",
            Self::BigEndian => "give a kernel built with CONFIG_CPU_LITTLE_ENDIAN",
            Self::Unsuitable { cure, .. } => cure,
            Self::Unknown => {
                "give an arm64 Image (plain or compressed), an EFI zboot image or an ELF vmlinux; \
                 code without a header needs the kernel format `flat`"
            }
            Self::Compression { .. } => "unpack it first, or compress it with gzip, zstd or lz4",
            Self::Nested => "unpack it once",
            Self::TooLarge { end, .. } => {
                let mib = end.saturating_sub(RAM_BASE).div_ceil(1 << 20);
                return Some(format!("give the machine at least {mib} MiB of memory"));
            }
            Self::TooLow { floor, .. } => {
                return Some(format!("link it to {floor:#x} or above"));
            }
            Self::Load { .. } => "leave the file alone while kedge reads it",
        };
        Some(cure.to_owned())
    }
}
