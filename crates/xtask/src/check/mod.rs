//! `cargo xtask check`: everything that can be said about the tree without running it.
//!
//! [`STEPS`] is the list. Each step prints one line; one that fails prints why, and the steps after it still run.

mod cargo;
mod deny;
mod layers;
mod lints;
mod metadata;

use std::{
    io::{Write, stdout},
    process::ExitCode,
    time::Instant,
};

use anyhow::Context;

use crate::setup;

/// `cargo xtask check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run these steps only, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "STEP", value_parser = step_names())]
    only: Vec<String>,
}

/// One step of the check.
struct Step {
    name: &'static str,
    run: fn() -> anyhow::Result<Outcome>,
}

/// What a step found.
enum Outcome {
    /// Nothing wrong.
    Clean,
    /// What is wrong, to be shown as it is.
    Wrong(String),
}

/// Quick ones first.
const STEPS: &[Step] = &[
    Step { name: "fmt", run: cargo::fmt },
    Step { name: "layers", run: layers::check },
    Step { name: "lints", run: lints::check },
    Step { name: "clippy", run: cargo::clippy },
    Step { name: "clippy-arm64", run: cargo::clippy_arm64 },
    Step { name: "doc", run: cargo::doc },
    Step { name: "doc-arm64", run: cargo::doc_arm64 },
    Step { name: "deny", run: deny::check },
];

fn step_names() -> clap::builder::PossibleValuesParser {
    STEPS.iter().map(|step| step.name).collect::<Vec<_>>().into()
}

/// Runs `cargo xtask check`.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    let asked = |step: &&Step| args.only.is_empty() || args.only.iter().any(|o| o == step.name);
    let mut failed = Vec::new();
    for step in STEPS.iter().filter(asked) {
        if !passes(step)? {
            failed.push(step.name);
        }
    }
    if failed.is_empty() {
        println!("check: all is well");
        return Ok(ExitCode::SUCCESS);
    }
    println!("check: failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Runs one step and reports on it.
fn passes(step: &Step) -> anyhow::Result<bool> {
    print!("check {:<13} ", step.name);
    stdout().flush().context("standard output is closed")?;
    let start = Instant::now();
    let outcome =
        (step.run)().unwrap_or_else(|error| Outcome::Wrong(format!("error: {error:#}\n")));
    let seconds = start.elapsed().as_secs_f64();
    match &outcome {
        Outcome::Clean => println!("ok     {seconds:>6.1} s"),
        Outcome::Wrong(why) => println!("FAILED {seconds:>6.1} s\n{}\n", why.trim_end()),
    }
    Ok(matches!(outcome, Outcome::Clean))
}
