//! virtio over PCI (Virtio 1.2, 4.1): a function of version 1, without what came before it.
//! All registers lie in one range of memory; messages by MSI-X are its only interrupts.
//!
//! The range follows where the guest puts it, and the queues' doorbells with it.

mod config;
mod place;
mod registers;
mod vectors;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kedge_bus::{
    DoorbellPost, MsiPort, NotAtRest, PauseError, RestoreError, ResumeError, Stateful, Unsuitable,
};
use kedge_diag::Trouble;
use kedge_guest_memory::{GuestMemory, GuestRange};
use kedge_ids::usize_from;
use kedge_saved_state::{Bytes, Part, StateError};
use vmm_sys_util::eventfd::EventFd;

use self::config::Config;
use self::place::{at, size};
use self::registers::Common;
#[cfg(test)]
use self::registers::reg;
use self::vectors::{NO_VECTOR, Vectors};
use super::Transport;
use super::core::Core;
use super::saved::PciTransportV1;
use super::signals::Signals;
use crate::pci::{Function, Msix, Windows};
use crate::virtio::change::{Change, ChangeError, Target};
use crate::virtio::device::VirtioDevice;
use crate::virtio::worker::EventLoop;

/// What a function finds where it is put.
pub struct PciSite<'a> {
    /// The guest's RAM, for its queues.
    pub memory: &'a GuestMemory,
    /// Who works on the queues.
    pub event_loop: &'a EventLoop,
    /// The addresses at which functions can be reached.
    pub windows: &'a [GuestRange],
    /// Where its doorbells hang.
    pub post: Arc<dyn DoorbellPost>,
    /// Where its messages go.
    pub messages: MsiPort,
}

impl fmt::Debug for PciSite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciSite").field("windows", &self.windows).finish_non_exhaustive()
    }
}

/// A virtio device as a PCI function.
pub struct PciTransport {
    signals: Arc<Signals<Vectors>>,
    doorbells: Arc<[EventFd]>,
    core: Mutex<Core<Vectors>>,
    config: Config,
}

impl PciTransport {
    /// `device`, reset, at `site`.
    ///
    /// # Errors
    /// The host has no file descriptors for the doorbells.
    pub fn new(device: Box<dyn VirtioDevice>, site: PciSite<'_>) -> io::Result<Self> {
        let device_id = device.device_id();
        let queues = device.queue_sizes().len();
        // One for the configuration.
        let vectors = u16::try_from(queues + 1).unwrap_or(u16::MAX).min(place::MOST_VECTORS);
        let msix = Msix::new(vectors, site.messages);
        let (space, places) = place::space(device_id, &msix);
        let vectors = Vectors::new(msix, queues);
        let signals = Arc::new(Signals::new(device.as_ref(), site.event_loop, vectors));
        let core =
            Core::new(device, site.memory.clone(), site.event_loop.clone(), Arc::clone(&signals))?;
        let doorbells = core.doorbells();
        let bells = config::doorbells(&doorbells)?;
        let windows = Windows::new(site.windows);
        let config = Config::new((space, places), windows, (site.post, bells));
        Ok(Self { signals, doorbells, core: Mutex::new(core), config })
    }

    fn core(&self) -> MutexGuard<'_, Core<Vectors>> {
        // A panic elsewhere leaves the registers as some guest could.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn vectors(&self) -> &Vectors {
        self.signals.notifier()
    }

    /// Does something with the common configuration.
    fn common<T>(&self, act: impl FnOnce(&mut Common<'_>) -> T) -> T {
        act(&mut Common { core: &mut self.core(), signals: &self.signals })
    }

    /// Rings a doorbell: what a notification does that the hypervisor did not turn into a
    /// ring itself.
    fn notify(&self, offset: u64) {
        if let Some(doorbell) = self.doorbells.get(usize_from(offset / place::DOORBELL)) {
            // It only fails when it was rung 2^64 - 2 times and not answered.
            let _ = doorbell.write(1);
        }
    }

    /// Takes up what was saved of the function itself.
    fn restore_function(&self, saved: &PciTransportV1) -> Result<(), StateError> {
        let bad = |field: &str, problem| StateError::field::<PciTransportV1>(field, problem);
        let vectors = self.vectors();
        let (own, saved_vectors) = (usize::from(vectors.msix.count()), saved.vectors.len());
        if saved_vectors != own {
            return Err(bad("vectors", format!("are {saved_vectors}, and the device has {own}")));
        }
        let (own, queues) = (vectors.queue_vectors().len(), saved.queue_vectors.len());
        if queues != own {
            return Err(bad("queue_vectors", format!("are {queues}, and the device has {own}")));
        }
        let all = saved.queue_vectors.iter().chain([&saved.config_vector]);
        let odd = |vector: &&u16| **vector >= vectors.msix.count() && **vector != NO_VECTOR;
        if let Some(odd) = all.clone().find(odd) {
            return Err(bad("queue_vectors", format!("name vector {odd}, which there is not")));
        }
        vectors.msix.restore(&saved.vectors);
        vectors.set_config_vector(saved.config_vector);
        for (index, vector) in saved.queue_vectors.iter().enumerate() {
            vectors.set_queue_vector(index, *vector);
        }
        let restored = self.config.restore(&saved.config.0, &vectors.msix);
        restored.map_err(|at| bad("config", format!("is not this device's at {at:#x}")))
    }
}

