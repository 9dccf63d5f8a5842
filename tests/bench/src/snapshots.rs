//! `bench snapshots RUNS KERNEL INITRD`: what it takes to pause, resume and save a Linux guest
//! of 128 MiB, and to load it into a program that waits for it, by Firecracker's API.
//!
//! Lines as `bench pause answer_us=N`: the median of so many runs, one more going first.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{api, median};

/// On a tmpfs, as everything here.
const FOLDER: &str = "/tmp/bench-snapshots";
/// Until a guest that has booted is at rest.
const REST: Duration = Duration::from_secs(3);
const BOOT: Duration = Duration::from_secs(300);

/// A program under test, which ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures; the lines to print.
pub(crate) fn measure(runs: usize, kernel: &Path, initrd: &Path) -> anyhow::Result<Vec<String>> {
    let folder = Path::new(FOLDER);
    fs::create_dir_all(folder)?;
    let machine = Machine::boot(folder, kernel, initrd)?;
    let (mut pauses, mut resumes, mut saves) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=runs {
        pauses.push(machine.ask(("PATCH", "/vm"), r#"{"state": "Paused"}"#)?);
        thread::sleep(Duration::from_millis(100));
        resumes.push(machine.ask(("PATCH", "/vm"), r#"{"state": "Resumed"}"#)?);
        thread::sleep(Duration::from_millis(500));
    }
    machine.ask(("PATCH", "/vm"), r#"{"state": "Paused"}"#)?;
    let files = ["state", "memory"].map(|name| folder.join(name));
    for _ in 0..=runs {
        remove(&files)?;
        saves.push(machine.ask(("PUT", "/snapshot/create"), &create(&files))?);
    }
    let bytes = data(&files[1])?;
    drop(machine);

    let (mut loads, mut anonymous) = (Vec::new(), Vec::new());
    for _ in 0..=runs {
        let waiting = Machine::start(folder)?;
        loads.push(waiting.ask(("PUT", "/snapshot/load"), &load(&files, Then::Resume))?);
        waiting.ask(("GET", "/"), "")?;
        drop(waiting);
        let waiting = Machine::start(folder)?;
        waiting.ask(("PUT", "/snapshot/load"), &load(&files, Then::Stay))?;
        anonymous.push(waiting.anonymous_kib()?);
    }
    remove(&files)?;
    Ok(vec![
        line("pause", &pauses),
        line("resume", &resumes),
        format!("{} data_kib={}", line("save", &saves), bytes >> 10),
        line("load", &loads),
        format!("bench clone anonymous_kib={}", median(&anonymous[1..], |kib| u128::from(*kib))),
    ])
}

fn line(label: &str, answers: &[Duration]) -> String {
    format!("bench {label} answer_us={}", median(&answers[1..], Duration::as_micros))
}

fn remove(files: &[PathBuf]) -> anyhow::Result<()> {
    files.iter().filter(|file| file.exists()).try_for_each(fs::remove_file)?;
    Ok(())
}

/// Bytes that a file takes.
fn data(file: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(file)?.blocks() * 512)
}

fn create([state, memory]: &[PathBuf; 2]) -> String {
    let (state, memory) = (state.display(), memory.display());
    format!(r#"{{"snapshot_path": "{state}", "mem_file_path": "{memory}"}}"#)
}

/// What becomes of a machine that was loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Resume,
    Stay,
}

fn load([state, memory]: &[PathBuf; 2], then: Then) -> String {
    let (state, memory, resume) = (state.display(), memory.display(), then == Then::Resume);
    format!(
        r#"{{"snapshot_path": "{state}", "mem_backend":
            {{"backend_type": "File", "backend_path": "{memory}"}}, "resume_vm": {resume}}}"#
    )
}

/// A program under test and its socket.
struct Machine {
    program: Running,
    socket: PathBuf,
}

impl Machine {
    /// One that has no guest yet.
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let machine = Self::spawn(folder, &[])?;
        api::wait_for(&machine.socket)?;
        Ok(machine)
    }

    /// One whose Linux guest has booted and is at rest.
    fn boot(folder: &Path, kernel: &Path, initrd: &Path) -> anyhow::Result<Self> {
        let config = folder.join("vm.json");
        let (kernel, initrd) = (kernel.display(), initrd.display());
        let text = format!(
            r#"{{"boot-source": {{"kernel_image_path": "{kernel}", "initrd_path": "{initrd}",
                "boot_args": "console=ttyS0 loglevel=1 kedge.then=shell"}},
                "machine-config": {{"vcpu_count": 1, "mem_size_mib": 128}}}}"#
        );
        fs::write(&config, text)?;
        let machine = Self::spawn(folder, &["--config-file", &config.display().to_string()])?;
        let start = Instant::now();
        while !fs::read_to_string(folder.join("console"))?.contains("GUEST-UP") {
            ensure!(start.elapsed() < BOOT, "the guest has not booted");
            thread::sleep(Duration::from_millis(200));
        }
        thread::sleep(REST);
        Ok(machine)
    }

    fn spawn(folder: &Path, words: &[&str]) -> anyhow::Result<Self> {
        let socket = folder.join("socket");
        remove(std::slice::from_ref(&socket))?;
        let mut command = Command::new("kedge");
        command.arg("--api-sock").arg(&socket).args(words);
        command.stdin(Stdio::piped()).stdout(File::create(folder.join("console"))?);
        let program = Running(command.spawn().context("cannot start `kedge`")?);
        Ok(Self { program, socket })
    }

    fn ask(&self, request: (&str, &str), body: &str) -> anyhow::Result<Duration> {
        api::ask(&self.socket, request, body)
    }

    /// The memory that is its own: written to, and so shared with nobody.
    fn anonymous_kib(&self) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.program.0.id());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let value = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
        let value = value.and_then(|value| value.trim().strip_suffix("kB"));
        value.context("the kernel does not tell")?.trim().parse().context("no number")
    }
}
