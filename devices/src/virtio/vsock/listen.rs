//! The host's side: one Unix socket where its programs ask for connections to the guest,
//! and others beside it, where they wait for the guest's (Firecracker's docs/vsock.md).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kedge_diag::Fix;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, recv, socket_with,
};

use super::packet::Kind;

/// Who may wait to be accepted; more wait to be let wait.
const BACKLOG: i32 = 128;

/// The longest line with which a program says what it wants, with its end.
const LONGEST_LINE: usize = 32;

/// Why nobody can ask for connections.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there.
    #[error("another program listens on the vsock socket `{}`", .0.display())]
    Taken(PathBuf),
    /// Something is there, perhaps left behind by who listened.
    #[error("cannot listen on the vsock socket `{}`: it exists already", .0.display())]
    Exists(PathBuf),
    /// The path does not do for a socket.
    #[error("the path of the vsock socket is too long: `{}`", .0.display())]
    TooLong(PathBuf),
    /// The host does not allow it.
    #[error("cannot listen on the vsock socket `{}`", path.display())]
    Bind {
        /// Where.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
}

impl Fix for ListenError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Taken(_) => "give each machine a path of its own: --vsock path=SOCKET".to_owned(),
            Self::Exists(path) => {
                format!("if nobody needs it any more: rm '{}'", path.display())
            }
            Self::TooLong(_) => {
                "give a shorter one: 107 bytes, with `_` and a port behind it".to_owned()
            }
            Self::Bind { .. } => "name a socket in a folder that exists and is yours".to_owned(),
        })
    }
}

/// The sockets, while they are there.
#[derive(Debug)]
pub(super) struct Listener {
    path: PathBuf,
    sockets: Vec<(Kind, Socket)>,
}

