//! The devices that are fuzzed, each with what the host's side of it may do.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use arbitrary::{Result, Unstructured};
use kedge_devices::tap::Tap;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::net::Net;
use kedge_devices::virtio::{block, catalog::Kind, rng, vsock};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::driver::{Driver, Subject};

/// A driver of a disk.
pub fn block(data: &[u8]) {
    let folder = TempDir::new().expect("a folder");
    let disk = File::create(folder.path().join("disk")).expect("a file");
    disk.set_len(DISK).expect("a file that grows");
    Driver::drive(Disk { folder, disk }, data);
}

/// A driver of a network card.
pub fn net(data: &[u8]) {
    Driver::drive(Card { cable: None }, data);
}

/// A driver of an entropy device.
pub fn rng(data: &[u8]) {
    Driver::drive(Entropy, data);
}

/// A driver of a vsock device, and programs of the host.
pub fn vsock(data: &[u8]) {
    let folder = TempDir::new().expect("a folder");
    let listener = UnixListener::bind(folder.path().join("v_1")).expect("a socket");
    listener.set_nonblocking(true).expect("a socket that does not wait");
    let messages = of_messages();
    let address = SocketAddrUnix::new(folder.path().join("v_2")).expect("an address");
    rustix::net::bind(&messages, &address).expect("a socket for messages");
    rustix::net::listen(&messages, 8).expect("a socket that listens");
    let listeners = [listener, messages.into()];
    Driver::drive(Sockets { folder, listeners, streams: Vec::new(), opened: 0 }, data);
}

/// Bytes of the disk.
const DISK: u64 = 1 << 20;

struct Disk {
    folder: TempDir,
    disk: File,
}

impl Subject for Disk {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        let path = self.folder.path().join("disk");
        let body = json!({"drive_id": "d", "is_root_device": false, "path_on_host": path,
            "cache_type": "Writeback"});
        open(&block::KIND, body)
    }

    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let length = from.int_in_range(512..=DISK)?;
        self.disk.set_len(length).expect("a file that changes its length");
        Ok(())
    }

    fn request(&mut self, from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        if from.ratio(1, 4)? {
            return Ok(from.arbitrary::<[u8; 32]>()?.to_vec());
        }
        // `struct virtio_blk_req`: type, reserved, sector.
        let kind: u32 = from.int_in_range(0..=14)?;
        let sector: u64 = match from.ratio(7, 8)? {
            true => from.int_in_range(0..=DISK / 512)?,
            false => from.arbitrary()?,
        };
        Ok([&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat())
    }
}

struct Card {
    /// The other end of the tap.
    cable: Option<OwnedFd>,
}

impl Subject for Card {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let pair = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None);
        let (tap, cable) = pair.expect("a pair of sockets");
        self.cable = Some(cable);
        Box::new(Net::new("eth0", vec![Tap::from(tap)], None, Some(1500)))
    }

    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let Some(cable) = &self.cable else { return Ok(()) };
        match from.int_in_range(0..=9)? {
            0 => self.cable = None,
            1 => while rustix::net::recv(cable, &mut [0; 100][..], RecvFlags::empty()).is_ok() {},
            _ => {
                let length = usize::from(from.arbitrary::<u16>()?);
                let frame = vec![from.arbitrary()?; length];
                // A cable that is full loses it.
                let _ = rustix::net::send(cable, &frame, SendFlags::NOSIGNAL);
            }
        }
        Ok(())
    }

    fn request(&mut self, from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let length = from.int_in_range(0..=200)?;
        from.bytes(usize::min(length, from.len())).map(<[u8]>::to_vec)
    }
}

struct Entropy;

impl Subject for Entropy {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        open(&rng::KIND, json!({}))
    }

    fn happen(&mut self, _from: &mut Unstructured<'_>) -> Result<()> {
        Ok(())
    }

    fn request(&mut self, from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        Ok(vec![0; from.int_in_range(0..=40)?])
    }
}

struct Sockets {
    folder: TempDir,
    /// For streams and for messages.
    listeners: [UnixListener; 2],
    streams: Vec<UnixStream>,
    opened: u32,
}

impl Subject for Sockets {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        let path = self.folder.path().join("v");
        // The one before has gone, or is about to.
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_file(self.folder.path().join("v_seqpacket"));
        open(&vsock::KIND, json!({"guest_cid": 3, "uds_path": path, "seqpacket": true}))
    }

    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let which: usize = from.arbitrary::<u8>()?.into();
        match from.int_in_range(0..=5)? {
            0 if self.opened < 32 => {
                self.opened += 1;
                let stream = match which % 2 {
                    0 => UnixStream::connect(self.folder.path().join("v")).ok(),
                    _ => connected(&self.folder.path().join("v_seqpacket")),
                };
                self.streams.extend(stream.inspect(|stream| {
                    let _ = stream.set_nonblocking(true);
                }));
            }
            1 => self.streams.extend(self.listeners[which % 2].accept().map(|(stream, _)| {
                let _ = stream.set_nonblocking(true);
                stream
            })),
            2 if !self.streams.is_empty() => {
                drop(self.streams.swap_remove(which % self.streams.len()))
            }
            3 if !self.streams.is_empty() => {
                let count = self.streams.len();
                let _ = self.streams[which % count].read(&mut [0; 4096]);
            }
            _ if !self.streams.is_empty() => {
                let count = self.streams.len();
                let words: [&[u8]; 5] =
                    [b"CONNECT 52\n", b"CONNECT ", b"connect 4294967295\n", b"\n", b""];
                let text = words[from.int_in_range(0..=4)?].to_vec();
                let more = from.int_in_range(0..=40)?;
                let more = from.bytes(usize::min(more, from.len()))?;
                let _ = self.streams[which % count].write(&[&text, more].concat());
            }
            _ => {}
        }
        Ok(())
    }

    fn request(&mut self, from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        if from.ratio(1, 8)? {
            return Ok(from.arbitrary::<[u8; 50]>()?.to_vec());
        }
        // `struct virtio_vsock_hdr` and some payload.
        let guest: u32 = from.int_in_range(51..=53_u32)?;
        let host: u32 = match from.ratio(1, 2)? {
            true => from.int_in_range(0..=3)?,
            false => (1 << 30) + from.int_in_range(0..=8_u32)?,
        };
        let payload = from.int_in_range(0..=64_u32)?;
        let op = from.int_in_range(0..=9_u16)?;
        let mut packet = Vec::new();
        packet.extend(3_u64.to_le_bytes());
        packet.extend(2_u64.to_le_bytes());
        packet.extend(guest.to_le_bytes());
        packet.extend(host.to_le_bytes());
        packet.extend(payload.to_le_bytes());
        packet.extend(from.int_in_range(1..=2_u16)?.to_le_bytes());
        packet.extend(op.to_le_bytes());
        packet.extend(from.int_in_range(0..=3_u32)?.to_le_bytes());
        packet.extend(from.int_in_range(0..=70_000_u32)?.to_le_bytes());
        packet.extend(from.int_in_range(0..=200_u32)?.to_le_bytes());
        packet.resize(packet.len() + payload as usize, 7);
        Ok(packet)
    }
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

fn open(kind: &Kind, body: Value) -> Box<dyn VirtioDevice> {
    (kind.from_json)(body).expect("it is well-formed").open().expect("it can be opened")
}
