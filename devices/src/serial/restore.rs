//! The serial port's registers to what is saved and back. What no guest and no
//! sender could have brought about is refused: saved state is input.

use kedge_saved_state::{Bytes, StateError};
use vm_superio::serial::SerialState;

use super::saved::SerialV1;

/// The interrupts that can be enabled (PC16550D, 8.7).
const ENABLES: u8 = 0b1111;

/// `IIR`: none, transmitter empty, data, and both at once as vm-superio holds them.
const IDENTIFICATIONS: [u8; 4] = [0b001, 0b010, 0b100, 0b110];

/// `LSR`: the transmitter is always empty; data may be there.
const TRANSMITTER_EMPTY: u8 = 0x60;

pub(super) fn save(state: SerialState) -> SerialV1 {
    let SerialState {
        baud_divisor_low,
        baud_divisor_high,
        interrupt_enable,
        interrupt_identification,
        line_control,
        line_status,
        modem_control,
        modem_status,
        scratch,
        in_buffer,
    } = state;
    SerialV1 {
        divisor_low: baud_divisor_low,
        divisor_high: baud_divisor_high,
        interrupt_enable,
        interrupt_identification,
        line_control,
        line_status,
        modem_control,
        modem_status,
        scratch,
        received: Bytes(in_buffer),
    }
}

/// The registers, for a receive FIFO of `fifo` bytes.
pub(super) fn restore(saved: SerialV1, fifo: usize) -> Result<SerialState, StateError> {
    let SerialV1 {
        divisor_low,
        divisor_high,
        interrupt_enable,
        interrupt_identification,
        line_control,
        line_status,
        modem_control,
        modem_status,
        scratch,
        received: Bytes(received),
    } = saved;
    if received.len() > fifo {
        let problem = format!("is {} bytes long, and the FIFO {fifo}", received.len());
        return Err(bad("received", problem));
    }
    if interrupt_enable & !ENABLES != 0 {
        let problem = format!("is {interrupt_enable:#x}, with bits that are always 0");
        return Err(bad("interrupt_enable", problem));
    }
    if !IDENTIFICATIONS.contains(&interrupt_identification) {
        let problem = format!("is {interrupt_identification:#x}, which names no interrupt");
        return Err(bad("interrupt_identification", problem));
    }
    let expected = TRANSMITTER_EMPTY | u8::from(!received.is_empty());
    if line_status != expected {
        let problem = format!(
            "is {line_status:#x}, and with {} bytes received {expected:#x}",
            received.len()
        );
        return Err(bad("line_status", problem));
    }
    Ok(SerialState {
        baud_divisor_low: divisor_low,
        baud_divisor_high: divisor_high,
        interrupt_enable,
        interrupt_identification,
        line_control,
        line_status,
        modem_control,
        modem_status,
        scratch,
        in_buffer: received,
    })
}

fn bad(field: &str, problem: impl Into<String>) -> StateError {
    StateError::field::<SerialV1>(field, problem)
}
