//! Where the memory of guests that go on comes from: a file that is taken away, another
//! process that ends, pages that are there before they are asked for.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Ended, Kedge, Running, SOON};
use crate::linux::BOOT;
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::tap::Tap;

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_kernel("restore::a_guest_without_its_file_ends", &[Need::MmuAtFirst], cut_short);
    suite.every_kernel(
        "restore::kedge_outlives_the_loss_of_pages",
        &[Need::MmuAtFirst],
        cut_short_in_kedge,
    );
    suite.every_kernel("restore::a_page_server_serves_a_guest", &[Need::MmuAtFirst], served);
    suite.every_kernel(
        "restore::a_guest_ends_with_its_page_server",
        &[Need::MmuAtFirst],
        server_ends,
    );
    suite.once("restore::what_serves_no_pages_is_refused", &[], no_server);
    suite.every_kernel(
        "restore::a_page_server_fills_huge_pages",
        &[Need::SmallPages, Need::MmuAtFirst],
        huge,
    );
    suite.every_kernel(
        "restore::a_working_set_halves_the_page_faults",
        &[Need::MmuAtFirst],
        |host| working_set(&save_web(host)?),
    );
    suite.every_kernel("restore::devices_without_their_rings_end", &[Need::MmuAtFirst], |host| {
        devices_cut_short(&save_web(host)?)
    });
}

/// A snapshot.
struct Saved {
    folder: TempDir,
}

impl Saved {
    /// What `guest`, called `saved`, is at.
    fn of(guest: Running) -> anyhow::Result<Self> {
        let saved = Self { folder: TempDir::new()? };
        saved.save("saved", "")?;
        guest.terminate()?;
        Ok(saved)
    }

