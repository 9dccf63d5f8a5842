//! Every form of kernel, whole and broken, into the memory of a small machine.

use expect_test::expect;
use kedge_diag::{Fix as _, report};
use kedge_guest_memory::GuestRange;
use proptest::prelude::*;

use super::samples::{
    Image, SIZE, Segment, elf, file, gzip, legacy_lz4, machine, pattern, read, signed,
    with_efi_stub, zboot,
};
use super::{InitrdError, KernelError, KernelFormat, Loaded, PageSize, load_initrd, load_kernel};
use crate::layout::RAM_BASE;

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 16 * MIB;
/// Where a kernel without text offset goes.
const SECOND_2_MIB: u64 = RAM_BASE + 2 * MIB;
const ARM64: u16 = 183;
const LOAD: u32 = 1;

const GZIP: &[u8] = include_bytes!("fixtures/image.gz");
const ZSTD: &[u8] = include_bytes!("fixtures/image.zst");
const LZ4: &[u8] = include_bytes!("fixtures/image.lz4");
const LZ4_LEGACY: &[u8] = include_bytes!("fixtures/image.lz4_legacy");

/// Loads `kernel` and reads back `size` bytes from where it begins.
fn load(kernel: &[u8], size: usize) -> Result<(Loaded, Vec<u8>), KernelError> {
    let (memory, layout) = machine(MEMORY);
    let loaded = load_kernel(&file(kernel), KernelFormat::Auto, &memory, &layout)?;
    let bytes = read(&memory, loaded.range.start.0, size);
    Ok((loaded, bytes))
}

/// What a user reads about `kernel`.
fn refusal(kernel: &[u8]) -> String {
    report(&load(kernel, 0).unwrap_err())
}

fn today() -> (Loaded, Vec<u8>) {
    let loaded = Loaded {
        entry: GuestRange::new(SECOND_2_MIB, 0).start,
        range: GuestRange::new(SECOND_2_MIB, MIB),
        page_size: Some(PageSize::Kib4),
    };
    (loaded, Image::today().build())
}

#[test]
fn an_image_goes_to_the_lowest_2_mib_above_the_device_tree() {
    assert_eq!(load(&Image::today().build(), SIZE).unwrap(), today());
}

#[test]
fn an_image_goes_to_its_text_offset() {
    let image = Image { text_offset: 0x8_0000, ..Image::today() };
    let (loaded, _) = load(&image.build(), 0).unwrap();
    assert_eq!(loaded.entry.0, RAM_BASE + 0x8_0000);
    assert_eq!(loaded.range, GuestRange::new(RAM_BASE + 0x8_0000, MIB));
}

#[test]
fn a_text_offset_below_the_load_floor_moves_up_by_2_mib() {
    let image = Image { text_offset: 0x1_0000, ..Image::today() };
    let (loaded, _) = load(&image.build(), 0).unwrap();
    assert_eq!(loaded.entry.0, SECOND_2_MIB + 0x1_0000);
}

#[test]
fn an_image_from_before_3_17_goes_to_the_text_offset_of_its_time() {
    let image = Image { text_offset: 0x0800_0000_0000, image_size: 0, flags: u64::MAX };
    let (loaded, bytes) = load(&image.build(), SIZE).unwrap();
    assert_eq!(loaded.range, GuestRange::new(RAM_BASE + 0x8_0000, SIZE.try_into().unwrap()));
    assert_eq!((loaded.page_size, bytes), (None, image.build()));
}

#[test]
fn the_header_tells_the_page_size() {
    let page_size =
        |flags| load(&Image { flags, ..Image::today() }.build(), 0).unwrap().0.page_size;
    assert_eq!(page_size(0x8), None);
    assert_eq!(page_size(0xc), Some(PageSize::Kib16));
    assert_eq!(page_size(0xe), Some(PageSize::Kib64));
}

#[test]
fn compressed_images_are_unpacked() {
    assert_eq!(load(GZIP, SIZE).unwrap(), today());
    assert_eq!(load(ZSTD, SIZE).unwrap(), today());
    assert_eq!(load(LZ4, SIZE).unwrap(), today());
    assert_eq!(load(LZ4_LEGACY, SIZE).unwrap(), today());
}

#[test]
fn an_image_smaller_than_a_block_is_unpacked() {
    let image = Image::today().sized(1000);
    let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
    std::io::Write::write_all(&mut lz4, &image).unwrap();
    assert_eq!(load(&lz4.finish().unwrap(), 1000).unwrap().1, image);
    assert_eq!(load(&gzip(&image), 1000).unwrap().1, image);
}

