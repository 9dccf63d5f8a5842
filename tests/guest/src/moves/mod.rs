//! Guests that are saved on one host and restored on another, which has another
//! kernel.
//!
//! It takes two rounds of hosts. On those of the first, tests called
//! `moves::save::...` leave snapshots in the folder `KEDGE_MOVES/LABEL`, where `LABEL` is
//! their kernel's. These folders are carried to the hosts of the second, where tests
//! called `moves::load::from_...` restore what they find there, and write to the file
//! `KEDGE_MOVES/verdicts` what came of it: a line
//! `MOVE SOURCE CASE restored`, or `MOVE SOURCE CASE refused: WHY`.

mod bare;
mod expected;
mod fleet;
mod load;
mod save;
pub(crate) mod working;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use crate::host::Need;
use crate::suite::Suite;

/// A guest to be moved.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    /// Of the host where it is saved.
    needs: &'static [Need],
    /// The oldest kernel that it can be saved on, if `needs` says so too.
    since: (u32, u32),
    profile: Profile,
    guest: Guest,
    /// More flags of `kedge run`.
    flags: &'static str,
}

/// What the guest is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// What every kernel can give on such a processor, by the recordings of four hosts;
    /// where there are none, as [`Self::Named`] with the profile that any host can give.
    Fleet,
    /// The built-in profile of this name.
    Named(&'static str),
}

/// What runs in the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    /// No operating system: all that can be found out, before the move and after it.
    Bare,
    /// Linux with a disk, a network card and timers, and a program that works with them.
    Working,
}

const BARE: Case = Case {
    name: "",
    needs: &[],
    since: (0, 0),
    profile: Profile::Fleet,
    guest: Guest::Bare,
    flags: "",
};
const WORKING: Case = Case { guest: Guest::Working, ..BARE };

const CASES: [Case; 7] = [
    Case { name: "with_the_fleets_baseline", ..BARE },
    Case {
        name: "with_the_default_profile",
        needs: &[Need::Kernel(5, 19)],
        since: (5, 19),
        profile: Profile::Named("arm64-v1"),
        ..BARE
    },
    Case { name: "with_a_profile_for_any_host", profile: Profile::Named("arm64-v0"), ..BARE },
    Case { name: "with_nothing_promised", profile: Profile::Named("host"), ..BARE },
    Case {
        name: "with_long_vectors",
        needs: &[Need::Sve],
        profile: Profile::Named("arm64-v0"),
        flags: "--cpu-features sve",
        ..BARE
    },
    Case { name: "at_work_on_two_cpus", flags: "--cpus 2", ..WORKING },
    Case { name: "at_work_on_four_cpus", flags: "--cpus 4", ..WORKING },
];

/// A kernel that guests are saved on.
#[derive(Clone, Copy, Debug)]
struct Source {
    /// As tests have it in their names.
    name: &'static str,
    /// As the environment has it.
    label: &'static str,
    release: (u32, u32),
}

const SOURCES: [Source; 4] = [
    Source { name: "from_5_10", label: "5.10", release: (5, 10) },
    Source { name: "from_6_1", label: "6.1", release: (6, 1) },
    Source { name: "from_6_12", label: "6.12", release: (6, 12) },
    Source { name: "from_7_2", label: "7.2", release: (7, 2) },
];

/// The machine's name where one is to be given.
const ID: &str = "mover";
/// The longest that a host may take to write or to read a guest's memory.
const COPY: Duration = Duration::from_secs(60);
/// The longest that a guest may take to find out all that it can.
const FINDING: Duration = Duration::from_secs(120);

/// Files of a case.
mod file {
    pub(super) const STATE: &str = "state";
    pub(super) const MEMORY: &str = "memory";
    /// What the guest said before it was saved.
    pub(super) const SAID: &str = "said";
    /// For how many milliseconds it ran before it was saved, at most.
    pub(super) const RAN: &str = "ran";
    /// What it is promised, if that is no built-in profile.
    pub(super) const PROFILE: &str = "profile.json";
    /// Its disk as it was then.
    pub(super) const DISK: &str = "disk.ext4";
    /// What it said afterwards, where it was saved.
    pub(super) const VERDICTS: &str = "verdicts";
}

pub(crate) fn tests(suite: &mut Suite) {
    for case in CASES {
        let name = format!("save::{}", case.name);
        suite.moves(&name, case.needs, move |host| save::save(host, &case));
    }
    for (source, case) in SOURCES.iter().flat_map(|source| CASES.map(|case| (source, case))) {
        if source.release >= case.since {
            let name = format!("load::{}::{}", source.name, case.name);
            let needs = needs_at_first(source, &case);
            suite.moves(&name, needs, move |host| load::load(host, source, &case));
        }
    }
}

/// What a guest needs that begins as it was saved there. Linux 6.12 is the first of ours with
/// tables of five levels.
fn needs_at_first(source: &Source, case: &Case) -> &'static [Need] {
    match case.guest {
        Guest::Working if source.release >= (6, 12) => &[Need::MmuAtFirst, Need::FiveLevelsAtFirst],
        Guest::Working | Guest::Bare => &[Need::MmuAtFirst],
    }
}

/// The folder of all that is carried.
fn folder() -> anyhow::Result<PathBuf> {
    let folder = env::var_os("KEDGE_MOVES").filter(|folder| !folder.is_empty());
    folder.map(PathBuf::from).context("KEDGE_MOVES names no folder")
}
