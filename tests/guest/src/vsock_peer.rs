//! What runs in a guest to talk over vsock: it echoes whatever comes to one port, does what
//! is asked of it at another, and echoes messages, each as it came, at a third.
//!
//! `CALL <port> <bytes>` at the latter has it connect to that port of the host, send so many
//! bytes, and say whether it gets the same ones back.

// UNSAFETY: rustix takes addresses of families that it does not know by a pointer.
#![expect(unsafe_code)]

mod pattern;

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::mem::size_of;
use std::os::fd::OwnedFd;
use std::thread;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketType, accept, bind, connect, listen, recv,
    send, shutdown, socket,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use pattern::{Pattern, send_back};

/// Where it echoes.
const ECHO: u32 = 7;
/// Where it is asked.
const ORDERS: u32 = 8;
/// Where it echoes messages.
const MESSAGES: u32 = 10;

const HOST: u32 = libc::VMADDR_CID_HOST;
const ANY: u32 = libc::VMADDR_CID_ANY;

/// Connections that may wait until they are accepted: as many as tests ask for at once. The kernel refuses those beyond.
const WAITING: i32 = 1024;

/// An address of the family.
struct Address {
    cid: u32,
    port: u32,
}

// SAFETY: `f` gets a whole `sockaddr_vm` and its length, and it lives until `f` returns.
unsafe impl SocketAddrArg for Address {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let address = libc::sockaddr_vm {
            svm_family: AddressFamily::VSOCK.as_raw(),
            svm_reserved1: 0,
            svm_port: self.port,
            svm_cid: self.cid,
            svm_zero: [0; 4],
        };
        let length = SocketAddrLen::try_from(size_of::<libc::sockaddr_vm>()).unwrap_or_default();
        f((&raw const address).cast(), length)
    }
}

fn main() -> io::Result<()> {
    // As many connections as there may be.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    let stream = SocketType::STREAM;
    let (echoes, orders) = (listener(ECHO, stream)?, listener(ORDERS, stream)?);
    match listener(MESSAGES, SocketType::SEQPACKET) {
        Ok(messages) => drop(thread::spawn(move || serve(&messages, echo_messages))),
        // Its kernel knows of none before Linux 5.14.
        Err(error) => println!("=== no messages: {error}"),
    }
    println!("=== serving");
    thread::spawn(move || serve(&orders, obey));
    serve(&echoes, |stream| send_back(&stream))
}

fn listener(port: u32, kind: SocketType) -> io::Result<OwnedFd> {
    let listener = socket(AddressFamily::VSOCK, kind, None)?;
    bind(&listener, &Address { cid: ANY, port })?;
    listen(&listener, WAITING)?;
    Ok(listener)
}

/// Serves whoever comes, each in a thread, and says how it was lost who was.
fn serve(listener: &OwnedFd, how: fn(File) -> io::Result<()>) -> io::Result<()> {
    loop {
        let stream = accept(listener)?;
        thread::spawn(move || {
            if let Err(error) = how(stream.into()) {
                println!("LOST {:?}", error.kind());
            }
        });
    }
}

fn echo_messages(socket: File) -> io::Result<()> {
    let socket = OwnedFd::from(socket);
    let mut message = vec![0; 64 << 10];
    loop {
        let (length, _) = recv(&socket, &mut message[..], RecvFlags::empty())?;
        if length == 0 {
            return Ok(());
        }
        send(&socket, &message[..length], SendFlags::NOSIGNAL)?;
    }
}

fn obey(stream: File) -> io::Result<()> {
    let mut orders = BufReader::new(stream.try_clone()?);
    let mut answers = stream;
    let mut line = String::new();
    while orders.read_line(&mut line)? > 0 {
        let words: Vec<_> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["CALL", port, bytes] => match call(number(port)?, number(bytes)?.into()) {
                Ok(true) => "SAME".to_owned(),
                Ok(false) => "DIFFERENT".to_owned(),
                Err(error) => format!("FAILED {:?}", error.kind()),
            },
            _ => "WHAT".to_owned(),
        };
        writeln!(answers, "{answer}")?;
        line.clear();
    }
    Ok(())
}

fn number(word: &str) -> io::Result<u32> {
    word.parse().map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))
}

/// Has the host echo so many bytes. Whether they are the same.
fn call(port: u32, bytes: u64) -> io::Result<bool> {
    let stream = socket(AddressFamily::VSOCK, SocketType::STREAM, None)?;
    connect(&stream, &Address { cid: HOST, port })?;
    let mut stream = File::from(stream);
    let mut out = stream.try_clone()?;
    let sender = thread::spawn(move || -> io::Result<()> {
        Pattern::new().send(&mut out, bytes)?;
        Ok(shutdown(&out, Shutdown::Write)?)
    });
    let same = match Pattern::new().receive(&mut stream) {
        Ok(came) => came == bytes,
        Err(error) if error.kind() == ErrorKind::InvalidData => false,
        Err(error) => return Err(error),
    };
    sender.join().map_err(|_| io::Error::from(ErrorKind::Other))??;
    Ok(same)
}
