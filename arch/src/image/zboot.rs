//! EFI zboot images: an EFI application that carries a compressed kernel (Linux,
//! drivers/firmware/efi/libstub/zboot-header.S).

use super::KernelError;
use super::content::{Content as _, Part};
use super::header::u32_at;
use super::unpack::Compression;

#[rustfmt::skip]
mod field {
    pub(super) const MAGIC:          usize = 4;
    pub(super) const PAYLOAD_OFFSET: usize = 8;
    pub(super) const PAYLOAD_SIZE:   usize = 12;
    pub(super) const COMPRESSION:    usize = 24;
}

/// The longest name of a compression, its NUL included.
const NAME: usize = 32;

/// Whether `head` is the beginning of a zboot image.
pub(super) fn is_zboot(head: &[u8]) -> bool {
    let magic = head.get(field::MAGIC..).unwrap_or_default();
    head.starts_with(b"MZ") && magic.starts_with(b"zimg")
}

/// The compressed kernel in `file`, which begins with `head`.
///
/// # Errors
/// The file ends before the kernel does, or the kernel is compressed in a way
/// that is not known here.
pub(super) fn payload<'a>(
    file: Part<'a>,
    head: &[u8],
) -> Result<(Part<'a>, Compression), KernelError> {
    let read = |at| u32_at(head, at).map(u64::from);
    let (Some(offset), Some(size)) = (read(field::PAYLOAD_OFFSET), read(field::PAYLOAD_SIZE))
    else {
        let needs = u64::try_from(field::COMPRESSION + NAME).unwrap_or(u64::MAX);
        return Err(KernelError::Truncated { holds: file.len(), needs });
    };
    let payload = file.part(offset, size);
    let payload =
        payload.ok_or(KernelError::Truncated { holds: file.len(), needs: offset + size })?;
    let magic = payload.head().map_err(KernelError::Read)?;
    match Compression::of(&magic) {
        Some(compression) => Ok((payload, compression)),
        None => Err(KernelError::Compression { name: name(head) }),
    }
}

/// What the header calls the compression.
fn name(head: &[u8]) -> String {
    let field = head.get(field::COMPRESSION..field::COMPRESSION + NAME).unwrap_or_default();
    let name = field.split(|byte| *byte == 0).next().unwrap_or_default();
    match name {
        b"" => "an unnamed program".to_owned(),
        _ => String::from_utf8_lossy(name).escape_debug().to_string(),
    }
}
