//! A save that ends before its time: by SIGKILL at any moment, or at a limit of the
//! host. A process of its own saves, over and over, where a whole snapshot stands.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kedge_saved_state::{
    About, Contents, Durability, Part, PendingPair, PlaceError, Region, Section, Snapshot,
    Versioned,
};
use libtest_mimic::{Arguments, Trial};
use serde::{Deserialize, Serialize};

/// What a process of this program does instead of testing, and where.
const PROCESS: &str = "KEDGE_TEST_PROCESS";
const FOLDER: &str = "KEDGE_TEST_FOLDER";
const KILLS: u64 = 200;
const PAGE: u32 = 4096;
const PAGES: u64 = 256;

#[derive(Serialize, Deserialize)]
struct CountV1 {
    count: u64,
}

impl Versioned for CountV1 {
    const KIND: &'static str = "count";
    const VERSION: u16 = 1;
}

fn files(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("state"), folder.join("mem"))
}

/// Saves a snapshot whose state and whose every other page hold `count`.
fn save(folder: &Path, count: u64) -> Result<(), PlaceError> {
    let (state, memory) = files(folder);
    let pair = PendingPair::create(&state, &memory, Contents::Full)?;
    let regions = [Region { start: 0x4000_0000, size: u64::from(PAGE) * PAGES }];
    let mut writer = pair.begin_memory(&regions, PAGE)?;
    // One of the machine's pages differs from one snapshot to the next, so that samples
    // hardly ever tell two apart.
    let mut page = [0x55; 4096];
    for number in (0..PAGES).step_by(2) {
        if number == 100 {
            page[..8].copy_from_slice(&count.to_le_bytes());
        }
        let written = writer.write(number * u64::from(PAGE), &page);
        written.map_err(|source| pair.memory_error(source))?;
        page.fill(0x55);
    }
    let written = writer.finish().map_err(|source| pair.memory_error(source))?;
    let about = About {
        release: "0.1.0".to_owned(),
        architecture: "aarch64".to_owned(),
        page_size: PAGE,
        kernel: "6.12.38".to_owned(),
        cpu: 0,
        saved_at: 0,
        machine: "{}".to_owned(),
    };
    let section = Section::required(Part::of(&CountV1 { count }));
    pair.commit(&about, &written, &[section], Durability::Cached)
}

/// The count of the snapshot that is there, of state and memory.
fn saved(folder: &Path) -> (u64, u64) {
    let (state, memory) = files(folder);
    let snapshot = Snapshot::open(&state, &memory).unwrap();
    snapshot.image().verify().unwrap();
    let mut bytes = [0; 8];
    snapshot.image().file().read_exact_at(&mut bytes, 100 * u64::from(PAGE)).unwrap();
    let count = snapshot.state().read_part::<CountV1>().unwrap().count;
    (count, u64::from_le_bytes(bytes))
}

/// This program, to do what `process` says.
fn process(process: &str, folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env(PROCESS, process).env(FOLDER, folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A folder in memory, where there is one: disks would decide how many saves there are.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn main() {
    let folder = || PathBuf::from(env::var_os(FOLDER).unwrap());
    match env::var(PROCESS).as_deref() {
        Ok("over and over") => save_over_and_over(&folder()),
        Ok("past a limit") => save_past_a_limit(&folder()),
        _ => test(),
    }
}

fn test() {
    let trials = vec![
        trial("a kill at any moment leaves a whole snapshot", kill),
        trial("a disk without room leaves the old snapshot and nothing else", fill),
        trial("a snapshot can be read while the next is saved", read_on),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn trial(name: &str, test: fn()) -> Trial {
    let run = move || {
        test();
        Ok(())
    };
    Trial::test(name, run)
}

/// Until it is killed.
fn save_over_and_over(folder: &Path) {
    let (first, _) = saved(folder);
    io::stdout().write_all(b"!").unwrap();
    io::stdout().flush().unwrap();
    (first + 1..u64::MAX).for_each(|count| save(folder, count).unwrap());
}

fn save_past_a_limit(folder: &Path) {
    let error = save(folder, 2).unwrap_err();
    fs::write(folder.join("error"), kedge_diag::report(&error)).unwrap();
}

fn kill() {
    let folder = in_memory();
    save(folder.path(), 0).unwrap();
    let begun = Instant::now();
    save(folder.path(), 1).unwrap();
    // Moments all over three saves.
    let span = u64::try_from(begun.elapsed().as_micros()).unwrap() * 3 + 1;
    let mut last = 1;
    for kill in 0..KILLS {
        let mut child = process("over and over", folder.path()).stdout(Stdio::piped()).spawn();
        let child = child.as_mut().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        sleep(Duration::from_micros(kill * 7919 % span));
        child.kill().unwrap();
        child.wait().unwrap();
        let (state, memory) = saved(folder.path());
        assert_eq!(state, memory, "kill {kill}");
        assert!(state >= last, "kill {kill}");
        last = state;
    }
    assert!(last > KILLS / 4, "hardly a snapshot was saved between two kills");
    save(folder.path(), 0).unwrap();
    assert_eq!(saved(folder.path()), (0, 0));
}

fn fill() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), 1).unwrap();
    let own = process("past a limit", folder.path());
    // The limit stands for a full disk: the host refuses a write in the middle.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\""]).arg(own.get_program());
    let variables = own.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let status = shell.envs(variables);
    assert!(status.stdout(Stdio::null()).status().unwrap().success());

    let error = fs::read_to_string(folder.path().join("error")).unwrap();
    assert!(error.contains("mem.saving cannot be written"), "{error}");
    fs::remove_file(folder.path().join("error")).unwrap();
    let mut names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["mem", "state"]);
    assert_eq!(saved(folder.path()), (1, 1));
}

fn read_on() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), 1).unwrap();
    let (state, memory) = files(folder.path());
    let old = Snapshot::open(&state, &memory).unwrap();
    save(folder.path(), 2).unwrap();
    old.image().verify().unwrap();
    let mapped: File = old.image().file().try_clone().unwrap();
    assert_eq!(mapped.metadata().unwrap().len(), u64::from(PAGE) * PAGES);
}
