//! `cargo xtask`: the project's developer commands, one module each.
#![forbid(unsafe_code)]

mod bench;
mod boot;
mod build;
mod check;
mod cpio;
mod debian;
mod fuzz;
mod guest;
mod host;
mod images;
mod paths;
mod process;
mod progress;
mod record;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "kedge's developer commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure what kedge costs and hold it against what it may cost
    Bench(bench::Args),
    /// Boot a Debian guest in kedge, installing, building and fetching whatever that takes
    Boot(boot::Args),
    /// Build kedge's static arm64 release binary; its path is the last line printed
    Build(build::Args),
    /// Say what is wrong with the tree: format, clippy, layers, house lints, documentation, dependencies
    Check(check::Args),
    /// Feed fuzz targets with bytes that lead where none has led yet
    Fuzz(fuzz::Args),
    /// Put what a Debian guest boots from into a folder: kernel, initial RAM disk and disk
    Guest(guest::Args),
    /// Run a command in the emulated arm64 host, with kedge and the test guests on its path
    Host(host::Args),
    /// Record what emulated hosts can give their guests, for tests, in resources/hosts
    Record(record::Args),
    /// Install what the other commands need and this machine lacks
    Setup(setup::Args),
    /// Run every test: natively, emulated, and in guests; the last line counts them
    Test(test::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(args) => bench::main(&args),
        Command::Boot(args) => boot::main(&args),
        Command::Build(args) => build::main(&args),
        Command::Check(args) => check::main(&args),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Guest(args) => guest::main(&args),
        Command::Host(args) => host::main(&args),
        Command::Record(args) => record::main(&args),
        Command::Setup(args) => setup::main(&args),
        Command::Test(args) => test::main(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
