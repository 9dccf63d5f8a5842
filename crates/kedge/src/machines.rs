//! Where running machines are found: each that has a name has a folder with its socket,
//! `${XDG_RUNTIME_DIR:-/run}/kedge/<id>/api.sock`, and `console.sock` beside it where its
//! serial port is offered.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use kedge_diag::Fix;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Why a machine cannot have a name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// Another machine has it.
    #[error("a machine with the name `{0}` runs already")]
    Taken(String),
    /// There can be no folder for it.
    #[error("cannot make the machine's folder `{folder}`")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl Fix for ClaimError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Taken(_) => "choose another name (--id), or stop that machine".to_owned(),
            Self::Folder { .. } => "set XDG_RUNTIME_DIR to a folder that can be written".to_owned(),
        })
    }
}

/// Not a machine's name.
#[derive(Debug, thiserror::Error)]
#[error("`--id` cannot be `{0}`")]
pub(crate) struct BadId(String);

impl Fix for BadId {
    fn fix(&self) -> Option<String> {
        Some("write 1 to 64 letters, digits and hyphens".to_owned())
    }
}

/// Whether `id` can be a machine's name, as Firecracker has them.
///
/// # Errors
/// It cannot.
pub(crate) fn check_id(id: &str) -> Result<(), BadId> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match (1..=64).contains(&id.len()) && id.bytes().all(legal) {
        true => Ok(()),
        false => Err(BadId(id.to_owned())),
    }
}

/// A name that is this machine's while it runs. A process that is killed leaves the
/// folder behind; whoever wants the name next finds it unlocked and takes it.
#[derive(Debug)]
pub(crate) struct Claim {
    folder: PathBuf,
    lock: File,
}

/// The file whose lock says that a folder's machine runs.
const LOCK: &str = "lock";
const SOCKET: &str = "api.sock";
const CONSOLE: &str = "console.sock";

impl Claim {
    /// Takes the name `id` for this process.
    ///
    /// # Errors
    /// Another process has it, or there can be no folder.
    pub(crate) fn new(id: &str) -> Result<Self, ClaimError> {
        Self::within(&runtime(), id)
    }

    fn within(runtime: &Path, id: &str) -> Result<Self, ClaimError> {
        let folder = runtime.join(id);
        let failed = |source| ClaimError::Folder { folder: folder.clone(), source };
        loop {
            match DirBuilder::new().recursive(true).mode(0o700).create(&folder) {
                // The last machine takes the folder of all with it, perhaps just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                made => made.map_err(failed)?,
            }
            let mut options = OpenOptions::new();
            let file =
                match options.create(true).truncate(false).write(true).open(folder.join(LOCK)) {
                    // Whoever had the name is just leaving.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    file => file.map_err(failed)?,
                };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(ClaimError::Taken(id.to_owned())),
                Err(error) => return Err(failed(error.into())),
            }
            if is_at(&file, &folder.join(LOCK)) {
                let claim = Self { folder, lock: file };
                claim.forget_sockets();
                return Ok(claim);
            }
        }
    }

    /// Where its API is to listen.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join(SOCKET)
    }

    /// Where its serial port is to be offered.
    pub(crate) fn console(&self) -> PathBuf {
        self.folder.join(CONSOLE)
    }

    /// Makes who looks for its API in the folder find it at `socket`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn lead_to(&self, socket: &Path) -> Result<(), ClaimError> {
        let failed = |source| ClaimError::Folder { folder: self.folder.clone(), source };
        let target = std::path::absolute(socket).map_err(failed)?;
        symlink(target, self.socket()).map_err(failed)
    }

    fn forget_sockets(&self) {
        // There are none, or they are of a process that was killed.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(self.console());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.forget_sockets();
        // The lock goes last: until then nobody else has the folder. What cannot be
        // removed is taken over by whoever wants the name next.
        let _ = fs::remove_file(self.folder.join(LOCK));
        let _ = fs::remove_dir(&self.folder);
        // It stays where there are other machines.
        let _ = self.folder.parent().map(fs::remove_dir);
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

/// The socket of the machine `id`.
pub(crate) fn socket_of(id: &str) -> PathBuf {
    runtime().join(id).join(SOCKET)
}

/// Where the machine `id` offers its serial port, where it does.
pub(crate) fn console_of(id: &str) -> PathBuf {
    runtime().join(id).join(CONSOLE)
}

/// The names of machines that run, or that ran and were killed.
pub(crate) fn names() -> Vec<String> {
    let folders = fs::read_dir(runtime()).into_iter().flatten().flatten();
    let names = folders.filter_map(|folder| folder.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| check_id(name).is_ok()).collect();
    names.sort_unstable();
    names
}

/// The folder with a folder for each machine.
pub(crate) fn runtime() -> PathBuf {
    let given = env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty());
    given.map_or_else(|| PathBuf::from("/run"), PathBuf::from).join("kedge")
}

/// Whether `file` is the one at `path`, and not one that was removed meanwhile.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(there)) => identity(file) == identity(there),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_machines_at_a_time() {
        let runtime = tempfile::tempdir().unwrap();
        let claim = Claim::within(runtime.path(), "web").unwrap();
        let error = Claim::within(runtime.path(), "web").unwrap_err();
        assert_eq!(error.to_string(), "a machine with the name `web` runs already");
        assert!(Claim::within(runtime.path(), "other").is_ok());
        drop(claim);
        assert!(!runtime.path().join("web").exists());
        assert!(Claim::within(runtime.path(), "web").is_ok());
    }

    #[test]
    fn what_a_killed_machine_left_is_taken_over() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = runtime.path().join("web");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(LOCK), "").unwrap();
        fs::write(folder.join(SOCKET), "").unwrap();
        let claim = Claim::within(runtime.path(), "web").unwrap();
        assert!(!claim.socket().exists());
    }

    #[test]
    fn many_who_want_one_name_get_it_in_turn() {
        let runtime = tempfile::tempdir().unwrap();
        let path = runtime.path();
        let taken = || (0..200).filter(|_| Claim::within(path, "web").is_ok()).count();
        let all: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(taken)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert!(all > 0);
        assert!(!path.join("web").exists());
    }
}
