//! The vsock device between programs of the host and a driver that keeps the rules.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use kedge_guest_memory::{Bytes, GuestAddress};
use tempfile::TempDir;

use super::packet::{HEADER_SIZE, HOST_CID, Header, STREAM, op, shut};
use super::*;
use crate::virtio::testing::{Driver, WRITE, wait_for};

pub(super) const RX: usize = 0;
pub(super) const TX: usize = 1;
pub(super) const CID: u32 = 3;
/// A port of the guest's.
pub(super) const GUEST: u32 = 52;
/// A port of the host's where a program may wait for the guest.
pub(super) const HOST: u32 = 1024;
/// The guest's buffers to receive into.
const RX_BUFFER: usize = 4096;

/// A device at a socket in `folder`.
pub(super) fn device(folder: &TempDir) -> Vsock {
    Vsock::new(CID, Listener::at(&folder.path().join("v.sock"), &[Kind::Stream]).unwrap())
}

/// A packet of the guest's between these ports.
pub(super) fn packet(guest: u32, host: u32, op: u16) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: HOST_CID,
        src_port: guest,
        dst_port: host,
        kind: STREAM,
        op,
        buf_alloc: 1 << 18,
        ..Header::default()
    }
}

/// A driver of a device, and the folder of its sockets.
pub(super) struct Fixture {
    pub(super) driver: Driver,
    pub(super) metrics: Arc<VsockMetrics>,
    pub(super) folder: TempDir,
    /// Where the chains to receive into are, by their heads.
    receive: HashMap<u32, u64>,
    /// Where packets to send are put.
    transmit: u64,
}

impl Fixture {
    /// One whose driver has buffers to receive into.
    pub(super) fn running() -> Self {
        let mut fixture = Self::starving();
        fixture.offer(32);
        fixture
    }

    /// One whose driver has no buffers to receive into.
    pub(super) fn starving() -> Self {
        let folder = TempDir::new().unwrap();
        let device = device(&folder);
        let metrics = Arc::clone(device.metrics());
        let driver = Driver::running(Box::new(device), 0);
        Self::of(driver, metrics, folder)
    }

    /// One with this driver.
    pub(super) fn of(mut driver: Driver, metrics: Arc<VsockMetrics>, folder: TempDir) -> Self {
        let transmit = driver.allocate(0x2_0000);
        Self { driver, metrics, folder, receive: HashMap::new(), transmit }
    }

    /// Offers `count` buffers to receive into.
    pub(super) fn offer(&mut self, count: usize) {
        for _ in 0..count {
            let address = self.driver.allocate(RX_BUFFER);
            self.offer_at(address);
        }
        self.driver.kick(0);
    }

    fn offer_at(&mut self, address: u64) {
        let head = self.driver.chain(RX, &[(address, RX_BUFFER, WRITE)]);
        self.receive.insert(head.into(), address);
        self.driver.make_available(RX, head);
    }

    /// Sends a packet without waiting until the device has taken it.
    pub(super) fn post(&mut self, header: Header, payload: &[u8]) {
        let head = header.to_bytes();
        let whole = [&head[..], payload].concat();
        self.driver.memory.write_slice(&whole, GuestAddress(self.transmit)).unwrap();
        let head = self.driver.chain(TX, &[(self.transmit, whole.len(), 0)]);
        self.driver.make_available(TX, head);
        self.driver.kick(1);
    }

    /// Sends a packet.
    pub(super) fn send(&mut self, header: Header, payload: &[u8]) {
        self.post(header, payload);
        self.driver.wait_used(TX).unwrap();
    }

    /// Sends payload on a connection between these ports.
    pub(super) fn write(&mut self, ports: (u32, u32), payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap();
        self.send(Header { len, ..packet(ports.0, ports.1, op::RW) }, payload);
    }

    /// The next packet for the guest.
    pub(super) fn next(&mut self) -> (Header, Vec<u8>) {
        let used = self.driver.wait_used(RX).unwrap();
        let address = self.receive.remove(&used.head).unwrap();
        let length = usize::try_from(used.length).unwrap();
        let bytes = self.driver.bytes(address, length);
        self.offer_at(address);
        self.driver.kick(0);
        let (header, payload) = bytes.split_first_chunk::<HEADER_SIZE>().unwrap();
        let header = Header::from_bytes(header);
        assert_eq!(usize::try_from(header.len).unwrap(), payload.len());
        (header, payload.to_vec())
    }

