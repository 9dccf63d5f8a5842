//! A vsock device, and programs of the host: they connect, listen, say what they want in
//! pieces, read late or not at all, and leave.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::vsock::KIND;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::json;
use tempfile::TempDir;

use crate::driver::{Request, Subject};
use crate::words::Words;

/// The most programs that connect.
const MOST: u32 = 40;
/// The guest's address, and its ports.
const CID: u64 = 3;
const PORTS: std::ops::RangeInclusive<u32> = 51..=53;
/// The host's first port for programs that connect.
const FIRST: u32 = 1 << 30;
/// Bytes of a packet's header (Virtio 1.2, 5.10.6).
const HEADER: u32 = 44;

#[rustfmt::skip]
const WORDS: Words = Words {
    kind: &KIND,
    options: &[
        ("path", &["PATH", "PATH", "PATH", "/nowhere/v", "PATH_1"]),
        ("cid", &["3", "3", "3", "2", "x"]),
        ("seqpacket", &["on", "", "off", "perhaps"]),
    ],
    fields: &[
        ("guest_cid", &["3", "3", "3", "4", "2"]),
        ("uds_path", &["\"PATH\"", "\"PATH\"", "\"PATH\"", "\"/nowhere/v\"", "\"PATH_1\"", "\"\""]),
        ("vsock_id", &["null", "\"v\""]),
        ("seqpacket", &["true", "false"]),
    ],
};

pub(super) struct Sockets {
    folder: TempDir,
    config: Option<Box<dyn DeviceConfig>>,
    /// For streams and for messages.
    listeners: [UnixListener; 2],
    streams: Vec<UnixStream>,
    /// How many programs have connected, and how many of them have said where to.
    opened: u32,
    asked: u32,
    /// Connections that there may be, for packets to be of, and the one that the last was of.
    known: Vec<Known>,
    last: usize,
}

/// A connection that there may be.
#[derive(Clone, Copy)]
struct Known {
    guest: u32,
    host: u32,
    /// `VIRTIO_VSOCK_TYPE_STREAM` or `VIRTIO_VSOCK_TYPE_SEQPACKET`.
    kind: u16,
}

impl Sockets {
    pub(super) fn new(from: &mut Unstructured<'_>) -> Result<Self> {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("v");
        let config = WORDS.say(path.to_str().expect("a plain path"), from)?;
        let listener = UnixListener::bind(folder.path().join("v_1")).expect("a socket");
        listener.set_nonblocking(true).expect("a socket that does not wait");
        let messages = of_messages();
        let address = SocketAddrUnix::new(folder.path().join("v_2")).expect("an address");
        rustix::net::bind(&messages, &address).expect("a socket for messages");
        rustix::net::listen(&messages, 4).expect("a socket that listens");
        let listeners = [listener, messages.into()];
        let (streams, known) = (Vec::new(), Vec::new());
        Ok(Self { folder, config, listeners, streams, opened: 0, asked: 0, known, last: 0 })
    }

    /// A program connects, with a word or without.
    fn connect(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        if self.opened >= MOST {
            return Ok(());
        }
        self.opened += 1;
        let folder = self.folder.path();
        let kind = from.int_in_range(1..=2)?;
        let stream = match kind {
            1 => UnixStream::connect(folder.join("v")).ok(),
            _ => connected(&folder.join("v_seqpacket")),
        };
        let Some(stream) = stream else { return Ok(()) };
        stream.set_nonblocking(true).expect("a socket that does not wait");
        if from.ratio(3, 4)? {
            let guest = from.int_in_range(PORTS)?;
            let _ = (&stream).write(format!("CONNECT {guest}\n").as_bytes());
            self.known.push(Known { guest, host: FIRST + self.asked, kind });
            self.asked += 1;
        }
        self.streams.push(stream);
        Ok(())
    }

    /// A program says something: what it wants, part of that, or anything.
    fn say(stream: &UnixStream, from: &mut Unstructured<'_>) -> Result<()> {
        let words: [&[u8]; 8] = [
            b"CONNECT 52\n",
            b"CONNECT ",
            b"connect 4294967295\n",
            b"CONNECT 4294967296\n",
            b"52\r\n",
            b"\n",
            b"",
            b"",
        ];
        let mut text = words[from.int_in_range(0..=7_usize)?].to_vec();
        match from.int_in_range(0..=3)? {
            0 => text.resize(text.len() + usize::from(from.arbitrary::<u16>()?), 7),
            1 => {
                let more = from.int_in_range(0..=40_usize)?.min(from.len());
                text.extend(from.bytes(more)?);
            }
            _ => {}
        }
        let _ = rustix::net::send(stream, &text, SendFlags::NOSIGNAL);
        Ok(())
    }
}

