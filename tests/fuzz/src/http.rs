//! Clients of the API that send anything: bytes, and requests whose bodies are anything.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use event_manager::{EventManager, SubscriberOps};
use kedge_api::call::Parsed;
use kedge_api::http::{Door, Limits, Reply, Request, Response, Server};
use tempfile::TempDir;

/// Reads each request whole, and answers.
struct Reader;

impl Door for Reader {
    fn enter(&mut self, request: Request, reply: Reply) {
        match Parsed::read(&request) {
            Ok(_) => reply.send(&Response::with(&serde_json::json!({}))),
            Err(fault) => reply.send(&Response::fault(&fault.message())),
        }
    }
}

/// A client that sends `data` in pieces; another is answered meanwhile.
pub fn http(data: &[u8]) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("api");
    let server = Server::listen(&path, Limits::default(), Reader).expect("a socket");
    let mut manager = EventManager::new().expect("an epoll");
    manager.add_subscriber(server);
    let mut turn = move || while manager.run_with_timeout(0).is_ok_and(|events| events > 0) {};
    let mut client = connect(&path);
    for piece in data.split_inclusive(|byte| *byte == b'\n') {
        // A server that has heard enough closes.
        let _ = client.write(piece);
        turn();
        let _ = client.read(&mut [0; 4096]);
    }
    let mut other = connect(&path);
    other.write_all(b"GET /version HTTP/1.1\r\n\r\n").expect("there is room");
    turn();
    let mut answer = [0; 12];
    other.read_exact(&mut answer).expect("others are answered");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// Requests with a body of JSON, for each path and method: the first two bytes say which.
pub fn requests(data: &[u8]) {
    let [method, path, body @ ..] = data else { return };
    let method = ["GET", "PUT", "PATCH", "DELETE"][usize::from(method % 4)];
    let path = PATHS[usize::from(*path) % PATHS.len()];
    let head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    http(&[head.as_bytes(), body].concat());
}

const PATHS: &[&str] = &[
    "/",
    "/version",
    "/vm",
    "/vm/config",
    "/actions",
    "/machine-config",
    "/cpu-config",
    "/boot-source",
    "/drives/a",
    "/network-interfaces/a",
    "/vsock",
    "/entropy",
    "/serial",
    "/mmds",
    "/mmds/config",
    "/logger",
    "/metrics",
    "/snapshot/create",
    "/snapshot/load",
    "/snapshot/check",
    "/clone",
    "/guest-abi",
    "/balloon",
    "/pmem/a",
    "/hotplug/memory",
];

fn connect(path: &std::path::Path) -> UnixStream {
    let client = UnixStream::connect(path).expect("there is a server");
    client.set_nonblocking(true).expect("a socket that does not wait");
    client
}
