//! The interrupt of a device on virtio-mmio: one edge-triggered wire, and the registers
//! that say why and hear that it was heard (Virtio 1.2, 4.2.2).
//!
//! A driver acknowledges with a store of its own after each interrupt. Where the
//! hypervisor turns that store into the ring of an event, no exit to this program is
//! needed for it: it is made good when the driver next looks.
//!
//! Where the driver looks without an exit as well, nobody knows what it has seen, and used
//! buffers stay told of until a reset. A driver only looks when there was an edge, or has
//! its rings to go by.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use kedge_bus::IrqLine;
use kedge_guest_memory::RegisterPages;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::mmio::reg::{INTERRUPT_STATUS, STATUS};
use super::signals::Notifier;

/// `InterruptStatus`: buffers were used.
pub(super) const USED_BUFFER: u32 = 1 << 0;
/// `InterruptStatus`: the configuration or `DEVICE_NEEDS_RESET` changed.
const CONFIG_CHANGE: u32 = 1 << 1;

/// The wire and its registers.
///
/// Used buffers are told by counting: told is what was raised and not acknowledged. An
/// acknowledgement that comes late is one of what the driver had seen by then, so that
/// nothing raised meanwhile is lost.
#[derive(Debug)]
pub(super) struct Line {
    irq: IrqLine,
    /// Rung where the driver acknowledges used buffers without an exit.
    acknowledged: EventFd,
    /// How often buffers were told of.
    raised: AtomicU32,
    /// `raised` as it was when the driver last looked.
    seen: AtomicU32,
    /// `raised` as far as the driver has acknowledged.
    heard: AtomicU32,
    /// [`CONFIG_CHANGE`] or 0.
    config: AtomicU32,
    /// Where the driver looks without an exit.
    shown: OnceLock<RegisterPages>,
}

