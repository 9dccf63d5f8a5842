//! `cargo xtask bench`: what kedge costs, in instructions rather than seconds, beside what it may cost.
//!
//! The emulated host counts time in instructions, 2 ns each, so the figures repeat on any machine to some percent. What
//! of a request is kedge's own is counted on this machine, by itself.

mod budget;
mod instructions;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};

use crate::{
    build,
    host::{self, Content, Guest, HostConfig, HostExit, HostJob, Overlay, PageSize},
    paths, setup,
};
use budget::{BUDGETS, Budget, INSTRUCTIONS, Measured};

/// The kernel of the host, and of its guests.
const KERNEL: &str = "6.12";
/// Runs that count, after one that does not.
const RUNS: &str = "5";
const TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// What is measured, by name, in this order.
const COMMANDS: &[(&str, &str)] = &[
    // Fork, exec and exit of a program that does nothing: what no program can undercut.
    ("floor", "/bin/true"),
    // A guest that powers off with its first instructions.
    ("null-guest", "kedge run --kernel /kedge/payloads/null.img"),
    // The same, promised nothing.
    ("host-guest", "kedge run --guest-abi host --kernel /kedge/payloads/null.img"),
    // The same with the features that the fleet below has in common, promised or not.
    (
        "bare-guest",
        "kedge run --guest-abi host --cpu-features pmu,ptrauth --kernel /kedge/payloads/null.img",
    ),
    // Until its API has answered for the first time.
    ("api-start", "kedge"),
    ("fleet-guest", "kedge run --guest-abi /tmp/fleet.json --kernel /kedge/payloads/null.img"),
];
/// The kernels of a fleet of the host's CPU, as they were recorded.
const FLEET: [&str; 3] = ["6.1", "6.12", "7.2"];

/// `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Count no more than kedge's own instructions for requests and packets, on this machine
    #[arg(long)]
    instructions: bool,
}

/// Runs `cargo xtask bench`.
///
/// # Errors
/// Something does not build, or a measured command fails.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    let mut measured = Measured::default();
    if !args.instructions {
        in_host(&mut measured)?;
    }
    instructions::measure(&mut measured)?;
    let mut all_within = true;
    let is_meant =
        |budget: &&Budget| !args.instructions || budget.subject_of(INSTRUCTIONS).is_some();
    for budget in BUDGETS.iter().filter(is_meant) {
        let (text, within) = budget.compare(&measured)?;
        println!("{text}");
        all_within &= within;
    }
    if !args.instructions {
        println!("{}", measured.floor()?);
    }
    Ok(if all_within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures what needs an emulated host.
fn in_host(measured: &mut Measured) -> anyhow::Result<()> {
    let guest = Guest { label: KERNEL.to_owned(), page_size: PageSize::K4 };
    let mut files = build::measured_programs()?;
    files.extend(host::guest_files(&guest)?);
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
    measured.difference("fleet", "cpu_us", ["fleet-guest", "bare-guest"])
}

/// Measures in the host; what it printed.
fn run(mut files: Vec<Overlay>) -> anyhow::Result<Vec<String>> {
    let config = HostConfig {
        kernel: KERNEL.to_owned(),
        icount: true,
        smp: 1,
        memory_mib: 2048,
        ..HostConfig::default()
    };
    let words = ["sh", "-c", &script()].map(str::to_owned);
    files.extend(fleet().map(|(label, path)| Overlay::copy(&label, path)));
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

/// What runs in the host.
fn script() -> String {
    let hosts: Vec<_> = fleet().map(|(path, _)| path).collect();
    let baseline = format!("kedge abi baseline {} --output /tmp/fleet.json", hosts.join(" "));
    let measure = |(name, command): &(&str, &str)| format!("bench {name} {RUNS} {command}");
    let folder = format!("/kedge/guests/{KERNEL}");
    let snapshots = format!("bench snapshots {RUNS} {folder}/Image {folder}/initrd.gz");
    let before = std::iter::once(baseline).chain(COMMANDS.iter().map(measure));
    let devices = format!("bench devices {RUNS} {folder}/Image {folder}/initrd.gz");
    before.chain([snapshots, devices]).collect::<Vec<_>>().join(" && ")
}

/// What was recorded of the fleet: where it lies in the host, and here.
fn fleet() -> impl Iterator<Item = (String, PathBuf)> {
    let recorded = paths::workspace().join("resources/hosts");
    FLEET.into_iter().map(move |kernel| {
        let name = format!("max-{kernel}.json");
        (format!("/kedge/hosts/{name}"), recorded.join(name))
    })
}
