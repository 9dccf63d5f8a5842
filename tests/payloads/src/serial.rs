//! The serial port, a 16550 that is never asked to interrupt.

use core::fmt;

use crate::mmio::{Width, load, store};

/// The port's first register.
pub const BASE: u64 = 0x4000_2000;

const DATA: u64 = BASE;
const LINE_STATUS: u64 = BASE + 5;
/// There is a byte to read.
const DATA_READY: u64 = 1 << 0;
/// The transmitter is empty.
const THR_EMPTY: u64 = 1 << 5;
/// Bytes that an empty transmitter takes.
const FIFO: usize = 16;

/// What `print!` writes to: text is sent in bursts of as many bytes as an empty transmitter takes, since to ask before
/// each byte would be an exit more for each. What is left is sent when it is dropped.
#[derive(Debug, Default)]
pub struct Serial {
    bytes: [u8; FIFO],
    used: usize,
}

impl Serial {
    fn flush(&mut self) {
        wait();
        for byte in self.bytes.iter().take(self.used) {
            store(DATA, Width::W1, (*byte).into());
        }
        self.used = 0;
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.used) {
                *place = byte;
                self.used += 1;
            }
            if self.used == FIFO {
                self.flush();
            }
        }
        Ok(())
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        if self.used > 0 {
            self.flush();
        }
    }
}

/// Sends a byte.
pub fn send(byte: u8) {
    wait();
    store(DATA, Width::W1, byte.into());
}

/// Waits until the transmitter is empty.
fn wait() {
    while load(LINE_STATUS, Width::W1) & THR_EMPTY == 0 {}
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
        let _ = core::fmt::Write::write_fmt(&mut $crate::serial::Serial::default(), format_args!($($text)*));
    }};
}

/// Prints a line on the serial port.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => {{
        $crate::print!("{}\n", format_args!($($text)*));
    }};
}
