//! Differences: a guest that works is saved again and again, each time what has changed, and
//! goes on from all of it.

use std::fs;
use std::path::PathBuf;

use anyhow::ensure;
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::Kedge;
use crate::linux::BOOT;
use crate::moves::working;
use crate::suite::{Outcome, Suite, ensure_contains};

/// The machine's name.
const ID: &str = "work";

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_kernel(
        "door::differences::a_working_guest_goes_on_from_a_chain_of_them",
        &[Need::MmuAtFirst],
        chain,
    );
    suite.once("door::differences::they_need_changes_that_are_noted", &[], unnoted);
}

/// Where a snapshot is.
struct Files {
    folder: TempDir,
}

impl Files {
    /// The files of the snapshot with this name.
    fn of(&self, name: &str) -> [PathBuf; 2] {
        ["state", "mem"].map(|end| self.folder.path().join(name).with_extension(end))
    }

    /// Saves the machine.
    fn create(&self, name: &str, flags: &str) -> anyhow::Result<u64> {
        let [state, memory] = self.of(name);
        let create = Kedge::new(["snapshot", "create", ID]).flags(flags);
        let create = create.with(["--state".into(), state, "--memory".into(), memory.clone()]);
        create.finish_within(BOOT)?.with_status(0)?;
        Ok(std::os::unix::fs::MetadataExt::blocks(&fs::metadata(memory)?))
    }
}

/// Saves all of a guest with a disk, a card and timers at work, then twice what has changed
/// while it went on; merges that, and lets it go on from there.
fn chain(host: &Host) -> Outcome {
    let files = Files { folder: TempDir::new()? };
    let disk = files.folder.path().join("disk");
    fs::copy(host.disk(), &disk)?;
    let tap = working::tap(working::FIRST_TAP)?;
    let guest = working::guest(host, &disk, &tap)?.with(["--id", ID, "--track-changes"]).start()?;
    working::works(&guest)?;
    let all = files.create("full", "")?;
    working::works(&guest)?;
    let first = files.create("first", "--diff")?;
    working::works(&guest)?;
    // It stays where it was saved last: so does its disk.
    Kedge::new(["pause", ID]).finish()?.with_status(0)?;
    let second = files.create("second", "--diff")?;
    guest.terminate()?;
    ensure!(first < all && second < all, "{all} blocks, then {first} and {second}");

    let rebase = Kedge::new(["snapshot", "rebase"]);
    let [state, memory] = files.of("merged");
    let merged = ["--state".into(), state.clone(), "--memory".into(), memory.clone()];
    let chain = ["full", "first", "second"].map(|name| files.of(name)).concat();
    rebase.with(&merged).with(&chain).finish_within(BOOT)?.with_status(0)?;
    let load = |[state, memory]: [PathBuf; 2]| {
        Kedge::new(["snapshot", "load"]).with([state, "--memory".into(), memory])
    };
    let alone = load(files.of("second")).finish()?.with_status(1)?;
    ensure_contains(&alone.stderr, &["difference", "kedge snapshot rebase"])?;
    let guest = load([state, memory]).with(["--id", ID, "--track-changes"]).start()?;
    working::works(&guest)?;
    // A difference to what it was loaded from.
    let third = files.create("third", "--diff")?;
    ensure!(third < all, "{all} blocks, then {third}");
    working::works(&guest)?;
    working::end(guest, &disk).map(drop)
}

fn unnoted(host: &Host) -> Outcome {
    let files = Files { folder: TempDir::new()? };
    let guest = Kedge::run(host.payload("counters")).flags("--memory 16M --id work").start()?;
    guest.wait_for("COUNT ", 1, crate::kedge::SOON)?;
    files.create("full", "")?;
    let [state, memory] = files.of("first");
    let create = Kedge::new(["snapshot", "create", ID, "--diff"]);
    let create = create.with(["--state".into(), state.clone(), "--memory".into(), memory]);
    let refused = create.finish()?.with_status(1)?;
    ensure_contains(&refused.stderr, &["changes are noted", "--track-changes"])?;
    ensure!(!state.exists(), "there is a state file");
    // It goes on all the same.
    let before = guest.said().matches("COUNT ").count();
    guest.wait_for("COUNT ", before + 3, crate::kedge::SOON)?;
    guest.terminate().map(drop)
}
