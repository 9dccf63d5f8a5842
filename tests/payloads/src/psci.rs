//! Calls of the Power State Coordination Interface (Arm DEN0022).

// UNSAFETY: a firmware call may end, suspend or start CPUs.
#![expect(unsafe_code)]

use core::arch::asm;

/// Function ids (DEN0022, 5.1).
#[rustfmt::skip]
pub mod function {
    pub const PSCI_VERSION:      u32 = 0x8400_0000;
    pub const CPU_OFF:           u32 = 0x8400_0002;
    pub const CPU_ON:            u32 = 0xc400_0003;
    pub const AFFINITY_INFO:     u32 = 0xc400_0004;
    pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    pub const SYSTEM_OFF:        u32 = 0x8400_0008;
    pub const SYSTEM_RESET:      u32 = 0x8400_0009;
    pub const PSCI_FEATURES:     u32 = 0x8400_000a;
    pub const SYSTEM_SUSPEND:    u32 = 0xc400_000e;
    pub const SYSTEM_RESET2:     u32 = 0xc400_0012;
    pub const SYSTEM_OFF2:       u32 = 0xc400_0015;
    pub const SMCCC_VERSION:     u32 = 0x8000_0000;
}

/// Calls the firmware; what it answers in x0.
pub fn call(function: u32, arguments: [u64; 3]) -> i64 {
    let mut x0 = i64::from(function);
    // SAFETY: the tests' guests pass no addresses of Rust objects but to start a CPU,
    // which gets memory of its own.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") x0,
            inout("x1") arguments[0] => _,
            inout("x2") arguments[1] => _,
            inout("x3") arguments[2] => _,
            clobber_abi("C"),
        );
    }
    x0
}

/// Turns the machine off. Where the firmware does not, waits to be ended.
pub fn off() -> ! {
    call(function::SYSTEM_OFF, [0; 3]);
    wait()
}

/// Waits for ever.
pub fn wait() -> ! {
    loop {
        // SAFETY: it waits.
        unsafe { asm!("wfi") };
    }
}
