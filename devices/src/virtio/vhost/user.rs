//! Another process as back end: the frontend's side of vhost-user (QEMU's
//! docs/interop/vhost-user.rst), over the crate `vhost`.
//!
//! The crate waits for answers for as long as it takes: whoever talks to a back end here
//! has a watchman cut the connection when it takes too long. Each connection has one, on a
//! thread that is there from the beginning. A connection with which anything went wrong is
//! given up.

use std::fs::File;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use kedge_guest_memory::{GuestMemory, GuestMemoryBackend, GuestMemoryRegion, WriteLog, is_shared};
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{
    Error as ProtocolError, Frontend, VhostUserFrontend, VhostUserProtocolFeatures as Protocol,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::BackEndError;
use super::answers::{self, HEADER, LOG_ALL, NEED_REPLY, Nonsense, PROTOCOL_FEATURES, VERSION};
use super::back_end::{BackEnd, Session, place};
use super::rings::DESCRIPTOR;

/// How long a back end may take for an answer. Under a fuzzer, which has others be silent all
/// the time, there is less of it.
const PATIENCE: Duration = Duration::from_millis(if cfg!(fuzzing) { 20 } else { 5000 });

/// The numbers of requests that are made by hand.
mod request {
    pub(super) const SET_LOG_BASE: u32 = 6;
    pub(super) const GET_QUEUE_NUM: u32 = 17;
    pub(super) const NET_SET_MTU: u32 = 20;
}

/// What a device needs of its back end.
#[derive(Clone, Copy, Debug)]
pub(in crate::virtio) struct Needs {
    /// How many queues.
    pub(in crate::virtio) queues: u16,
    /// How many it must say that it has. Of a network card, some back ends count the queues
    /// and some the pairs of them, as QEMU does.
    pub(in crate::virtio) count: u16,
    /// What of the protocol it cannot do without.
    pub(in crate::virtio) protocol: Protocol,
}

/// What is watched, until its sender is dropped, and who hears whether that was too late.
type Talk = (Receiver<()>, Sender<bool>);

/// Cuts `socket` where a talk over it takes too long; how it is told of each. It ends when
/// nobody can tell it any more.
fn watchman(socket: UnixStream) -> io::Result<Sender<Talk>> {
    let (tell, talks) = mpsc::channel::<Talk>();
    let watch = move || {
        for (talk, hear) in talks {
            let is_late = talk.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            if is_late {
                // It only fails where the other side has hung up.
                let _ = socket.shutdown(Shutdown::Both);
            }
            // Who talked may have ended.
            let _ = hear.send(is_late);
        }
    };
    std::thread::Builder::new().name("back end".to_owned()).spawn(watch)?;
    Ok(tell)
}

/// A connection to a back end.
pub(in crate::virtio) struct UserBackEnd {
    frontend: Frontend,
    /// The same connection.
    socket: UnixStream,
    watchman: Sender<Talk>,
    path: PathBuf,
    features: u64,
    protocol: Protocol,
    /// Whether it has been given the guest's memory, which stays as it is.
    knows_memory: bool,
    /// The queues it has, and how many of the first it may use.
    begun: Vec<u16>,
    enabled: u16,
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
        let watchman = watchman(duplicate(&socket)?);
        let watchman = watchman.map_err(|source| BackEndError::Host { what: "thread", source })?;
        let mut back_end = Self {
            frontend,
            socket,
            watchman,
            path: path.to_owned(),
            features: 0,
            protocol: Protocol::empty(),
            knows_memory: false,
            begun: Vec::new(),
            enabled: u16::MAX,
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
            // Not by the crate, which takes it for the number of queues.
            true => answers::queues(self.ask(request::GET_QUEUE_NUM)?)?,
            false => 1,
        };
        if most < needs.count {
            return Err(Fault::Queues { wanted: needs.count, most });
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
        let ((done, talk), (hear, heard)) = (mpsc::channel(), mpsc::channel());
        // It is there as long as this is.
        let _ = self.watchman.send((talk, hear));
        let said = ask(self);
        drop(done);
        let is_late = heard.recv().unwrap_or(false);
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
        let body = [log.length(), 0].map(u64::to_ne_bytes).concat();
        self.send(request::SET_LOG_BASE, VERSION, &body, &[file.as_raw_fd()])?;
        self.answer(request::SET_LOG_BASE).map(drop)
    }

    /// Asks it for a number.
    fn ask(&mut self, request: u32) -> Result<u64, Fault> {
        self.send(request, VERSION, &[], &[])?;
        self.number(request)
    }

    fn number(&mut self, request: u32) -> Result<u64, Fault> {
        let answer = self.answer(request)?;
        let number = answer.try_into().map_err(|_| Nonsense::Answer { request })?;
        Ok(u64::from_ne_bytes(number))
    }

    fn send(
        &mut self,
        request: u32,
        flags: u32,
        body: &[u8],
        files: &[RawFd],
    ) -> Result<(), Fault> {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let header = [request, flags, length].map(u32::to_ne_bytes).concat();
        let message = [header.as_slice(), body].concat();
        let sent = self.socket.send_with_fds(&[message.as_slice()], files);
        if sent.map_err(|error| Fault::Refused(error.to_string()))? != message.len() {
            return Err(Fault::Refused("it takes no whole message".to_owned()));
        }
        Ok(())
    }

    fn answer(&mut self, request: u32) -> Result<Vec<u8>, Fault> {
        let mut read = |into: &mut [u8]| {
            self.socket.read_exact(into).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Fault::Refused("it has hung up".to_owned()),
                _ => Fault::Refused(error.to_string()),
            })
        };
        let mut header = [0; HEADER];
        read(&mut header)?;
        let mut rest = vec![0; answers::answer_length(header, request)?];
        read(&mut rest)?;
        Ok(rest)
    }

    /// Tells it the largest packet of a network card, where it wants to know.
    ///
    /// # Errors
    /// It does not take it.
    pub(in crate::virtio) fn set_mtu(&mut self, mtu: u16) -> Result<(), BackEndError> {
        if !self.protocol.contains(Protocol::MTU) {
            return Ok(());
        }
        let is_answered = self.protocol.contains(Protocol::REPLY_ACK);
        self.talk(|it| {
            let flags = VERSION | if is_answered { NEED_REPLY } else { 0 };
            it.send(request::NET_SET_MTU, flags, &u64::from(mtu).to_ne_bytes(), &[])?;
            match is_answered && it.number(request::NET_SET_MTU)? != 0 {
                true => Err(Fault::Refused(format!("it cannot have an MTU of {mtu}"))),
                false => Ok(()),
            }
        })
    }

    /// Has it use the first `count` queues, and no others: now, or once it has them.
    ///
    /// # Errors
    /// It does not answer.
    pub(in crate::virtio) fn enable(&mut self, count: u16) -> Result<(), BackEndError> {
        self.enabled = count;
        if self.begun.is_empty() {
            return Ok(());
        }
        self.talk(Self::enable_begun)
    }

    fn enable_begun(&mut self) -> Result<(), Fault> {
        for &queue in &self.begun {
            self.frontend.set_vring_enable(queue.into(), queue < self.enabled)?;
        }
        Ok(())
    }

    fn start(&mut self, session: &Session<'_>) -> Result<(), Fault> {
        for of in &session.places {
            place(&self.frontend, of, session.log)?;
        }
        self.begun = session.places.iter().map(|of| of.index).collect();
        self.enable_begun()
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
        self.begun.clear();
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
