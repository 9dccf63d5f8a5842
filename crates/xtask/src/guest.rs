//! `cargo xtask guest`: what a Debian guest boots from, for whoever wants one at hand.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, ensure};

use crate::{
    debian::kernels,
    host::{HostConfig, PageSize},
    images, process, setup,
};

/// `cargo xtask guest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the files go: `Image`, `initrd.gz` and `root.ext4`
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

/// Runs `cargo xtask guest`.
///
/// # Errors
/// Something cannot be installed, fetched or made, or the folder has such files already.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    for (name, _) in put(&args.folder, &files()?)? {
        println!("{}", args.folder.join(name).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// A file's name, and where it is kept.
type File = (&'static str, PathBuf);

/// The files, made where they are not.
///
/// # Errors
/// They cannot be fetched or made.
pub(crate) fn files() -> anyhow::Result<[File; 3]> {
    let kernel = kernels::kernel(&HostConfig::default().kernel, PageSize::K4)?;
    let initrd = images::initrd(&kernel)?;
    Ok([("Image", kernel.image()), ("initrd.gz", initrd), ("root.ext4", images::debian_ext4()?)])
}

/// Copies `files` to `folder`, for their owner to write to. One that is there may be a guest's: it stays.
fn put<'f>(folder: &Path, files: &'f [File]) -> anyhow::Result<&'f [File]> {
    for (name, _) in files {
        let to = folder.join(name);
        ensure!(
            !to.exists(),
            "{} is there already: remove it, or name another folder",
            to.display()
        );
    }
    for (name, from) in files {
        let to = folder.join(name);
        process::quiet(Command::new("cp").arg("--sparse=always").arg(from).arg(&to))?;
        fs::set_permissions(&to, Permissions::from_mode(0o644))
            .with_context(|| format!("{}", to.display()))?;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_copied_to_be_written_to_and_never_over_others() {
        let (kept, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let from = kept.path().join("kept");
        fs::write(&from, "disk").unwrap();
        fs::set_permissions(&from, Permissions::from_mode(0o444)).unwrap();
        let files = [("root.ext4", from)];
        put(folder.path(), &files).unwrap();
        let to = folder.path().join("root.ext4");
        fs::write(&to, "a guest's").unwrap();
        let refused = put(folder.path(), &files).unwrap_err().to_string();
        assert!(
            refused.ends_with("is there already: remove it, or name another folder"),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(to).unwrap(), "a guest's");
    }
}