impl Sockets {
    /// A packet of the guest's: it asks for a connection, or goes on with one.
    fn packet(&mut self, from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let which = usize::from(from.arbitrary::<u8>()?);
        let count = self.known.len();
        if count == 0 || from.ratio(1, 8)? {
            // Whoever listens at 2 takes messages; nobody does at 0 and 3.
            let host = [1, 2, 1, 2, 0, 3, FIRST][from.int_in_range(0..=6_usize)?];
            let kind = if host == 2 { 2 } else { 1 };
            let kind = if from.ratio(1, 16)? { from.int_in_range(0..=3)? } else { kind };
            let known = Known { guest: from.int_in_range(PORTS)?, host, kind };
            self.last = count;
            self.known.push(known);
            return packet(known, 1, 0, from);
        }
        // Most packets go on with what the last one began.
        if from.ratio(1, 4)? {
            self.last = which % count;
        }
        let mut of = self.known[self.last];
        if from.ratio(1, 32)? {
            of.kind = from.int_in_range(0..=3)?;
        }
        // `op`: payload most often, a response, credit, and what ends it.
        let op = [5, 5, 5, 5, 5, 5, 2, 2, 2, 6, 7, 4, 4, 4, 3, 8];
        let op = op[from.int_in_range(0..=15_usize)?];
        let length = match (op, from.int_in_range(0..=7)?) {
            (5, 0..=1) => from.arbitrary::<u16>()?.into(),
            (5, _) => from.int_in_range(0..=64_u32)?,
            _ => 0,
        };
        packet(of, op, length, from)
    }
}

impl Subject for Sockets {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        let path = self.folder.path().join("v");
        // The one before has gone, or is about to.
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(self.folder.path().join("v_seqpacket"));
        if let Some(config) = &self.config {
            match config.open() {
                Ok(device) => return device,
                Err(error) => drop(kedge_diag::report(&error)),
            }
        }
        let body = json!({"guest_cid": CID, "uds_path": path, "seqpacket": true});
        let config = (KIND.from_json)(body).expect("it is well-formed");
        config.open().expect("nobody listens there")
    }

    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let which = usize::from(from.arbitrary::<u8>()?);
        let what = from.int_in_range(0..=11)?;
        if what == 11 && from.ratio(1, 4)? {
            // Longer than a connection may take.
            std::thread::sleep(Duration::from_millis(8));
            return Ok(());
        }
        if what <= 2 {
            return self.connect(from);
        }
        if what == 3 {
            self.streams.extend(self.listeners[which % 2].accept().map(|(stream, _)| {
                stream.set_nonblocking(true).expect("a socket that does not wait");
                stream
            }));
            return Ok(());
        }
        let count = self.streams.len();
        let Some(stream) = self.streams.get(which % count.max(1)) else { return Ok(()) };
        match what {
            4 => drop(self.streams.swap_remove(which % count)),
            5 => {
                let ends = [Shutdown::Read, Shutdown::Write, Shutdown::Both];
                let _ = stream.shutdown(ends[from.int_in_range(0..=2_usize)?]);
            }
            6..=7 => drop((&*stream).read(&mut [0; 4096])),
            8 => {
                let mut all = vec![0; 1 << 18];
                while rustix::net::recv(stream, &mut all[..], RecvFlags::empty())
                    .is_ok_and(|(read, _)| read > 0)
                {}
            }
            _ => Self::say(stream, from)?,
        }
        Ok(())
    }

    /// It sends more often than it makes room, and that for events hardly ever.
    fn queue(&mut self, queues: usize, from: &mut Unstructured<'_>) -> Result<usize> {
        Ok([1, 1, 1, 1, 0, 0, 0, 2][from.int_in_range(0..=7_usize)?] % queues)
    }

    fn request(
        &mut self,
        queue: usize,
        _queues: usize,
        from: &mut Unstructured<'_>,
    ) -> Result<Request> {
        if queue != 1 && from.ratio(15, 16)? {
            // Room for a packet, or for an event.
            let room = match (queue, from.ratio(1, 16)?) {
                (0, false) => HEADER + from.int_in_range(1..=4096_u32)?,
                (0, true) => from.arbitrary::<u16>()?.into(),
                (_, false) => 8,
                (_, true) => from.int_in_range(0..=4)?,
            };
            return Ok(Request { readable: Vec::new(), writable: room });
        }
        let readable = match from.ratio(15, 16)? {
            true => self.packet(from)?,
            false => from.arbitrary::<[u8; 50]>()?.to_vec(),
        };
        Ok(Request { readable, writable: 0 })
    }
}

/// A packet with this header's fields, and payload: `struct virtio_vsock_hdr` (5.10.6).
fn packet(of: Known, op: u16, length: u32, from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let told = if from.ratio(1, 32)? { from.arbitrary()? } else { length };
    let room = match from.int_in_range(0..=3)? {
        0 => from.int_in_range(0..=100_u32)?,
        _ => 1 << 16,
    };
    let [sender, receiver] = match from.ratio(1, 32)? {
        true => [from.int_in_range(0..=4_u64)?, from.int_in_range(0..=4_u64)?],
        false => [CID, 2],
    };
    let mut packet = Vec::new();
    packet.extend(sender.to_le_bytes());
    packet.extend(receiver.to_le_bytes());
    packet.extend(of.guest.to_le_bytes());
    packet.extend(of.host.to_le_bytes());
    packet.extend(told.to_le_bytes());
    packet.extend(of.kind.to_le_bytes());
    packet.extend(op.to_le_bytes());
    packet.extend(from.int_in_range(0..=3_u32)?.to_le_bytes());
    packet.extend(room.to_le_bytes());
    packet.extend(from.int_in_range(0..=200_u32)?.to_le_bytes());
    packet.resize(packet.len() + length as usize, 7);
    Ok(packet)
}

/// A socket for messages.
fn of_messages() -> OwnedFd {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    socket.expect("a socket")
}

/// One that is connected with who listens at `path`.
fn connected(path: &Path) -> Option<UnixStream> {
    let socket = of_messages();
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).ok()?).ok()?;
    Some(socket.into())
}
