//! Standard input as a guest sees it.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;

/// A guest that writes down what happens to it.
#[derive(Clone)]
struct Diary(Arc<Mutex<Sender<Vec<u8>>>>);

impl Guest for Diary {
    fn send(&self, bytes: &[u8]) {
        self.0.lock().unwrap().send(bytes.to_vec()).unwrap();
    }

    fn stop(&self) {
        self.send(b"<stop>");
    }
}

fn diary() -> (Diary, Receiver<Vec<u8>>) {
    let (sender, entries) = channel();
    (Diary(Arc::new(Mutex::new(sender))), entries)
}

/// All that was typed until the input ended.
fn typed(entries: &Receiver<Vec<u8>>) -> Vec<u8> {
    let mut all = Vec::new();
    while let Ok(bytes) = entries.recv_timeout(Duration::from_secs(10)) {
        all.extend(bytes);
    }
    all
}

#[test]
fn a_pipe_is_handed_on_as_it_is() {
    let (input, mut user) = io::pipe().unwrap();
    let (guest, entries) = diary();
    let _console = Unconnected::new(&input).unwrap().connect(guest).unwrap();
    user.write_all(b"ls\x01x\n").unwrap();
    drop(user);
    assert_eq!(typed(&entries), b"ls\x01x\n");
}

#[test]
fn what_waits_in_a_pipe_comes_first() {
    let (input, mut user) = io::pipe().unwrap();
    user.write_all(b"one ").unwrap();
    let (guest, entries) = diary();
    let _console = Unconnected::new(&input).unwrap().connect(guest).unwrap();
    user.write_all(b"two").unwrap();
    drop(user);
    assert_eq!(typed(&entries), b"one two");
}

#[test]
fn an_input_at_its_end_gets_no_thread() {
    let (input, user) = io::pipe().unwrap();
    drop(user);
    let (guest, entries) = diary();
    let _console = Unconnected::new(&input).unwrap().connect(guest).unwrap();
    assert!(entries.recv().is_err());
}
