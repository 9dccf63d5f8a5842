//! A kedge of this machine's own build, with the model as its hypervisor, in a folder with all that the document's examples
//! name.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::{build, paths, process};

/// The kernel that the model runs on.
const RELEASE: &str = "6.12";
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

/// Builds kedge with the model, as unit tests have it; its path.
///
/// # Errors
/// It does not build.
pub(super) fn program() -> anyhow::Result<PathBuf> {
    let mut build = build::cargo();
    // What unit tests were built from is there already.
    build.args(["test", "--no-run", "--locked", "--workspace", "--test", "api"]);
    process::quiet(build.args(build::WITH_MODEL))?;
    Ok(paths::work().with_file_name("debug").join("kedge"))
}

/// Whether a process can have network interfaces of its own here; otherwise why not.
pub(super) fn can_have_taps() -> Option<String> {
    process::quiet(with_taps().arg("true")).err().map(|error| format!("{error:#}"))
}

/// Runs the program behind it where there are the interfaces that the examples name.
fn with_taps() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "python3", "-c", TAPS]);
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
        fs::write(machine.join("Image"), image())?;
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

    /// Makes a request, and hears no more of the answer than its status.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn begin_to_answer(&self, request: &str) -> anyhow::Result<u64> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "{request} HTTP/1.1\r\n\r\n")?;
        let mut head = String::new();
        BufReader::new(stream).read_line(&mut head)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.with_context(|| format!("{request}: {head}"))
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
    let mut command = with_taps();
    command.arg(kedge).arg("--api-sock").arg(folder.join("api")).args(words);
    command.env("KEDGE_MODEL", RELEASE).env("XDG_RUNTIME_DIR", folder);
    command.current_dir(folder.join("machine")).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(folder.join("stderr"))?);
    command.spawn().with_context(|| format!("cannot start {}", kedge.display()))
}

/// The smallest arm64 Image (Linux, Documentation/arch/arm64/booting.rst): a header, and one page behind it.
fn image() -> Vec<u8> {
    const SIZE: u64 = 4096;
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&SIZE.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}
