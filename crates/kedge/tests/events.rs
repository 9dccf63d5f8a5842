//! What becomes of a machine, as those hear it who listen at its process, on any host.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod waiting;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;
use waiting::Waiting;

/// A client that listens: what it reads from behind the head of the answer.
fn listen(waiting: &Waiting) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(waiting.socket()).unwrap();
    stream.write_all(b"GET /events HTTP/1.1\r\n\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
    }
    assert!(head.contains("Content-Type: application/x-ndjson\r\n"), "{head}");
    reader
}

/// The next line.
fn next(events: &mut impl BufRead) -> Value {
    let (mut length, mut line, mut end) = (String::new(), String::new(), [0; 2]);
    events.read_line(&mut length).unwrap();
    events.read_line(&mut line).unwrap();
    events.read_exact(&mut end).unwrap();
    assert_eq!(usize::from_str_radix(length.trim_end(), 16).unwrap(), line.len());
    serde_json::from_str(&line).unwrap()
}

#[test]
fn whoever_listens_learns_what_the_machine_is_at_and_when_nothing_more_comes() {
    let waiting = Waiting::start(&["--id", "vm-7"]);
    let mut listeners = [listen(&waiting), listen(&waiting), listen(&waiting)];
    for events in &mut listeners {
        let first = next(events);
        assert_eq!((first["event"].as_str(), first["id"].as_str()), (Some("state"), Some("vm-7")));
        assert_eq!(first["state"], "Not started");
        assert!(first["utc_timestamp_ms"].as_u64() > Some(1_700_000_000_000));
    }
    let [gone, others @ ..] = listeners;
    drop(gone);
    assert_eq!(waiting.terminate(), Some(143));
    for mut events in others {
        let mut rest = String::new();
        events.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "0\r\n\r\n");
    }
}
