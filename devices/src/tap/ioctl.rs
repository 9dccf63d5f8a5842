//! The requests of `linux/if_tun.h`, on descriptors that need not be taps: the
//! kernel then refuses them.

// UNSAFETY: a tap's requests have no safe form in a library we use.
#![expect(unsafe_code)]

use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use kedge_ids::usize_from;
use rustix::io::Errno;
use rustix::ioctl::{self, IntegerSetter, Opcode, Setter, Updater, opcode};

use super::{HEADER_SIZE, Offloads};

/// The bytes of an interface's name, with a zero at the end (`IFNAMSIZ`).
pub(super) const NAME_SIZE: usize = 16;

const TUNSETIFF: Opcode = opcode::write::<libc::c_int>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<libc::c_uint>(b'T', 208);
const TUNGETIFF: Opcode = opcode::read::<libc::c_uint>(b'T', 210);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<libc::c_int>(b'T', 216);
const TUNSETQUEUE: Opcode = opcode::write::<libc::c_int>(b'T', 217);

/// Flags of an interface: Ethernet frames, behind a virtio-net header only.
pub(super) const IFF_TAP: u16 = 0x0002;
pub(super) const IFF_NO_PI: u16 = 0x1000;
pub(super) const IFF_VNET_HDR: u16 = 0x4000;
/// It may have several queues, each with a descriptor of its own.
pub(super) const IFF_MULTI_QUEUE: u16 = 0x0100;
/// What `TUNSETQUEUE` does to a queue.
const IFF_ATTACH_QUEUE: u16 = 0x0200;
const IFF_DETACH_QUEUE: u16 = 0x0400;

/// `struct ifreq` as taps use it.
#[repr(C)]
pub(super) struct Ifreq {
    pub(super) name: [u8; NAME_SIZE],
    pub(super) flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<Ifreq>() == size_of::<libc::ifreq>(), "the kernel writes it whole");

impl Ifreq {
    fn new(name: [u8; NAME_SIZE], flags: u16) -> Self {
        Self { name, flags, rest: [0; 22] }
    }
}

/// Makes the descriptor one of the tap `name`.
pub(super) fn set_interface(
    fd: BorrowedFd<'_>,
    name: [u8; NAME_SIZE],
    flags: u16,
) -> Result<(), Errno> {
    update::<TUNSETIFF>(fd, &mut Ifreq::new(name, flags))
}

/// The tap that the descriptor is one of, and its flags.
pub(super) fn interface(fd: BorrowedFd<'_>) -> Result<Ifreq, Errno> {
    let mut ifreq = Ifreq::new([0; NAME_SIZE], 0);
    update::<TUNGETIFF>(fd, &mut ifreq)?;
    Ok(ifreq)
}

/// Lets frames go to and come from this queue.
pub(super) fn attach_queue(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    update::<TUNSETQUEUE>(fd, &mut Ifreq::new([0; NAME_SIZE], IFF_ATTACH_QUEUE))
}

/// Keeps frames from this queue; those that wait in it are lost.
pub(super) fn detach_queue(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    update::<TUNSETQUEUE>(fd, &mut Ifreq::new([0; NAME_SIZE], IFF_DETACH_QUEUE))
}

fn update<const REQUEST: Opcode>(fd: BorrowedFd<'_>, ifreq: &mut Ifreq) -> Result<(), Errno> {
    // SAFETY: each request here reads and writes a `struct ifreq` at most, whose
    // size `Ifreq` has (asserted above) and any bytes of which it can hold.
    let request = unsafe { Updater::<REQUEST, Ifreq>::new(ifreq) };
    // SAFETY: the request touches nothing outside the kernel but `ifreq`.
    unsafe { ioctl::ioctl(fd, request) }
}

/// Sets what may be left to the reader.
pub(super) fn set_offloads(fd: BorrowedFd<'_>, offloads: Offloads) -> Result<(), Errno> {
    let bits = usize_from(u64::from(offloads.0));
    // SAFETY: the request takes an integer of which it accepts every value.
    let request = unsafe { IntegerSetter::<TUNSETOFFLOAD>::new_usize(bits) };
    // SAFETY: the request changes nothing outside the kernel.
    unsafe { ioctl::ioctl(fd, request) }
}

/// Makes the header before each frame [`HEADER_SIZE`] bytes long.
pub(super) fn set_header_size(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    const SIZE: libc::c_int = 12;
    const { assert!(HEADER_SIZE == 12) };
    // SAFETY: the request reads an `int`.
    let request = unsafe { Setter::<TUNSETVNETHDRSZ, libc::c_int>::new(SIZE) };
    // SAFETY: the request touches nothing outside the kernel but that `int`.
    unsafe { ioctl::ioctl(fd, request) }
}

/// A descriptor of our own for what `fd`, a number that a user gave, stands for.
/// Neither goes on to programs that this one starts: a clone would have the tap, too.
pub(super) fn duplicate(fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: the request changes nothing that memory safety rests on, and takes every
    // number.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(last_error());
    }
    // SAFETY: the request makes a new descriptor, and takes every number for the
    // old one.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if new < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::BADF)
}

/// Makes reads and writes fail where they would wait.
pub(super) fn set_nonblocking(fd: impl AsFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)
}
