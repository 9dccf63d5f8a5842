//! The wire from a device to its interrupt controller.

use std::fmt;
use std::io;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The far end of an interrupt wire.
pub trait Wire: Send + Sync {
    /// One edge.
    fn pulse(&self);
}

/// A device's end of an edge-triggered interrupt wire. Clones are soldered to
/// the same wire.
#[derive(Clone)]
pub struct IrqLine(Arc<dyn Wire>);

impl IrqLine {
    /// A wire into `far_end`.
    pub fn new(far_end: Arc<dyn Wire>) -> Self {
        Self(far_end)
    }

    /// A wire that leads nowhere.
    pub fn detached() -> Self {
        struct Nowhere;
        impl Wire for Nowhere {
            fn pulse(&self) {}
        }
        Self::new(Arc::new(Nowhere))
    }

    /// A wire into an event, such as an irqfd.
    pub fn from_event(event: EventFd) -> Self {
        struct Event(EventFd);
        impl Wire for Event {
            fn pulse(&self) {
                // The counter can only overflow if 2^64 - 2 edges went unseen;
                // the far end then has an edge to see anyway.
                let _ = self.0.write(1);
            }
        }
        Self::new(Arc::new(Event(event)))
    }

    /// A wire and the event at its far end, for a test to watch.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub fn observed() -> io::Result<(Self, EventFd)> {
        let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        Ok((Self::from_event(event.try_clone()?), event))
    }

    /// Raises the wire and lowers it again: one edge.
    pub fn pulse(&self) {
        self.0.pulse();
    }
}

impl fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IrqLine")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulse_arrives_at_the_far_end() {
        let (line, far_end) = IrqLine::observed().unwrap();
        line.clone().pulse();
        line.pulse();
        assert_eq!(far_end.read().unwrap(), 2);
    }

    #[test]
    fn a_detached_wire_swallows_its_pulses() {
        IrqLine::detached().pulse();
    }
}