    /// Ports and purpose of the next packet for the guest, which is from the host.
    pub(super) fn next_op(&mut self) -> (u32, u32, u16) {
        let (header, _) = self.next();
        assert_eq!((header.src_cid, header.dst_cid), (HOST_CID, CID.into()));
        (header.dst_port, header.src_port, header.op)
    }

    /// Returns when the device has done what it had to do until now. How many packets the
    /// guest has received.
    pub(super) fn settle(&mut self) -> u16 {
        for _ in 0..3 {
            let nobodys = Header { src_cid: 99, ..packet(0, 0, op::RST) };
            self.send(nobodys, b"");
        }
        self.driver.used_index(RX)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("v.sock")
    }

    /// A program of the host's that asks for a connection.
    pub(super) fn call(&self, line: &str) -> UnixStream {
        let mut program = UnixStream::connect(self.path()).unwrap();
        program.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        program.write_all(line.as_bytes()).unwrap();
        program
    }

    /// A connection that a program of the host's has asked for, and the host's port of it.
    pub(super) fn connected(&mut self) -> (UnixStream, u32) {
        let mut program = self.call(&format!("CONNECT {GUEST}\n"));
        let (guest, host, op) = self.next_op();
        assert_eq!((guest, op), (GUEST, op::REQUEST));
        self.send(packet(GUEST, host, op::RESPONSE), b"");
        assert_eq!(line(&mut program), format!("OK {host}\n"));
        (program, host)
    }

    /// A program of the host's that waits for the guest's at [`HOST`].
    pub(super) fn listener(&self) -> UnixListener {
        UnixListener::bind(self.folder.path().join(format!("v.sock_{HOST}"))).unwrap()
    }
}

/// The next line from the device.
pub(super) fn line(program: &mut UnixStream) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut byte = [0];
        program.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Whether the device has closed the stream, and said nothing before.
pub(super) fn is_closed(program: &mut UnixStream) -> bool {
    match program.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

/// Bytes none of which is like its neighbours.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[test]
fn a_guest_finds_its_address() {
    let fixture = Fixture::running();
    assert_eq!(fixture.driver.read(0x100), CID);
    assert_eq!(fixture.driver.read(0x104), 0);
    assert_eq!(DeviceId::Vsock.number(), 19);
}

#[test]
fn a_program_of_the_host_talks_to_one_of_the_guest() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    assert_eq!(host, FIRST_PORT);
    program.write_all(b"ahoy").unwrap();
    let (header, payload) = vsock.next();
    assert_eq!((header.op, header.kind, header.buf_alloc), (op::RW, STREAM, 64 * 1024));
    assert_eq!(payload, b"ahoy");
    vsock.write((GUEST, host), b"aye");
    let mut answer = [0; 3];
    program.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"aye");
}

#[test]
fn what_a_program_sends_with_its_first_line_arrives_though_it_does_not_wait() {
    let mut vsock = Fixture::running();
    drop(vsock.call("connect 52\nfire and forget"));
    let (_, host, _) = vsock.next_op();
    vsock.send(packet(GUEST, host, op::RESPONSE), b"");
    assert_eq!(vsock.next().1, b"fire and forget");
    let (header, _) = vsock.next();
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, shut::BOTH));
}

#[test]
fn a_line_may_come_in_pieces() {
    let mut vsock = Fixture::running();
    let mut program = vsock.call("CONN");
    vsock.settle();
    program.write_all(b"ECT 52").unwrap();
    vsock.settle();
    program.write_all(b"\n").unwrap();
    assert_eq!(vsock.next_op(), (GUEST, FIRST_PORT, op::REQUEST));
}

#[test]
fn a_line_that_is_none_closes_the_socket() {
    let vsock = Fixture::running();
    assert!(is_closed(&mut vsock.call("HELLO\n")));
    let mut half = vsock.call("CONNECT 5");
    half.shutdown(Shutdown::Write).unwrap();
    assert!(is_closed(&mut half));
}

#[test]
fn a_connection_that_the_guest_refuses_is_closed_without_a_word() {
    let mut vsock = Fixture::running();
    let mut program = vsock.call("CONNECT 52\n");
    let (_, host, _) = vsock.next_op();
    vsock.send(packet(GUEST, host, op::RST), b"");
    assert!(is_closed(&mut program));
}

