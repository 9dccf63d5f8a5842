//! `cargo xtask test`: every test there is, wherever it has to run, counted in one line.
//!
//! Unit tests run natively ([`mod@unit`]) and, for the code that is shipped, under user-mode emulation; the API is driven by
//! its document ([`mod@api`]); commands of the documentation are run ([`mod@docs`]); guests run inside emulated hosts ([`guest`]), which [`plan`] lists, and move from one to another
//! ([`mod@moves`]).

mod api;
mod docs;
mod fuzzed;
mod guest;
mod hosts;
mod libtest;
mod model;
mod moves;
mod plan;
mod second_try;
mod suites;
mod tally;
mod unit;

use std::{process::ExitCode, time::Instant};

use anyhow::bail;
use plan::{Entry, Fleet, Plan};
use tally::Tally;

use crate::setup;

/// `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run these tests only
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    only: Vec<Kind>,
    /// Run guests only, and on this host kernel only; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "LABEL")]
    kernel: Vec<String>,
    /// Run guests only, and on hosts with this in their name only, as in `gicv2 max`
    #[arg(long, value_name = "PART")]
    host: Option<String>,
    /// Run every combination of CPU, GIC, page size and kernel, and the long tests: takes hours
    #[arg(long)]
    full: bool,
    /// Run the tests whose name contains this
    filter: Option<String>,
}

/// Of the guests that move between kernels, those that do every day: between all of them.
const EVERY_DAY: &str = "with_the_fleets_baseline";

/// Where tests run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Natively
    Unit,
    /// Unit tests of the arm64 build, under user-mode emulation
    Arm64,
    /// Fuzz targets, for a moment each
    Fuzz,
    /// The API's document against machines of the model, by schemathesis
    Api,
    /// Every command in the documentation
    Docs,
    /// In emulated hosts, with real guests
    Guest,
    /// Those of them in which guests move between kernels, and no other
    Moves,
}

/// What was asked for.
struct Selection {
    unit: bool,
    arm64: bool,
    fuzz: bool,
    api: bool,
    docs: bool,
    hosts: Vec<Entry>,
    fleets: Vec<Fleet>,
}

/// Runs `cargo xtask test`.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let selection = select(args)?;
    setup::ensure()?;
    let filter = args.filter.as_deref();
    let mut tally = Tally::default();
    if selection.unit {
        stage("unit", &mut tally, |tally| unit::native(filter, tally));
    }
    if selection.arm64 {
        stage("arm64", &mut tally, |tally| unit::arm64(filter, tally));
    }
    // Tests that count moments are through.
    guest::prepare(&selection.hosts, filter);
    if selection.fuzz {
        stage("fuzz", &mut tally, |tally| fuzzed::targets(filter, tally));
    }
    if selection.api {
        stage("api", &mut tally, |tally| api::run(filter, tally));
    }
    if selection.docs {
        stage("docs", &mut tally, |tally| docs::run(filter, tally));
    }
    if !selection.hosts.is_empty() {
        let asked = guest::Asked { filter, full: args.full };
        stage("guest", &mut tally, |tally| guest::run(&selection.hosts, asked, tally));
    }
    if !selection.fleets.is_empty() {
        // All of them take as long as all else together: every day there is no time for it.
        let moved = filter.or((!args.full).then_some(EVERY_DAY));
        stage("moves", &mut tally, |tally| moves::run(&selection.fleets, moved, tally));
    }
    if let Some(filter) = filter
        && tally.total() == 0
    {
        tally.fail("test", filter, "no test of this selection has this in its name");
    }
    Ok(tally.report())
}

fn select(args: &Args) -> anyhow::Result<Selection> {
    let guests_only = !args.kernel.is_empty() || args.host.is_some();
    let asked = |kind| args.only.is_empty() || args.only.contains(&kind);
    if guests_only && !asked(Kind::Guest) && !asked(Kind::Moves) {
        bail!("--kernel and --host are about guests, which --only leaves out");
    }
    let plan = if args.full { Plan::Full } else { Plan::Daily };
    let is_meant = |name: &str| args.host.as_deref().is_none_or(|part| name.contains(part));
    let mut hosts = match asked(Kind::Guest) {
        true => plan::hosts(plan, &args.kernel)?,
        false => Vec::new(),
    };
    hosts.retain(|host| is_meant(&host.name));
    let mut fleets = match asked(Kind::Guest) || asked(Kind::Moves) {
        true => plan::fleets(plan, &args.kernel),
        false => Vec::new(),
    };
    fleets.retain(|fleet| is_meant(&fleet.name));
    if hosts.is_empty() && fleets.is_empty() && guests_only {
        bail!(
            "no host with `{}` in its name is there to run on",
            args.host.as_deref().unwrap_or("")
        );
    }
    Ok(Selection {
        unit: asked(Kind::Unit) && !guests_only,
        arm64: asked(Kind::Arm64) && !guests_only,
        fuzz: asked(Kind::Fuzz) && !guests_only,
        api: asked(Kind::Api) && !guests_only,
        docs: asked(Kind::Docs) && !guests_only,
        hosts,
        fleets,
    })
}

/// Runs one kind of tests; what keeps it from running is a failure like any other.
fn stage(name: &str, tally: &mut Tally, run: impl FnOnce(&mut Tally) -> anyhow::Result<()>) {
    let start = Instant::now();
    if let Err(error) = run(tally) {
        tally.fail(name, "cannot run", &format!("{error:#}"));
    }
    println!("{name}: done in {:.0} s; so far {}", start.elapsed().as_secs_f64(), tally.summary());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(only: &[Kind], kernel: &[&str]) -> Args {
        let kernel = kernel.iter().map(|&label| label.to_owned()).collect();
        Args { only: only.to_vec(), kernel, host: None, full: false, filter: None }
    }

    #[test]
    fn everything_runs_unless_told_otherwise() {
        let selection = select(&args(&[], &[])).unwrap();
        assert!(selection.unit && selection.arm64 && !selection.hosts.is_empty());
    }

    #[test]
    fn only_narrows_to_a_kind() {
        let selection = select(&args(&[Kind::Arm64], &[])).unwrap();
        assert!(!selection.unit && selection.arm64 && selection.hosts.is_empty());
    }

    #[test]
    fn moves_can_be_all_there_is() {
        let selection = select(&args(&[Kind::Moves], &[])).unwrap();
        assert!(!selection.unit && !selection.arm64 && selection.hosts.is_empty());
        assert!(!selection.fleets.is_empty());
    }

    #[test]
    fn a_part_of_a_name_narrows_to_hosts_and_fleets() {
        let with = |part: &str| Args { host: Some(part.to_owned()), ..args(&[], &[]) };
        let selection = select(&with("gicv3 neoverse-n1")).unwrap();
        assert!(!selection.unit && selection.hosts.iter().all(|host| host.name.contains("n1")));
        assert_eq!(selection.fleets.len(), 1);
        assert!(select(&with("gicv9")).is_err());
    }

    #[test]
    fn a_kernel_narrows_to_the_guests_on_it() {
        let selection = select(&args(&[], &["6.1"])).unwrap();
        assert!(!selection.unit && !selection.arm64);
        assert!(selection.hosts.iter().all(|host| host.kernel == "6.1"));
    }

    #[test]
    fn a_kernel_for_unit_tests_is_refused() {
        assert!(select(&args(&[Kind::Unit], &["6.1"])).is_err());
    }

    #[test]
    fn a_kernel_that_is_in_no_plan_is_refused() {
        assert!(select(&args(&[], &["4.19"])).is_err());
    }
}
