//! Many clients of one machine at once, and bad ones among them: the whole program on any
//! host, with the model as its hypervisor. What is counted is answers: how long they take is
//! printed and nothing more.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod waiting;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use kedge_api::http::{Method, call};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use waiting::Waiting;

const GET: &str = "GET / HTTP/1.1\r\n\r\n";

/// A client that stays connected. Where the server is silent for good, its test fails.
struct Client(BufReader<UnixStream>);

impl Client {
    fn of(waiting: &Waiting) -> Self {
        let stream = UnixStream::connect(waiting.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The status of the next answer, and its body.
    fn hear(&mut self) -> (u16, Value) {
        let mut status = String::new();
        self.0.read_line(&mut status).unwrap();
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "cut short: {status}");
            if let Some(bytes) = line.strip_prefix("Content-Length: ") {
                length = bytes.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        let status = status.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    fn ask(&mut self, text: &str) -> (u16, Value) {
        self.send(text);
        self.hear()
    }

    /// Whether something has come that is not read yet. The next one to read waits again.
    fn has_heard(&mut self) -> bool {
        let stream = self.0.get_mut();
        stream.set_nonblocking(true).unwrap();
        let heard = match self.0.fill_buf() {
            Ok(bytes) => !bytes.is_empty(),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        };
        self.0.get_mut().set_nonblocking(false).unwrap();
        heard
    }
}

/// As many files as the host allows may be open here, and in the programs that are started: all
/// these tests run in one process.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

/// A machine that runs, with an initrd of `initrd` bytes, none of them 0.
fn running(initrd: usize) -> Waiting {
    raise_limit();
    let waiting = Waiting::on_the_model(&[]);
    let [kernel, ramdisk] = ["Image", "initrd"].map(|name| waiting.folder().join(name));
    fs::write(&kernel, waiting::image()).unwrap();
    fs::write(&ramdisk, vec![0xa5; initrd]).unwrap();
    put(&waiting, "/machine-config", &json!({ "vcpu_count": 1, "mem_size_mib": 256 }));
    let boot = json!({ "kernel_image_path": kernel, "initrd_path": ramdisk });
    put(&waiting, "/boot-source", &boot);
    put(&waiting, "/actions", &json!({ "action_type": "InstanceStart" }));
    waiting
}

fn put(waiting: &Waiting, path: &str, body: &Value) {
    call(waiting.socket(), Method::Put, path, Some(body)).unwrap();
}

fn pause(waiting: &Waiting) {
    let paused = json!({ "state": "Paused" });
    call(waiting.socket(), Method::Patch, "/vm", Some(&paused)).unwrap();
}

/// A request with a body.
fn request(line: &str, body: &Value) -> String {
    let body = body.to_string();
    format!("{line} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn thousands_of_requests_on_one_connection_are_answered() {
    const COUNT: u32 = 5000;
    let waiting = running(1);
    let mut client = Client::of(&waiting);
    let start = Instant::now();
    let answered = (0..COUNT).filter(|_| client.ask(GET).1["state"] == "Running").count();
    let a_second = f64::from(COUNT) / start.elapsed().as_secs_f64();
    println!("{a_second:.0} requests a second on one connection");
    assert_eq!(answered, 5000);
}

#[test]
fn five_hundred_connections_are_answered_while_all_of_them_are_open() {
    let waiting = running(1);
    let mut clients: Vec<_> = (0..500).map(|_| Client::of(&waiting)).collect();
    for round in 0..3 {
        clients.iter_mut().for_each(|client| client.send(GET));
        let states = clients.iter_mut().map(|client| client.hear().1["state"].clone());
        let answered = states.filter(|state| state == "Running").count();
        assert_eq!(answered, 500, "in round {round}");
    }
}

#[test]
fn clients_that_change_the_machine_at_once_are_all_answered() {
    let waiting = running(1);
    let mut clients: Vec<_> = (0..100).map(|_| Client::of(&waiting)).collect();
    for (client, state) in clients.iter_mut().zip(["Paused", "Resumed"].into_iter().cycle()) {
        client.send(&request("PATCH /vm", &json!({ "state": state })));
    }
    let statuses: Vec<_> = clients.iter_mut().map(|client| client.hear().0).collect();
    assert_eq!(statuses, [204; 100]);
}

#[test]
fn slow_half_open_and_oversized_requests_cost_others_nothing() {
    let waiting = running(1);
    // Some stop within a line, some within headers, some within a body, and some at once.
    let begun = [
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: loc",
        "PATCH /vm HTTP/1.1\r\nContent-Length: 20\r\n\r\n{",
        "",
    ];
    let mut slow: Vec<_> = (0..200).map(|_| Client::of(&waiting)).collect();
    slow.iter_mut().zip(begun.into_iter().cycle()).for_each(|(client, text)| client.send(text));
    let large = format!("PUT /mmds HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(10_000));
    let mut oversized: Vec<_> = (0..50).map(|_| Client::of(&waiting)).collect();
    for (client, text) in oversized.iter_mut().zip([large, long].iter().cycle()) {
        client.send(text);
    }
    let mut others: Vec<_> = (0..20).map(|_| Client::of(&waiting)).collect();
    for _ in 0..20 {
        let answers = others.iter_mut().map(|client| client.ask(GET).0);
        assert_eq!(answers.collect::<Vec<_>>(), [200; 20]);
    }
    assert!(slow.iter_mut().all(|client| !client.has_heard()), "a part was answered");
    let refused = oversized.iter_mut().map(|client| client.hear().0);
    assert_eq!(refused.collect::<Vec<_>>(), [400; 50]);
    // They finish, and are answered as others.
    let rest = ["TP/1.1\r\n\r\n", "alhost\r\n\r\n", "\"state\": \"Resumed\"}", GET];
    slow.iter_mut().zip(rest.into_iter().cycle()).for_each(|(client, text)| client.send(text));
    let answers: Vec<_> = slow.iter_mut().map(|client| client.hear().0).collect();
    assert_eq!(answers, [200, 200, 204, 200].repeat(50));
}

#[test]
fn queries_are_answered_while_the_machine_is_saved() {
    // As much that a save has to write and to check takes long enough.
    let waiting = running(96 << 20);
    pause(&waiting);
    let [state, memory] = ["state", "memory"].map(|name| waiting.folder().join(name));
    let (mut saving, mut asking) = (Client::of(&waiting), Client::of(&waiting));
    saving.send(&save_to(&state, &memory));
    let (mut meanwhile, mut progress) = (0, Vec::new());
    while !saving.has_heard() {
        let told = asking.ask(GET).1;
        assert_eq!(told["state"], "Paused");
        progress.extend(done_of(&told));
        let config = asking.ask("GET /vm/config HTTP/1.1\r\n\r\n").1;
        assert_eq!(config["machine-config"]["mem_size_mib"], 256);
        meanwhile += 2;
    }
    assert_eq!(saving.hear().0, 204);
    println!("{meanwhile} queries answered during the save");
    assert!(meanwhile > 10, "{meanwhile} queries answered during the save");
    assert!(is_file(&state) && is_file(&memory));
    progress.dedup();
    assert!(progress.len() > 3 && progress.is_sorted(), "{progress:?}");
    assert_eq!(done_of(&asking.ask(GET).1), None);
}

#[test]
fn a_save_whose_client_has_gone_ends_and_leaves_nothing() {
    let waiting = running(96 << 20);
    pause(&waiting);
    let folder = waiting.folder().join("snapshot");
    fs::create_dir(&folder).unwrap();
    let [state, memory] = ["state", "memory"].map(|name| folder.join(name));
    let (mut saving, mut asking) = (Client::of(&waiting), Client::of(&waiting));
    saving.send(&save_to(&state, &memory));
    let mut done = || done_of(&asking.ask(GET).1);
    while done().is_none_or(|bytes| bytes == 0) {}
    assert!(fs::read_dir(&folder).unwrap().count() > 0);
    drop(saving);
    while done().is_some() {}
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    // The machine is as it was, for the next who asks.
    assert_eq!(asking.ask(&save_to(&state, &memory)).0, 204);
    assert!(is_file(&state) && is_file(&memory));
}

/// The request for a save that takes long enough.
fn save_to(state: &Path, memory: &Path) -> String {
    let files = json!({ "snapshot_path": state, "mem_file_path": memory, "checksums": true });
    request("PUT /snapshot/create", &files)
}

/// How far a save is, as `GET /` tells it.
fn done_of(told: &Value) -> Option<u64> {
    let operation = told.get("operation")?;
    assert_eq!(operation["request"], "PUT /snapshot/create");
    operation["done_bytes"].as_u64()
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).unwrap().len() > 0
}
