//! A reader of pages, who does what they say.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use tempfile::TempDir;

use super::page::Page;
use crate::{guest, paths, process, test::model};

/// Files that a reader has, and their sizes in bytes.
#[rustfmt::skip]
pub(super) const FILES: &[(&str, u64)] = &[
    ("initrd.gz", 4096),
    ("root.ext4", 1 << 20), ("data.ext4", 1 << 20), ("copy.ext4", 1 << 20),
    // Those of clones.
    ("root-1.ext4", 1 << 20), ("root-2.ext4", 1 << 20), ("root-3.ext4", 1 << 20),
];
/// A kernel.
const KERNEL: &str = "Image";
/// Files with this in them.
const TEXTS: [(&str, &str); 2] = [
    (
        "vm.json",
        r#"{"boot-source": {"kernel_image_path": "Image"}, "drives": [{"drive_id": "root", "is_root_device": true,
            "path_on_host": "root.ext4"}]}"#,
    ),
    ("data.json", r#"{"latest": {"meta-data": {"id": "i-1"}}}"#),
];
/// Programs that stand before others of their name.
const PROGRAMS: [(&str, &str); 4] = [
    ("kedge", include_str!("shell/kedge.sh")),
    ("curl", include_str!("shell/curl.sh")),
    ("cargo", include_str!("shell/cargo.sh")),
    ("sudo", include_str!("shell/sudo.sh")),
];
/// What bash reads first.
const PRELUDE: &str = include_str!("shell/page.sh");
/// The longest that a page may take.
const SECONDS: &str = "120";
const LINES_SHOWN: usize = 30;

/// Who reads.
pub(super) struct Reader {
    kedge: PathBuf,
    curl: PathBuf,
    programs: TempDir,
    /// Why there can be no processes apart from the others here.
    no_namespaces: Option<String>,
    /// Why there can be no taps.
    no_taps: Option<String>,
}

impl Reader {
    /// One who has this kedge.
    ///
    /// # Errors
    /// There is no curl, or no room for files.
    pub(super) fn new(kedge: &Path) -> anyhow::Result<Self> {
        let curl = process::find("curl").context("there is no curl: install the package curl")?;
        let programs = tempfile::tempdir()?;
        for (name, text) in PROGRAMS {
            let path = programs.path().join(name);
            fs::write(&path, text)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        let tries = |words: &[&str]| {
            let mut command = apart(programs.path());
            process::quiet(command.args(words)).err().map(|error| format!("{error:#}"))
        };
        let no_namespaces = tries(&["true"]);
        let no_taps = tries(&["ip", "tuntap", "add", "dev", "tap0", "mode", "tap"]);
        Ok(Self { kedge: kedge.to_owned(), curl, programs, no_namespaces, no_taps })
    }

    /// Why the commands of a page cannot be run here.
    pub(super) fn obstacle(&self, page: &Page) -> Option<String> {
        if !page.has_commands {
            return None;
        }
        let no_taps = self.no_taps.as_ref().filter(|_| page.script.contains("tap"));
        self.no_namespaces.as_ref().or(no_taps).cloned()
    }

    /// Does what a page says: what went wrong.
    ///
    /// # Errors
    /// There is no room for files.
    pub(super) fn read(&self, page: &Page) -> anyhow::Result<Option<String>> {
        if !page.has_commands {
            return Ok(None);
        }
        let place = tempfile::tempdir()?;
        let at = |name: &str| place.path().join(name);
        let folder = at("folder");
        fs::create_dir(&folder)?;
        let made = made_by(page)?;
        for (name, size) in FILES.iter().filter(|(name, _)| !made.contains(name)) {
            File::create(folder.join(name))?.set_len(*size)?;
        }
        if !made.contains(&KERNEL) {
            fs::write(folder.join(KERNEL), model::image())?;
        }
        for (name, text) in TEXTS {
            fs::write(folder.join(name), text)?;
        }
        fs::write(at("page.sh"), PRELUDE)?;
        fs::write(at("script"), &page.script)?;
        let said = File::create(at("said"))?;
        let mut command = apart(place.path());
        command.args(["timeout", "--foreground", "--kill-after=1", SECONDS, "bash"]);
        command.arg(at("script")).current_dir(folder).env("BASH_ENV", at("page.sh"));
        command.env("PATH", self.path()?).env("HOME", at("home")).env("USER", "root");
        command.env("SOURCE", at("script")).env("STATE", at("state")).env("PAGE", &page.name);
        command.env("TAPS", if self.no_taps.is_none() { "yes" } else { "" });
        command.env("KEDGE_CACHE", paths::cache()?);
        command.env("DEVELOPER", env::var_os("HOME").unwrap_or_default());
        command.env("KEDGE", &self.kedge).env("CURL", &self.curl);
        command.env("XTASK", env::current_exe()?).env("MANPAGER", "cat").env("LC_ALL", "C");
        // Not /dev/null, by which programs know that they are in the background.
        command.stdin(File::open(at("script"))?).stdout(said.try_clone()?).stderr(said);
        let status = command.status().context("cannot start unshare")?;
        let said = fs::read(at("said"))?;
        let said = String::from_utf8_lossy(&said);
        Ok((!status.success()).then(|| format!("{}: {status}\n{}", page.name, tail(&said))))
    }

    fn path(&self) -> anyhow::Result<std::ffi::OsString> {
        let path = env::var_os("PATH").unwrap_or_default();
        // A user's PATH often lacks these on Debian.
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let first = std::iter::once(self.programs.path().to_owned());
        Ok(env::join_paths(first.chain(env::split_paths(&path)).chain(system))?)
    }
}

/// The same with processes that end with the first of them.
fn apart(folder: &Path) -> Command {
    let mut command = model::apart(folder);
    command.args(["--pid", "--mount-proc", "--fork", "--kill-child"]);
    command
}

fn tail(said: &str) -> String {
    let lines: Vec<_> = said.lines().collect();
    let from = lines.len().saturating_sub(LINES_SHOWN);
    lines.get(from..).unwrap_or_default().join("\n")
}

/// The files that a page makes by a developer command, which finds all that it takes in the cache: there is no network
/// where pages are run.
///
/// # Errors
/// They cannot be fetched or made.
fn made_by(page: &Page) -> anyhow::Result<Vec<&'static str>> {
    match page.script.contains("cargo xtask guest") {
        true => Ok(guest::files()?.map(|(name, _)| name).to_vec()),
        false => Ok(Vec::new()),
    }
}
