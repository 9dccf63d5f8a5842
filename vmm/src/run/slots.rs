//! The slots of a machine on PCI: what is in them, and who waits for something to leave.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kedge_devices::pci::RootPort;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::transport::{PciTransport, Transport};

use crate::build::Outlet;
use crate::control::Reply;

/// How long a guest may take to let go of a device. Linux begins five seconds after it was
/// asked, as long as someone who has pressed a button may change their mind, and waits
/// another one at the end.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The slots, numbered from 1. Dropped, the devices in them take their queues home.
pub(crate) struct Slots {
    outlet: Outlet,
    slots: Vec<Slot>,
}

struct Slot {
    port: Arc<RootPort>,
    card: Option<Arc<PciTransport>>,
    /// What kind of thing metrics call it.
    counted: Option<&'static str>,
    leaving: Option<Leaving>,
}

/// Somebody waits for a device to leave.
pub(super) struct Leaving {
    pub(super) reply: Reply<()>,
    until: Instant,
}

impl Slots {
    /// The empty slots behind `ports`.
    pub(crate) fn new(outlet: Outlet, ports: Vec<Arc<RootPort>>) -> Self {
        let slot = |port| Slot { port, card: None, counted: None, leaving: None };
        Self { outlet, slots: ports.into_iter().map(slot).collect() }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The first free one.
    pub(super) fn free(&self) -> Option<u8> {
        let mut numbered = (1..).zip(&self.slots);
        numbered.find(|(_, slot)| slot.card.is_none() && slot.port.is_free()).map(|(n, _)| n)
    }

    /// Puts a device into slot `number` before the guest runs.
    ///
    /// # Errors
    /// There is no such slot, or the host has no file descriptors.
    pub(crate) fn begin_with(
        &mut self,
        number: u8,
        device: Box<dyn VirtioDevice>,
    ) -> io::Result<Arc<PciTransport>> {
        self.hold(number, device, |port, card| port.begin_with(card))
    }

    /// A device for slot `number`, which the guest does not know of yet.
    ///
    /// # Errors
    /// There is no such slot, or the host has no file descriptors.
    pub(super) fn hold_back(
        &mut self,
        number: u8,
        device: Box<dyn VirtioDevice>,
    ) -> io::Result<Arc<PciTransport>> {
        self.hold(number, device, |_, _| {})
    }

    fn hold(
        &mut self,
        number: u8,
        device: Box<dyn VirtioDevice>,
        put: impl FnOnce(&RootPort, Arc<PciTransport>),
    ) -> io::Result<Arc<PciTransport>> {
        let slot = usize::from(number).checked_sub(1).and_then(|at| self.slots.get_mut(at));
        let slot = slot.ok_or(io::ErrorKind::NotFound)?;
        slot.counted = device.counters().map(|(group, _)| group);
        let card = self.outlet.behind(&slot.port, number, device)?;
        put(&slot.port, Arc::clone(&card));
        slot.card = Some(Arc::clone(&card));
        Ok(card)
    }

    /// Has the guest notice what was held back.
    pub(super) fn show(&mut self, number: u8) {
        if let Some(Slot { port, card: Some(card), .. }) = self.slot(number) {
            port.put_in(Arc::<PciTransport>::clone(card));
        }
    }

    /// Whether the guest does not use what is in slot `number`.
    pub(super) fn has_let_go(&mut self, number: u8) -> bool {
        self.slot(number).is_none_or(|slot| slot.port.has_let_go())
    }

    /// Whether somebody waits for it to leave.
    pub(super) fn is_leaving(&mut self, number: u8) -> bool {
        self.slot(number).is_some_and(|slot| slot.leaving.is_some())
    }

    /// Asks the guest to let go of it; `reply` is for who waits.
    pub(super) fn ask(&mut self, number: u8, reply: Reply<()>) {
        if let Some(slot) = self.slot(number) {
            slot.leaving = Some(Leaving { reply, until: Instant::now() + PATIENCE });
            slot.port.ask();
        }
    }

    /// Who waits for it to leave, and need not any more.
    pub(super) fn left(&mut self, number: u8) -> Option<Reply<()>> {
        Some(self.slot(number)?.leaving.take()?.reply)
    }

    /// Takes out what is in slot `number`; what kind of thing metrics called it.
    pub(super) fn take_out(&mut self, number: u8) -> Option<&'static str> {
        let slot = self.slot(number)?;
        slot.port.take_out();
        slot.card = None;
        slot.counted.take()
    }

    /// When the first of those who wait has waited long enough.
    pub(super) fn until(&self) -> Option<Instant> {
        self.slots.iter().filter_map(|slot| Some(slot.leaving.as_ref()?.until)).min()
    }

    /// When the last of them has.
    pub(super) fn latest(&self) -> Option<Instant> {
        self.slots.iter().filter_map(|slot| Some(slot.leaving.as_ref()?.until)).max()
    }

    /// Those who have waited long enough by `now`, with their slots.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<(u8, Reply<()>)> {
        let due = |(number, slot): (u8, &mut Slot)| {
            let leaving = slot.leaving.take_if(|leaving| leaving.until <= now)?;
            Some((number, leaving.reply))
        };
        (1..).zip(&mut self.slots).filter_map(due).collect()
    }

    fn slot(&mut self, number: u8) -> Option<&mut Slot> {
        usize::from(number).checked_sub(1).and_then(|at| self.slots.get_mut(at))
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let cards = self.slots.iter().filter_map(|slot| slot.card.as_ref());
        cards.for_each(|card| card.shutdown());
    }
}