#[test]
fn the_size_that_the_kernel_build_appends_is_no_block() {
    let size = u32::try_from(SIZE).unwrap().to_le_bytes();
    assert_eq!(load(&[LZ4_LEGACY, &size].concat(), SIZE).unwrap(), today());
    assert_eq!(load(&[ZSTD, &size].concat(), SIZE).unwrap(), today());
}

#[test]
fn legacy_lz4_has_several_blocks() {
    let size = (9 << 20) + 5;
    let image = Image::today().sized(size);
    let (loaded, bytes) = load(&legacy_lz4(&image), size).unwrap();
    assert_eq!(loaded.range.size, u64::try_from(size).unwrap());
    assert!(bytes == image);
}

#[test]
fn zboot_images_carry_any_of_them() {
    assert_eq!(load(&zboot(GZIP, "gzip"), SIZE).unwrap(), today());
    assert_eq!(load(&zboot(ZSTD, "zstd22"), SIZE).unwrap(), today());
    assert_eq!(load(&zboot(LZ4_LEGACY, "lz4"), SIZE).unwrap(), today());
}

#[test]
fn a_vmlinux_linked_to_virtual_addresses_goes_where_its_image_would() {
    let text = 0xffff_8000_8000_0000;
    let image = Image::today().build();
    let data = pattern(100);
    let segments: [Segment<'_>; 2] = [
        (LOAD, text, text, &image, MIB),
        (LOAD, text + 0x18_0000, text + 0x18_0000, &data, 0x1000),
    ];
    let (loaded, bytes) = load(&elf(ARM64, text, &segments), 0x18_0000 + 100).unwrap();
    assert_eq!(loaded.entry.0, SECOND_2_MIB);
    assert_eq!(loaded.range, GuestRange::new(SECOND_2_MIB, 0x18_1000));
    assert_eq!(loaded.page_size, Some(PageSize::Kib4));
    assert!(bytes.starts_with(&image) && bytes.ends_with(&data));
}

#[test]
fn an_old_vmlinux_keeps_its_text_offset() {
    let text = 0xffff_0000_0808_0000;
    let image = Image { text_offset: 0x8_0000, ..Image::today() }.build();
    let (loaded, _) = load(&elf(ARM64, text, &[(LOAD, text, text, &image, MIB)]), 0).unwrap();
    assert_eq!(loaded.entry.0, RAM_BASE + 0x8_0000);
}

#[test]
fn a_compressed_vmlinux_is_unpacked() {
    let text = 0xffff_8000_8000_0000;
    let image = Image::today().build();
    let vmlinux = elf(ARM64, text, &[(LOAD, text, text, &image, MIB)]);
    assert_eq!(load(&gzip(&vmlinux), SIZE).unwrap(), today());
}

#[test]
fn an_elf_file_linked_to_ram_goes_where_it_is_linked() {
    let (virt, phys) = (0xffff_0000_0000_0000, RAM_BASE + 3 * MIB);
    let code = pattern(100);
    let file = elf(ARM64, virt + 8, &[(LOAD, virt, phys, &code, 0x2000)]);
    let (loaded, bytes) = load(&file, 100).unwrap();
    assert_eq!(loaded.entry.0, phys + 8);
    assert_eq!(loaded.range, GuestRange::new(phys, 0x2000));
    assert_eq!(bytes, code);
}

#[test]
fn an_elf_file_linked_to_zero_moves_by_2_mib() {
    let code = pattern(100);
    let (low, _) = load(&elf(ARM64, 0, &[(LOAD, 0, 0, &code, 0x1000)]), 0).unwrap();
    assert_eq!(low.entry.0, SECOND_2_MIB);
    let at = 0x8_0000;
    let (pi, bytes) = load(&elf(ARM64, at, &[(LOAD, at, at, &code, 0x1000)]), 100).unwrap();
    assert_eq!((pi.entry.0, bytes), (RAM_BASE + at, code));
}

#[test]
fn a_flat_binary_is_loaded_and_entered_at_the_load_floor() {
    let (memory, layout) = machine(MEMORY);
    let code = pattern(5000);
    let loaded = load_kernel(&file(&code), KernelFormat::Flat, &memory, &layout).unwrap();
    assert_eq!(loaded.entry.0, RAM_BASE + 0x8_0000);
    assert_eq!(loaded.range, GuestRange::new(RAM_BASE + 0x8_0000, 5000));
    assert_eq!(read(&memory, loaded.entry.0, 5000), code);
}

