//! The first round: guests are saved, and go on where they are as if nothing had been.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use kedge_firmware::GuestAbi;
use tempfile::TempDir;

use super::bare::{self, Expected, Finding};
use super::{COPY, Case, FINDING, Guest, ID, Profile, file, fleet, folder, working};
use crate::fingerprint::baseline;
use crate::host::Host;
use crate::kedge::Kedge;
use crate::suite::Outcome;

/// The profile that any host can give.
const ANY_HOST: &str = "arm64-v0";

pub(super) fn save(host: &Host, case: &Case) -> Outcome {
    let label = std::env::var("KEDGE_HOST_KERNEL").context("the host's kernel has no label")?;
    let folder = folder()?.join(label).join(case.name);
    fs::create_dir_all(&folder)?;
    let files = Files { profile: profile(host, case, &folder)?, folder };
    match case.guest {
        Guest::Bare => save_bare(host, case, &files),
        Guest::Working => save_working(host, case, &files),
    }
}

/// Where things are.
struct Files {
    folder: PathBuf,
    /// What the guest is promised: a name or a file.
    profile: String,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// kedge as the case wants it.
    fn with_flags(&self, kedge: Kedge, case: &Case) -> Kedge {
        kedge.flags(case.flags).with(["--guest-abi", &self.profile, "--id", ID])
    }

    /// Saves the machine that runs.
    fn create(&self) -> Outcome {
        let kedge = Kedge::new(["snapshot", "create", ID])
            .with(["--state".into(), self.path(file::STATE)])
            .with(["--memory".into(), self.path(file::MEMORY)]);
        kedge.finish_within(COPY)?.with_status(0).map(drop)
    }
}

/// What the guest is promised, in a file beside its snapshot where it is of this fleet.
fn profile(host: &Host, case: &Case, folder: &Path) -> anyhow::Result<String> {
    let hosts = match case.profile {
        Profile::Named(name) => return Ok(name.to_owned()),
        Profile::Fleet => match fleet::of(host) {
            None => return Ok(ANY_HOST.to_owned()),
            Some(hosts) => hosts,
        },
    };
    let scratch = TempDir::new()?;
    let kept = folder.join(file::PROFILE);
    fs::copy(baseline(&scratch, &hosts)?, &kept)?;
    Ok(kept.display().to_string())
}

/// The profile beside a snapshot; nothing where it is a built-in one.
///
/// # Errors
/// It is none.
pub(super) fn kept_profile(folder: &Path) -> anyhow::Result<Option<GuestAbi>> {
    let file = folder.join(file::PROFILE);
    if !file.exists() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(&fs::read(file)?)?))
}

fn save_bare(host: &Host, case: &Case, files: &Files) -> Outcome {
    // On a busy host it may be a while until this sees that the guest waits.
    let begin = Instant::now();
    let mut guest = files.with_flags(bare::guest(host), case).start()?;
    guest.wait_until(bare::waits, FINDING)?;
    let said = guest.said();
    files.create()?;
    let ran = begin.elapsed();
    fs::write(files.path(file::SAID), &said)?;
    fs::write(files.path(file::RAN), ran.as_millis().to_string())?;
    guest.type_in(b"w")?;
    let ended = guest.finish_within(FINDING)?.with_status(0)?;
    let before = Finding::before(&said)?;
    before.goes_on_in(&Finding::after(&ended.stdout)?, begin.elapsed(), &Expected::default())
}

fn save_working(host: &Host, case: &Case, files: &Files) -> Outcome {
    let scratch = TempDir::new()?;
    let disk = scratch.path().join(file::DISK);
    fs::copy(host.disk(), &disk)?;
    let tap = working::tap(working::FIRST_TAP)?;
    let guest = files.with_flags(working::guest(host, &disk, &tap)?, case).start()?;
    working::works(&guest)?;
    Kedge::new(["pause", ID]).finish()?.with_status(0)?;
    files.create()?;
    // The guest goes on writing to its own.
    fs::copy(&disk, files.path(file::DISK))?;
    Kedge::new(["resume", ID]).finish()?.with_status(0)?;
    working::works(&guest)?;
    working::end(guest, &disk).map(drop)
}
