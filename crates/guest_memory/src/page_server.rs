//! Guest RAM from a page server: another process that fills pages as the guest touches
//! them (userfaultfd(2)), told of the memory as Firecracker tells its handlers, so that
//! those that exist serve.
//!
//! kedge connects to the server's socket and sends one message, with the descriptor
//! that faults are read from beside it (`SCM_RIGHTS`):
//!
//! ```json
//! [{"base_host_virt_addr":281470681743360,"size":134217728,"offset":0,"page_size":4096,"page_size_kib":4096}]
//! ```
//!
//! an entry for each region, `offset` being that in the memory file and `page_size_kib`
//! being in bytes too. No reply follows. The server answers faults with `UFFDIO_COPY` or
//! `UFFDIO_ZEROPAGE`, and takes pages that were removed (`UFFD_EVENT_REMOVE`) for zero.
//!
//! What nobody touched is the server's, and not zero: a snapshot of such a guest touches
//! all of it.
//!
//! Where a server dies, who touches a page that it did not fill waits for good: a vCPU,
//! a device, the kernel on behalf of either. Nothing may end that wait but the end of the
//! process: with the last descriptor closed, the page would become one of zeroes, and
//! the guest, or its disk, would take it for its own. So [`PageServer`] lives as long as
//! the memory, and whoever runs the machine watches [`PageServer::ended`] and ends the
//! process with an error.

// UNSAFETY: userfaultfd is driven by ioctls, which take addresses; SO_PEERCRED is read
// through a pointer, as no safe call takes a process of another namespace, number 0.
#![expect(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use kedge_diag::Fix;
use kedge_ids::u64_from;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use crate::dirty::mark_served;
use crate::{GuestMemory, GuestRange, MapError, map_anonymous};

/// `struct uffdio_api` (include/uapi/linux/userfaultfd.h).
#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`, with its `struct uffdio_range`.
#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
const GROUP: u8 = 0xaa;
const UFFDIO_API: Opcode = opcode::read_write::<UffdioApi>(GROUP, 0x3f);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<UffdioRegister>(GROUP, 0x00);
/// Of `/dev/userfaultfd`; its argument is the flags.
const USERFAULTFD_IOC_NEW: u16 = 0xaa00;

// The numbers of the kernel's own headers, on x86-64 and arm64 alike.
const _: () = assert!(UFFDIO_API == 0xc018_aa3f && UFFDIO_REGISTER == 0xc020_aa00);

/// Why a page server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum PageServerError {
    /// There is no room for the memory.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The host gives this process no descriptor for faults.
    #[error("the host does not let this process have its page faults served")]
    Refused(#[source] io::Error),
    /// The host's kernel cannot serve this memory.
    #[error("the host cannot serve page faults of guest memory at {start:#x}")]
    Register {
        /// The first guest address of the memory.
        start: u64,
        /// What the host said.
        source: io::Error,
    },
    /// Nobody takes connections.
    #[error("no page server answers on {}", socket.display())]
    Connect {
        /// The server's socket.
        socket: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The server did not take the message.
    #[error("the page server on {} cannot be told of guest memory", socket.display())]
    Send {
        /// The server's socket.
        socket: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl Fix for PageServerError {
    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::Map(source) => return source.fix(),
            Self::Refused(_) => {
                "give this process access to /dev/userfaultfd (Linux 6.1), or set the sysctl \
                 vm.unprivileged_userfaultfd to 1"
            }
            Self::Register { .. } => "load the snapshot from its memory file",
            Self::Connect { .. } => "start the page server first, and name its socket",
            Self::Send { .. } => "see why the page server ended",
        };
        Some(text.to_owned())
    }
}

/// The connection to a page server. It lives as long as the memory that is served.
#[derive(Debug)]
pub struct PageServer {
    /// Kept open: see the module.
    _faults: OwnedFd,
    server: UnixStream,
    process: Option<OwnedFd>,
}

impl PageServer {
    /// A descriptor that becomes readable when the server has ended. Where its process is
    /// not to be seen, the connection stands for it.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.process.as_ref().map_or_else(|| self.server.as_fd(), AsFd::as_fd)
    }
}

