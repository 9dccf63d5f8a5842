//! The serial port, a 16550 that is never asked to interrupt.

use core::fmt;

use crate::mmio::{Width, load, store};

/// The port's first register.
pub const BASE: u64 = 0x4000_2000;

const DATA: u64 = BASE;
const LINE_STATUS: u64 = BASE + 5;
/// There is a byte to read.
const DATA_READY: u64 = 1 << 0;
/// The transmitter takes a byte.
const THR_EMPTY: u64 = 1 << 5;

/// What `print!` writes to.
#[derive(Debug)]
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(send);
        Ok(())
    }
}

/// Sends a byte.
pub fn send(byte: u8) {
    while load(LINE_STATUS, Width::W1) & THR_EMPTY == 0 {}
    store(DATA, Width::W1, byte.into());
}

/// Waits for a byte.
#[must_use]
pub fn receive() -> u8 {
    while load(LINE_STATUS, Width::W1) & DATA_READY == 0 {}
    u8::try_from(load(DATA, Width::W1)).unwrap_or_default()
}

/// Prints on the serial port.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => {{
        // The port always takes it.
        let _ = core::fmt::Write::write_fmt(&mut $crate::serial::Serial, format_args!($($text)*));
    }};
}

/// Prints a line on the serial port.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => {{
        $crate::print!($($text)*);
        $crate::print!("\n");
    }};
}
