//! Tap interfaces (Linux `Documentation/networking/tuntap.rst`): network cards of
//! the host whose cable ends in a file descriptor, or in several: its queues. Each
//! read and each write is one frame behind a header of 12 bytes, virtio-net's own.
//!
//! Interfaces are opened, never made: one that was made would be left behind.

mod error;
mod ioctl;

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

pub use self::error::OpenTapError;
use self::error::Queues;
use self::ioctl::{IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR, Ifreq, NAME_SIZE};

/// The device that hands out taps.
const TUN: &str = "/dev/net/tun";

/// The bytes before each frame: `struct virtio_net_hdr_v1` (Virtio 1.2, 5.1.6).
pub const HEADER_SIZE: usize = 12;

/// How frames come and go.
const FORM: u16 = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;

/// What a tap may leave to the reader of its frames: the bits of
/// `TUNSETOFFLOAD`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(u32);

impl Offloads {
    /// Frames come whole and with their checksums.
    pub const NONE: Self = Self(0);
    /// Checksums may be missing.
    pub const CSUM: Self = Self(1 << 0);
    /// TCP over IPv4 may come in segments of up to 64 KiB. Needs [`Self::CSUM`].
    pub const TSO4: Self = Self(1 << 1);
    /// TCP over IPv6 may come in segments of up to 64 KiB. Needs [`Self::CSUM`].
    pub const TSO6: Self = Self(1 << 2);
    /// Datagrams of UDP that belong together may come in one of up to 64 KiB, over
    /// IPv4 and IPv6: the kernel has one only with the other, since 6.2. Needs
    /// [`Self::CSUM`].
    pub const USO: Self = Self(1 << 5 | 1 << 6);

    /// These and `others`.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// A queue of an open tap. Reads and writes never block.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    /// Whether the kernel uses this queue; none where it has no choice.
    attached: Option<AtomicBool>,
    /// Whether the kernel knows [`Offloads::USO`].
    knows_uso: bool,
}

impl Tap {
    /// Opens the tap called `name`, which has a single queue, with no offloads.
    ///
    /// # Errors
    /// There is none, or it may not be used: see [`OpenTapError`].
    pub fn open(name: &str) -> Result<Self, OpenTapError> {
        Self::open_from(Path::new(TUN), name, Queues::Single)
    }

    /// Opens `count` queues of the tap called `name`, all of them attached, with no
    /// offloads. One is that of a tap with a single queue.
    ///
    /// # Errors
    /// There is none, or it may not be used: see [`OpenTapError`].
    pub fn open_queues(name: &str, count: u16) -> Result<Vec<Self>, OpenTapError> {
        if count == 1 {
            return Ok(vec![Self::open(name)?]);
        }
        let queues = (0..count).map(|_| Self::open_from(Path::new(TUN), name, Queues::Several));
        let queues = queues.collect::<Result<_, _>>()?;
        // The kernel lets everybody have a queue, and some of the frames.
        if has_more_queues(name, count) {
            return Err(OpenTapError::Busy { name: name.to_owned() });
        }
        Ok(queues)
    }

    /// The queues behind the descriptors `fds` of this process, all of them
    /// attached, with no offloads. The descriptors stay open.
    ///
    /// # Errors
    /// One is not that of a tap, or its frames come in another form.
    pub fn from_descriptors(fds: &[RawFd]) -> Result<Vec<Self>, OpenTapError> {
        let queues = if fds.len() > 1 { Queues::Several } else { Queues::Single };
        fds.iter().map(|&fd| Self::from_descriptor(fd, queues)).collect()
    }

    fn open_from(tun: &Path, name: &str, queues: Queues) -> Result<Self, OpenTapError> {
        let padded = padded(name).ok_or_else(|| OpenTapError::Name { name: name.to_owned() })?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(tun, flags, Mode::empty()).map_err(OpenTapError::tun)?;
        let refused = |error| OpenTapError::interface(name, queues, error);
        // `TUNSETIFF` would make what does not exist.
        interface_index(name).map_err(refused)?;
        let several = if queues == Queues::Several { IFF_MULTI_QUEUE } else { 0 };
        ioctl::set_interface(fd.as_fd(), padded, FORM | several).map_err(refused)?;
        Self::set_up(fd, queues).map_err(refused)
    }