impl Line {
    /// Nothing to tell yet, on `irq`.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub(super) fn new(irq: IrqLine) -> io::Result<Self> {
        Ok(Self {
            irq,
            acknowledged: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            raised: AtomicU32::new(0),
            seen: AtomicU32::new(0),
            heard: AtomicU32::new(0),
            config: AtomicU32::new(0),
            shown: OnceLock::new(),
        })
    }

    /// Has the driver look in `pages` from now on, which are told what it is to see. The
    /// guest does not run yet.
    pub(super) fn show_in(&self, pages: &RegisterPages) {
        pages.set(INTERRUPT_STATUS, self.unacknowledged());
        // There is one place for it.
        let _ = self.shown.set(pages.clone());
    }

    /// What the hypervisor is to ring when the driver stores [`USED_BUFFER`] alone to
    /// `InterruptACK`. None where the host has no file descriptor for it: then the
    /// store comes here.
    pub(super) fn acknowledgement(&self) -> Option<EventFd> {
        self.acknowledged.try_clone().ok()
    }

    /// The driver loads `InterruptStatus`.
    pub(super) fn look(&self) -> u32 {
        if let Some(shown) = self.shown.get() {
            return shown.get(INTERRUPT_STATUS);
        }
        let raised = self.raised.load(Ordering::SeqCst);
        if raised == self.seen.swap(raised, Ordering::SeqCst) {
            self.settle();
        }
        // What is new to it was not acknowledged, whatever else was.
        self.status(raised)
    }

    /// The driver stores to `InterruptACK`.
    pub(super) fn acknowledge(&self, causes: u32) {
        self.settle();
        if causes & USED_BUFFER != 0 {
            self.heard.store(self.raised.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        self.config.fetch_and(!causes, Ordering::SeqCst);
        if let Some(shown) = self.shown.get()
            && causes & CONFIG_CHANGE != 0
        {
            shown.clear_bits(INTERRUPT_STATUS, CONFIG_CHANGE);
        }
    }

    /// Adds `cause` to what the driver sees without an exit.
    fn show(&self, cause: u32) {
        if let Some(shown) = self.shown.get() {
            shown.set_bits(INTERRUPT_STATUS, cause);
        }
    }

    /// Makes good what the driver acknowledged without an exit.
    fn settle(&self) {
        // It fails when nobody rang.
        if self.acknowledged.read().is_ok() {
            self.heard.store(self.seen.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }

    fn status(&self, raised: u32) -> u32 {
        let is_told = raised != self.heard.load(Ordering::SeqCst);
        self.config.load(Ordering::SeqCst) | if is_told { USED_BUFFER } else { 0 }
    }
}

impl Notifier for Line {
    /// A driver looks before it looks at its rings, hence sees what was there at the
    /// last edge.
    fn used(&self, _index: u16) {
        self.raised.fetch_add(1, Ordering::SeqCst);
        self.show(USED_BUFFER);
        self.irq.pulse();
    }

    fn config(&self) {
        self.config.store(CONFIG_CHANGE, Ordering::SeqCst);
        self.show(CONFIG_CHANGE);
        self.irq.pulse();
    }

    fn broken(&self) {
        if let Some(shown) = self.shown.get() {
            shown.set_bits(STATUS, VIRTIO_CONFIG_S_NEEDS_RESET);
        }
    }

    fn reset(&self) {
        self.settle();
        self.heard.store(self.raised.load(Ordering::SeqCst), Ordering::SeqCst);
        self.config.store(0, Ordering::SeqCst);
        if let Some(shown) = self.shown.get() {
            shown.set(INTERRUPT_STATUS, 0);
        }
    }

    fn unacknowledged(&self) -> u32 {
        if let Some(shown) = self.shown.get() {
            return shown.get(INTERRUPT_STATUS);
        }
        self.settle();
        self.status(self.raised.load(Ordering::SeqCst))
    }

    fn restore(&self, unacknowledged: u32) {
        let raised = self.raised.load(Ordering::SeqCst);
        let behind = u32::from(unacknowledged & USED_BUFFER != 0);
        self.heard.store(raised.wrapping_sub(behind), Ordering::SeqCst);
        self.seen.store(raised, Ordering::SeqCst);
        self.config.store(unacknowledged & CONFIG_CHANGE, Ordering::SeqCst);
        if let Some(shown) = self.shown.get() {
            shown.set(INTERRUPT_STATUS, unacknowledged);
        }
    }

    /// One edge too many does no harm: the driver finds no reason for it.
    fn remind(&self) {
        if self.unacknowledged() != 0 {
            self.irq.pulse();
        }
    }
}

#[cfg(test)]
mod tests {
    use kedge_guest_memory::GuestRange;

    use super::*;

    fn line() -> (Line, EventFd) {
        let (irq, _) = IrqLine::observed().unwrap();
        let line = Line::new(irq).unwrap();
        let acknowledgement = line.acknowledgement().unwrap();
        (line, acknowledgement)
    }

    #[test]
    fn an_acknowledgement_without_an_exit_is_of_what_was_seen() {
        let (line, acknowledgement) = line();
        line.used(0);
        assert_eq!(line.look(), USED_BUFFER);
        acknowledgement.write(1).unwrap();
        assert_eq!(line.look(), 0);

        line.used(0);
        assert_eq!(line.look(), USED_BUFFER);
        line.used(0);
        acknowledgement.write(1).unwrap();
        assert_eq!(line.look(), USED_BUFFER);
        acknowledgement.write(1).unwrap();
        assert_eq!(line.unacknowledged(), 0);
    }

    #[test]
    fn a_driver_that_looks_without_an_exit_sees_used_buffers_until_a_reset() {
        let (line, acknowledgement) = line();
        let pages = RegisterPages::new(GuestRange::new(0x4000_3000, 0x1000)).unwrap();
        line.show_in(&pages);
        let look = || pages.get(INTERRUPT_STATUS);
        assert_eq!(look(), 0);
        line.used(0);
        line.config();
        assert_eq!((look(), line.look()), (3, 3));
        line.acknowledge(3);
        assert_eq!((look(), line.unacknowledged()), (USED_BUFFER, USED_BUFFER));
        acknowledgement.write(1).unwrap();
        assert_eq!(look(), USED_BUFFER, "nobody knows of what it was");
        line.reset();
        assert_eq!(look(), 0);
        line.restore(CONFIG_CHANGE);
        assert_eq!(look(), CONFIG_CHANGE);
    }

    #[test]
    fn an_acknowledgement_leaves_other_causes() {
        let (line, acknowledgement) = line();
        line.used(0);
        line.config();
        assert_eq!(line.look(), USED_BUFFER | CONFIG_CHANGE);
        acknowledgement.write(1).unwrap();
        assert_eq!(line.look(), CONFIG_CHANGE);
        line.acknowledge(CONFIG_CHANGE);
        assert_eq!(line.look(), 0);
    }

    #[test]
    fn a_restored_line_tells_again_what_was_not_acknowledged() {
        let (line, acknowledgement) = line();
        line.restore(USED_BUFFER);
        assert_eq!(line.unacknowledged(), USED_BUFFER);
        assert_eq!(line.look(), USED_BUFFER);
        acknowledgement.write(1).unwrap();
        assert_eq!(line.look(), 0);
    }

    #[test]
    fn an_acknowledgement_before_a_reset_is_of_nothing_after_it() {
        let (line, acknowledgement) = line();
        line.used(0);
        assert_eq!(line.look(), USED_BUFFER);
        acknowledgement.write(1).unwrap();
        line.reset();
        line.used(0);
        assert_eq!(line.look(), USED_BUFFER);
    }
}
