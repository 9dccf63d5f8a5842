//! A private apt: own sources, lists and state for one suite of Debian arm64, signatures checked as apt does.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::{apt_program, mirror, unpack};
use crate::{paths, process, progress};

/// The keys of Debian's archive, where the package debian-archive-keyring puts them.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-keyring.gpg",
];
/// Suites that a newer set of keys may come from, newest first.
const KEYRING_SUITES: [&str; 3] = ["trixie", "bookworm", "bullseye"];
/// How long lists are taken for current: long enough for one command that fetches several things.
const CURRENT: Duration = Duration::from_secs(3600);
/// Settings of the user's apt that reach the network the way this machine needs.
const NETWORK_SETTINGS: [&str; 4] =
    ["Acquire::http", "Acquire::https", "Acquire::ForceIPv", "Acquire::Proxy"];

/// apt for one suite.
#[derive(Debug)]
pub(super) struct Apt {
    suite: String,
    folder: PathBuf,
}

impl Apt {
    /// apt for `suite` with current lists.
    ///
    /// # Errors
    /// No mirror, no network, or a suite whose signature no known key made.
    pub(super) fn open(suite: &str) -> anyhow::Result<Self> {
        let apt = Self { suite: suite.to_owned(), folder: paths::cache()?.join("apt").join(suite) };
        let _lock = paths::lock(&apt.folder)?;
        if apt.is_current() {
            return Ok(apt);
        }
        progress::step(format_args!("read Debian's package lists ({suite})"), || apt.update())?;
        fs::write(apt.stamp(), "")?;
        Ok(apt)
    }

    /// The names of packages that start with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let names = process::output(self.program("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// A folder with just these packages.
    pub(super) fn alone(&self, packages: &[&str]) -> anyhow::Result<TempDir> {
        let debs = tempfile::tempdir_in(&self.folder)?;
        let mut command = self.program("apt-get");
        self.checked(command.arg("download").args(packages).current_dir(debs.path()))?;
        Ok(debs)
    }

    /// A folder with these packages and all that they depend on.
    pub(super) fn with_dependencies(&self, packages: &[String]) -> anyhow::Result<TempDir> {
        let debs = tempfile::tempdir_in(&self.folder)?;
        fs::create_dir(debs.path().join("partial"))?;
        let mut command = self.program("apt-get");
        command.args(["install", "--download-only", "--yes", "--no-install-recommends", "-o"]);
        command.arg(format!("Dir::Cache::archives={}", debs.path().display()));
        self.checked(command.args(packages))?;
        Ok(debs)
    }

    /// Runs a download; lists that led nowhere are read anew next time.
    fn checked(&self, command: &mut Command) -> anyhow::Result<()> {
        process::quiet(command).inspect_err(|_| {
            let _ = fs::remove_file(self.stamp());
        })
    }

    fn program(&self, name: &str) -> Command {
        let mut command = apt_program(name);
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }

    fn stamp(&self) -> PathBuf {
        self.folder.join("current")
    }

    fn is_current(&self) -> bool {
        let age =
            fs::metadata(self.stamp()).and_then(|stamp| stamp.modified()).map(|at| at.elapsed());
        matches!(age, Ok(Ok(age)) if age < CURRENT)
    }

    /// Reads the lists, checked with the keys of this system or, for a suite they do not know yet, with newer ones.
    fn update(&self) -> anyhow::Result<()> {
        let mirror = mirror::address()?;
        let installed = KEYRINGS.iter().map(Path::new).find(|path| path.is_file()).context(
            "the keys of Debian's archive are not installed: run `cargo xtask setup` \
             (package debian-archive-keyring)",
        )?;
        let Err(error) = self.update_from(&mirror, installed) else { return Ok(()) };
        if !is_about_keys(&format!("{error:#}")) {
            return Err(error);
        }
        let newer = newer_keyring(&mirror, installed, &self.suite)?;
        self.update_from(&mirror, &newer)
    }