impl Function for PciTransport {
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        if let Some((at, length)) = self.config.wants_window(offset.into(), data.len()) {
            let mut bytes = [0; 4];
            // What does not suit is zeros, or what a part of the registers says.
            let _ = self.read(at, &mut bytes[..length]);
            self.config.show_window(bytes);
        }
        self.config.read(offset.into(), data);
    }

    fn write_config(&self, offset: u16, data: &[u8]) {
        self.config.write(offset.into(), data, &self.vectors().msix);
        if let Some((at, length)) = self.config.wants_window(offset.into(), data.len()) {
            // What does not suit does nothing.
            let _ = self.write(at, &self.config.window_data()[..length]);
        }
    }

    fn start(&self) -> Option<u64> {
        self.config.start()
    }

    fn size(&self) -> u64 {
        place::SIZE
    }

    fn reset(&self) {
        self.core().set_status(0);
        self.config.reset(&self.vectors().msix);
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        data.fill(0);
        match offset {
            at::COMMON..at::ISR => self.common(|common| common.read(offset, data)),
            at::ISR => {
                let [isr, ..] = self.vectors().take_isr().to_le_bytes();
                data.iter_mut().take(1).for_each(|byte| *byte = isr);
            }
            at::DEVICE..at::NOTIFY => self.core().read_config(offset - at::DEVICE, data),
            at::TABLE..at::PENDING => self.vectors().msix.read_table(offset - at::TABLE, data),
            at::PENDING.. => self.vectors().msix.read_pending(offset - at::PENDING, data),
            // Doorbells, and gaps.
            _ => {}
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), Unsuitable> {
        match offset {
            at::COMMON..at::ISR => {
                let suits = self.common(|common| common.write(offset, data));
                return suits.then_some(()).ok_or(Unsuitable { offset, length: data.len() });
            }
            at::DEVICE..at::NOTIFY => self.core().write_config(offset - at::DEVICE, data),
            at::NOTIFY..at::TABLE => self.notify(offset - at::NOTIFY),
            at::TABLE..at::PENDING => self.vectors().msix.write_table(offset - at::TABLE, data),
            // What is read only, and gaps.
            _ => {}
        }
        Ok(())
    }
}

const _: () = assert!(at::NOTIFY - at::DEVICE >= size::DEVICE, "the parts do not overlap");

impl Transport for PciTransport {
    fn shutdown(&self) {
        self.core().recall();
    }
}

impl Stateful for PciTransport {
    fn name(&self) -> String {
        self.core().name()
    }

    fn pause(&self, deadline: Instant) -> Result<(), PauseError> {
        self.core().pause(deadline)
    }

    fn resume(&self) -> Result<(), ResumeError> {
        self.core().resume()
    }

    fn save(&self) -> Result<Part, NotAtRest> {
        // Until all of it is read.
        let core = self.core();
        let saved = core.save()?;
        let vectors = self.vectors();
        Ok(Part::of(&PciTransportV1 {
            config: Bytes(self.config.bytes()),
            config_vector: vectors.config_vector(),
            queue_vectors: vectors.queue_vectors(),
            vectors: vectors.msix.save(),
            transport: Part::of(&saved),
        }))
    }

    fn restore(&self, saved: &Part) -> Result<(), RestoreError> {
        let mut core = self.core();
        let device = core.name();
        let restored = saved.read::<PciTransportV1>().map_err(Trouble::new).and_then(|saved| {
            core.restore(&saved.transport)?;
            self.restore_function(&saved).map_err(Trouble::new)
        });
        restored.map_err(|source| RestoreError { device, source })
    }
}

impl Target for PciTransport {
    fn change(&self, change: &Change, deadline: Instant) -> Result<(), ChangeError> {
        let mut core = self.core();
        let changed = core.change(change, deadline)?;
        core.tell(changed);
        Ok(())
    }
}

impl fmt::Debug for PciTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciTransport").field("core", &self.core).finish_non_exhaustive()
    }
}
