//! Message-signalled interrupts as a device sees them: stores that it makes to where its
//! driver told it to (PCI Express Base 5.0, 6.1.4).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A message, as the driver wants it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Where it is stored to.
    pub address: u64,
    /// What is stored.
    pub data: u32,
}

/// The far end of a device's messages.
pub trait Messages: Send + Sync {
    /// One of them. What cannot be delivered is gone, as a store to nowhere.
    fn send(&self, message: Message);
}

/// A device's way to send messages, which says who sends them. Clones lead to the same end.
#[derive(Clone)]
pub struct MsiPort(Arc<dyn Messages>);

impl MsiPort {
    /// A way to `far_end`.
    pub fn new(far_end: Arc<dyn Messages>) -> Self {
        Self(far_end)
    }

    /// A way and the messages that went it, for a test to watch.
    pub fn observed() -> (Self, Arc<Mutex<Vec<Message>>>) {
        struct Observed(Arc<Mutex<Vec<Message>>>);
        impl Messages for Observed {
            fn send(&self, message: Message) {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message);
            }
        }
        let sent = Arc::<Mutex<_>>::default();
        (Self::new(Arc::new(Observed(Arc::clone(&sent)))), sent)
    }

    /// Sends a message.
    pub fn send(&self, message: Message) {
        self.0.send(message);
    }
}

impl fmt::Debug for MsiPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MsiPort")
    }
}