    fn update_from(&self, mirror: &str, keyring: &Path) -> anyhow::Result<()> {
        self.configure(mirror, keyring)?;
        process::quiet(self.program("apt-get").arg("update")).with_context(|| {
            format!("cannot read the package lists of Debian's suite {}", self.suite)
        })
    }

    fn configure(&self, mirror: &str, keyring: &Path) -> anyhow::Result<()> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        fs::write(self.folder.join("status"), "")?;
        let source = format!(
            "deb [arch=arm64 signed-by={}] {mirror} {} main\n",
            keyring.display(),
            self.suite
        );
        fs::write(self.folder.join("sources.list"), source)?;
        let users = process::output(apt_program("apt-config").args(["dump", "Acquire"]))?;
        fs::write(self.folder.join("apt.conf"), configuration(&self.folder, &users))?;
        Ok(())
    }
}

/// The text of `apt.conf` for the apt in `folder`; `users` is what the user's apt says of `Acquire`.
fn configuration(folder: &Path, users: &str) -> String {
    let mut text = String::new();
    for line in
        users.lines().filter(|line| NETWORK_SETTINGS.iter().any(|name| line.starts_with(name)))
    {
        text.push_str(line);
        text.push('\n');
    }
    for (key, file) in [
        ("Dir::Etc::sourcelist", "sources.list"),
        ("Dir::State", ""),
        ("Dir::State::lists", "lists"),
        ("Dir::State::status", "status"),
        ("Dir::Cache", "cache"),
    ] {
        let path = folder.join(file);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key} \"{}\";", path.display());
    }
    text.push_str(
        r#"Dir::Etc::sourceparts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
// Its caches are larger than what is fetched, and used a few times only.
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Retries "3";
Debug::NoLocking "true";
// A mirror may lag, or be a snapshot: old lists are fine here, unsigned ones are not.
Acquire::Check-Valid-Until "false";
"#,
    );
    text
}

/// Whether an update failed because no key at hand made the signature.
fn is_about_keys(error: &str) -> bool {
    ["NO_PUBKEY", "Missing key", "is not signed"].iter().any(|sign| error.contains(sign))
}

/// Keys newer than `installed`, out of a package whose suite `installed` can check.
fn newer_keyring(mirror: &str, installed: &Path, suite: &str) -> anyhow::Result<PathBuf> {
    let name = "debian-archive-keyring";
    let newer = paths::item(paths::cache()?.join("keyring"), |made| {
        for other in KEYRING_SUITES.into_iter().filter(|other| *other != suite) {
            let folder = tempfile::tempdir()?;
            let apt = Apt { suite: other.to_owned(), folder: folder.path().to_owned() };
            if apt.update_from(mirror, installed).is_ok() {
                return unpack(apt.alone(&[name])?.path(), made);
            }
        }
        bail!("the installed keys of Debian's archive are too old: install a newer {name}")
    })?;
    ["pgp", "gpg"]
        .map(|end| newer.join("usr/share/keyrings").join(name).with_extension(end))
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("there are no keys in the package {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_proxy_is_kept_and_nothing_else_of_theirs() {
        let users = "Acquire::AllowInsecureRepositories \"1\";\nAcquire::http::Proxy \"http://p.example\";\n";
        let text = configuration(Path::new("/cache/apt/sid"), users);
        assert!(
            text.starts_with("Acquire::http::Proxy \"http://p.example\";\nDir::Etc::sourcelist")
        );
        assert!(!text.contains("AllowInsecure"));
    }

    #[test]
    fn lists_and_state_lie_in_the_private_folder() {
        let text = configuration(Path::new("/cache/apt/sid"), "");
        assert!(text.contains("Dir::State::lists \"/cache/apt/sid/lists\";"));
        assert!(text.contains("Dir::State::status \"/cache/apt/sid/status\";"));
    }

    #[test]
    fn a_missing_key_is_told_from_a_missing_network() {
        assert!(is_about_keys("W: GPG error: ... NO_PUBKEY 6ED0E7B82643E131"));
        assert!(!is_about_keys("Temporary failure resolving"));
    }
}
