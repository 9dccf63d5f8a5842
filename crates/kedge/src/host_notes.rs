//! Notes on this host that machines leave for those after them, in
//! `${XDG_RUNTIME_DIR:-/run}/kedge/.host/`: no machine has such a name. A note belongs to
//! one start of one kernel, and is believed only where nobody else could have written it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use kedge_firmware::Notes;
use rustix::fs::OFlags;
use tracing::debug;

/// Bytes of the longest note that is read.
const LONGEST: u64 = 64 << 10;
/// Tells one start of a kernel from all others (Linux, admin-guide/sysctl/kernel.rst,
/// `random`).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// Has a folder for each processor.
const PROCESSORS: &str = "/sys/devices/system/cpu";
/// In it, where its make and model stand (Linux, arch/arm64/cpu-feature-registers.rst).
const MODEL: &str = "regs/identification/midr_el1";

/// The notes in a folder.
#[derive(Debug)]
pub(crate) struct HostNotes {
    folder: PathBuf,
    processors: PathBuf,
}

impl HostNotes {
    /// Those beside the machines of this user.
    pub(crate) fn beside_machines() -> Self {
        let folder = crate::machines::runtime().join(".host");
        Self { folder, processors: PROCESSORS.into() }
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
        let file = options.open(self.folder.join(name))?;
        let about = file.metadata()?;
        let own = about.uid() == rustix::process::geteuid().as_raw();
        if !about.is_file() || !own || about.mode() & 0o022 != 0 {
            return Err(io::Error::other("somebody else could have written it"));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(about.size().min(LONGEST)).unwrap_or(0));
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&self, name: &str, note: &[u8]) -> io::Result<()> {
        if !are_alike(&self.processors)? {
            return Err(io::Error::other("this host's processors are not all of one model"));
        }
        let boot = fs::read(BOOT)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        // A second machine may be writing one, too.
        let new = self.folder.join(format!("{name}.{}", process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut file| {
                [boot.as_slice(), note].iter().try_for_each(|part| file.write_all(part))
            })
            .and_then(|()| fs::rename(&new, self.folder.join(name)));
        if written.is_err() {
            // It may not even be there.
            let _ = fs::remove_file(&new);
        }
        written
    }
}

impl Notes for HostNotes {
    fn recall(&self, name: &str) -> Option<Vec<u8>> {
        let mut note = self.read(name).ok()?;
        let boot = fs::read(BOOT).ok()?;
        note.starts_with(&boot).then(|| note.split_off(boot.len()))
    }

    fn keep(&self, name: &str, note: &[u8]) {
        if let Err(error) = self.write(name, note) {
            debug!(folder = %self.folder.display(), name, %error, "no note on this host is kept");
        }
    }
}

/// Whether all processors are of one model: what is true of one is true of all then.
fn are_alike(processors: &Path) -> io::Result<bool> {
    let mut one: Option<Vec<u8>> = None;
    for entry in fs::read_dir(processors)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.as_encoded_bytes().strip_prefix(b"cpu");
        if !number.is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_digit)) {
            continue;
        }
        let model = match fs::read(entry.path().join(MODEL)) {
            // It is not running.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            model => model?,
        };
        if one.get_or_insert_with(|| model.clone()) != &model {
            return Ok(false);
        }
    }
    Ok(one.is_some())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    const NOTE: &[u8] = b"a note";

    fn processors(models: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (nth, model) in models.iter().enumerate() {
            let file = folder.path().join(format!("cpu{nth}")).join(MODEL);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, model).unwrap();
        }
        for other in ["cpufreq", "cpu9", "power"] {
            fs::create_dir(folder.path().join(other)).unwrap();
        }
        folder
    }

    /// Notes on a host with processors of these models, and what they live in.
    fn notes(models: &[&str]) -> (HostNotes, [TempDir; 2]) {
        let (within, processors) = (tempfile::tempdir().unwrap(), processors(models));
        let folder = within.path().join("kedge/.host");
        let notes = HostNotes { folder, processors: processors.path().to_owned() };
        (notes, [within, processors])
    }

    #[test]
    fn what_was_kept_is_recalled() {
        let (notes, _folders) = notes(&["0x413fd0c1\n", "0x413fd0c1\n"]);
        assert_eq!(notes.recall("one"), None);
        notes.keep("one", NOTE);
        notes.keep("other", b"another");
        assert_eq!(notes.recall("one").unwrap(), NOTE);
        notes.keep("one", b"newer");
        assert_eq!(notes.recall("one").unwrap(), b"newer");
        assert_eq!(fs::read_dir(&notes.folder).unwrap().count(), 2);
    }

    #[test]
    fn a_note_of_another_start_of_the_kernel_is_none() {
        let (notes, _folders) = notes(&["0x1\n"]);
        notes.keep("one", NOTE);
        let path = notes.folder.join("one");
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(notes.recall("one"), None);
    }

    #[test]
    fn what_others_could_have_written_is_not_believed() {
        let (notes, _folders) = notes(&["0x1\n"]);
        notes.keep("one", NOTE);
        let path = notes.folder.join("one");
        symlink("one", notes.folder.join("link")).unwrap();
        assert_eq!(notes.recall("link"), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert_eq!(notes.recall("one"), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(notes.recall("one").unwrap(), NOTE);
    }

    #[test]
    fn nothing_is_kept_where_processors_differ_or_cannot_be_told() {
        for models in [["0x413fd0c1\n", "0x410fd070\n"].as_slice(), &[]] {
            let (notes, _folders) = notes(models);
            notes.keep("one", NOTE);
            assert_eq!(notes.recall("one"), None);
        }
    }
}
