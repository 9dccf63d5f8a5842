//! Moves: guests are saved on hosts of every kernel, carried to hosts of every kernel, and restored there.
//!
//! Hosts of a first round run the tests called `moves::save::`, each with a disk for the snapshots; hosts of a second
//! round have the disks of all of the first, and run those called `moves::load::from_` and the kernel.

mod choice;
mod table;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::Context;
use choice::{Choice, LOAD, SAVE};
use table::{Verdict, Verdicts};

use super::{
    hosts,
    plan::{Entry, Fleet},
    second_try::{End, Try},
    suites,
    tally::Tally,
};
use crate::{
    debian::kernels,
    host::{self, Disk, Guest, HostJob, Overlay, Writes},
    images::disk,
    paths,
};

/// The suite with the tests.
const SUITE: &str = "guest-tests";
/// Room for a host's snapshots: what is not written takes none.
const DISK_SIZE: &str = "4G";

/// Mounts the disks, runs the tests, and prints what came of each guest.
const SCRIPT: &str = r#"for label in $KEDGE_MOVES_OF; do
    mkdir -p $KEDGE_MOVES/$label
    mount -t ext4 -o $KEDGE_MOVES_ACCESS /kedge/disks/$label $KEDGE_MOVES/$label || exit 1
done
echo "Running guest-tests (guest-tests-)"
guest-tests "$@"
status=$?
cat $KEDGE_MOVES/verdicts 2>/dev/null
for label in $KEDGE_MOVES_OF; do
    umount $KEDGE_MOVES/$label || status=1
done
exit $status"#;

/// Moves guests in each of these fleets.
///
/// # Errors
/// What the hosts have in common cannot be built or fetched.
pub(super) fn run(fleets: &[Fleet], filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
    let files = host::standard_files(&[])?;
    let tests = suites::list(&files, SUITE).context("guest-tests does not list its tests")?;
    let choices: Vec<_> = fleets.iter().map(|fleet| Choice::new(&tests, fleet, filter)).collect();
    let work = paths::work();
    let folder = tempfile::Builder::new().prefix("moves-").tempdir_in(&work);
    let folder = folder.with_context(|| format!("no room in {}", work.display()))?;
    let stage = Stage { files, all: &tests, folder: folder.path(), verdicts: Mutex::default() };
    let pairs = || {
        let fleets = fleets.iter().zip(&choices);
        fleets.flat_map(|(fleet, choice)| fleet.hosts.iter().map(move |host| (host, fleet, choice)))
    };
    let savers = pairs().map(|(host, _, choice)| (host, choice.saved_on(host.kernel)));
    let savers = savers.filter(|(_, tests)| !tests.is_empty());
    tally.add(hosts::each(savers, |host, tests, _| stage.save(host, tests)));
    let loaders = pairs().map(|(host, fleet, choice)| (host, (fleet, choice.loaded())));
    let loaders = loaders.filter(|(_, (_, tests))| !tests.is_empty());
    tally.add(hosts::each(loaders, |host, (fleet, tests), _| stage.load(fleet, host, tests)));
    let verdicts = stage.verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
    print!("{}", verdicts.tables());
    Ok(())
}

/// What hosts of both rounds share.
struct Stage<'a> {
    files: Vec<Overlay>,
    /// The names of all tests there are.
    all: &'a [String],
    /// Of the disks.
    folder: &'a Path,
    verdicts: Mutex<Verdicts>,
}

impl Stage<'_> {
    /// The first round on one host.
    fn save(&self, host: &Entry, tests: &[String]) -> anyhow::Result<Try> {
        let image = self.image(host);
        // What an earlier try left is not to be taken for this one's.
        let _ = std::fs::remove_file(&image);
        let mut job = self.job(host, (SAVE, tests))?;
        disk::empty_ext4(&image, DISK_SIZE)?;
        carry(&mut job, &[(host.kernel, image)], Writes::Kept);
        hosts::suites(host, &job, &mut |_| ())
    }

    /// The second round on one host. What was not saved, since a kernel is gone from the mirror, is left out.
    fn load(&self, fleet: &Fleet, host: &Entry, tests: &[String]) -> anyhow::Result<Try> {
        let images = fleet.hosts.iter().map(|source| (source.kernel, self.image(source)));
        let images: Vec<_> = images.filter(|(_, image)| image.exists()).collect();
        let is_there =
            |test: &&String| images.iter().any(|(label, _)| choice::is_from(test, label));
        let tests: Vec<_> = tests.iter().filter(is_there).cloned().collect();
        if tests.is_empty() {
            return Ok(Try { tally: Tally::default(), end: End::Complete });
        }
        let mut job = self.job(host, (LOAD, &tests))?;
        carry(&mut job, &images, Writes::Dropped);
        hosts::suites(host, &job, &mut |line| {
            if let Some(verdict) = Verdict::read(&fleet.name, host.kernel, line) {
                let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                verdicts.add(verdict);
            }
        })
    }

    /// The disk with what is saved on a host.
    fn image(&self, host: &Entry) -> PathBuf {
        self.folder.join(format!("{}.ext4", host.name.replace(' ', "-")))
    }

    /// Runs `tests`, which are among those that begin with `part`.
    fn job(&self, host: &Entry, (part, tests): (&str, &[String])) -> anyhow::Result<HostJob> {
        let kernel = kernels::kernel(host.kernel, host.page_size)?;
        let guest = Guest { label: host.kernel.to_owned(), page_size: host.page_size };
        let mut files = self.files.clone();
        files.extend(host::guest_files(&guest)?);
        files.extend(disk::modules(&kernel)?);
        let script = format!("{}\n{SCRIPT}", disk::LOAD_MODULES);
        // The suite takes one filter, and any number of tests to leave out.
        let words = ["sh", "-c", &script, "moves", "--test-threads=1", "--color=never", part];
        let others = self.all.iter().filter(|test| test.starts_with(part) && !tests.contains(test));
        let skips = others.flat_map(|test| ["--skip", test.as_str()]);
        let command = words.into_iter().chain(skips).map(str::to_owned).collect();
        let mut job = HostJob::new(command, files);
        (job.timeout, job.silence) = (hosts::TIMEOUT, hosts::SILENCE);
        Ok(job)
    }
}

/// Has the job find these disks, by kernels' labels.
fn carry(job: &mut HostJob, images: &[(&str, PathBuf)], writes: Writes) {
    let labels: Vec<_> = images.iter().map(|(label, _)| *label).collect();
    let access = match writes {
        Writes::Kept => "rw",
        Writes::Dropped => "ro",
    };
    let variables = [("", "/kedge/moves"), ("_OF", labels.join(" ").as_str()), ("_ACCESS", access)]
        .map(|(name, value)| (format!("KEDGE_MOVES{name}"), value.to_owned()));
    job.env.extend(variables);
    job.disks.extend(images.iter().map(|(label, image)| Disk {
        image: image.clone(),
        path: format!("/kedge/disks/{label}"),
        writes,
    }));
}
