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

// UNSAFETY: SO_PEERCRED is read through a pointer, as no safe call takes a process of
// another namespace, number 0.
#![expect(unsafe_code)]

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use kedge_diag::Fix;
use kedge_ids::u64_from;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use crate::dirty::mark_served;
use crate::faults::{EVENT_REMOVE, Faults, Piece};
use crate::{GuestMemory, GuestRange, HUGE_PAGE, MapError, RamRegion, map_anonymous, map_huge};

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
    memory: GuestMemory,
    /// Kept open: see the module.
    faults: Faults,
    server: UnixStream,
    process: Option<OwnedFd>,
}

impl PageServer {
    /// A descriptor that becomes readable when the server has ended. Where its process is
    /// not to be seen, the connection stands for it.
    pub fn ended(&self) -> BorrowedFd<'_> {
        self.process.as_ref().map_or_else(|| self.server.as_fd(), AsFd::as_fd)
    }

    /// Has whoever waits for a page, or touches one from now on that was not filled, find
    /// zeroes: of a guest that has not gone on and never will.
    pub fn give_up(&self) {
        for region in self.memory.iter() {
            // It was registered: nobody else ends that.
            let _ = self.faults.unregister(piece(region));
        }
    }
}

/// The host's pages that a server fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedPages {
    /// Of the size that the host's pages have.
    Small,
    /// Of 2 MiB, from the host's pool (hugetlbfs).
    Huge2M,
}

/// Maps memory for `ranges` that the server on `socket` fills as it is touched.
///
/// # Errors
/// The host serves no faults for this process, or nobody takes the message.
pub fn map_served(
    ranges: &[GuestRange],
    pages: ServedPages,
    socket: &Path,
) -> Result<(GuestMemory, PageServer), PageServerError> {
    let (memory, page) = match pages {
        ServedPages::Small => (map_anonymous(ranges)?, u64_from(rustix::param::page_size())),
        ServedPages::Huge2M => (map_huge(ranges)?, HUGE_PAGE),
    };
    let faults = Faults::of_all(EVENT_REMOVE).map_err(PageServerError::Refused)?;
    for region in memory.iter() {
        faults
            .register(piece(region))
            .map_err(|source| PageServerError::Register { start: region.start_addr().0, source })?;
    }
    let connect = |source| PageServerError::Connect { socket: socket.to_owned(), source };
    let server = UnixStream::connect(socket).map_err(connect)?;
    send(&server, &message(&memory, page), faults.as_fd())
        .map_err(|source| PageServerError::Send { socket: socket.to_owned(), source })?;
    mark_served(&memory);
    let process = peer(&server).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    Ok((memory.clone(), PageServer { memory, faults, server, process }))
}

fn piece(region: &RamRegion) -> Piece {
    Piece { start: region.as_ptr(), length: region.size() }
}

/// What the server is told.
fn message(memory: &GuestMemory, page: u64) -> String {
    let mut offset = 0;
    let entry = |region: &RamRegion| {
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
