//! A serial port offered on a socket in its machine's folder: for `kedge console`, one at a
//! time.
//!
//! The guest waits for nobody there. What it prints faster than whoever is attached reads
//! is lost to them, and who comes later sees no more than the last of it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::{Guest, hand_on, spawn};

/// How much of what was printed before is shown to who comes.
const RECENT: usize = 16 * 1024;

/// What is said to a second one.
const TAKEN: &[u8] = b"kedge: somebody else is attached to this machine already\r\n";

/// The guest waits for nobody, and none who goes is an end of the process.
const AT_ONCE: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// How long nobody is let in where the host has no more descriptors or threads.
const REST: Duration = Duration::from_millis(100);

/// A socket that leads nowhere yet.
#[derive(Debug)]
pub(crate) struct Offer {
    listener: UnixListener,
    port: Port,
}

/// Where the guest prints to. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Port(Arc<Mutex<Printed>>);

#[derive(Debug, Default)]
struct Printed {
    recent: VecDeque<u8>,
    attached: Option<OwnedFd>,
}

impl Offer {
    /// Listens at `path`.
    ///
    /// # Errors
    /// It cannot be had.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { listener: UnixListener::bind(path)?, port: Port::default() })
    }

    /// Where the guest is to print to.
    pub(crate) fn port(&self) -> Port {
        self.port.clone()
    }

    /// Lets clients in to `guest`, for as long as the process lives.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn connect(self, guest: impl Guest) -> io::Result<()> {
        spawn("console", move || {
            for client in self.listener.incoming() {
                let let_in = client.and_then(|client| self.port.let_in(client, &guest));
                if let_in.is_err() {
                    thread::sleep(REST);
                }
            }
        })
    }
}

impl Port {
    fn let_in(&self, client: UnixStream, guest: &impl Guest) -> io::Result<()> {
        let client = OwnedFd::from(client);
        let mut printed = self.printed();
        if printed.attached.as_ref().is_some_and(|other| !has_gone(other)) {
            // Who does not hear it sees the connection end.
            let _ = send(&client, TAKEN, AT_ONCE);
            return Ok(());
        }
        let (input, guest) = (client.try_clone()?, guest.clone());
        spawn("attached", move || hand_on(&input, &[], &guest))?;
        printed.tell(&client);
        printed.attached = Some(client);
        Ok(())
    }

    fn printed(&self) -> MutexGuard<'_, Printed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Printed {
    /// What was printed before.
    fn tell(&mut self, client: &OwnedFd) {
        let recent = self.recent.make_contiguous();
        // A new connection has room for it.
        let _ = send(client, recent, AT_ONCE);
    }
}

/// Whether the other end is closed.
fn has_gone(client: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut wait = [PollFd::new(client, PollFlags::empty())];
    poll(&mut wait, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Never fails and never waits.
impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut printed = self.printed();
        let surplus = (printed.recent.len() + bytes.len()).saturating_sub(RECENT);
        let surplus = surplus.min(printed.recent.len());
        printed.recent.drain(..surplus);
        printed.recent.extend(bytes);
        let sent = printed.attached.as_ref().map(|client| send(client, bytes, AT_ONCE));
        // What a client does not take is lost to it.
        if sent.is_some_and(|sent| sent.is_err_and(|error| error != Errno::AGAIN)) {
            printed.attached = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A guest that says what it is sent.
    #[derive(Clone)]
    struct Told(Sender<Vec<u8>>);

    impl Guest for Told {
        fn send(&self, bytes: &[u8]) {
            let _ = self.0.send(bytes.to_vec());
        }

        fn stop(&self) {}
    }

    struct Offered {
        folder: tempfile::TempDir,
        port: Port,
        typed: Receiver<Vec<u8>>,
    }

    impl Offered {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let offer = Offer::at(&folder.path().join("socket")).unwrap();
            let (port, (to, typed)) = (offer.port(), channel());
            offer.connect(Told(to)).unwrap();
            Self { folder, port, typed }
        }

        fn attach(&self) -> UnixStream {
            UnixStream::connect(self.folder.path().join("socket")).unwrap()
        }

        fn prints(&mut self, text: &str) {
            self.port.write_all(text.as_bytes()).unwrap();
        }
    }

    fn hear(client: &mut UnixStream, length: usize) -> String {
        let mut bytes = vec![0; length];
        client.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn who_comes_sees_what_was_printed_and_what_is() {
        let mut offered = Offered::new();
        offered.prints("before ");
        let mut client = offered.attach();
        assert_eq!(hear(&mut client, 7), "before ");
        offered.prints("now");
        assert_eq!(hear(&mut client, 3), "now");
        client.write_all(b"typed").unwrap();
        assert_eq!(offered.typed.recv().unwrap(), b"typed");
    }

    #[test]
    fn a_second_one_is_told_so_and_comes_in_when_the_first_has_gone() {
        let mut offered = Offered::new();
        offered.prints("x");
        let mut first = offered.attach();
        assert_eq!(hear(&mut first, 1), "x");
        let mut told = String::new();
        offered.attach().read_to_string(&mut told).unwrap();
        assert_eq!(told.as_bytes(), TAKEN);
        drop(first);
        let mut second = offered.attach();
        assert_eq!(hear(&mut second, 1), "x");
    }

    #[test]
    fn a_guest_that_prints_waits_for_nobody() {
        let mut offered = Offered::new();
        offered.prints("x");
        let mut client = offered.attach();
        assert_eq!(hear(&mut client, 1), "x");
        // More than the connection takes.
        (0..1000).for_each(|_| offered.prints(&"y".repeat(4096)));
        drop(client);
        let mut other = offered.attach();
        assert_eq!(hear(&mut other, RECENT), "y".repeat(RECENT));
    }
}
