//! A register to which a guest writes once it is up, so that its host knows how long that
//! took (FIRECRACKER_API.md, 16). It has no interrupt and no state, and the device tree does
//! not name it: guests that write to it know its address.

use std::fmt;

use kedge_bus::{MmioDevice, Node, Unsuitable};

/// A page, of which one byte is a register.
const SIZE: u64 = 0x1000;
/// The register.
const DONE: u64 = 0;
/// What a guest writes there that is up.
const UP: u8 = 123;

/// A boot timer.
pub struct BootTimer(Box<dyn Fn() + Send + Sync>);

impl BootTimer {
    /// Calls `up` whenever the guest says that it is up. A vCPU waits meanwhile.
    pub fn new(up: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Box::new(up))
    }
}

impl MmioDevice for BootTimer {
    fn size(&self) -> u64 {
        SIZE
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        Err(Unsuitable { offset, length: data.len() })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        match (offset, data) {
            (DONE, [UP]) => (self.0)(),
            // Anything else is nothing to it.
            (DONE, [_]) => {}
            _ => return Err(Unsuitable { offset, length: data.len() }),
        }
        Ok(())
    }

    fn node(&self) -> Node {
        Node::new("boot-timer", &[])
    }
}

impl fmt::Debug for BootTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BootTimer")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_guest_that_is_up_says_so_with_one_byte() {
        let ups = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&ups);
        let timer = BootTimer::new(move || counted.store(1, Ordering::Relaxed));
        timer.write(0, &[122]).unwrap();
        timer.write(0, &[123, 0]).unwrap_err();
        timer.write(1, &[123]).unwrap_err();
        timer.read(0, &mut [0]).unwrap_err();
        assert_eq!(ups.load(Ordering::Relaxed), 0);
        timer.write(0, &[123]).unwrap();
        assert_eq!(ups.load(Ordering::Relaxed), 1);
    }
}
