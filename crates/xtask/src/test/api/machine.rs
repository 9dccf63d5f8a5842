//! A kedge of this machine's own build, with the model as its hypervisor, in a folder with all that the document's examples
//! name.

use std::{
    env,
    fs::{self, File},
    io::{Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::{process, test::model};

/// How long a process may take until it answers.
const PATIENCE: Duration = Duration::from_secs(30);
/// A machine with one of everything.
const CONFIGURATION: &str = include_str!("vm.json");
/// Files that the document's examples name, and their sizes in bytes.
const FILES: [(&str, u64); 4] = [
    ("root.ext4", 1 << 20),
    ("other.ext4", 1 << 20),
    // Those of clones.
    ("root-1.ext4", 1 << 20),
    ("root-2.ext4", 1 << 20),
];
/// Makes the interfaces that they name, `tap0` and on, where nobody else is.
const TAPS: &str = include_str!("taps.py");

/// Whether a process can have network interfaces of its own here; otherwise why not.
pub(super) fn can_have_taps() -> Option<String> {
    process::quiet(with_taps(&env::temp_dir()).arg("true")).err().map(|error| format!("{error:#}"))
}

/// Runs the program behind it where there are the interfaces that the examples name.
fn with_taps(folder: &Path) -> Command {
    let mut command = model::apart(folder);
    command.args(["python3", "-c", TAPS]);
    command
}

/// The process, and its folder. Both go with it, and so do its clones.
pub(super) struct Machine {
    kedge: PathBuf,
    process: Child,
    folder: TempDir,
}

impl Machine {
    /// One of which nothing is said yet.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn new(kedge: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let machine = folder.path().join("machine");
        fs::create_dir(&machine)?;
        for (name, size) in FILES {
            File::create(machine.join(name))?.set_len(size)?;
        }
        fs::write(machine.join("Image"), model::image())?;
        fs::write(machine.join("vm.json"), CONFIGURATION)?;
        let process = start(kedge, &folder, &[])?;
        Self { kedge: kedge.to_owned(), process, folder }.answering()
    }

    /// The same folder with another process, started with `words`.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn again(mut self, words: &[&str]) -> anyhow::Result<Self> {
        self.end();
        self.process = start(&self.kedge, &self.folder, words)?;
        self.answering()
    }

    fn answering(mut self) -> anyhow::Result<Self> {
        let start = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("kedge ended with {status}: {}", self.complaint());
            }
            ensure!(start.elapsed() < PATIENCE, "kedge does not answer: {}", self.complaint());
            thread::sleep(Duration::from_millis(2));
        }
        Ok(self)
    }

    /// Whether it still runs; otherwise how it ended.
    pub(super) fn has_ended(&mut self) -> anyhow::Result<Option<String>> {
        let status = self.process.try_wait()?;
        Ok(status.map(|status| format!("kedge ended with {status}: {}", self.complaint())))
    }

    /// Its API.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("api")
    }

    /// A folder for whoever speaks to it.
    pub(super) fn client_folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks it for something that it can do.
    ///
    /// # Errors
    /// It says no.
    pub(super) fn ask(&self, request: &str, body: &str) -> anyhow::Result<()> {
        let mut stream = UnixStream::connect(self.socket())?;
        let length = body.len();
        write!(
            stream,
            "{request} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 2"), "{request} {body}: {answer}");
        Ok(())
    }

    fn complaint(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    fn end(&mut self) {
        // It and its clones may have ended.
        let _ = kill_process_group(Pid::from_child(&self.process), Signal::KILL);
        let _ = self.process.wait();
        let _ = fs::remove_file(self.socket());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}

fn start(kedge: &Path, folder: &TempDir, words: &[&str]) -> anyhow::Result<Child> {
    let folder = folder.path();
    let mut command = with_taps(folder);
    command.arg(kedge).arg("--api-sock").arg(folder.join("api")).args(words);
    command.current_dir(folder.join("machine")).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(folder.join("stderr"))?);
    command.spawn().with_context(|| format!("cannot start {}", kedge.display()))
}