#[test]
fn a_guest_that_does_not_answer_is_not_waited_for() {
    let mut vsock = Fixture::running();
    let mut program = vsock.call("CONNECT 52\n");
    assert_eq!(vsock.next_op(), (GUEST, FIRST_PORT, op::REQUEST));
    assert!(is_closed(&mut program));
    assert_eq!(vsock.next_op(), (GUEST, FIRST_PORT, op::RST));
}

#[test]
fn a_guest_without_buffers_is_not_told_of_what_is_over() {
    let mut vsock = Fixture::starving();
    assert!(is_closed(&mut vsock.call("CONNECT 52\n")));
    vsock.offer(4);
    assert_eq!(vsock.settle(), 0);
}

#[test]
fn a_program_of_the_guest_talks_to_one_of_the_host() {
    let mut vsock = Fixture::running();
    let listener = vsock.listener();
    vsock.send(packet(GUEST, HOST, op::REQUEST), b"");
    let (mut program, _) = listener.accept().unwrap();
    assert_eq!(vsock.next_op(), (GUEST, HOST, op::RESPONSE));
    vsock.write((GUEST, HOST), b"ahoy");
    let mut said = [0; 4];
    program.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"ahoy");
    program.write_all(b"aye").unwrap();
    assert_eq!(vsock.next().1, b"aye");
}

#[test]
fn a_port_where_nobody_waits_refuses() {
    let mut vsock = Fixture::running();
    vsock.send(packet(GUEST, HOST, op::REQUEST), b"");
    assert_eq!(vsock.next_op(), (GUEST, HOST, op::RST));
    assert_eq!(vsock.metrics.refused.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn megabytes_pass_both_ways() {
    const LENGTH: usize = 3 << 20;
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 5000];
        let mut total = 0;
        while total < LENGTH {
            let count = program.read(&mut buffer).unwrap();
            program.write_all(&buffer[..count]).unwrap();
            total += count;
        }
        program
    });
    let sent = pattern(LENGTH);
    let (mut unsent, mut received) = (&sent[..], Vec::new());
    let (mut tx_count, mut forwarded, mut peer) = (0_u32, 0_u32, 0_u32);
    while received.len() < LENGTH {
        let room = 65536 - tx_count.wrapping_sub(peer);
        let now = unsent.len().min(usize::try_from(room).unwrap()).min(30_000);
        if now > 0 {
            let len = u32::try_from(now).unwrap();
            let head = Header { len, fwd_cnt: forwarded, ..packet(GUEST, host, op::RW) };
            vsock.send(head, &unsent[..now]);
            unsent = &unsent[now..];
            tx_count += len;
            continue;
        }
        let (header, payload) = vsock.next();
        peer = header.fwd_cnt;
        forwarded += header.len;
        received.extend(payload);
        vsock.send(Header { fwd_cnt: forwarded, ..packet(GUEST, host, op::CREDIT_UPDATE) }, b"");
    }
    assert!(received == sent);
    drop(echo.join().unwrap());
}

#[test]
fn connections_take_turns() {
    let mut vsock = Fixture::running();
    let (mut first, one) = vsock.connected();
    let (mut second, two) = vsock.connected();
    let head = |host| Header { buf_alloc: 0, ..packet(GUEST, host, op::CREDIT_UPDATE) };
    vsock.send(head(one), b"");
    vsock.send(head(two), b"");
    first.write_all(&pattern(20_000)).unwrap();
    second.write_all(&pattern(20_000)).unwrap();
    assert_eq!(vsock.next_op().2, op::CREDIT_REQUEST);
    assert_eq!(vsock.next_op().2, op::CREDIT_REQUEST);
    // Both have something to tell before there is a buffer for the second packet.
    vsock.send(packet(GUEST, one, op::CREDIT_UPDATE), b"");
    vsock.send(packet(GUEST, two, op::CREDIT_UPDATE), b"");
    let turns: Vec<u32> = (0..10).map(|_| vsock.next().0.src_port).collect();
    assert_eq!(turns.iter().filter(|port| **port == one).count(), 5, "{turns:?}");
}