    fn from_descriptor(fd: RawFd, queues: Queues) -> Result<Self, OpenTapError> {
        let not_a_tap = |error: Errno| OpenTapError::NotATap { fd, source: error.into() };
        let own = ioctl::duplicate(fd).map_err(not_a_tap)?;
        let Ifreq { flags, .. } = ioctl::interface(own.as_fd()).map_err(not_a_tap)?;
        let what = match flags {
            flags if flags & IFF_TAP == 0 => Some("tun, not a tap"),
            flags if flags & IFF_NO_PI == 0 => Some("tap that puts packet information first"),
            flags if flags & IFF_VNET_HDR == 0 => Some("tap without virtio-net headers"),
            flags if queues == Queues::Several && flags & IFF_MULTI_QUEUE == 0 => {
                Some("tap with a single queue, and there are several descriptors")
            }
            _ => None,
        };
        if let Some(what) = what {
            return Err(OpenTapError::Form { fd, what });
        }
        ioctl::set_nonblocking(&own).map_err(not_a_tap)?;
        Self::set_up(own, queues).map_err(not_a_tap)
    }

    /// A queue of a tap that has the right form.
    fn set_up(fd: OwnedFd, queues: Queues) -> Result<Self, Errno> {
        ioctl::set_header_size(fd.as_fd())?;
        let uso = Offloads::CSUM.and(Offloads::USO);
        let knows_uso = ioctl::set_offloads(fd.as_fd(), uso).is_ok();
        ioctl::set_offloads(fd.as_fd(), Offloads::NONE)?;
        let attached = (queues == Queues::Several).then(|| AtomicBool::new(true));
        Ok(Self { fd, attached, knows_uso })
    }

    /// Whether the tap takes datagrams of UDP that are yet to be cut into those
    /// that go on the wire, and may leave them so: Linux 6.2 and later.
    pub fn knows_uso(&self) -> bool {
        self.knows_uso
    }

    /// Lets frames come as `offloads` say, from the next one on, from all queues of
    /// the tap.
    ///
    /// # Errors
    /// The host's: it knows fewer offloads, or the descriptor is no tap.
    pub fn set_offloads(&self, offloads: Offloads) -> Result<(), Errno> {
        ioctl::set_offloads(self.fd.as_fd(), offloads)
    }

    /// Has the kernel use this queue, too. One that is the only one always is.
    ///
    /// # Errors
    /// The host's.
    pub fn attach(&self) -> Result<(), Errno> {
        self.switch(true, ioctl::attach_queue)
    }

    /// Has the kernel use the others. Frames that wait in this queue are lost. One
    /// that is the only one stays in use.
    ///
    /// # Errors
    /// The host's.
    pub fn detach(&self) -> Result<(), Errno> {
        self.switch(false, ioctl::detach_queue)
    }

    fn switch(
        &self,
        wanted: bool,
        act: fn(BorrowedFd<'_>) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let Some(attached) = &self.attached else { return Ok(()) };
        if attached.load(Ordering::Relaxed) != wanted {
            act(self.fd.as_fd())?;
            attached.store(wanted, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A descriptor that carries frames as a tap with a single queue does.
impl From<OwnedFd> for Tap {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, attached: None, knows_uso: false }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// `name` with zeros behind it, if an interface can be called so (the kernel's
/// `dev_valid_name`).
fn padded(name: &str) -> Option<[u8; NAME_SIZE]> {
    let forbidden = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | '\0' | '%');
    if matches!(name, "" | "." | "..") || name.contains(forbidden) || name.len() >= NAME_SIZE {
        return None;
    }
    let mut padded = [0; NAME_SIZE];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    Some(padded)
}

fn interface_index(name: &str) -> Result<u32, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::netdevice::name_to_index(socket, name)
}

/// Whether more than `count` queues of an interface are in use, as far as the host says.
fn has_more_queues(name: &str, count: u16) -> bool {
    let folder = Path::new("/sys/class/net").join(name).join("queues");
    let Ok(queues) = std::fs::read_dir(folder) else { return false };
    let receives = |name: &OsStr| name.as_encoded_bytes().starts_with(b"rx-");
    let queues = queues.flatten().filter(|queue| receives(&queue.file_name()));
    queues.count() > usize::from(count)
}

#[cfg(test)]
mod tests;
