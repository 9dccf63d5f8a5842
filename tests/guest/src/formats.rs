//! Kernels in every form, made of a small one.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use lz4_flex::frame::FrameEncoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, ensure_contains};

pub(crate) fn tests(suite: &mut Suite) {
    suite.once("formats::an_image_boots", &[], |host| boots(host, |image| Ok(image.to_vec())));
    suite.once("formats::a_gzip_compressed_image_boots", &[], |host| boots(host, gzip));
    suite.once("formats::a_zstd_compressed_image_boots", &[], |host| {
        boots(host, |image| Ok(compress_to_vec(image, CompressionLevel::Fastest)))
    });
    suite.once("formats::an_lz4_compressed_image_boots", &[], |host| {
        boots(host, |image| {
            let mut encoder = FrameEncoder::new(Vec::new());
            encoder.write_all(image)?;
            Ok(encoder.finish()?)
        })
    });
    suite.once("formats::an_efi_zboot_image_boots", &[], |host| {
        boots(host, |image| Ok(zboot(&gzip(image)?)))
    });
    suite.once("formats::an_elf_vmlinux_boots", &[], |host| boots(host, |image| Ok(elf(image))));
}

/// Boots a small guest in the form that `form` gives it.
fn boots(host: &Host, form: fn(&[u8]) -> anyhow::Result<Vec<u8>>) -> Outcome {
    let folder = TempDir::new()?;
    let path = folder.path().join("kernel");
    fs::write(&path, form(&fs::read(host.payload("power"))?)?)?;
    let ended = Kedge::run(path).flags("--memory 16M").cmdline("off").finish()?.with_status(0)?;
    ensure_contains(&ended.stdout, &["POWER off"])
}

fn gzip(image: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(image)?;
    Ok(encoder.finish()?)
}

/// An EFI program that would unpack `packed` itself, its header only (Linux,
/// drivers/firmware/efi/libstub/zboot-header.S).
fn zboot(packed: &[u8]) -> Vec<u8> {
    const HEADER: u32 = 64;
    let mut file = b"MZ\0\0zimg".to_vec();
    let length = u32::try_from(packed.len()).unwrap_or(u32::MAX);
    file.extend(HEADER.to_le_bytes());
    file.extend(length.to_le_bytes());
    file.extend([0; 8]);
    file.extend(b"gzip\0\0\0\0");
    file.resize(0x38, 0);
    // Linux's PE magic, and where the PE header would be.
    file.extend(0x8182_23cd_u32.to_le_bytes());
    file.extend(HEADER.to_le_bytes());
    file.extend(packed);
    file
}

/// An ELF file with one segment, linked where an Image would be (System V ABI,
/// chapters 4 and 5).
fn elf(image: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const AT: u64 = 0x8020_0000;
    let length = u64::try_from(image.len()).unwrap_or(u64::MAX);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // An executable for AArch64, version 1.
    file.extend([2, 0, 183, 0, 1, 0, 0, 0]);
    for word in [AT, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD, to be read, written and executed.
    file.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for word in [HEADERS, AT, AT, length, length, 8] {
        file.extend(word.to_le_bytes());
    }
    file.extend(image);
    file
}
