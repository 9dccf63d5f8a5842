//! `cargo xtask`: the project's developer commands, one module each.
#![forbid(unsafe_code)]

mod host;

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
    /// Run a command in the emulated arm64 host, with kedge and the test guests on its path
    Host(host::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Host(args) => host::main(&args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
