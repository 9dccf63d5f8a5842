//! The functions that compiled code expects of a C library (what
//! `compiler_builtins` leaves to it on Linux): byte by byte, which is enough here.

use core::arch::naked_asm;

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn memcpy() {
    naked_asm!(
        "mov x3, x0",
        "cbz x2, 2f",
        "1: ldrb w4, [x1], #1",
        "strb w4, [x3], #1",
        "subs x2, x2, #1",
        "b.ne 1b",
        "2: ret",
    );
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn memmove() {
    naked_asm!(
        "cmp x0, x1",
        "b.ls {memcpy}",
        "1: cbz x2, 2f",
        "sub x2, x2, #1",
        "ldrb w4, [x1, x2]",
        "strb w4, [x0, x2]",
        "b 1b",
        "2: ret",
        memcpy = sym memcpy,
    );
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn memset() {
    naked_asm!(
        "mov x3, x0",
        "cbz x2, 2f",
        "1: strb w1, [x3], #1",
        "subs x2, x2, #1",
        "b.ne 1b",
        "2: ret",
    );
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn memcmp() {
    naked_asm!(
        "1: cbz x2, 2f",
        "ldrb w3, [x0], #1",
        "ldrb w4, [x1], #1",
        "sub x2, x2, #1",
        "cmp w3, w4",
        "b.eq 1b",
        "sub w0, w3, w4",
        "ret",
        "2: mov w0, #0",
        "ret",
    );
}

#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn bcmp() {
    naked_asm!("b {memcmp}", memcmp = sym memcmp);
}
