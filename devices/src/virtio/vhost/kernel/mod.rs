//! The host's kernel as back end of network cards: vhost-net (Linux
//! include/uapi/linux/vhost.h and drivers/vhost/net.c), over the crate `vhost`.
//!
//! The kernel serves one pair of queues, one to receive and one to send, for each time that
//! its device is opened, and passes frames between them and a queue of a tap. What it takes
//! from a queue it has given back when it is told to leave the queue alone.

mod error;
mod request;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use kedge_guest_memory::{GuestMemory, GuestMemoryBackend, GuestMemoryRegion, RamRegion};
use kedge_ids::u64_from;
use vhost::vhost_kern::VhostKernBackend;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

pub use self::error::KernelError;
use super::BackEndError;
use super::answers::LOG_ALL;
use super::back_end::{BackEnd, Place, Session, place};

/// The device that serves cards.
const VHOST_NET: &str = "/dev/vhost-net";

/// `VHOST_NET_F_VIRTIO_NET_HDR`: the kernel would make headers, which taps have.
const MAKES_HEADERS: u64 = 1 << 27;

/// The kernel, at a card's pairs of queues: those of pair `n` have the indices `2 * n` and
/// `2 * n + 1`.
pub(in crate::virtio) struct KernelNet {
    pairs: Vec<Pair>,
    features: u64,
}

/// What serves a pair of queues.
struct Pair {
    device: File,
    /// Where its frames go.
    tap: OwnedFd,
}

impl KernelNet {
    /// The kernel, between a card and the queues of a tap: one for each pair.
    ///
    /// # Errors
    /// The host has no such thing, or keeps it from this process.
    pub(in crate::virtio) fn open(taps: Vec<OwnedFd>) -> Result<Self, BackEndError> {
        Self::open_from(Path::new(VHOST_NET), taps)
    }

    fn open_from(path: &Path, taps: Vec<OwnedFd>) -> Result<Self, BackEndError> {
        let pairs = taps.into_iter().map(|tap| Pair::open(path, tap));
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        let none = GuestMemory::new();
        let mut features = !MAKES_HEADERS;
        for pair in &pairs {
            features &= pair.vhost(&none).get_features().map_err(refused("say what it can do"))?;
        }
        Ok(Self { pairs, features })
    }

    fn start(&self, session: &Session<'_>) -> Result<(), KernelError> {
        for (number, pair) in (0..).zip(&self.pairs) {
            let places = session.places.iter().filter(|place| place.index / 2 == number);
            // Each time that the device is opened, the kernel counts from zero.
            let places = places.map(|place| Place { index: place.index % 2, ..*place });
            pair.start(session, self.features, &places.collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// The pair that a queue belongs to, and which of the two it is.
    fn find(&self, queue: u16) -> Result<(&Pair, u16), KernelError> {
        let pair = self.pairs.get(usize::from(queue / 2));
        pair.map(|pair| (pair, queue % 2)).ok_or(KernelError::Refused {
            what: "serve a queue that is none of frames",
            source: io::ErrorKind::NotFound.into(),
        })
    }

    fn leave(&self, queue: u16) -> Result<(), KernelError> {
        let (pair, index) = self.find(queue)?;
        let left = request::set_backend(&pair.device, index, None);
        left.map_err(|source| KernelError::Refused { what: "leave a queue", source })
    }

    fn base(&self, queue: u16) -> Result<u32, KernelError> {
        let (pair, index) = self.find(queue)?;
        let base = pair.vhost(&GuestMemory::new()).get_vring_base(index.into());
        base.map_err(refused("say how far it has come"))
    }
}

impl Pair {
    fn open(path: &Path, tap: OwnedFd) -> Result<Self, KernelError> {
        let device = File::options().read(true).write(true).open(path);
        let device = device.map_err(|source| KernelError::opening(path, source))?;
        let pair = Self { device, tap };
        // It works on this process' memory from now on.
        let owned = pair.vhost(&GuestMemory::new()).set_owner();
        owned.map_err(refused("serve this process")).map(|()| pair)
    }

    fn vhost<'a>(&'a self, memory: &'a GuestMemory) -> Vhost<'a> {
        Vhost { device: &self.device, memory }
    }

    /// Begins with `places`, those of this pair that there are.
    fn start(
        &self,
        session: &Session<'_>,
        own: u64,
        places: &[Place<'_>],
    ) -> Result<(), KernelError> {
        if places.is_empty() {
            return Ok(());
        }
        let vhost = self.vhost(session.memory);
        let log = if session.log.is_some() { LOG_ALL } else { 0 };
        let features = session.features & own & !LOG_ALL | log;
        vhost.set_features(features).map_err(refused("work as the driver wants it"))?;
        let regions: Vec<_> = session.memory.iter().map(region).collect();
        vhost.set_mem_table(&regions).map_err(refused("work on the guest's memory"))?;
        if let Some(log) = session.log {
            vhost.set_log_base(log.address(), None).map_err(refused("log what it writes"))?;
        }
        for of in places {
            place(&vhost, of, session.log).map_err(refused("take a queue"))?;
            let begun = request::set_backend(&self.device, of.index, Some(self.tap.as_fd()));
            let refused = |source| KernelError::Refused { what: "serve a queue", source };
            begun.map_err(refused)?;
            // A driver that rang before was not heard.
            of.kick.write(1).map_err(refused)?;
        }
        Ok(())
    }
}

/// How the kernel is told of memory: by this process' addresses.
fn region(region: &RamRegion) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: region.start_addr().0,
        memory_size: region.len(),
        userspace_addr: u64_from(region.as_ptr().expose_provenance()),
        mmap_offset: 0,
        mmap_handle: -1,
    }
}

impl BackEnd for KernelNet {
    fn features(&self) -> u64 {
        self.features
    }

    fn begin(&mut self, session: &Session<'_>) -> Result<(), BackEndError> {
        let begun = self.start(session);
        if begun.is_err() {
            for place in &session.places {
                // It may not have been served yet.
                let _ = self.leave(place.index);
            }
        }
        Ok(begun?)
    }

    fn go_on(&mut self, session: &Session<'_>) -> Result<(), BackEndError> {
        self.begin(session)
    }

    fn stop(&mut self, queues: &[u16]) -> Result<Vec<u32>, BackEndError> {
        // All of them, whatever becomes of one.
        queues.iter().map(|&queue| self.leave(queue)).fold(Ok(()), Result::and)?;
        let bases = queues.iter().map(|&queue| self.base(queue));
        Ok(bases.collect::<Result<_, _>>()?)
    }

    fn lingers(&self) -> bool {
        false
    }

    fn connection(&self) -> Result<Option<UnixStream>, BackEndError> {
        Ok(None)
    }
}

/// The kernel's device as the crate wants to have it.
struct Vhost<'a> {
    device: &'a File,
    memory: &'a GuestMemory,
}

impl AsRawFd for Vhost<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

impl<'a> VhostKernBackend for Vhost<'a> {
    type AS = &'a GuestMemory;

    fn mem(&self) -> &Self::AS {
        &self.memory
    }

    /// Whoever lends a ring has found it to be in RAM. The crate would want the byte behind it
    /// to be RAM, too.
    fn is_valid(&self, _ring: &VringConfigData) -> bool {
        true
    }
}

/// What went wrong where the kernel does not do `what`.
fn refused(what: &'static str) -> impl FnOnce(vhost::Error) -> KernelError {
    move |error| {
        let source = match error {
            vhost::Error::IoctlError(source) => source,
            other => io::Error::other(other),
        };
        KernelError::Refused { what, source }
    }
}

#[cfg(test)]
mod tests;