    /// Saves the machine `id` to files with this at the end of their names.
    fn save(&self, id: &str, tail: &str) -> Outcome {
        let [state, memory] = ["state", "memory"].map(|name| self.path(&format!("{name}{tail}")));
        let create = Kedge::new(["snapshot", "create", id]);
        let create = create.with(["--state".into(), state]).with(["--memory".into(), memory]);
        create.finish_within(BOOT)?.with_status(0).map(drop)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// kedge with its state file.
    fn kedge(&self) -> Kedge {
        Kedge::new(["snapshot", "load"]).with([self.path("state")])
    }

    /// kedge with both files.
    fn load(&self) -> Kedge {
        self.kedge().with(["--memory".into(), self.path("memory")])
    }

    /// kedge with its state file and a page server.
    fn serve(&self) -> Kedge {
        self.kedge().with(["--page-server".into(), self.path("socket")])
    }

    /// Takes its memory away.
    fn cut(&self) -> Outcome {
        Ok(OpenOptions::new().write(true).open(self.path("memory"))?.set_len(0)?)
    }
}

/// A guest that counts, saved.
fn counting(host: &Host) -> anyhow::Result<Saved> {
    let guest = Kedge::run(host.payload("counters")).flags("--memory 16M --id saved").start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    Saved::of(guest)
}

fn ensure_lost(ended: Ended) -> Outcome {
    let ended = ended.with_status(1)?;
    let told = ["error: the guest's memory at 0x", "is gone", "fix: leave the memory files"];
    ensure_contains(&ended.stderr, &told)
}

fn cut_short(host: &Host) -> Outcome {
    let saved = counting(host)?;
    let guest = saved.load().start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    saved.cut()?;
    ensure_lost(guest.finish_within(SOON)?)
}

/// A guest that is to go on is told so in its memory: by kedge itself.
fn cut_short_in_kedge(host: &Host) -> Outcome {
    let saved = counting(host)?;
    ensure_lost(cut_while_paused(&saved, saved.load())?)
}

fn cut_while_paused(saved: &Saved, kedge: Kedge) -> anyhow::Result<Ended> {
    let guest = kedge.flags("--paused --id loaded").start()?;
    await_pause()?;
    saved.cut()?;
    // The machine may end before it answers.
    Kedge::new(["resume", "loaded"]).finish()?;
    guest.finish_within(SOON)
}

/// Waits until the machine called `loaded` can be asked for something; it is paused.
fn await_pause() -> Outcome {
    for _ in 0..100 {
        if Kedge::new(["pause", "loaded"]).finish()?.code() == Some(0) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("the machine cannot be reached")
}

/// A page server for `saved` that ends after so many pages, if it is to.
fn server(saved: &Saved, pages: &[&str]) -> anyhow::Result<Running> {
    let socket = saved.path("socket");
    if socket.exists() {
        fs::remove_file(&socket)?;
    }
    let server = Kedge::embedded("page_server").with([socket, saved.path("memory")]).with(pages);
    let server = server.start()?;
    server.wait_for("page server ready", 1, SOON)?;
    Ok(server)
}

fn served(host: &Host) -> Outcome {
    let saved = counting(host)?;
    let server = server(&saved, &[])?;
    let guest = saved.serve().flags("--id served").start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    ensure!(!guest.said().contains("COUNTERS"), "the guest began anew:\n{}", guest.said());
    // All of its memory is in this snapshot, what nobody touched too.
    saved.save("served", "-2")?;
    guest.terminate()?;
    server.wait_for("the guest has ended", 1, SOON)?;
    server.finish_within(SOON)?.with_status(0)?;
    let load = Kedge::new(["snapshot", "load"]).with([saved.path("state-2")]);
    let guest = load.with(["--memory".into(), saved.path("memory-2")]).start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    guest.terminate().map(drop)
}

fn ensure_ended_with_server(ended: Ended) -> Outcome {
    let ended = ended.with_status(1)?;
    ensure_contains(&ended.stderr, &["error: the page server ", "ended", "fix: "])
}

fn server_ends(host: &Host) -> Outcome {
    let saved = counting(host)?;
    let server_of_all = server(&saved, &[])?;
    let guest = saved.serve().flags("--id served").start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    server_of_all.signal(Signal::KILL)?;
    ensure_ended_with_server(guest.finish_within(SOON)?)?;
    // In the middle of a restore, and just behind it, where kedge itself waits for pages.
    for pages in ["0", "1", "5"] {
        let server = server(&saved, &[pages])?;
        let guest = saved.serve().start()?;
        ensure_ended_with_server(guest.finish_within(SOON)?)?;
        server.finish_within(SOON)?.with_status(0)?;
    }
    Ok(())
}

fn no_server(host: &Host) -> Outcome {
    let saved = counting(host)?;
    let refused = saved.serve().finish()?.with_status(1)?;
    ensure_contains(&refused.stderr, &["no page server answers on", "fix: start the page server"])?;
    let file = saved.load().flags("--huge-pages 2M").finish()?.with_status(1)?;
    ensure_contains(&file.stderr, &["a memory file cannot be mapped on huge pages", "fix: "])?;
    saved.cut()?;
    let cut = saved.load().finish()?.with_status(1)?;
    ensure_contains(&cut.stderr, &["it has 0 bytes, and the snapshot's memory has 16777216"])?;
    fs::remove_file(saved.path("memory"))?;
    let absent = saved.load().finish()?.with_status(1)?;
    ensure_contains(&absent.stderr, &["memory cannot be opened", "fix: name the two files"])
}

/// The host's pool of huge pages, as it was when dropped.
struct Pool;

impl Pool {
    const SIZE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn of(pages: u32) -> anyhow::Result<Self> {
        fs::write(Self::SIZE, pages.to_string()).context("the host has no huge pages")?;
        Ok(Self)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // The next test finds out.
        let _ = fs::write(Self::SIZE, "0");
    }
}

fn huge(host: &Host) -> Outcome {
    let saved = counting(host)?;
    let empty = server(&saved, &[])?;
    let refused = saved.serve().flags("--huge-pages 2M").finish()?.with_status(1)?;
    ensure_contains(&refused.stderr, &["no 16 MiB of huge pages left", "fix: add some"])?;
    drop(empty);
    let _pool = Pool::of(8)?;
    let server = server(&saved, &[])?;
    let guest = saved.serve().flags("--huge-pages 2M").start()?;
    guest.wait_for("COUNT ", 3, SOON)?;
    let free = fs::read_to_string(Pool::SIZE.replace("nr_", "free_"))?;
    ensure!(free.trim() != "8", "no huge page is in use");
    guest.terminate()?;
    server.finish_within(SOON)?.with_status(0).map(drop)
}

const WEB: ([u8; 4], u16) = ([10, 89, 0, 2], 80);
const TAP: &str = "kedge-w0";
const MAC: &str = "06:00:0a:59:00:02";
const CARD: &str = "lan";

/// A Linux guest that serves a page over its network card, saved, and its tap.
fn save_web(host: &Host) -> anyhow::Result<Saved> {
    let tap = Tap::new(TAP)?.with_address("10.89.0.1/24")?;
    let guest = Kedge::run(host.linux()?)
        .flags("--memory 192M --id saved")
        .with(["--initrd".into(), host.initrd()?])
        .with(["--net", &format!("tap={},mac={MAC},id={CARD}", tap.name())])
        .cmdline("console=ttyS0 loglevel=1 kedge.run=page")
        .start()?;
    guest.wait_for("=== serving", 1, BOOT)?;
    request()?;
    Saved::of(guest)
}

/// Asks the guest for its page.
fn request() -> Outcome {
    let mut stream = connect()?;
    stream.set_read_timeout(Some(BOOT))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure_contains(&answer, &["200 OK", "\n3999\n4000\n"])
}

/// The host's network gives up after three seconds without a word from the guest, which a
/// busy host may take: that long is no fault.
fn connect() -> io::Result<TcpStream> {
    let since = Instant::now();
    loop {
        match TcpStream::connect_timeout(&SocketAddr::from(WEB), BOOT) {
            Err(error)
                if error.kind() == io::ErrorKind::HostUnreachable && since.elapsed() < BOOT =>
            {
                println!("SILENT for {} s", since.elapsed().as_secs());
            }
            connected => return connected,
        }
    }
}

/// Page faults of a process: minor ones and major ones.
#[derive(Clone, Copy, Debug)]
struct Faults {
    minor: u64,
    major: u64,
}

impl Faults {
    fn of(process: &Running) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id()))?;
        let (_, rest) = stat.rsplit_once(") ").context("a process has a name")?;
        let field = |number: usize| {
            let word = rest.split(' ').nth(number).context("a process has faults")?;
            Ok::<u64, anyhow::Error>(word.parse()?)
        };
        // proc(5): fields 10 and 12, of which `rest` begins with the third.
        Ok(Self { minor: field(7)?, major: field(9)? })
    }

    fn all(self) -> u64 {
        self.minor + self.major
    }
}

