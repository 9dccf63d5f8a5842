//! The folder in which a machine is saved to be cloned. Nobody else sees it, and it goes
//! with the one who made it: a process that is killed cannot see to that, so the next one
//! that makes such a folder does. Those whose makers live are locked.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

/// What names of such folders begin with.
const PREFIX: &str = "kedge-clone-";

/// A folder of this process.
pub(super) struct PrivateFolder {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl PrivateFolder {
    /// Makes one in `place`, with a name that nothing there has, and removes those that were
    /// left there.
    ///
    /// # Errors
    /// It cannot be made; with its path.
    pub(super) fn make(place: &Path) -> Result<Self, (PathBuf, io::Error)> {
        // The machine's process may be in another folder.
        let place = std::path::absolute(place).unwrap_or_else(|_| place.to_owned());
        remove_left(&place);
        let mut number = 0_u64;
        loop {
            let path = place.join(format!("{PREFIX}{}-{number}", process::id()));
            let made = DirBuilder::new().mode(0o700).create(&path).and_then(|()| locked(&path));
            match made {
                Ok(Some(lock)) => return Ok(Self { path, _lock: lock }),
                // Somebody took it for one that was left.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err((path, error)),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// Something of it is still there.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

/// The folder at `path`, locked; nothing if it has gone meanwhile.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let lock = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    // Who has the lock now removes the folder. Where folders cannot be locked, none is ever
    // taken for one that was left.
    if flock(&lock, FlockOperation::LockExclusive).is_ok() && !is_at(&lock, path) {
        return Ok(None);
    }
    Ok(Some(lock))
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn is_at(folder: &File, path: &Path) -> bool {
    let [Ok(open), Ok(there)] = [folder.metadata(), fs::symlink_metadata(path)] else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// Removes what killed processes of this user have left in `place`. What cannot be removed
/// harms nobody but who looks for room.
fn remove_left(place: &Path) {
    let user = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().filter_map(Result::ok) {
        if !entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let path = entry.path();
        let Ok(folder) = open(&path) else { continue };
        let is_ours = folder.metadata().is_ok_and(|about| about.uid() == user);
        let is_left = is_ours && flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Its maker may have removed it meanwhile, and have made another with its name.
        if is_left && is_at(&folder, &path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(place: &Path) -> Vec<String> {
        let entries = fs::read_dir(place).unwrap().map(Result::unwrap);
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_left_is_removed_and_what_somebody_has_is_not() {
        let place = tempfile::tempdir().unwrap();
        let first = PrivateFolder::make(place.path()).unwrap();
        fs::write(first.path().join("memory"), "held").unwrap();
        for name in ["kedge-clone-1-0", "kedge-other-1-0"] {
            fs::create_dir(place.path().join(name)).unwrap();
            fs::write(place.path().join(name).join("memory"), "left").unwrap();
        }
        let second = PrivateFolder::make(place.path()).unwrap();
        let own = |number| format!("kedge-clone-{}-{number}", process::id());
        assert_eq!(names(place.path()), [own(0), own(1), "kedge-other-1-0".to_owned()]);
        assert_eq!(fs::read(first.path().join("memory")).unwrap(), b"held");
        first.remove().unwrap();
        second.remove().unwrap();
        assert_eq!(names(place.path()), ["kedge-other-1-0"]);
    }

    #[test]
    fn what_only_has_such_a_name_stays() {
        let place = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("precious"), "").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), place.path().join("kedge-clone-1-0")).unwrap();
        fs::write(place.path().join("kedge-clone-2-0"), "").unwrap();
        PrivateFolder::make(place.path()).unwrap().remove().unwrap();
        assert_eq!(names(place.path()), ["kedge-clone-1-0", "kedge-clone-2-0"]);
        assert_eq!(names(elsewhere.path()), ["precious"]);
    }

    #[test]
    fn nobody_else_sees_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = PrivateFolder::make(place.path()).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_place_that_is_not_there_is_an_error_with_its_path() {
        let place = tempfile::tempdir().unwrap();
        let (path, error) = PrivateFolder::make(&place.path().join("none")).err().unwrap();
        assert!(path.starts_with(place.path()));
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
