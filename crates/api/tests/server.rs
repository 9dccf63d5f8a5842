//! A server and its clients, well and ill behaved.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use event_manager::{EventManager, SubscriberOps};
use kedge_api::http::{
    CallError, Limits, Method, Reply, Request, Response, Sent, Server, Stream, call,
};
use serde_json::{Value, json};

const LIMITS: Limits = Limits { body: 100, head: 1000, connections: 300 };

/// A server that says what it was asked, but keeps the replies to `/later`.
struct Running {
    _folder: tempfile::TempDir,
    path: PathBuf,
    later: Receiver<Reply>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let (keep, later) = mpsc::channel();
        let door = move |request, reply| answer(&request, reply, &keep);
        let server = Server::listen(&path, LIMITS, door).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut manager = EventManager::new().unwrap();
            manager.add_subscriber(server);
            while !stopped.load(Ordering::Relaxed) {
                manager.run_with_timeout(20).unwrap();
            }
        });
        Self { _folder: folder, path, later, stop, thread: Some(thread) }
    }

    fn connect(&self) -> UnixStream {
        connect(&self.path)
    }
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn answer(request: &Request, reply: Reply, keep: &Sender<Reply>) {
    match request.path.as_str() {
        "/later" => keep.send(reply).unwrap(),
        "/never" => drop(reply),
        "/no" => reply.send(&Response::fault("no: ask for something else")),
        path => {
            let body = String::from_utf8_lossy(&request.body);
            let method = request.method.name();
            reply.send(&Response::with(&json!({ "method": method, "path": path, "body": body })));
        }
    }
}

/// Sends `text` and returns all that comes back until the server closes.
fn exchange(path: &Path, text: &str) -> String {
    let mut stream = connect(path);
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A request for an answer without an end.
fn listen(running: &Running) -> (UnixStream, Stream) {
    let mut client = running.connect();
    client.write_all(b"GET /later HTTP/1.1\r\n\r\n").unwrap();
    (client, running.later.recv().unwrap().stream("text/plain"))
}

#[test]
fn an_answer_without_an_end_comes_in_pieces() {
    let running = Running::start();
    let (mut client, stream) = listen(&running);
    assert_eq!(stream.send("one\n"), Sent::Yes);
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n4\r\none\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        read.extend(byte);
    }
    let head = String::from_utf8(read).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("Transfer-Encoding: chunked\r\n"));
    assert_eq!(stream.send("a second one"), Sent::Yes);
    drop(stream);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "c\r\na second one\r\n0\r\n\r\n");
}

#[test]
fn who_does_not_read_gets_no_more_and_keeps_nobody() {
    let running = Running::start();
    let (mut slow, stream) = listen(&running);
    let (mut other, others) = listen(&running);
    let piece = "x".repeat(1000);
    let sent = (0..100_000).take_while(|_| stream.send(&piece) == Sent::Yes).count();
    assert!((64..99_999).contains(&sent), "{sent}");
    assert_eq!(others.send("still here"), Sent::Yes);
    drop(others);
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("a\r\nstill here\r\n0\r\n\r\n"));
    // Once it has read, it gets more.
    let mut read = vec![0; sent * 1000];
    slow.read_exact(&mut read).unwrap();
    while stream.send("more") == Sent::TooMuch {
        std::thread::yield_now();
    }
    drop(slow);
    while stream.send("nobody") != Sent::Gone {
        std::thread::yield_now();
    }
}

fn get(path: &Path, resource: &str) -> Result<Value, CallError> {
    call(path, Method::Get, resource, None)
}

#[test]
fn a_request_is_answered() {
    let running = Running::start();
    let answer = call(&running.path, Method::Put, "/x", Some(&json!({ "a": 1 }))).unwrap();
    assert_eq!(answer, json!({ "method": "PUT", "path": "/x", "body": "{\"a\":1}" }));
}

#[test]
fn a_fault_is_the_clients_error() {
    let running = Running::start();
    assert_eq!(get(&running.path, "/no").unwrap_err().to_string(), "no: ask for something else");
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let running = Running::start();
    let later = "GET /later HTTP/1.1\r\n\r\n";
    let second = "GET /second HTTP/1.1\r\nConnection: close\r\n\r\n";
    let path = &running.path;
    let answers = std::thread::scope(|scope| {
        let client = scope.spawn(move || exchange(path, &format!("{later}{second}")));
        running.later.recv().unwrap().send(&Response::with(&json!("first")));
        client.join().unwrap()
    });
    let first = answers.find("\"first\"").unwrap();
    assert!(first < answers.find("/second").unwrap(), "{answers}");
}

