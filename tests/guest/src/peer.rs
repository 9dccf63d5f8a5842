//! Whom guests talk to over TCP: a port of the host, served until it is dropped.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The longest that a guest may take to say more.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port.
pub(crate) struct Peer {
    stop: Arc<AtomicBool>,
    received: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

/// What is done with what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It goes back.
    Back,
    /// It stays.
    Kept,
}

impl Peer {
    /// Sends back what comes, when all of it has come.
    ///
    /// # Errors
    /// The port is taken.
    pub(crate) fn echo(port: u16) -> anyhow::Result<Self> {
        Self::start(port, Then::Back)
    }

    /// Keeps what comes.
    ///
    /// # Errors
    /// The port is taken.
    pub(crate) fn sink(port: u16) -> anyhow::Result<Self> {
        Self::start(port, Then::Kept)
    }

    fn start(port: u16, then: Then) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", port))?;
        listener.set_nonblocking(true)?;
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (stopped, kept) = (Arc::clone(&stop), Arc::clone(&received));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                match listener.accept() {
                    Ok((stream, _)) => serve(stream, then, &kept),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_millis(5));
                    }
                    Err(_) => break,
                }
            }
        });
        Ok(Self { stop, received, thread: Some(thread) })
    }

    /// What has come and was kept.
    pub(crate) fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves one guest. One that goes away gets no answer: its test says so.
fn serve(mut stream: TcpStream, then: Then, kept: &Mutex<Vec<u8>>) {
    let mut bytes = Vec::new();
    let heard = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
        .and_then(|()| stream.read_to_end(&mut bytes));
    match (heard, then) {
        (Ok(_), Then::Back) => drop(stream.write_all(&bytes)),
        (Ok(_), Then::Kept) => {
            kept.lock().unwrap_or_else(PoisonError::into_inner).append(&mut bytes);
        }
        (Err(_), _) => {}
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}
