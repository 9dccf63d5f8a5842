//! A kedge that waits for its machine.
#![allow(dead_code, reason = "each of the tests uses some of it")]
#![allow(unreachable_pub, reason = "of all tests' own crates")]

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use kedge_api::http::CallError;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A kedge that waits for its machine. It is killed when dropped.
pub struct Waiting {
    process: Child,
    folder: TempDir,
    socket: PathBuf,
}

impl Waiting {
    /// Starts it with more `words`, and waits until it answers.
    pub fn start(words: &[&str]) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_kedge")), words)
    }

    /// The same with the model as its hypervisor.
    pub fn on_the_model(words: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kedge"));
        command.env("KEDGE_MODEL", "6.12");
        Self::run(command, words)
    }

    fn run(mut command: Command, words: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("api");
        command.env("XDG_RUNTIME_DIR", folder.path());
        command.arg("--api-sock").arg(&socket).args(words);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        while UnixStream::connect(&socket).is_err() {
            thread::sleep(Duration::from_millis(2));
        }
        Self { process, folder, socket }
    }

    /// Where its API is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The folder with its socket, and with a test's files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends it as a user does: its status.
    pub fn terminate(self) -> Option<i32> {
        self.end().0
    }

    /// Ends it as a user does: the folder with what it left there.
    pub fn into_folder(self) -> TempDir {
        self.end().1
    }

    fn end(mut self) -> (Option<i32>, TempDir) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let status = self.process.wait().unwrap().code();
        (status, std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The smallest arm64 Image (Linux, Documentation/arch/arm64/booting.rst): a header, and
/// nothing but zeroes behind it.
pub fn image() -> Vec<u8> {
    const SIZE: u64 = 4096;
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&SIZE.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

/// What the machine says no with.
pub fn fault(answer: Result<Value, CallError>) -> String {
    match answer {
        Err(CallError::Fault(fault)) => fault,
        other => panic!("no fault: {other:?}"),
    }
}