impl Listener {
    /// Listens at `path`, where nothing may be, and beside it, for connections of `kinds`.
    ///
    /// # Errors
    /// Something is, or the host does not allow it.
    pub(super) fn at(path: &Path, kinds: &[Kind]) -> Result<Self, ListenError> {
        let socket = |&kind: &Kind| {
            let path = match kind {
                Kind::Stream => path.to_owned(),
                Kind::Seqpacket => beside(path, "seqpacket"),
            };
            Socket::at(&path, kind).map(|socket| (kind, socket))
        };
        let sockets = kinds.iter().map(socket).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), sockets })
    }

    /// Whether programs can ask for connections of this kind.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.sockets.iter().any(|(other, _)| *other == kind)
    }

    /// Where they ask, and for what.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (Kind, &OwnedFd)> {
        self.sockets.iter().map(|(kind, socket)| (*kind, &socket.socket))
    }

    /// The next program that asks for something.
    ///
    /// # Errors
    /// Nobody does, or the host has no file descriptor.
    pub(super) fn accept(&self) -> Result<(Kind, OwnedFd), Errno> {
        let mut last = Errno::AGAIN;
        for (kind, socket) in self.sockets() {
            match accept_with(socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(caller) => return Ok((kind, caller)),
                Err(Errno::AGAIN) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A connection to the program that waits for the guest's on `port`.
    ///
    /// # Errors
    /// Nobody does for one of this kind, or too many are before.
    pub(super) fn reach(&self, port: u32, kind: Kind) -> Result<OwnedFd, Errno> {
        connected(&beside(&self.path, &port.to_string()), kind)
    }
}

/// The path with `_` and `name` behind it.
fn beside(path: &Path, name: &str) -> PathBuf {
    let mut path = OsString::from(path);
    path.push(format!("_{name}"));
    path.into()
}

/// A socket, while it is there.
#[derive(Debug)]
struct Socket {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
}

impl Socket {
    fn at(path: &Path, kind: Kind) -> Result<Self, ListenError> {
        let owned = || path.to_owned();
        let address = SocketAddrUnix::new(path).map_err(|_| ListenError::TooLong(owned()))?;
        let failed = |error: Errno| match error {
            Errno::ADDRINUSE if is_listened_on(path, kind) => ListenError::Taken(owned()),
            Errno::ADDRINUSE => ListenError::Exists(owned()),
            error => ListenError::Bind { path: owned(), source: error.into() },
        };
        let socket = unconnected(kind).map_err(failed)?;
        bind(&socket, &address).map_err(failed)?;
        let bound = Self { socket, identity: identity(path), path: owned() };
        listen(&bound.socket, BACKLOG).map_err(failed)?;
        Ok(bound)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nobody answers there any more.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|there| (there.dev(), there.ino()))
}

fn unconnected(kind: Kind) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let kind = match kind {
        Kind::Stream => SocketType::STREAM,
        Kind::Seqpacket => SocketType::SEQPACKET,
    };
    socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// A connection to the socket at `path`. It does not wait: where too many do, there is none.
fn connected(path: &Path, kind: Kind) -> Result<OwnedFd, Errno> {
    let socket = unconnected(kind)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn is_listened_on(path: &Path, kind: Kind) -> bool {
    matches!(connected(path, kind), Ok(_) | Err(Errno::AGAIN))
}

/// What a program wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It has not said yet.
    Unknown,
    /// A connection to this port of the guest's.
    Port(u32),
    /// Nothing that there is, or to leave.
    None,
}

/// What the program behind `stream` wants. Takes no byte of what follows its line.
pub(super) fn wish(stream: &OwnedFd) -> Wish {
    let mut line = [0; LONGEST_LINE];
    let length = match recv(stream, &mut line, RecvFlags::PEEK) {
        Ok((length, _)) => length.min(line.len()),
        Err(Errno::AGAIN | Errno::INTR) => return Wish::Unknown,
        Err(_) => return Wish::None,
    };
    let said = &line[..length];
    let Some(end) = said.iter().position(|byte| *byte == b'\n') else {
        let goes_on = (1..LONGEST_LINE).contains(&length);
        return if goes_on { Wish::Unknown } else { Wish::None };
    };
    let port = port(&said[..end]);
    let mut taken = [0; LONGEST_LINE];
    // It is all there: it has been seen.
    match (rustix::io::read(stream, &mut taken[..=end]), port) {
        (Ok(read), Some(port)) if read == end + 1 => Wish::Port(port),
        _ => Wish::None,
    }
}

/// The port in `CONNECT <port>`.
fn port(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    let connects = words.next()?.eq_ignore_ascii_case("connect");
    words.next().filter(|_| connects)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::{UnixListener, UnixStream};

    use expect_test::expect;
    use kedge_diag::report;
    use tempfile::TempDir;

    use super::*;

    fn said(text: &str) -> Wish {
        let (mut program, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        program.write_all(text.as_bytes()).unwrap();
        wish(&ours.into())
    }

    #[test]
    fn a_program_connects_to_a_port() {
        assert_eq!(said("CONNECT 52\n"), Wish::Port(52));
        assert_eq!(said("connect 4294967295\nmore"), Wish::Port(u32::MAX));
        assert_eq!(said("Connect    0000000000000000052\r\n"), Wish::Port(52));
    }

    #[test]
    fn a_line_that_has_not_ended_is_waited_for() {
        assert_eq!(said(""), Wish::Unknown);
        assert_eq!(said("CONNECT 5"), Wish::Unknown);
    }

    #[test]
    fn what_is_no_such_line_is_refused() {
        for line in ["\n", "CONNECT\n", "CONNECT x\n", "CONNECT 4294967296\n", "GET / HTTP/1.1\r\n"]
        {
            assert_eq!(said(line), Wish::None, "{line:?}");
        }
        assert_eq!(said(&"C".repeat(LONGEST_LINE)), Wish::None);
    }

    #[test]
    fn what_follows_the_line_stays() {
        let (mut program, ours) = UnixStream::pair().unwrap();
        program.write_all(b"CONNECT 7\nhello").unwrap();
        let ours = OwnedFd::from(ours);
        assert_eq!(wish(&ours), Wish::Port(7));
        let mut rest = [0; 16];
        assert_eq!(rustix::io::read(&ours, &mut rest), Ok(5));
        assert_eq!(&rest[..5], b"hello");
    }

    #[test]
    fn a_socket_goes_with_its_listener_and_no_other_does() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("v.sock");
        drop(Listener::at(&path, &[Kind::Stream]).unwrap());
        assert!(!path.exists());
        let listener = Listener::at(&path, &[Kind::Stream]).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn a_socket_that_exists_is_not_taken_over() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("v.sock");
        let refused = || {
            let text = report(&Listener::at(&path, &[Kind::Stream]).unwrap_err());
            text.replace(&folder.path().display().to_string(), "FOLDER")
        };
        let other = UnixListener::bind(&path).unwrap();
        expect![[r#"
            error: another program listens on the vsock socket `FOLDER/v.sock`
              fix: give each machine a path of its own: --vsock path=SOCKET"#]]
        .assert_eq(&refused());
        drop(other);
        expect![[r#"
            error: cannot listen on the vsock socket `FOLDER/v.sock`: it exists already
              fix: if nobody needs it any more: rm 'FOLDER/v.sock'"#]]
        .assert_eq(&refused());
        assert!(path.exists());
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let error = Listener::at(Path::new("/nowhere/v.sock"), &[Kind::Stream]).unwrap_err();
        expect![[r#"
            error: cannot listen on the vsock socket `/nowhere/v.sock`
              because: No such file or directory (os error 2)
              fix: name a socket in a folder that exists and is yours"#]]
        .assert_eq(&report(&error));
        let long = "x".repeat(200);
        assert!(matches!(
            Listener::at(Path::new(&long), &[Kind::Stream]),
            Err(ListenError::TooLong(_))
        ));
    }
}
