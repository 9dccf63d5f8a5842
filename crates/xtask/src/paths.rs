//! Where the developer commands keep things, and how something gets there whole or not at all.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// What the names of items under construction start with.
const UNFINISHED: &str = ".new-";

/// The root of this clone.
pub(crate) fn workspace() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.ancestors().nth(2).map_or_else(|| here.clone(), Path::to_owned)
}

/// Work files of this clone: images, rebuilt at will.
pub(crate) fn work() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace().join(target).join("xtask")
}

/// What was fetched, shared by all clones: `$KEDGE_CACHE`, or `kedge` in the user's cache folder.
///
/// # Errors
/// No variable says where the user's cache is.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let folder =
        |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    folder("KEDGE_CACHE")
        .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("kedge")))
        .or_else(|| folder("HOME").map(|home| home.join(".cache/kedge")))
        .context("nowhere to keep what is fetched: set KEDGE_CACHE to a folder")
}

/// A lock on `folder`, made if missing, for whoever writes in it; gone when dropped.
///
/// # Errors
/// The folder cannot be made or locked.
pub(crate) fn lock(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let lock = File::open(folder)?;
    lock.lock().with_context(|| format!("cannot lock {}", folder.display()))?;
    Ok(lock)
}

/// `path`, which `make` makes first if nothing is there: under a temporary name it is given, then renamed.
///
/// # Errors
/// `make`'s, and those of the file system.
pub(crate) fn item(
    path: PathBuf,
    make: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    if path.exists() {
        return Ok(path);
    }
    let folder = path.parent().context("an item lies in a folder")?;
    let _lock = lock(folder)?;
    if path.exists() {
        return Ok(path);
    }
    remove_unfinished(folder);
    let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(folder)?;
    let made = unfinished.path().join("item");
    make(&made)?;
    fs::rename(&made, &path)
        .with_context(|| format!("cannot put {} in its place", path.display()))?;
    Ok(path)
}

/// Removes what writers that were killed left in `folder`, which is locked.
fn remove_unfinished(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            // It costs room and nothing else.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes what lies beside `keep` in its folder under a name that starts with `prefix`: its older versions.
pub(crate) fn remove_older(keep: &Path, prefix: &str) {
    let Some(entries) = keep.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path != keep && entry.file_name().to_string_lossy().starts_with(prefix) {
            // A stale file costs room and nothing else.
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/item");
        item(path.clone(), |at| Ok(fs::write(at, "first")?)).unwrap();
        item(path.clone(), |at| Ok(fs::write(at, "second")?)).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "first");
    }

    #[test]
    fn what_a_killed_writer_left_is_removed_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(".new-x")).unwrap();
        item(folder.path().join("item"), |at| Ok(fs::write(at, "whole")?)).unwrap();
        assert!(!folder.path().join(".new-x").exists());
    }

    #[test]
    fn an_item_that_cannot_be_made_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("item");
        let made = item(path, |at| {
            fs::write(at, "half")?;
            anyhow::bail!("no more")
        });
        assert!(made.is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
