//! The kernel's calls that make tap interfaces, open them, and keep them.

// UNSAFETY: ioctl(2) trusts its argument to match its number.
#![expect(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use anyhow::{Context, bail};

const TUNSETIFF: u32 = 0x4004_54ca;
const TUNSETPERSIST: u32 = 0x4004_54cb;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const IFF_MULTI_QUEUE: u16 = 0x0100;

/// `struct ifreq` as `TUNSETIFF` uses it.
#[repr(C)]
struct Ifreq {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Ifreq>() == 40, "the kernel reads it whole");

/// A tap interface, made if there is none, and open: nobody else can have it.
///
/// # Errors
/// The host has no taps, or somebody has it.
pub(crate) fn open_tap(name: &str) -> anyhow::Result<File> {
    open_queue(name, 0)
}

/// A queue of a tap interface that can have several; the interface is made if there is none.
///
/// # Errors
/// The host has no taps, or this one has a single queue.
pub(crate) fn open_tap_queue(name: &str) -> anyhow::Result<File> {
    open_queue(name, IFF_MULTI_QUEUE)
}

fn open_queue(name: &str, several: u16) -> anyhow::Result<File> {
    let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    let tun = tun.context("cannot open /dev/net/tun")?;
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | several;
    let mut ifreq = Ifreq { name: [0; 16], flags, rest: [0; 22] };
    for (to, byte) in ifreq.name.iter_mut().take(15).zip(name.bytes()) {
        *to = byte;
    }
    // SAFETY: the kernel reads and writes a `struct ifreq`, which `ifreq` is.
    let done = unsafe { libc::ioctl(tun.as_raw_fd(), request(TUNSETIFF), &raw mut ifreq) };
    if done < 0 {
        bail!("cannot open the tap {name}: {}", io::Error::last_os_error());
    }
    Ok(tun)
}

/// Whether a tap stays when nobody has it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// It stays.
    Yes,
    /// It goes.
    No,
}

/// Makes `tap` stay or go.
///
/// # Errors
/// The host refuses.
pub(crate) fn set_lasting(tap: &File, lasting: Lasting) -> anyhow::Result<()> {
    let lasting = libc::c_int::from(lasting == Lasting::Yes);
    // SAFETY: the argument is a number.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), request(TUNSETPERSIST), lasting) };
    if done < 0 {
        bail!("cannot keep a tap: {}", io::Error::last_os_error());
    }
    Ok(())
}

/// An ioctl's number in the type that the C library has for it.
#[cfg(target_env = "musl")]
pub(crate) fn request(number: u32) -> libc::c_int {
    number.cast_signed()
}

#[cfg(not(target_env = "musl"))]
pub(crate) fn request(number: u32) -> libc::c_ulong {
    number.into()
}
