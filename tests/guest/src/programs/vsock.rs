//! Much over one connection, many connections at once, and one that nobody reads from beside
//! others.

use std::fs;
use std::io::ErrorKind::WouldBlock;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use kedge_ids::u64_from;
use tempfile::TempDir;

use super::{go_on, silent, work};
use crate::host::Need;
use crate::linux::{BOOT, Report};
use crate::pattern::{Pattern, send_back};
use crate::suite::{Outcome, Suite, after, times};
use crate::told::Told;
use crate::vsock::{Place, echo, greet, line, start};

/// MiB that go to the guest and come back, and connections at once: all that is asked for, and
/// every day on MMIO, where another test is about vsock, and on PCI.
const MUCH: [u32; 3] = [1024, 2, 16];
const MANY: [u32; 3] = [1000, 50, 200];

/// How much it is on this transport.
fn of([asked, on_mmio, on_pci]: [u32; 3], transport: &str) -> u32 {
    times(asked, if transport == "pci" { on_pci } else { on_mmio })
}

/// Some of them.
const FEW: usize = 20;

/// What a connection is sent of which nobody reads what it has echoed: more than all buffers
/// on the way hold.
const UNREAD: u64 = 8 << 20;

/// How long nothing goes before nobody reads any more.
const STUCK: Duration = Duration::from_millis(300);

/// A CPU of the guest for each direction; where all is asked for, one: interrupts between two
/// that are emulated make each byte take twice as long.
fn cpus() -> u32 {
    times(1, 2)
}

/// Tests of guests with their device on `transport`.
pub(super) fn tests(suite: &mut Suite, transport: &'static str, needs: &'static [Need]) {
    let name = format!("programs::{transport}_vsock_carries_much_and_many");
    suite.each_guest(&name, needs, move |_, kernel| on_guest(kernel, transport));
}

fn on_guest(kernel: &Path, transport: &str) -> Outcome {
    let folder = TempDir::new()?;
    let place = Place::new(folder.path().join("v.sock"));
    let words = format!("--cpus {} --memory 512M --transport {transport}", cpus());
    let mut guest = start(kernel, &words, folder.path(), &place)?;
    may_open_many(guest.id())?;
    talk(&place, transport)?;
    go_on(&mut guest)?;
    let ended = guest.finish_within(BOOT)?.with_status(0)?;
    silent(&Report::new(&ended.stdout), &ended.stderr)
}

/// Process `id` may open as many files as its host allows, for connections over vsock.
fn may_open_many(id: u32) -> Outcome {
    let limits = fs::read_to_string(format!("/proc/{id}/limits"))?;
    let files: Vec<_> = after(&limits, "Max open files")?.split_whitespace().collect();
    ensure!(files[0] == files[1], "it may open {files:?}");
    Ok(())
}

/// Talks with the guest that has its socket there, and its device on this transport.
fn talk(place: &Place, transport: &str) -> Outcome {
    let much = u64::from(of(MUCH, transport)) << 20;
    let stream = place.call_echo()?;
    stream.set_read_timeout(Some(work()))?;
    echo(stream, much).context("the guest echoes much")?;
    // Who has called makes no other way for the bytes.
    guest_asks_for(place, much / 16, || Ok(())).context("the host echoes much")?;

    let all =
        (0..of(MANY, transport)).map(|_| place.call_echo()).collect::<anyhow::Result<Vec<_>>>();
    let mut all = all.context("many connections")?;
    nobody_reads(place, &mut all).context("a connection that nobody reads from")?;
    guest_asks_for(place, UNREAD, || greet_all(&mut all[..FEW]))
        .context("a connection that the host does not read from")?;
    greet_all(&mut all)
}

/// Each of them is answered.
fn greet_all(all: &mut [UnixStream]) -> Outcome {
    for (number, stream) in all.iter_mut().enumerate() {
        greet(stream, &format!("this is {number}")).with_context(|| format!("number {number}"))?;
    }
    Ok(())
}

/// Echoes what the guest sends; it gets what it has sent. `meanwhile` is done before any of
/// it is read.
fn guest_asks_for(place: &Place, bytes: u64, meanwhile: impl FnOnce() -> Outcome) -> Outcome {
    let waiting = place.listen()?;
    let mut answers = place.have_guest_call(bytes)?;
    answers.set_read_timeout(Some(work()))?;
    let stream = waiting.accept()?;
    meanwhile()?;
    let echoes = thread::spawn(move || send_back(&Told::new(stream)));
    let said = line(&mut answers)?;
    ensure!(said == "SAME", "the guest says {said}");
    echoes.join().map_err(|_| anyhow!("the echo panicked"))??;
    Ok(())
}

/// One connection is sent more than all buffers hold while nobody reads what comes back; all
/// others are answered, and then it gets all of it.
fn nobody_reads(place: &Place, others: &mut [UnixStream]) -> Outcome {
    let mut slow = place.call_echo()?;
    let mut out = Stopping { to: slow.try_clone()?, written: 0 };
    slow.set_nonblocking(true)?;
    let stopped = Pattern::new().send(&mut out, UNREAD);
    ensure!(
        stopped.is_err_and(|error| error.kind() == WouldBlock),
        "{UNREAD} bytes are on the way that nobody reads"
    );
    greet_all(others)?;
    slow.set_nonblocking(false)?;
    slow.shutdown(Shutdown::Write)?;
    let came = Pattern::new().receive(&mut slow)?;
    ensure!(came == out.written, "{came} bytes came back of {}", out.written);
    Ok(())
}

/// Counts what is written, until nothing more goes.
struct Stopping {
    to: UnixStream,
    written: u64,
}

impl Write for Stopping {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let deadline = Instant::now() + STUCK;
        loop {
            match self.to.write(bytes) {
                Err(error) if error.kind() == WouldBlock && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                outcome => {
                    self.written += u64_from(*outcome.as_ref().unwrap_or(&0));
                    return outcome;
                }
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