#[test]
fn who_waits_for_an_answer_keeps_nobody_else_waiting() {
    let running = Running::start();
    let mut waiting = running.connect();
    waiting.write_all(b"GET /later HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let reply = running.later.recv().unwrap();
    assert!(get(&running.path, "/other").is_ok());
    reply.send(&Response::done());
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 \r\n"), "{answer}");
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answer() {
    let running = Running::start();
    let mut stream = running.connect();
    stream.write_all(b"GET /later HTTP/1.1\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let reply = running.later.recv().unwrap();
    assert!(get(&running.path, "/meanwhile").is_ok());
    reply.send(&Response::done());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 204 \r\n"), "{answer}");
}

#[test]
fn a_client_that_goes_is_noticed_by_who_works_for_it() {
    let running = Running::start();
    let mut stream = running.connect();
    stream.write_all(b"GET /later HTTP/1.1\r\n\r\n").unwrap();
    let reply = running.later.recv().unwrap();
    assert!(!reply.client().is_gone());
    drop(stream);
    let gone = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        reply.client().is_gone()
    });
    assert!(gone);
    reply.send(&Response::done());
    assert!(get(&running.path, "/after").is_ok());
}

#[test]
fn a_request_that_nobody_answers_is_answered_all_the_same() {
    let running = Running::start();
    let error = get(&running.path, "/never").unwrap_err();
    assert_eq!(error.to_string(), "the machine ended before it answered");
}

#[test]
fn what_is_no_request_is_told_so_and_closed() {
    let running = Running::start();
    let answer = exchange(&running.path, "POST / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 \r\n"), "{answer}");
    assert!(answer.contains("\"error\":\"the method `POST`"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[test]
fn a_body_too_large_is_refused_before_it_is_sent() {
    let running = Running::start();
    let answer = exchange(&running.path, "PUT / HTTP/1.1\r\nContent-Length: 101\r\n\r\n");
    assert!(answer.contains("the body of 101 bytes is larger than 100"), "{answer}");
}

#[test]
fn slow_and_half_open_clients_cost_others_nothing() {
    let running = Running::start();
    let mut slow = running.connect();
    slow.write_all(b"GET /slow HT").unwrap();
    let silent: Vec<_> = (0..200).map(|_| running.connect()).collect();
    assert!(get(&running.path, "/quick").is_ok());
    slow.write_all(b"TP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("/slow"), "{answer}");
    drop(silent);
}

#[test]
fn one_connection_too_many_is_told_so() {
    let running = Running::start();
    let mut held: Vec<_> = (0..LIMITS.connections).map(|_| running.connect()).collect();
    // All of them are there once the last one is answered.
    held.last_mut().unwrap().write_all(b"GET /x HTTP/1.1\r\n\r\n").unwrap();
    let mut byte = [0];
    held.last_mut().unwrap().read_exact(&mut byte).unwrap();
    let answer = exchange(&running.path, "");
    assert!(answer.starts_with("HTTP/1.1 503 \r\n"), "{answer}");
    drop(held);
    let answered = (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        get(&running.path, "/again").is_ok()
    });
    assert!(answered);
}

#[test]
fn a_client_that_reads_nothing_keeps_no_more_than_one_answer() {
    let running = Running::start();
    let mut stream = running.connect();
    stream.set_nonblocking(true).unwrap();
    let request = b"GET /x HTTP/1.1\r\n\r\n".repeat(64);
    // Until both sockets' buffers are full.
    while stream.write(&request).is_ok() {}
    assert!(get(&running.path, "/other").is_ok());
}

#[test]
fn a_path_that_is_taken_is_refused_with_the_cure() {
    let running = Running::start();
    let door = |_: Request, _: Reply| {};
    let error = Server::listen(&running.path, LIMITS, door).unwrap_err();
    let report = kedge_diag::report(&error);
    assert!(report.contains("stop the machine that listens there"), "{report}");
    assert!(get(&running.path, "/still").is_ok());
}

#[test]
fn many_clients_at_once_are_all_answered() {
    let running = Running::start();
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for client in 0..50 {
            let (path, wrong) = (&running.path, &wrong);
            scope.spawn(move || {
                for turn in 0..20 {
                    let resource = format!("/{client}/{turn}");
                    let answer = get(path, &resource);
                    if answer.as_ref().ok().and_then(|answer| answer["path"].as_str())
                        != Some(&resource)
                    {
                        wrong.lock().unwrap().push(format!("{resource}: {answer:?}"));
                    }
                }
            });
        }
    });
    assert_eq!(wrong.into_inner().unwrap(), Vec::<String>::new());
}