/// The page faults of kedge from its start until a restored guest has served its first
/// request.
fn first_request(saved: &Saved, flags: &[&Path], what: &str) -> anyhow::Result<(Faults, Running)> {
    let guest = saved.load().flags("--id loaded").with(flags).start()?;
    request()?;
    let faults = Faults::of(&guest)?;
    println!("FAULTS {what}: {} minor, {} major", faults.minor, faults.major);
    Ok((faults, guest))
}

fn working_set(saved: &Saved) -> Outcome {
    let _tap = Tap::new(TAP)?.with_address("10.89.0.1/24")?;
    let set = saved.path("set");
    let flags = [Path::new("--working-set"), &set];
    let (plain, guest) = first_request(saved, &[], "plain")?;
    guest.terminate()?;
    let (_, guest) = first_request(saved, &flags, "recording")?;
    Kedge::new(["pause", "loaded"]).finish()?.with_status(0)?;
    guest.terminate()?;
    println!("SET {} bytes", fs::metadata(&set)?.len());
    for _ in 0..2 {
        let (prepared, guest) = first_request(saved, &flags, "with the working set")?;
        guest.terminate()?;
        ensure!(prepared.all() * 2 <= plain.all(), "{prepared:?} is more than half of {plain:?}");
    }
    Ok(())
}

/// Its rings are in the memory that is gone.
fn devices_cut_short(saved: &Saved) -> Outcome {
    let _tap = Tap::new(TAP)?.with_address("10.89.0.1/24")?;
    let kept = fs::read(saved.path("memory"))?;
    let ended = cut_while_paused(saved, saved.load());
    fs::write(saved.path("memory"), kept)?;
    ensure_lost(ended?)
}
