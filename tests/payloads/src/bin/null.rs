//! The shortest guest: it powers off with its first instructions.
#![no_std]
#![no_main]

core::arch::global_asm!(
    ".section .header, \"ax\"",
    "b 1f",
    ".long 0",
    ".quad 0",
    ".quad _image_size",
    ".quad 0xa",
    ".quad 0, 0, 0",
    ".ascii \"ARM\\x64\"",
    ".long 0",
    "1: movz w0, #0x8400, lsl #16",
    "movk w0, #8",
    "hvc #0",
    "b .",
);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
