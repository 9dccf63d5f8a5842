//! What a device tells its driver, apart from the transport's lock: a worker
//! signals while a vCPU holds that lock and waits for the worker.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::virtio::device::{DeviceId, Interrupt, VirtioDevice};
use crate::virtio::mishap::{Mishap, MishapKind, MishapListener};
use crate::virtio::worker::EventLoop;

/// How a transport reaches its driver.
pub(super) trait Notifier: Send + Sync {
    /// Buffers of queue `index` were used.
    fn used(&self, index: u16);
    /// The configuration changed, or the device needs a reset.
    fn config(&self);
    /// The status has the bit that says that the device needs a reset.
    fn broken(&self) {}
    /// The device was reset: nothing is left to be told.
    fn reset(&self);
    /// What the driver has been told and has not acknowledged, as bits.
    fn unacknowledged(&self) -> u32;
    /// Takes up what a driver had not acknowledged when it was saved.
    fn restore(&self, unacknowledged: u32);
    /// Tells the driver again what it has not acknowledged.
    fn remind(&self);
}

/// The signals of one device.
#[derive(Debug)]
pub(super) struct Signals<N> {
    device: DeviceId,
    /// Who hears of mishaps, and what they call the device.
    listener: Option<(MishapListener, String)>,
    notifier: N,
    needs_reset: AtomicBool,
    generation: AtomicU32,
    corruptions: AtomicU64,
}

impl<N: Notifier> Signals<N> {
    /// Those of `device`, whose work `event_loop` has.
    pub(super) fn new(device: &dyn VirtioDevice, event_loop: &EventLoop, notifier: N) -> Self {
        let named = |listener: &MishapListener| (listener.clone(), device.name());
        Self {
            device: device.device_id(),
            listener: event_loop.listener().map(named),
            notifier,
            needs_reset: AtomicBool::new(false),
            generation: AtomicU32::new(0),
            corruptions: AtomicU64::new(0),
        }
    }

    pub(super) fn notifier(&self) -> &N {
        &self.notifier
    }

    /// Whether only a reset helps.
    pub(super) fn is_broken(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// Changes whenever the configuration does (2.5).
    pub(super) fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// The configuration is another now.
    pub(super) fn next_generation(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Marks the device, and says so in the log: the first time, the second, the
    /// fourth, the eighth and so on, since a guest can do it at will.
    pub(super) fn mark_broken(&self, why: &dyn fmt::Display) {
        self.needs_reset.store(true, Ordering::SeqCst);
        self.notifier.broken();
        let times = self.corruptions.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if !times.is_power_of_two() {
            return;
        }
        tracing::warn!(device = ?self.device, times, "the guest's driver must reset its virtio device: {why}");
        if let Some((listener, name)) = &self.listener {
            let (kind, device, why) = (MishapKind::NeedsReset, name.clone(), why.to_string());
            listener.tell(Mishap { kind, device, why, times });
        }
    }

    /// Takes up a saved configuration's generation and whether only a reset helps.
    pub(super) fn restore(&self, generation: u32, needs_reset: bool) {
        self.generation.store(generation, Ordering::SeqCst);
        self.needs_reset.store(needs_reset, Ordering::SeqCst);
    }

    pub(super) fn reset(&self) {
        self.needs_reset.store(false, Ordering::SeqCst);
        self.notifier.reset();
    }
}

impl<N: Notifier> Interrupt for Signals<N> {
    fn used(&self, index: u16) {
        self.notifier.used(index);
    }

    fn needs_reset(&self, why: &dyn fmt::Display) {
        self.mark_broken(why);
        self.notifier.config();
    }
}
