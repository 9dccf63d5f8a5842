//! Tap interfaces (Linux `Documentation/networking/tuntap.rst`): network cards of
//! the host whose cable ends in a file descriptor. Each read and each write is
//! one frame behind a header of 12 bytes, virtio-net's own.
//!
//! Interfaces are opened, never made: one that was made would be left behind.

// UNSAFETY: the tap's four ioctls have no safe form in a library we use.
#![expect(unsafe_code)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use kedge_diag::Fix;
use kedge_ids::usize_from;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{self, IntegerSetter, Opcode, Setter, Updater, opcode};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// The device that hands out taps.
const TUN: &str = "/dev/net/tun";

/// The bytes of an interface's name, with a zero at the end (`IFNAMSIZ`).
const NAME_SIZE: usize = 16;

/// The bytes before each frame: `struct virtio_net_hdr_v1` (Virtio 1.2, 5.1.6).
pub const HEADER_SIZE: usize = 12;

/// Requests (`linux/if_tun.h`).
const TUNSETIFF: Opcode = opcode::write::<libc::c_int>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<libc::c_uint>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<libc::c_int>(b'T', 216);

/// Flags of `TUNSETIFF`: Ethernet frames, behind a virtio-net header only.
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// `struct ifreq` as `TUNSETIFF` uses it.
#[repr(C)]
struct Ifreq {
    name: [u8; NAME_SIZE],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Ifreq>() == size_of::<libc::ifreq>(), "the kernel writes it whole");

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

    /// These and `others`.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

/// Why a tap could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenTapError {
    /// No interface can be called so.
    #[error("`{name}` cannot be the name of a network interface")]
    Name {
        /// The name asked for.
        name: String,
    },
    /// The host cannot have taps.
    #[error("this host has no /dev/net/tun")]
    NoTun(#[source] io::Error),
    /// The device that hands out taps is for others.
    #[error("no permission to open /dev/net/tun")]
    TunDenied(#[source] io::Error),
    /// There is no such interface.
    #[error("the tap interface `{name}` does not exist")]
    Missing {
        /// The name asked for.
        name: String,
    },
    /// Somebody else has it open.
    #[error("the tap interface `{name}` is in use by another process")]
    Busy {
        /// The interface.
        name: String,
    },
    /// It is another user's.
    #[error("no permission to use the tap interface `{name}`")]
    Denied {
        /// The interface.
        name: String,
    },
    /// It is a card, a bridge, a tun, or a tap with several queues.
    #[error("the network interface `{name}` is not a tap with a single queue")]
    NotATap {
        /// The interface.
        name: String,
    },
    /// Something else.
    #[error("the host does not open the tap interface `{name}`")]
    Refused {
        /// The interface.
        name: String,
        /// What the host said.
        source: io::Error,
    },
}

impl OpenTapError {
    fn tun(error: Errno) -> Self {
        match error {
            // Not there, or there without its driver.
            Errno::NOENT | Errno::NODEV | Errno::NXIO => Self::NoTun(error.into()),
            Errno::ACCESS | Errno::PERM => Self::TunDenied(error.into()),
            _ => Self::Refused { name: TUN.to_owned(), source: error.into() },
        }
    }

    fn interface(name: &str, error: Errno) -> Self {
        let name = name.to_owned();
        match error {
            Errno::NODEV => Self::Missing { name },
            Errno::BUSY => Self::Busy { name },
            Errno::PERM | Errno::ACCESS => Self::Denied { name },
            Errno::INVAL => Self::NotATap { name },
            _ => Self::Refused { name, source: error.into() },
        }
    }
}

impl Fix for OpenTapError {
    fn fix(&self) -> Option<String> {
        let create = |name: &str| format!("ip tuntap add dev {name} mode tap");
        match self {
            Self::Name { .. } => Some(
                "give the name of a tap interface: 1 to 15 characters, no spaces, slashes or colons"
                    .to_owned(),
            ),
            Self::NoTun(_) => Some("load the host's driver: `modprobe tun`".to_owned()),
            Self::TunDenied(_) => {
                Some("let this user open it: `chmod 666 /dev/net/tun`".to_owned())
            }
            Self::Missing { name } => Some(format!("create it: `{}`", create(name))),
            Self::Busy { .. } => {
                Some("give each machine a tap of its own, or stop the other process".to_owned())
            }
            Self::Denied { name } => Some(format!(
                "create it for this user: `{} user USER`, or run with CAP_NET_ADMIN",
                create(name)
            )),
            Self::NotATap { .. } => {
                Some(format!("create one, without `multi_queue`: `{}`", create("NAME")))
            }
            Self::Refused { .. } => None,
        }
    }
}

/// An open tap. Reads and writes never block.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
}

impl Tap {
    /// Opens the tap called `name`, with no offloads.
    ///
    /// # Errors
    /// There is none, or it may not be used: see [`OpenTapError`].
    pub fn open(name: &str) -> Result<Self, OpenTapError> {
        Self::open_from(Path::new(TUN), name)
    }

