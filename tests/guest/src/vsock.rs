//! Programs of a Linux guest and of the host that talk over vsock, before the guest is saved
//! and after.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send, socket,
};
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running, SOON};
use crate::linux::BOOT;
use crate::pattern::{Pattern, send_back};
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::told::Told;

/// Ports of the program in the guest.
const ECHO: u32 = 7;
const ORDERS: u32 = 8;
const MESSAGES: u32 = 10;
/// A port of the guest's where nobody listens.
const NOBODY: u32 = 9;
/// A port of the host's.
const HOST: u32 = 1024;

const MANY: usize = 100;
const BYTES: u64 = 3 << 20;

pub(crate) fn tests(suite: &mut Suite) {
    suite.any_kernel(
        "vsock::a_guest_and_its_host_talk_also_after_a_move",
        &[Need::MmuAtFirst],
        talk,
    );
    suite.once("vsock::a_socket_that_is_there_is_refused_and_stays", &[], taken);
}

/// Where a machine's socket is.
pub(crate) struct Place(PathBuf);

impl Place {
    /// A socket at `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What kedge is told of it.
    pub(crate) fn flag(&self) -> String {
        format!("cid=3,path={},seqpacket", self.0.display())
    }

    /// A connection to the guest's echo.
    ///
    /// # Errors
    /// The guest does not answer.
    pub(crate) fn call_echo(&self) -> anyhow::Result<UnixStream> {
        self.call(ECHO)
    }

    /// A connection to `port` of the guest.
    fn call(&self, port: u32) -> anyhow::Result<UnixStream> {
        let mut stream = self.ask(port)?;
        let answer = line(&mut stream)?;
        ensure!(answer.starts_with("OK 1073"), "the answer is {answer:?}");
        Ok(stream)
    }

    /// The wish for one.
    fn ask(&self, port: u32) -> anyhow::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.0).context("nobody is at the socket")?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
        Ok(stream)
    }

    /// Has the guest echo messages, some of which are more than a page.
    fn echo_messages(&self) -> Outcome {
        let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(SOON))?;
        connect(&socket, &SocketAddrUnix::new(self.of_messages())?)?;
        let mut room = vec![0; 64 << 10];
        let mut hear =
            || recv(&socket, &mut room[..], RecvFlags::empty()).map(|(_, length)| length);
        send(&socket, format!("CONNECT {MESSAGES}\n").as_bytes(), SendFlags::NOSIGNAL)?;
        ensure!(hear()? > "OK 1073\n".len(), "nobody answers");
        let lengths = [1, 40_000, 5_000, 2, 60_000];
        for length in lengths {
            send(&socket, &vec![7; length], SendFlags::NOSIGNAL)?;
        }
        for length in lengths {
            let came = hear()?;
            ensure!(came == length, "{came} bytes came back of a message of {length}");
        }
        Ok(())
    }

    /// Where connections that carry messages are asked for.
    fn of_messages(&self) -> PathBuf {
        PathBuf::from(format!("{}_seqpacket", self.0.display()))
    }

    /// Echoes what the guest sends to [`HOST`] on one connection.
    fn echo(&self) -> anyhow::Result<JoinHandle<std::io::Result<()>>> {
        let waiting = self.listen()?;
        Ok(thread::spawn(move || send_back(&waiting.accept()?)))
    }

    /// Listens where the guest calls [`HOST`].
    ///
    /// # Errors
    /// Somebody listens already.
    pub(crate) fn listen(&self) -> anyhow::Result<Waiting> {
        let path = PathBuf::from(format!("{}_{HOST}", self.0.display()));
        Ok(Waiting { listener: UnixListener::bind(&path)?, path })
    }

    /// What the guest's program says of an echo of `bytes` bytes.
    fn guest_calls(&self, bytes: u64) -> anyhow::Result<String> {
        line(&mut self.have_guest_call(bytes)?)
    }

    /// Has the guest ask for an echo of `bytes` bytes; it says on the stream what came of it.
    ///
    /// # Errors
    /// The guest does not answer.
    pub(crate) fn have_guest_call(&self, bytes: u64) -> anyhow::Result<UnixStream> {
        let mut orders = self.call(ORDERS)?;
        orders.write_all(format!("CALL {HOST} {bytes}\n").as_bytes())?;
        Ok(orders)
    }
}

/// Who waits for the guest's call.
pub(crate) struct Waiting {
    listener: UnixListener,
    path: PathBuf,
}

impl Waiting {
    /// The one call.
    ///
    /// # Errors
    /// The socket is broken.
    pub(crate) fn accept(self) -> std::io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        fs::remove_file(self.path)?;
        Ok(stream)
    }
}

/// The next line from a stream.
///
/// # Errors
/// There is none.
pub(crate) fn line(stream: &mut UnixStream) -> anyhow::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream.read_exact(&mut byte).with_context(|| format!("after {line:?}"))?;
        line.extend(byte);
    }
    Ok(String::from_utf8(line)?.trim_end().to_owned())
}

/// Has the guest echo `bytes` bytes and close.
///
/// # Errors
/// Others come back.
pub(crate) fn echo(stream: UnixStream, bytes: u64) -> Outcome {
    let mut out = stream.try_clone()?;
    let sender = thread::spawn(move || -> std::io::Result<()> {
        Pattern::new().send(&mut out, bytes)?;
        out.shutdown(Shutdown::Write)
    });
    let came = Pattern::new().receive(&mut &Told::new(stream))?;
    sender.join().map_err(|_| anyhow!("the sender panicked"))??;
    ensure!(came == bytes, "{came} of {bytes} bytes came back");
    Ok(())
}