#[test]
fn many_connections_are_open_at_once_and_one_more_is_closed() {
    let mut vsock = Fixture::running();
    let mut all: Vec<_> = (0..MOST_CONNECTIONS).map(|_| vsock.connected()).collect();
    assert!(is_closed(&mut vsock.call("")));
    for (program, host) in &mut all {
        vsock.write((GUEST, *host), &host.to_le_bytes());
        let mut said = [0; 4];
        program.read_exact(&mut said).unwrap();
        assert_eq!(u32::from_le_bytes(said), *host);
    }
    let (program, host) = all.pop().unwrap();
    drop(program);
    assert_eq!(vsock.next().0.flags, shut::BOTH);
    vsock.send(packet(GUEST, host, op::RST), b"");
    vsock.settle();
    vsock.connected();
}

#[test]
fn a_guest_that_sends_no_more_still_receives() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    vsock.write((GUEST, host), b"last words");
    vsock.send(Header { flags: shut::SEND, ..packet(GUEST, host, op::SHUTDOWN) }, b"");
    let mut said = String::new();
    program.read_to_string(&mut said).unwrap();
    assert_eq!(said, "last words");
    program.write_all(b"still here").unwrap();
    assert_eq!(vsock.next().1, b"still here");
}

#[test]
fn a_guest_that_receives_no_more_still_sends() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    vsock.send(Header { flags: shut::RECEIVE, ..packet(GUEST, host, op::SHUTDOWN) }, b"");
    vsock.settle();
    assert_eq!(program.write_all(b"to nobody").unwrap_err().kind(), ErrorKind::BrokenPipe);
    vsock.write((GUEST, host), b"hello");
    let mut said = [0; 5];
    program.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"hello");
}

#[test]
fn a_guest_that_is_done_is_answered_when_all_is_delivered() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    vsock.write((GUEST, host), b"bye");
    vsock.send(Header { flags: shut::BOTH, ..packet(GUEST, host, op::SHUTDOWN) }, b"");
    assert_eq!(vsock.next_op(), (GUEST, host, op::RST));
    let mut said = String::new();
    program.read_to_string(&mut said).unwrap();
    assert_eq!(said, "bye");
}

#[test]
fn a_program_that_sends_no_more_still_receives() {
    let mut vsock = Fixture::running();
    let (mut program, host) = vsock.connected();
    program.write_all(b"question").unwrap();
    program.shutdown(Shutdown::Write).unwrap();
    assert_eq!(vsock.next().1, b"question");
    let (header, _) = vsock.next();
    assert_eq!((header.op, header.flags), (op::SHUTDOWN, shut::SEND));
    vsock.write((GUEST, host), b"answer");
    let mut said = [0; 6];
    program.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"answer");
}

#[test]
fn a_guest_that_does_not_let_go_is_told_after_a_while() {
    let mut vsock = Fixture::running();
    let (program, host) = vsock.connected();
    drop(program);
    assert_eq!(vsock.next().0.flags, shut::BOTH);
    assert_eq!(vsock.next_op(), (GUEST, host, op::RST));
}

#[test]
fn a_program_that_does_not_read_costs_its_own_connection_only() {
    let mut vsock = Fixture::running();
    let (_idle, idle) = vsock.connected();
    let (mut busy, host) = vsock.connected();
    let mut sent = 0_u32;
    let mut room = 65536_u32;
    // The stream takes some; then the buffer fills.
    while room >= 16384 {
        vsock.write((GUEST, idle), &pattern(16384));
        sent += 16384;
        vsock.send(packet(GUEST, idle, op::CREDIT_REQUEST), b"");
        let (mut header, _) = vsock.next();
        while header.op == op::CREDIT_UPDATE && vsock.settle() != vsock.driver.taken(RX) {
            header = vsock.next().0;
        }
        room = 65536 - sent.wrapping_sub(header.fwd_cnt);
    }
    vsock.write((GUEST, host), b"through");
    let mut said = [0; 7];
    busy.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"through");
    vsock.send(Header { flags: shut::BOTH, ..packet(GUEST, idle, op::SHUTDOWN) }, b"");
    // It gets no further within the time it has.
    assert_eq!(vsock.next_op(), (GUEST, idle, op::RST));
}

#[test]
fn a_closed_device_leaves_no_socket() {
    let vsock = Fixture::running();
    let path = vsock.path();
    assert!(path.exists());
    drop(vsock.driver);
    assert!(wait_for(|| !path.exists()));
}