    fn open_from(tun: &Path, name: &str) -> Result<Self, OpenTapError> {
        let padded = padded(name).ok_or_else(|| OpenTapError::Name { name: name.to_owned() })?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(tun, flags, Mode::empty()).map_err(OpenTapError::tun)?;
        let refused = |error| OpenTapError::interface(name, error);
        // `TUNSETIFF` would make what does not exist.
        interface_index(name).map_err(refused)?;
        let tap = Self { fd };
        tap.attach(padded).map_err(refused)?;
        tap.set_header_size().map_err(refused)?;
        tap.set_offloads(Offloads::NONE).map_err(refused)?;
        Ok(tap)
    }

    /// Lets frames come as `offloads` say, from the next one on.
    ///
    /// # Errors
    /// The host's: it knows fewer offloads, or the descriptor is no tap.
    pub fn set_offloads(&self, offloads: Offloads) -> Result<(), Errno> {
        // SAFETY: the request takes an integer of which it accepts every value.
        let request =
            unsafe { IntegerSetter::<TUNSETOFFLOAD>::new_usize(usize_from(u64::from(offloads.0))) };
        // SAFETY: the request changes nothing outside the kernel.
        unsafe { ioctl::ioctl(&self.fd, request) }
    }

    fn attach(&self, name: [u8; NAME_SIZE]) -> Result<(), Errno> {
        let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        let mut ifreq = Ifreq { name, flags, rest: [0; 22] };
        // SAFETY: the request reads and writes a `struct ifreq`, whose size
        // `Ifreq` has (asserted above) and any bytes of which it can hold.
        let request = unsafe { Updater::<TUNSETIFF, Ifreq>::new(&mut ifreq) };
        // SAFETY: the request touches nothing but `ifreq`.
        unsafe { ioctl::ioctl(&self.fd, request) }
    }

    fn set_header_size(&self) -> Result<(), Errno> {
        const SIZE: libc::c_int = 12;
        const { assert!(HEADER_SIZE == 12) };
        // SAFETY: the request reads an `int`.
        let request = unsafe { Setter::<TUNSETVNETHDRSZ, libc::c_int>::new(SIZE) };
        // SAFETY: the request touches nothing outside the kernel but that `int`.
        unsafe { ioctl::ioctl(&self.fd, request) }
    }
}

/// A descriptor that carries frames as a tap does.
impl From<OwnedFd> for Tap {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
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

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kedge_diag::report;

    use super::*;

    fn check(error: &OpenTapError, text: &Expect) {
        text.assert_eq(&report(error));
    }

    #[test]
    fn a_tap_that_does_not_exist_is_not_made() {
        // Any device that can be opened stands in for /dev/net/tun here.
        let error = Tap::open_from(Path::new("/dev/null"), "kedge-none").unwrap_err();
        check(
            &error,
            &expect![[r#"
                error: the tap interface `kedge-none` does not exist
                  fix: create it: `ip tuntap add dev kedge-none mode tap`"#]],
        );
    }

    #[test]
    fn a_host_without_taps_says_so_first() {
        let error = Tap::open_from(Path::new("/dev/no-such-tun"), "lo").unwrap_err();
        check(
            &error,
            &expect![[r#"
                error: this host has no /dev/net/tun
                  because: No such file or directory (os error 2)
                  fix: load the host's driver: `modprobe tun`"#]],
        );
    }

    #[test]
    fn a_tap_in_use_says_so() {
        check(
            &OpenTapError::interface("tap0", Errno::BUSY),
            &expect![[r#"
                error: the tap interface `tap0` is in use by another process
                  fix: give each machine a tap of its own, or stop the other process"#]],
        );
    }

    #[test]
    fn a_tap_of_somebody_else_says_how_to_get_one() {
        check(
            &OpenTapError::interface("tap0", Errno::PERM),
            &expect![[r#"
                error: no permission to use the tap interface `tap0`
                  fix: create it for this user: `ip tuntap add dev tap0 mode tap user USER`, or run with CAP_NET_ADMIN"#]],
        );
    }

    #[test]
    fn an_interface_that_is_no_tap_says_so() {
        check(
            &OpenTapError::interface("eth0", Errno::INVAL),
            &expect![[r#"
                error: the network interface `eth0` is not a tap with a single queue
                  fix: create one, without `multi_queue`: `ip tuntap add dev NAME mode tap`"#]],
        );
    }

    #[test]
    fn a_device_that_may_not_be_opened_says_so() {
        check(
            &OpenTapError::tun(Errno::ACCESS),
            &expect![[r#"
                error: no permission to open /dev/net/tun
                  because: Permission denied (os error 13)
                  fix: let this user open it: `chmod 666 /dev/net/tun`"#]],
        );
    }

    #[test]
    fn a_name_no_interface_can_have_is_refused() {
        for name in ["", "..", "a b", "a/b", "tap%d", "sixteen-letters!", "a\0b"] {
            assert!(matches!(Tap::open(name), Err(OpenTapError::Name { .. })), "{name:?}");
        }
        assert!(padded("fifteen-letters").is_some());
    }
}
