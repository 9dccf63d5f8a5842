//! The serial port's saved state. Types here are frozen once released: a change is
//! a new version and a conversion.

use kedge_saved_state::{Bytes, Versioned};
use serde::{Deserialize, Serialize};

/// Version 1: the registers of a 16550A (PC16550D, table II). What the guest sent
/// is with whoever reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialV1 {
    /// `DLL`.
    pub divisor_low: u8,
    /// `DLM`.
    pub divisor_high: u8,
    /// `IER`.
    pub interrupt_enable: u8,
    /// `IIR`: 1 is none; else bit 1 for an empty transmitter, bit 2 for data.
    pub interrupt_identification: u8,
    /// `LCR`.
    pub line_control: u8,
    /// `LSR`.
    pub line_status: u8,
    /// `MCR`.
    pub modem_control: u8,
    /// `MSR`.
    pub modem_status: u8,
    /// `SCR`.
    pub scratch: u8,
    /// What the guest has not read yet, at most 64 bytes.
    pub received: Bytes,
}

impl Versioned for SerialV1 {
    const KIND: &'static str = "ns16550a";
    const VERSION: u16 = 1;
}
