//! The end of a back end: told once to the log, to who hears of mishaps, and to the driver.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::virtio::device::{Activation, Interrupt};
use crate::virtio::mishap::{Mishap, MishapKind, MishapListener};

/// Raised when a back end is of no more use to its device.
pub(super) struct Alarm {
    /// "disk `root`".
    device: String,
    pub(super) interrupt: Arc<dyn Interrupt>,
    listener: Option<MishapListener>,
    is_raised: AtomicBool,
}

impl Alarm {
    /// For `device`, which `activation` puts to work.
    pub(super) fn new(device: String, activation: &Activation) -> Arc<Self> {
        let listener = activation.event_loop.listener().cloned();
        let interrupt = Arc::clone(&activation.interrupt);
        Arc::new(Self { device, interrupt, listener, is_raised: AtomicBool::new(false) })
    }

    /// Whether it was raised: the back end is not to be asked any more.
    pub(super) fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::SeqCst)
    }

    /// Its back end keeps no log of what it writes, and somebody wants to know.
    pub(super) fn cannot_log(&self) {
        let device = &self.device;
        tracing::warn!(
            "{device}: its back end does not note what it writes: a differential snapshot holds all \
             of the guest's memory"
        );
    }

    /// Tells of it, the first time.
    pub(super) fn raise(&self, why: &dyn fmt::Display) {
        if self.is_raised.swap(true, Ordering::SeqCst) {
            return;
        }
        let device = &self.device;
        tracing::error!("{device} cannot be used any more: {why}");
        if let Some(listener) = &self.listener {
            let (kind, device, why) = (MishapKind::HostFails, device.clone(), why.to_string());
            listener.tell(Mishap { kind, device, why, times: 1 });
        }
        self.interrupt.needs_reset(why);
    }
}
