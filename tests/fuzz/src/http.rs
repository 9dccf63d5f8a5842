//! Clients of the API that send anything, several at a time; and kedge's own client, which
//! is sent anything.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use event_manager::{EventManager, SubscriberOps};
use kedge_api::call::{Call, Parsed};
use kedge_api::http::{Door, Limits, Method, Reply, Request, Response, Server, Stream};
use tempfile::TempDir;

use crate::log;

/// What clients say, in pieces that the fuzzer puts together.
const WORDS: &[&str] = &[
    "GET /version HTTP/1.1\r\n\r\n",
    "GET /events HTTP/1.1\r\n\r\n",
    "PUT /vsock HTTP/1.1\r\n",
    "PATCH /drives/a HTTP/1.0\r\n",
    "DELETE /drives/a HTTP/1.1\r\n\r\n",
    "POST / HTTP/1.1\r\n\r\n",
    "GET ",
    " HTTP/1.1\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 40\r\n",
    "content-length: 99999999\r\n",
    "Content-Length: x\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Content-Type: application/json; charset=utf-8\r\n",
    "Content-Type: image/png\r\n",
    "X: ",
    "\r\n",
    "{\"a\"}",
];

/// What machines answer kedge's own client.
const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 \r\n",
    "HTTP/1.1 400 \r\n",
    "Content-Type: text/plain\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\n",
    "{\"fault_message\": \"no\"}",
    "[1]",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "fffffffff\r\n",
];

/// Reads each request whole, and answers: at once, never, or without an end.
#[derive(Default)]
struct Reader(Vec<Stream>);

impl Door for Reader {
    fn enter(&mut self, request: Request, reply: Reply) {
        match Parsed::read(&request) {
            Ok(Parsed { call: Call::Listen, .. }) => {
                let stream = reply.stream("application/x-ndjson");
                stream.send("{}\n");
                self.0.push(stream);
            }
            Ok(Parsed { call: Call::Remove { .. }, .. }) => drop(reply),
            Ok(Parsed { call: Call::Version, .. }) => {
                let large = serde_json::json!({"firecracker_version": "x".repeat(4000)});
                let heard = reply.heard_by(|_| Box::new(|_| {}));
                heard.send(&Response::with(&large));
            }
            Ok(parsed) => {
                drop(format!("{parsed:?} {}", parsed.call.prefix()));
                reply.send(&Response::with(&serde_json::json!({})));
            }
            Err(fault) => {
                drop(kedge_diag::report(&fault));
                reply.send(&Response::fault(&fault.message()));
            }
        }
        for stream in &self.0 {
            let _ = stream.send(&"x".repeat(5000));
        }
    }
}

/// Clients, or kedge's own: the first byte says which.
pub fn http(data: &[u8]) {
    log::begin();
    let [which, data @ ..] = data else { return };
    let from = &mut Unstructured::new(data);
    match which % 4 {
        0 => ask(Limits::default(), &[data.to_vec()]),
        1 => {
            let (Ok(answer), Ok(waits)) = (said(ANSWERS, from), from.arbitrary()) else { return };
            answer_our_own(answer, waits);
        }
        _ => {
            let limits = Limits { body: 64, head: 512, connections: 3 };
            let clients = (0..2).map(|_| said(WORDS, from)).collect::<Result<Vec<_>>>();
            clients.iter().for_each(|clients| ask(limits, clients));
        }
    }
}

/// Some of `words`, and bytes between.
fn said(words: &[&str], from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut said = Vec::new();
    for _ in 0..from.int_in_range(0..=12)? {
        said.extend(words[usize::from(from.arbitrary::<u8>()?) % words.len()].as_bytes());
        match from.int_in_range(0..=15)? {
            0 => said.resize(said.len() + usize::from(from.arbitrary::<u8>()?) * 4, b'x'),
            1 => {
                let more = from.int_in_range(0..=8_usize)?.min(from.len());
                said.extend(from.bytes(more)?);
            }
            _ => {}
        }
    }
    Ok(said)
}

/// Clients that send what is said in pieces, and read now and then; another is answered
/// meanwhile.
pub(crate) fn ask(limits: Limits, said: &[Vec<u8>]) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("api");
    let server = Server::listen(&path, limits, Reader::default()).expect("a socket");
    let mut manager = EventManager::new().expect("an epoll");
    manager.add_subscriber(server);
    let mut turn = move || while manager.run_with_timeout(0).is_ok_and(|events| events > 0) {};
    let mut clients: Vec<_> = said.iter().map(|said| (connect(&path), &said[..])).collect();
    while clients.iter().any(|(_, rest)| !rest.is_empty()) {
        for (client, rest) in &mut clients {
            let length =
                rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |at| at + 1);
            let (piece, behind) = rest.split_at(length);
            // A server that has heard enough closes.
            let _ = client.write(piece);
            *rest = behind;
            turn();
            let _ = client.read(&mut [0; 4096]);
        }
    }
    drop(clients.pop());
    turn();
    let mut other = connect(&path);
    other.write_all(b"GET /version HTTP/1.1\r\n\r\n").expect("there is room");
    turn();
    let mut answer = [0; 12];
    other.read_exact(&mut answer).expect("others are answered");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// kedge's own client is sent `answer`, and waits for it as long as it takes or not.
fn answer_our_own(answer: Vec<u8>, waits: bool) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("api");
    let listener = UnixListener::bind(&path).expect("a socket");
    let machine = thread::spawn(move || {
        for _ in 0..2 {
            let (mut client, _) = listener.accept().expect("somebody asks");
            let _ = client.read(&mut [0; 4096]);
            let _ = client.write_all(&answer);
        }
    });
    let told = kedge_api::http::listen(&path, "/events", |_| Ok(()));
    told.err().iter().for_each(|error| drop(kedge_diag::report(error)));
    let shown = match waits {
        true => kedge_api::http::call(&path, Method::Put, "/", Some(&serde_json::json!({}))),
        false => kedge_api::http::show(&path, "/", Duration::from_secs(10)),
    };
    shown.err().iter().for_each(|error| drop(kedge_diag::report(error)));
    machine.join().expect("the machine has answered twice");
}

fn connect(path: &Path) -> UnixStream {
    let client = UnixStream::connect(path).expect("there is a server");
    client.set_nonblocking(true).expect("a socket that does not wait");
    client
}