/// One line there and back.
///
/// # Errors
/// Another comes back, or none.
pub(crate) fn greet(stream: &mut UnixStream, word: &str) -> Outcome {
    stream.write_all(format!("{word}\n").as_bytes())?;
    let answer = line(stream)?;
    ensure!(answer == word, "{answer:?} is not {word:?}");
    Ok(())
}

/// What kedge is told of a disk that is the guest's program.
///
/// # Errors
/// It cannot be read.
pub(crate) fn program(folder: &Path) -> anyhow::Result<String> {
    let mut disk = fs::read("/kedge/bin/vsock_peer").context("the guest's program")?;
    disk.resize(disk.len().next_multiple_of(512), 0);
    let path = folder.join("vsock_peer");
    fs::write(&path, disk)?;
    Ok(format!("path={},readonly", path.display()))
}

/// Boots the guest of the kernel in this folder that talks over vsock until a line is typed,
/// in a machine of these `words`.
///
/// # Errors
/// It does not come up.
pub(crate) fn start(
    kernel: &Path,
    words: &str,
    folder: &Path,
    place: &Place,
) -> anyhow::Result<Running> {
    let guest = Kedge::run(kernel.join("Image"))
        .flags(words)
        .with(["--initrd".into(), kernel.join("initrd.gz")])
        .with(["--disk", &program(folder)?])
        .with(["--vsock", &place.flag()])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=vsock")
        .start()?;
    guest.wait_for("=== serving", 1, BOOT)?;
    Ok(guest)
}

fn talk(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let place = Place(folder.path().join("v.sock"));
    let words = "--cpus 2 --memory 192M --id talks";
    let guest = start(&host.guest()?, words, folder.path(), &place)?;
    // The guest's kernel is of the host's release.
    let messages = match host.lacks(Need::OlderThan(5, 14)) {
        Some(_) => Messages::Known,
        None => Messages::Unknown,
    };
    both_ways(&place, messages).context("before it is saved")?;
    refusals(&place)?;
    let mut old = place.call(ECHO)?;
    greet(&mut old, "before")?;

    let path = |name: &str| folder.path().join(name).display().to_string();
    let (state, memory) = (path("state"), path("memory"));
    let create = ["snapshot", "create", "talks", "--state", &state, "--memory", &memory];
    Kedge::new(create).finish()?.with_status(0)?;
    greet(&mut old, "it goes on where it was").context("after it was saved")?;
    guest.terminate()?;
    ensure!(!place.0.exists() && !place.of_messages().exists(), "its sockets are left behind");
    ensure!(old.read(&mut [0])? == 0, "its connection is not closed");

    let other = Place(folder.path().join("other.sock"));
    let guest = Kedge::new(["snapshot", "load", &state, "--memory", &memory, "--id", "talks-on"])
        .with(["--vsock", &format!("path={}", other.0.display())])
        .start()?;
    guest.wait_for("LOST ConnectionReset", 1, SOON)?;
    both_ways(&other, messages).context("after it was loaded")?;
    guest.terminate()?;
    ensure!(!other.0.exists(), "its other socket is left behind");
    Ok(())
}

/// Whether the guest's kernel knows of connections that carry messages (Linux 5.14).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Messages {
    Known,
    Unknown,
}

fn both_ways(place: &Place, messages: Messages) -> Outcome {
    echo(place.call(ECHO)?, BYTES).context("the guest echoes")?;
    let echoes = place.echo()?;
    let said = place.guest_calls(BYTES)?;
    ensure!(said == "SAME", "the guest says {said} of the host's echo");
    echoes.join().map_err(|_| anyhow!("the echo panicked"))??;
    if messages == Messages::Known {
        place.echo_messages().context("the guest echoes messages")?;
    }
    let many = (0..MANY).map(|_| place.call(ECHO)).collect::<anyhow::Result<Vec<_>>>();
    for (number, stream) in many?.iter_mut().enumerate() {
        greet(stream, &format!("this is {number}")).with_context(|| format!("number {number}"))?;
    }
    Ok(())
}

fn refusals(place: &Place) -> Outcome {
    let answer = place.ask(NOBODY)?.read(&mut [0]);
    ensure!(answer.is_ok_and(|length| length == 0), "nobody's port answers");
    let said = place.guest_calls(1)?;
    ensure!(said == "FAILED ConnectionReset", "of the host's port where nobody is it says {said}");
    Ok(())
}

/// A machine is refused whose socket another one has, and one that was killed leaves its own.
fn taken(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let path = folder.path().join("v.sock");
    let flag = format!("cid=3,path={}", path.display());
    let kedge = || Kedge::run(host.payload("counters")).flags("--memory 16M");
    let guest = kedge().with(["--vsock", &flag]).start()?;
    guest.wait_for("COUNT ", 1, SOON)?;
    let second = kedge().with(["--vsock", &flag]).finish()?.with_status(1)?;
    ensure_contains(&second.stderr, &["another program listens on the vsock socket", "fix: "])?;
    ensure!(path.exists(), "who is refused has removed it");
    guest.signal(rustix::process::Signal::KILL)?;
    guest.finish_within(Duration::from_secs(10))?;
    let third = kedge().with(["--vsock", &flag]).finish()?.with_status(1)?;
    ensure_contains(&third.stderr, &["it exists already", "fix: if nobody needs it any more: rm"])?;
    fs::remove_file(&path)?;
    let guest = kedge().with(["--vsock", &flag]).start()?;
    guest.wait_for("COUNT ", 1, SOON)?;
    guest.terminate()?;
    ensure!(!path.exists(), "its socket is left behind");
    Ok(())
}