#[test]
fn a_flat_binary_is_not_looked_at() {
    let (memory, layout) = machine(MEMORY);
    let loaded = load_kernel(&file(GZIP), KernelFormat::Flat, &memory, &layout).unwrap();
    assert_eq!(read(&memory, loaded.entry.0, GZIP.len()), GZIP);
}

#[test]
fn a_truncated_image_is_noticed() {
    let image = with_efi_stub(Image::today().build(), 0xaa64);
    assert_eq!(load(&image, SIZE).unwrap().1, image);
    expect![[r#"
        error: the kernel is truncated: it holds 204799 bytes, its headers speak of 204800
          fix: get the file again: it was not built or copied whole"#]]
    .assert_eq(&refusal(&image[..SIZE - 1]));
    assert!(matches!(load(&image[..40], 0), Err(KernelError::Truncated { .. })));
    assert!(matches!(load(&gzip(&image[..4096]), 0), Err(KernelError::Truncated { .. })));
}

#[test]
fn an_image_cut_in_its_signature_is_noticed() {
    let image = signed(with_efi_stub(Image::today().build(), 0xaa64));
    assert_eq!(load(&image, SIZE).unwrap().1, image[..SIZE]);
    let cut = load(&image[..image.len() - 1], 0);
    assert!(matches!(cut, Err(KernelError::Truncated { .. })));
}

#[test]
fn compressed_data_that_break_off_are_noticed() {
    expect![[r#"
        error: the kernel is truncated: its gzip data break off
          fix: get the file again: it was not built or copied whole"#]]
    .assert_eq(&refusal(&GZIP[..1000]));
    expect![
        "error: the kernel is truncated: its zstd data break off
  fix: get the file again: it was not built or copied whole"
    ]
    .assert_eq(&refusal(&ZSTD[..300]));
    expect![
        "error: the kernel is truncated: its lz4 data break off
  fix: get the file again: it was not built or copied whole"
    ]
    .assert_eq(&refusal(&LZ4[..1000]));
    expect![
        "error: the kernel is truncated: its lz4 data break off
  fix: get the file again: it was not built or copied whole"
    ]
    .assert_eq(&refusal(&LZ4_LEGACY[..1000]));
}

#[test]
fn a_compressed_file_cut_anywhere_is_noticed() {
    let taken_for_whole = |packed: &[u8]| {
        (4..packed.len()).step_by(5).find(|end| {
            let result = load(&packed[..*end], 0);
            !matches!(result, Err(KernelError::BrokenOff { .. } | KernelError::Truncated { .. }))
        })
    };
    assert_eq!(taken_for_whole(GZIP), None);
    assert_eq!(taken_for_whole(ZSTD), None);
    assert_eq!(taken_for_whole(LZ4), None);
}

#[test]
fn compressed_data_that_changed_are_noticed() {
    let damaged = |packed: &[u8]| {
        let mut packed = packed.to_vec();
        let last = packed.len() - 2;
        packed[last] ^= 0x10;
        matches!(load(&packed, 0), Err(KernelError::Damaged { .. }))
    };
    assert!(damaged(GZIP) && damaged(ZSTD) && damaged(LZ4));
}

#[test]
fn a_zboot_image_cut_in_its_payload_is_noticed() {
    let image = zboot(GZIP, "gzip");
    assert!(matches!(load(&image[..0x500], 0), Err(KernelError::Truncated { .. })));
    assert!(matches!(load(&image[..10], 0), Err(KernelError::Truncated { .. })));
}

#[test]
fn an_elf_file_cut_in_a_segment_is_noticed() {
    let image = Image::today().build();
    let vmlinux = elf(ARM64, 0, &[(LOAD, 0, 0, &image, MIB)]);
    assert!(matches!(load(&vmlinux[..vmlinux.len() - 1], 0), Err(KernelError::Truncated { .. })));
    assert!(matches!(load(&vmlinux[..100], 0), Err(KernelError::Truncated { .. })));
    assert!(matches!(load(&vmlinux[..20], 0), Err(KernelError::Truncated { .. })));
}

/// The first line of the refusal.
fn headline(kernel: &[u8]) -> String {
    refusal(kernel).lines().next().unwrap().to_owned()
}

fn beginning(at: usize, magic: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 4096];
    file[at..at + magic.len()].copy_from_slice(magic);
    file
}

#[test]
fn kernels_for_other_processors_are_named() {
    expect!["error: the kernel is for x86 (a bzImage), not for arm64"]
        .assert_eq(&headline(&beginning(0x202, b"HdrS")));
    expect!["error: the kernel is for RISC-V, not for arm64"]
        .assert_eq(&headline(&beginning(0x30, b"RISCV\0\0\0")));
    expect!["error: the kernel is for 32-bit Arm (a zImage), not for arm64"]
        .assert_eq(&headline(&beginning(0x24, b"\x18\x28\x6f\x01")));
    expect!["error: the kernel is for LoongArch, not for arm64"]
        .assert_eq(&headline(&with_efi_stub(vec![0; 8192], 0x6264)));
    expect!["error: the kernel is for x86-64, not for arm64"].assert_eq(&headline(&elf(
        62,
        0,
        &[],
    )));
    expect!["error: the kernel is for 32-bit Arm, not for arm64"].assert_eq(&headline(&elf(
        40,
        0,
        &[],
    )));
    expect!["error: the kernel is for ELF machine 9999, not for arm64"].assert_eq(&headline(&elf(
        9999,
        0,
        &[],
    )));
}

#[test]
fn big_endian_kernels_are_refused() {
    let image = Image { flags: 0xb, ..Image::today() }.build();
    expect![[r#"
        error: the kernel is big-endian
          fix: give a kernel built with CONFIG_CPU_LITTLE_ENDIAN"#]]
    .assert_eq(&refusal(&image));
    let mut vmlinux = elf(ARM64.swap_bytes(), 0, &[]);
    vmlinux[5] = 2;
    assert!(matches!(load(&vmlinux, 0), Err(KernelError::BigEndian)));
}

#[test]
fn files_that_are_no_kernels_are_named() {
    expect!["error: the kernel is empty"].assert_eq(&headline(b""));
    expect!["error: the kernel is in no format that kedge knows"]
        .assert_eq(&headline(b"#!/bin/sh\n"));
    expect!["error: the kernel is compressed with xz, which kedge does not unpack"]
        .assert_eq(&headline(b"\xfd7zXZ\0 and more"));
    expect!["error: the kernel is a cpio archive, which kedge does not boot"]
        .assert_eq(&headline(b"070701 and more"));
    expect!["error: the kernel is a cpio archive, which kedge does not boot"]
        .assert_eq(&headline(&gzip(b"070701 and more")));
    expect!["error: the kernel is an EFI application, which kedge does not boot"]
        .assert_eq(&headline(&with_efi_stub(vec![0; 8192], 0xaa64)));
    expect!["error: the kernel is compressed twice"].assert_eq(&headline(&gzip(GZIP)));
    expect!["error: the kernel is compressed with xzkern, which kedge does not unpack"]
        .assert_eq(&headline(&zboot(b"\xfd7zXZ\0 and more", "xzkern")));
    expect!["error: the kernel is a program for Linux, which kedge does not boot"]
        .assert_eq(&headline(&elf(ARM64, 0, &[(3, 0, 0, b"/lib/ld-linux.so", 16)])));
    expect!["error: the kernel's ELF file makes no sense: its entry is in none of its segments"]
        .assert_eq(&headline(&elf(ARM64, 0, &[])));
}

#[test]
fn a_kernel_larger_than_memory_says_how_much_it_needs() {
    let needs = |image_size| Image { image_size, ..Image::today() }.build();
    expect![[r#"
        error: the kernel needs memory up to 34 MiB, the machine has 16 MiB
          fix: give the machine at least 34 MiB of memory"#]]
    .assert_eq(&refusal(&needs(32 * MIB)));
    assert!(matches!(load(&needs(u64::MAX), 0), Err(KernelError::TooLarge { .. })));
    assert!(matches!(load(&gzip(&needs(32 * MIB)), 0), Err(KernelError::TooLarge { .. })));
}

#[test]
fn a_decompression_bomb_stops_where_memory_does() {
    let bomb = gzip(&Image { image_size: 4096, ..Image::today() }.sized(17 << 20));
    assert!(matches!(load(&bomb, 0), Err(KernelError::TooLarge { .. })));
    let bomb = gzip(&[elf(ARM64, 0, &[]), vec![0; 17 << 20]].concat());
    assert!(matches!(load(&bomb, 0), Err(KernelError::TooLarge { .. })));
}

#[test]
fn a_kernel_linked_over_the_device_tree_is_refused() {
    let code = pattern(100);
    expect![[r#"
        error: the kernel belongs at 0x80000000, but what lies below 0x80080000 is not for kernels
          fix: link it to 0x80080000 or above"#]]
    .assert_eq(&refusal(&elf(ARM64, RAM_BASE, &[(LOAD, RAM_BASE, RAM_BASE, &code, 100)])));
}

#[test]
fn an_initrd_goes_as_high_as_it_can() {
    let (memory, layout) = machine(MEMORY);
    let (kernel, _) = today();
    let contents = pattern(100_000);
    let initrd = load_initrd(&file(&contents), &memory, &layout, &kernel).unwrap();
    assert_eq!(initrd, GuestRange::new(RAM_BASE + MEMORY - 0x2_0000, 100_000));
    assert_eq!(read(&memory, initrd.start.0, 100_000), contents);
}

#[test]
fn an_initrd_stays_within_the_kernels_reach() {
    let (memory, layout) = machine(64 << 30);
    let (kernel, _) = today();
    let initrd = load_initrd(&file(b"initrd"), &memory, &layout, &kernel).unwrap();
    assert_eq!(initrd.start.0, RAM_BASE + (32 << 30) - 0x1_0000);
}

#[test]
fn an_initrd_larger_than_memory_says_what_is_left() {
    let (memory, layout) = machine(4 * MIB);
    let (kernel, _) = today();
    let large = tempfile::tempfile().unwrap();
    large.set_len(3 * MIB).unwrap();
    let error = load_initrd(&large, &memory, &layout, &kernel).unwrap_err();
    expect![[r#"
        error: the initrd takes 3 MiB, of the machine's 4 MiB of memory the kernel leaves 1 MiB
          fix: give the machine at least 7 MiB of memory"#]]
    .assert_eq(&report(&error));
}

#[test]
fn an_empty_initrd_is_refused() {
    let (memory, layout) = machine(MEMORY);
    let error = load_initrd(&file(b""), &memory, &layout, &today().0).unwrap_err();
    assert!(matches!(error, InitrdError::Empty));
}

#[test]
fn what_cannot_be_sought_in_is_refused() {
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
    let (memory, layout) = machine(MEMORY);
    let error = load_kernel(&pipe, KernelFormat::Auto, &memory, &layout).unwrap_err();
    assert_eq!(error.to_string(), "the kernel cannot be read");
    assert_eq!(error.fix().as_deref(), Some("give a regular file that kedge may read"));
}

/// Kernels of every kind, to be broken.
fn whole_kernels() -> Vec<Vec<u8>> {
    let image = with_efi_stub(Image::today().build(), 0xaa64);
    let text = 0xffff_8000_8000_0000;
    vec![
        elf(ARM64, text, &[(LOAD, text, text, &image, MIB)]),
        zboot(GZIP, "gzip"),
        image,
        GZIP.to_vec(),
        ZSTD.to_vec(),
        LZ4.to_vec(),
        LZ4_LEGACY.to_vec(),
    ]
}

/// Loads `kernel` whatever it is: whether it keeps to its part of memory.
fn load_anything(kernel: &[u8]) -> bool {
    let (memory, layout) = machine(4 * MIB);
    let result = load_kernel(&file(kernel), KernelFormat::Auto, &memory, &layout);
    let inside = result.map_or(true, |loaded| {
        loaded.range.start.0 >= layout.load_floor() && loaded.range.end() <= layout.ram_end()
    });
    inside && read(&memory, RAM_BASE, 0x8_0000) == vec![0; 0x8_0000]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_file_writes_below_the_load_floor(
        kernel in prop::sample::select(whole_kernels()),
        changes in prop::collection::vec((0_usize..4096, any::<u8>()), 0..8),
        end in any::<prop::sample::Index>(),
    ) {
        let mut kernel = kernel;
        let length = kernel.len();
        for (at, value) in changes {
            kernel[at % length] = value;
        }
        prop_assert!(load_anything(&kernel));
        kernel.truncate(end.index(length));
        prop_assert!(load_anything(&kernel));
    }

    #[test]
    fn no_bytes_after_a_magic_number_panic(
        kernel in prop::sample::select(whole_kernels()),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        keep in 0_usize..128,
    ) {
        let file = [&kernel[..keep], &bytes].concat();
        prop_assert!(load_anything(&file));
    }
}
