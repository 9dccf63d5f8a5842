//! Devices that come and go while their machine runs, in a slot on PCI: the guest notices
//! what comes, and is asked for what is to go.

use std::io;
use std::time::Instant;

use kedge_bus::Stateful;
use kedge_devices::virtio::catalog::{DeviceConfig, Kind};
use kedge_diag::{Fix, Trouble};
use kedge_guest_memory::is_shared;

use super::slots::{PATIENCE, Slots};
use crate::build::{Backing, Built, card_name};
use crate::control::Reply;
use crate::save::Subject;
use crate::spec::Transport;

/// Why a device does not come, or does not go. All is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// Its devices are elsewhere.
    #[error("no device comes or goes while the machine runs: it has none on PCI")]
    NoPci,
    /// Nothing for it to be plugged into.
    #[error("the machine has no slots on PCI")]
    NoSlots,
    /// All are taken.
    #[error("all slots on PCI are taken")]
    Full,
    /// There is one already.
    #[error("the machine has a {noun} `{id}` already")]
    InUse {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// A root device is there from the start.
    #[error("the {noun} `{id}` cannot be a root device: the guest runs already")]
    Root {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// Another process would have to share the guest's memory.
    #[error(
        "the {noun} `{id}` is served by another process, with which this guest's memory is not \
         shared"
    )]
    Unshared {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// The kernel serves it, and would have to wait for pages.
    #[error(
        "the host's kernel serves the {noun} `{id}` (`vhost`), and this guest's memory comes from \
         a page server"
    )]
    InKernel {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// The host does not have it.
    #[error(transparent)]
    Device(Trouble),
    /// The host cannot.
    #[error("the host has no file descriptors for the {noun} `{id}`")]
    Host {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no such device.
    #[error("the machine has no {noun} `{id}`")]
    NoSuch {
        /// What it would be.
        noun: &'static str,
        /// The name given.
        id: String,
    },
    /// It is in no slot.
    #[error("the {noun} `{id}` was there before the guest, and stays")]
    Stays {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
        /// Whether the guest's root is on it.
        leads: bool,
    },
    /// Who stands still cannot let go.
    #[error("the guest uses the {noun} `{id}`, and cannot let go of it while it is paused")]
    Paused {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// It is asked for it already.
    #[error("the guest is asked already to let go of the {noun} `{id}`")]
    Asked {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// It has not let go.
    #[error("the guest has not let go of the {noun} `{id}` within {} seconds", PATIENCE.as_secs())]
    Kept {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
    /// It had not let go when it ended.
    #[error("the guest has ended or reset before it let go of the {noun} `{id}`")]
    Over {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
}

impl Fix for PlugError {
    fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::NoPci => {
                "start a machine with PCI: `--enable-pci`, or `--transport pci --pci-slots 8`"
            }
            Self::NoSlots => "start it with some: `--pci-slots 8`",
            Self::Full => "remove a device that was plugged in",
            Self::InUse { .. } => "give it a name of its own",
            Self::Unshared { .. } => {
                "start the machine with a device that has `socket`: its memory is shared then"
            }
            Self::InKernel { .. } => "leave `vhost` out",
            Self::Root { .. } => "leave `is_root_device` out",
            Self::Stays { leads: true, .. } => "leave it",
            Self::Stays { id, .. } => {
                return Some(format!("start the machine with it in a slot: `--removable {id}`"));
            }
            Self::Paused { .. } => "let it go on first",
            Self::Asked { .. } => "wait until it has, or has not",
            Self::Kept { .. } => {
                "look in the guest for what uses it; its kernel needs CONFIG_HOTPLUG_PCI_PCIE. It \
                 may still let go: remove the device again then"
            }
            Self::Over { .. } => "remove the device again, where the guest runs again",
            Self::Device(source) => return source.fix(),
            Self::Host { .. } => "raise the limit of open files (ulimit -n)",
            Self::NoSuch { .. } => return None,
        };
        Some(fix.to_owned())
    }
}

/// Whether the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guest {
    Runs,
    StandsStill,
}

/// A machine whose devices come and go.
pub(super) struct Plugging<'a, 's> {
    pub(super) built: &'a mut Built,
    pub(super) subject: &'a mut Subject<'s>,
    pub(super) guest: Guest,
}

impl Plugging<'_, '_> {
    /// Opens `device` and plugs it in.
    ///
    /// # Errors
    /// It cannot be there, or there is no place for it.
    pub(super) fn plug(&mut self, device: Box<dyn DeviceConfig>) -> Result<(), PlugError> {
        let (noun, id) = (device.kind().noun, device.id().to_owned());
        let number = self.slots()?.free().ok_or(PlugError::Full)?;
        if self.find(device.kind(), &id).is_some() {
            return Err(PlugError::InUse { noun, id });
        }
        if device.leads() {
            return Err(PlugError::Root { noun, id });
        }
        if device.shares_memory() && !is_shared(&self.built.memory) {
            return Err(PlugError::Unshared { noun, id });
        }
        if device.is_in_kernel() && matches!(self.built.backing, Backing::Served(_)) {
            return Err(PlugError::InKernel { noun, id });
        }
        let opened = device.open().map_err(PlugError::Device)?;
        let counters = opened.counters();
        let host = |source| PlugError::Host { noun, id: id.clone(), source };
        let card = self.slots()?.hold_back(number, opened).map_err(host)?;
        if self.guest == Guest::StandsStill
            && let Err(error) = card.pause(Instant::now())
        {
            self.slots()?.take_out(number);
            return Err(PlugError::Device(Trouble::new(error)));
        }
        if let (Some(metrics), Some((group, counters))) =
            (&self.subject.surroundings.metrics, counters)
        {
            metrics.add(group, device.kind().many.then_some(&id), counters);
        }
        self.built.devices.add(card_name(number), &card);
        self.subject.spec.devices.push(device);
        self.subject.spec.plugged.push(number);
        self.slots()?.show(number);
        Ok(())
    }

    /// Removes the device `id` of `kind` once the guest has let go of it; `reply` hears of
    /// it.
    pub(super) fn unplug(&mut self, (kind, id): (&'static Kind, &str), reply: Reply<()>) {
        match self.find_plugged(kind, id) {
            Ok((index, number)) if self.has_let_go(number) => {
                self.take_out(index, number);
                reply.answer(Ok(()));
            }
            Ok((_, number)) => match self.slots() {
                Ok(slots) => slots.ask(number, reply),
                Err(error) => reply.answer(Err(error.into())),
            },
            Err(error) => reply.answer(Err(error.into())),
        }
    }

    /// The guest has let go of what is in slot `number`: it goes, where somebody waits for
    /// that.
    pub(super) fn let_go(&mut self, number: u8) {
        if !self.has_let_go(number) {
            return;
        }
        let Some(reply) = self.slots().ok().and_then(|slots| slots.left(number)) else { return };
        if let Some(index) = self.in_slot(number) {
            self.take_out(index, number);
        }
        reply.answer(Ok(()));
    }

    /// Tells those who have waited by `now` that the guest has not let go.
    pub(super) fn give_up(&mut self, now: Instant) {
        self.tell_overdue(now, |noun, id| PlugError::Kept { noun, id });
    }

    fn tell_overdue(&mut self, now: Instant, why: impl Fn(&'static str, String) -> PlugError) {
        let overdue = self.slots().map(|slots| slots.overdue(now)).unwrap_or_default();
        for (number, reply) in overdue {
            let device =
                self.in_slot(number).and_then(|index| self.subject.spec.devices.get(index));
            let (noun, id) =
                device.map_or(("device", String::new()), |it| (it.kind().noun, it.id().to_owned()));
            reply.answer(Err(why(noun, id).into()));
        }
    }

    /// Tells all who wait that the guest has not let go, and will not in this life.
    pub(super) fn end(&mut self) {
        if let Some(until) = self.built.slots.as_ref().and_then(Slots::latest) {
            self.tell_overdue(until, |noun, id| PlugError::Over { noun, id });
        }
    }

    fn slots(&mut self) -> Result<&mut Slots, PlugError> {
        let is_on_pci = self.subject.spec.transport == Transport::Pci;
        let slots = self.built.slots.as_mut().filter(|slots| !slots.is_empty());
        slots.ok_or(if is_on_pci { PlugError::NoSlots } else { PlugError::NoPci })
    }

    fn has_let_go(&mut self, number: u8) -> bool {
        self.slots().is_ok_and(|slots| slots.has_let_go(number))
    }

    /// Which of the specification's devices it is.
    fn find(&self, kind: &Kind, id: &str) -> Option<usize> {
        let is_it = |other: &dyn DeviceConfig| other.kind().key == kind.key && other.id() == id;
        self.subject.spec.devices.iter().position(|other| is_it(other.as_ref()))
    }

    /// Which of them is in slot `number`.
    fn in_slot(&self, number: u8) -> Option<usize> {
        let spec = &*self.subject.spec;
        let place = spec.plugged.iter().position(|other| *other == number)?;
        Some(spec.built_in() + place)
    }

    /// Which of them a device is that can be asked for, and its slot.
    fn find_plugged(&mut self, kind: &'static Kind, id: &str) -> Result<(usize, u8), PlugError> {
        if self.subject.spec.transport == Transport::Mmio {
            return Err(PlugError::NoPci);
        }
        let (noun, id) = (kind.noun, id.to_owned());
        let Some(index) = self.find(kind, &id) else {
            return Err(PlugError::NoSuch { noun, id });
        };
        let spec = &*self.subject.spec;
        let place = index.checked_sub(spec.built_in());
        let Some(&number) = place.and_then(|place| spec.plugged.get(place)) else {
            let leads = spec.devices.get(index).is_some_and(|device| device.leads());
            return Err(PlugError::Stays { noun, id, leads });
        };
        let stands_still = self.guest == Guest::StandsStill;
        let slots = self.slots()?;
        if slots.is_leaving(number) {
            return Err(PlugError::Asked { noun, id });
        }
        if stands_still && !slots.has_let_go(number) {
            return Err(PlugError::Paused { noun, id });
        }
        Ok((index, number))
    }

    fn take_out(&mut self, index: usize, number: u8) {
        let group = self.slots().ok().and_then(|slots| slots.take_out(number));
        self.built.devices.remove(&card_name(number), index);
        let spec = &mut *self.subject.spec;
        spec.plugged.retain(|other| *other != number);
        let device = spec.devices.remove(index);
        if let (Some(metrics), Some(group)) = (&self.subject.surroundings.metrics, group) {
            metrics.remove(group, device.kind().many.then(|| device.id()));
        }
    }
}
