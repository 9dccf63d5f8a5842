//! `cargo xtask bench`: what kedge costs, in instructions rather than seconds, beside what it may cost.
//!
//! The emulated host counts time in instructions, 2 ns each, so the figures repeat on any machine to some percent.

mod budget;

use std::{fs, process::ExitCode, time::Duration};

use anyhow::{Context, bail};

use crate::{
    host::{self, Content, HostConfig, HostExit, HostJob},
    setup,
};
use budget::{BUDGETS, Measured};

/// Runs that count, after one that does not.
const RUNS: &str = "5";
const TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// A guest that powers off with its first instructions.
const NULL_GUEST: &str = "kedge run --kernel /kedge/payloads/null.img";
/// The same, promised nothing.
const HOST_GUEST: &str = "kedge run --guest-abi host --kernel /kedge/payloads/null.img";
/// Fork, exec and exit of a program that does nothing: what no program can undercut.
const FLOOR: &str = "/bin/true";

/// `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `cargo xtask bench`.
///
/// # Errors
/// Something does not build, or a measured command fails.
pub(crate) fn main(_args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    let mut measured = Measured::default();
    let files = host::standard_files(&[])?;
    let kedge = files.iter().find(|file| file.path == "/kedge/bin/kedge");
    let Some(Content::Copy(kedge)) = kedge.map(|file| &file.content) else {
        bail!("the emulated host has no kedge");
    };
    let size =
        fs::metadata(kedge).with_context(|| format!("cannot read {}", kedge.display()))?.len();
    measured.set("binary", "bytes", size);
    for line in run(files)? {
        measured.line(&line);
    }
    measured.difference("profile", "cpu_us", ["null-guest", "host-guest"])?;
    let mut all_within = true;
    for budget in BUDGETS {
        let (text, within) = budget.compare(&measured)?;
        println!("{text}");
        all_within &= within;
    }
    println!("{}", measured.floor()?);
    Ok(if all_within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures in the host; what it printed.
fn run(files: Vec<host::Overlay>) -> anyhow::Result<Vec<String>> {
    let config = HostConfig {
        kernel: "6.12".to_owned(),
        icount: true,
        smp: 1,
        memory_mib: 2048,
        ..HostConfig::default()
    };
    let script = format!(
        "bench floor {RUNS} {FLOOR} && bench null-guest {RUNS} {NULL_GUEST} \
                          && bench host-guest {RUNS} {HOST_GUEST}"
    );
    let words = ["sh", "-c", &script].map(str::to_owned);
    let mut job = HostJob::new(words.to_vec(), files);
    job.timeout = TIMEOUT;
    let mut lines = Vec::new();
    let exit = host::run(&config, &job, &mut |line| lines.push(line.to_owned()))?;
    let said = lines.join("\n");
    match exit {
        HostExit::Status(0) => Ok(lines),
        HostExit::Status(status) => bail!("a measured command failed (status {status}):\n{said}"),
        HostExit::TimedOut => bail!("not done after {} s:\n{said}", TIMEOUT.as_secs()),
        HostExit::Silent(console) | HostExit::Died(console) => {
            bail!("the host died:\n{}", console.join("\n"))
        }
    }
}
