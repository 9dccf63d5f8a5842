//! Another process as back end: the frontend's side of vhost-user (QEMU's
//! docs/interop/vhost-user.rst), over the crate `vhost`.
//!
//! The crate waits for answers for as long as it takes: whoever talks to a back end here
//! has a watchman cut the connection when it takes too long. A connection with which
//! anything went wrong is given up.

use std::fs::File;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use kedge_guest_memory::{GuestMemory, GuestMemoryBackend, GuestMemoryRegion, WriteLog, is_shared};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{
    Error as ProtocolError, Frontend, VhostUserFrontend, VhostUserProtocolFeatures as Protocol,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::BackEndError;
use super::answers::{self, HEADER, LOG_ALL, Nonsense, PROTOCOL_FEATURES, VERSION};
use super::back_end::{BackEnd, Session, place};
use super::rings::DESCRIPTOR;

/// How long a back end may take for an answer. Under a fuzzer, which has others be silent all
/// the time, there is less of it.
const PATIENCE: Duration = Duration::from_millis(if cfg!(fuzzing) { 20 } else { 5000 });

/// What a device needs of its back end.
#[derive(Clone, Copy, Debug)]
pub(in crate::virtio) struct Needs {
    /// How many queues.
    pub(in crate::virtio) queues: u16,
    /// What of the protocol it cannot do without.
    pub(in crate::virtio) protocol: Protocol,
}

/// A connection to a back end.
pub(in crate::virtio) struct UserBackEnd {
    frontend: Frontend,
    /// The same connection.
    socket: UnixStream,
    path: PathBuf,
    features: u64,
    protocol: Protocol,
    /// Whether it has been given the guest's memory, which stays as it is.
    knows_memory: bool,
    is_lost: bool,
}

impl UserBackEnd {
    /// Connects to the back end at `path`, and agrees with it on the protocol.
    ///
    /// # Errors
    /// There is none, or it lacks something.
    pub(in crate::virtio) fn connect(path: &Path, needs: Needs) -> Result<Self, BackEndError> {
        let socket = UnixStream::connect(path).map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => BackEndError::Missing { path },
                io::ErrorKind::ConnectionRefused => BackEndError::Deserted { path },
                _ => BackEndError::Connect { path, source },
            }
        })?;
        Self::on(socket, path, needs)
    }

    /// The same, with the back end at the other end of `socket`.
    ///
    /// # Errors
    /// It lacks something, or makes no sense.
    pub(in crate::virtio) fn on(
        socket: UnixStream,
        path: &Path,
        needs: Needs,
    ) -> Result<Self, BackEndError> {
        let frontend = Frontend::from_stream(duplicate(&socket)?, needs.queues.into());
        let mut back_end = Self {
            frontend,
            socket,
            path: path.to_owned(),
            features: 0,
            protocol: Protocol::empty(),
            knows_memory: false,
            is_lost: false,
        };
        back_end.talk(|it| it.agree(needs))?;
        Ok(back_end)
    }

    fn agree(&mut self, needs: Needs) -> Result<(), Fault> {
        self.frontend.set_owner()?;
        self.features = answers::features(self.frontend.get_features()?)?;
        let offered = self.frontend.get_protocol_features()?;
        if !offered.contains(needs.protocol) {
            return Err(Nonsense::Feature { name: "VHOST_USER_PROTOCOL_F_CONFIG" }.into());
        }
        self.protocol = offered & answers::wanted();
        self.frontend.set_protocol_features(self.protocol)?;
        if self.protocol.contains(Protocol::REPLY_ACK) {
            self.frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        let most = match self.protocol.contains(Protocol::MQ) {
            true => answers::queues(self.frontend.get_queue_num()?)?,
            false => 1,
        };
        if most < needs.queues {
            return Err(Fault::Queues { wanted: needs.queues, most });
        }
        if !self.protocol.contains(Protocol::LOG_SHMFD) {
            self.features &= !LOG_ALL;
        }
        Ok(())
    }

    /// The first `length` bytes of its configuration space.
    ///
    /// # Errors
    /// It does not answer.
    pub(in crate::virtio) fn config(&mut self, length: usize) -> Result<Vec<u8>, BackEndError> {
        let zeroes = vec![0; length];
        let size = u32::try_from(length).unwrap_or(u32::MAX);
        self.talk(|it| {
            let flags = VhostUserConfigFlags::empty();
            Ok(it.frontend.get_config(0, size, flags, &zeroes)?.1)
        })
    }

    /// What it said cannot be: the connection is given up.
    pub(in crate::virtio) fn nonsense(&mut self, source: Nonsense) -> BackEndError {
        self.give_up();
        BackEndError::Nonsense { path: self.path.clone(), source }
    }

    /// Asks it for something, which has to be done in time.
    fn talk<T>(
        &mut self,
        ask: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, BackEndError> {
        if self.is_lost {
            return Err(BackEndError::Lost { path: self.path.clone() });
        }
        let socket = duplicate(&self.socket)?;
        let (done, waiting) = mpsc::channel::<()>();
        let watchman = std::thread::Builder::new().name("back end".to_owned()).spawn(move || {
            let is_late = waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            if is_late {
                // It only fails where the other side has hung up.
                let _ = socket.shutdown(Shutdown::Both);
            }
            is_late
        });
        let watchman = watchman.map_err(|source| BackEndError::Host { what: "thread", source })?;
        let said = ask(self);
        drop(done);
        let is_late = watchman.join().unwrap_or(false);
        said.map_err(|fault| {
            let path = self.path.clone();
            // Too few queues are no reason to distrust what comes next, and nothing does.
            self.give_up();
            match fault {
                _ if is_late => BackEndError::Silent { path, seconds: PATIENCE.as_secs() },
                Fault::Refused(why) => BackEndError::Refused { path, why },
                Fault::Nonsense(source) => BackEndError::Nonsense { path, source },
                Fault::Queues { wanted, most } => BackEndError::Queues { path, wanted, most },
            }
        })
    }

    fn give_up(&mut self) {
        self.is_lost = true;
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn set_memory(&mut self, memory: &GuestMemory) -> Result<(), Fault> {
        let region = |region: &kedge_guest_memory::RamRegion| {
            let mapping = region.get_mmap();
            let file = mapping.file_offset()?;
            let address = region.start_addr().0;
            Some(VhostUserMemoryRegionInfo {
                guest_phys_addr: address,
                memory_size: region.len(),
                // Rings are told by the same addresses: ours are nobody's business.
                userspace_addr: address,
                mmap_offset: file.start(),
                mmap_handle: file.file().as_raw_fd(),
            })
        };
        let regions: Vec<_> = memory.iter().filter_map(region).collect();
        self.frontend.set_mem_table(&regions)?;
        self.knows_memory = true;
        Ok(())
    }

    /// Has it note what it writes. Not by the crate, which waits for an answer of another
    /// length than QEMU's back ends give.
    fn set_log(&mut self, log: &WriteLog, file: &File) -> Result<(), Fault> {
        const SET_LOG_BASE: u32 = 6;
        const BODY: u32 = 16;
        let header = [SET_LOG_BASE, VERSION, BODY].map(u32::to_ne_bytes).concat();
        let body = [log.length(), 0].map(u64::to_ne_bytes).concat();
        let message = [header, body].concat();
        let sent = self.socket.send_with_fds(&[message.as_slice()], &[file.as_raw_fd()]);
        if sent.map_err(|error| Fault::Refused(error.to_string()))? != message.len() {
            return Err(Fault::Refused("it takes no whole message".to_owned()));
        }
        let mut read = |into: &mut [u8]| {
            self.socket.read_exact(into).map_err(|error| Fault::Refused(error.to_string()))
        };
        let mut header = [0; HEADER];
        read(&mut header)?;
        let mut rest = vec![0; answers::answer_length(header, SET_LOG_BASE)?];
        read(&mut rest)
    }

    fn start(&mut self, session: &Session<'_>) -> Result<(), Fault> {
        for of in &session.places {
            place(&self.frontend, of, session.log)?;
        }
        for of in &session.places {
            self.frontend.set_vring_enable(of.index.into(), true)?;
        }
        Ok(())
    }
}

impl BackEnd for UserBackEnd {
    fn features(&self) -> u64 {
        self.features
    }

    fn begin(&mut self, session: &Session<'_>) -> Result<(), BackEndError> {
        if !is_shared(session.memory) {
            return Err(BackEndError::Private { path: self.path.clone() });
        }
        let log = session.log.and_then(|log| Some((log, log.file()?)));
        self.talk(|it| {
            let own = PROTOCOL_FEATURES | if log.is_some() { LOG_ALL } else { 0 };
            it.frontend.set_features(session.features & it.features | own)?;
            if !it.knows_memory {
                it.set_memory(session.memory)?;
            }
            if let Some((log, file)) = log {
                it.set_log(log, file)?;
            }
            it.start(session)
        })
    }

    fn go_on(&mut self, session: &Session<'_>) -> Result<(), BackEndError> {
        self.talk(|it| it.start(session))
    }

    fn stop(&mut self, queues: &[u16]) -> Result<Vec<u32>, BackEndError> {
        self.talk(|it| {
            let bases = queues.iter().map(|&queue| it.frontend.get_vring_base(queue.into()));
            Ok(bases.collect::<Result<_, _>>()?)
        })
    }

    fn connection(&self) -> Result<Option<UnixStream>, BackEndError> {
        duplicate(&self.socket).map(Some)
    }
}

fn duplicate(socket: &UnixStream) -> Result<UnixStream, BackEndError> {
    socket.try_clone().map_err(|source| BackEndError::Host { what: DESCRIPTOR, source })
}

impl std::fmt::Debug for UserBackEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserBackEnd").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What went wrong between two messages.
enum Fault {
    Refused(String),
    Nonsense(Nonsense),
    Queues { wanted: u16, most: u16 },
}

impl From<vhost::Error> for Fault {
    fn from(error: vhost::Error) -> Self {
        Self::Refused(match error {
            // What the crate calls it where the other side has hung up.
            vhost::Error::VhostUserProtocol(
                ProtocolError::PartialMessage
                | ProtocolError::Disconnected
                | ProtocolError::SocketBroken(_),
            ) => "it has hung up".to_owned(),
            other => other.to_string(),
        })
    }
}

impl From<Nonsense> for Fault {
    fn from(nonsense: Nonsense) -> Self {
        Self::Nonsense(nonsense)
    }
}