/// Maps memory for `ranges` that the server on `socket` fills as it is touched.
///
/// # Errors
/// The host serves no faults for this process, or nobody takes the message.
pub fn map_served(
    ranges: &[GuestRange],
    socket: &Path,
) -> Result<(GuestMemory, PageServer), PageServerError> {
    let memory = map_anonymous(ranges)?;
    let faults = open().map_err(PageServerError::Refused)?;
    let mut api = UffdioApi { api: UFFD_API, features: UFFD_FEATURE_EVENT_REMOVE, ioctls: 0 };
    call::<UFFDIO_API, _>(&faults, &mut api).map_err(PageServerError::Refused)?;
    for region in memory.iter() {
        let (start, len) = (u64_from(region.as_ptr().expose_provenance()), region.len());
        let mut register =
            UffdioRegister { start, len, mode: UFFDIO_REGISTER_MODE_MISSING, ioctls: 0 };
        call::<UFFDIO_REGISTER, _>(&faults, &mut register)
            .map_err(|source| PageServerError::Register { start: region.start_addr().0, source })?;
    }
    let connect = |source| PageServerError::Connect { socket: socket.to_owned(), source };
    let server = UnixStream::connect(socket).map_err(connect)?;
    send(&server, &message(&memory), faults.as_fd())
        .map_err(|source| PageServerError::Send { socket: socket.to_owned(), source })?;
    mark_served(&memory);
    let process = peer(&server).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    Ok((memory, PageServer { _faults: faults, server, process }))
}

/// A descriptor for faults of this process, the kernel's among them: it touches guest RAM
/// on the guest's behalf.
fn open() -> io::Result<OwnedFd> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    match File::options().read(true).write(true).open("/dev/userfaultfd") {
        Ok(device) => {
            let request = libc::Ioctl::from(USERFAULTFD_IOC_NEW);
            // SAFETY: this ioctl takes flags by value and touches no memory.
            let fd = unsafe { libc::ioctl(device.as_raw_fd(), request, flags.bits()) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the call made this descriptor, and nobody else has it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        }
        // SAFETY: what comes of the descriptor is up to who gets it, and memory is
        // registered with it that a page server is meant to fill.
        Err(_) => Ok(unsafe { userfaultfd(flags) }?),
    }
}

fn call<const OPCODE: Opcode, T>(faults: &OwnedFd, value: &mut T) -> io::Result<()> {
    // SAFETY: each opcode here was made of the structure that its caller passes.
    let update = unsafe { Updater::<OPCODE, T>::new(value) };
    // SAFETY: the kernel reads and writes that structure alone. Registering memory lets
    // others fill pages of it that nobody touched yet, which are guest RAM: no reference
    // into it exists.
    Ok(unsafe { ioctl(faults, update) }?)
}

/// What the server is told.
fn message(memory: &GuestMemory) -> String {
    let page = rustix::param::page_size();
    let mut offset = 0;
    let entry = |region: &crate::RamRegion| {
        let (start, size) = (region.as_ptr().addr(), region.len());
        let entry = format!(
            "{{\"base_host_virt_addr\":{start},\"size\":{size},\"offset\":{offset},\
             \"page_size\":{page},\"page_size_kib\":{page}}}"
        );
        offset += size;
        entry
    };
    let entries: Vec<_> = memory.iter().map(entry).collect();
    format!("[{}]", entries.join(","))
}

/// Sends `text` in one message, with a descriptor beside it.
fn send(to: &UnixStream, text: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [descriptor];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    // The space is for one.
    beside.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(to, &[IoSlice::new(text.as_bytes())], &mut beside, SendFlags::NOSIGNAL)?;
    if sent < text.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// The process at the other end, if it is in our namespace.
fn peer(socket: &UnixStream) -> Option<Pid> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&peer)).ok()?;
    let (fd, value) = (socket.as_raw_fd(), (&raw mut peer).cast());
    // SAFETY: the kernel writes at most `length` bytes to `peer`, which has as many.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, value, &raw mut length)
    };
    Pid::from_raw(if result == 0 { peer.pid } else { 0 })
}
