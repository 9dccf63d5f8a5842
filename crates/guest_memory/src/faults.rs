//! Page faults of this process that somebody fills: userfaultfd(2), as far as guest RAM
//! has a use for it.

// UNSAFETY: userfaultfd is driven by ioctls, which take addresses.
#![expect(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use kedge_ids::{u64_from, usize_from};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};

/// `struct uffdio_api` (include/uapi/linux/userfaultfd.h).
#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
struct UffdioRange {
    start: u64,
    len: u64,
}

/// `struct uffdio_register`, with its range.
#[repr(C)]
struct UffdioRegister {
    range: UffdioRange,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
struct UffdioCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

const UFFD_API: u64 = 0xaa;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const GROUP: u8 = 0xaa;
const UFFDIO_API: Opcode = opcode::read_write::<UffdioApi>(GROUP, 0x3f);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<UffdioRegister>(GROUP, 0x00);
const UFFDIO_UNREGISTER: Opcode = opcode::read::<UffdioRange>(GROUP, 0x01);
const UFFDIO_COPY: Opcode = opcode::read_write::<UffdioCopy>(GROUP, 0x03);
/// Of `/dev/userfaultfd`; its argument is the flags.
const USERFAULTFD_IOC_NEW: u16 = 0xaa00;

// The numbers of the kernel's own headers, on x86-64 and arm64 alike.
const _: () = assert!(UFFDIO_API == 0xc018_aa3f && UFFDIO_REGISTER == 0xc020_aa00);
const _: () = assert!(UFFDIO_UNREGISTER == 0x8010_aa01 && UFFDIO_COPY == 0xc028_aa03);

/// Whoever fills pages hears of those that were given back to the host.
pub(crate) const EVENT_REMOVE: u64 = 1 << 3;
/// Linux 5.11.
const USER_MODE_ONLY: UserfaultfdFlags = UserfaultfdFlags::from_bits_retain(1);
const FLAGS: UserfaultfdFlags = UserfaultfdFlags::CLOEXEC.union(UserfaultfdFlags::NONBLOCK);

/// A piece of this process's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) start: *const u8,
    pub(crate) length: usize,
}

/// A descriptor for faults.
#[derive(Debug)]
pub(crate) struct Faults(OwnedFd);

impl Faults {
    /// For faults of this process, the kernel's among them: it touches guest RAM on the
    /// guest's behalf.
    ///
    /// # Errors
    /// This process may not.
    pub(crate) fn of_all(features: u64) -> io::Result<Self> {
        let fd = match File::options().read(true).write(true).open("/dev/userfaultfd") {
            Ok(device) => {
                let request = libc::Ioctl::from(USERFAULTFD_IOC_NEW);
                // SAFETY: this ioctl takes flags by value and touches no memory.
                let fd = unsafe { libc::ioctl(device.as_raw_fd(), request, FLAGS.bits()) };
                if fd < 0 {
                    return Err(io::Error::last_os_error());
                }
                // SAFETY: the call made this descriptor, and nobody else has it.
                unsafe { OwnedFd::from_raw_fd(fd) }
            }
            Err(_) => open(FLAGS)?,
        };
        Self::begin(fd, features)
    }

    /// For faults that nobody will have: to fill memory with. Any process may, but for one
    /// in a sandbox.
    ///
    /// # Errors
    /// This process may not.
    pub(crate) fn of_none() -> io::Result<Self> {
        let fd = match open(FLAGS | USER_MODE_ONLY) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => open(FLAGS),
            opened => opened,
        };
        Self::begin(fd?, 0)
    }

    fn begin(fd: OwnedFd, features: u64) -> io::Result<Self> {
        let faults = Self(fd);
        let mut api = UffdioApi { api: UFFD_API, features, ioctls: 0 };
        faults.call::<UFFDIO_API, _>(&mut api)?;
        Ok(faults)
    }

    /// From now on, pages of `memory` that nobody touched yet are to be filled.
    ///
    /// # Errors
    /// The kernel cannot for this memory.
    pub(crate) fn register(&self, memory: Piece) -> io::Result<()> {
        let (range, mode) = (range(memory), UFFDIO_REGISTER_MODE_MISSING);
        self.call::<UFFDIO_REGISTER, _>(&mut UffdioRegister { range, mode, ioctls: 0 })
    }

    /// Ends that: who waits for a page of `memory` gets one of zeroes.
    ///
    /// # Errors
    /// It was not registered.
    pub(crate) fn unregister(&self, memory: Piece) -> io::Result<()> {
        self.call::<UFFDIO_UNREGISTER, _>(&mut range(memory))
    }

    /// Fills the first pages of `memory`, which is registered, with `bytes`, whole pages.
    ///
    /// # Errors
    /// A page was touched already, or the host has no room.
    pub(crate) fn fill(&self, memory: Piece, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (dst, rest) = (memory.start.wrapping_add(done), &bytes[done..]);
            let (dst, src) = (address(dst), address(rest.as_ptr()));
            let mut copy = UffdioCopy { dst, src, len: u64_from(rest.len()), mode: 0, copy: 0 };
            let filled = self.call::<UFFDIO_COPY, _>(&mut copy);
            match (filled, u64::try_from(copy.copy)) {
                (Ok(()), _) => return Ok(()),
                // Part of it is done.
                (Err(_), Ok(part @ 1..)) => done += usize_from(part),
                (Err(error), _) if error.raw_os_error() == Some(Errno::AGAIN.raw_os_error()) => {}
                (Err(error), _) => return Err(error),
            }
        }
        Ok(())
    }

    fn call<const OPCODE: Opcode, T>(&self, value: &mut T) -> io::Result<()> {
        // SAFETY: each opcode here was made of the structure that its caller passes.
        let update = unsafe { Updater::<OPCODE, T>::new(value) };
        // SAFETY: the kernel reads and writes that structure alone. Registering memory lets
        // others fill pages of it that nobody touched yet, and filling does: what is mapped
        // there has no reference into it.
        Ok(unsafe { ioctl(&self.0, update) }?)
    }
}

impl AsFd for Faults {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn open(flags: UserfaultfdFlags) -> io::Result<OwnedFd> {
    // SAFETY: what comes of the descriptor is up to who registers memory with it: here,
    // memory that is meant to be filled.
    Ok(unsafe { userfaultfd(flags) }?)
}

fn range(memory: Piece) -> UffdioRange {
    UffdioRange { start: address(memory.start), len: u64_from(memory.length) }
}

fn address(pointer: *const u8) -> u64 {
    u64_from(pointer.expose_provenance())
}
