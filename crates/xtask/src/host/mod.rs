//! The emulated arm64 host: a stock Debian arm64 kernel with KVM at EL2 under QEMU's software emulation.
//!
//! [`run`] boots one, runs one command there and hands its output over line by line. What lies in the host's file
//! system besides busybox is the caller's choice: [`standard_files`] is what the project's own commands find there.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;

/// `cargo xtask host`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// Runs `cargo xtask host`.
pub(crate) fn main(_args: &Args) -> anyhow::Result<ExitCode> {
    bail!("not there yet")
}

/// The size of a page in a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PageSize {
    /// 4 KiB: every label of [`HostConfig::kernel`].
    #[default]
    #[value(name = "4k")]
    K4,
    /// 16 KiB: 6.12 only.
    #[value(name = "16k")]
    K16,
}

/// The machine that is emulated.
#[derive(Clone, Debug)]
pub(crate) struct HostConfig {
    /// Label of the host's kernel: `5.10`, `6.1`, `6.12` or `7.2`.
    pub kernel: String,
    /// QEMU's `-cpu`, properties included.
    pub cpu: String,
    /// Version of the interrupt controller: 2 or 3.
    pub gic: u8,
    /// Count time in instructions: one CPU, 2 ns each, so that a run repeats.
    pub icount: bool,
    /// Number of CPUs; taken as 1 under `icount`.
    pub smp: u32,
    /// Page size of the host's kernel.
    pub page_size: PageSize,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Words added to the host kernel's command line.
    pub append: Vec<String>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            kernel: "6.12".to_owned(),
            cpu: "max,pauth-impdef=on,sve=off".to_owned(),
            gic: 3,
            icount: false,
            smp: 2,
            page_size: PageSize::K4,
            memory_mib: 3072,
            append: Vec::new(),
        }
    }
}

/// Something laid over the host's root before it boots.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    /// Absolute path in the host; parents are made.
    pub path: String,
    /// What is there.
    pub content: Content,
}

/// What an [`Overlay`] puts at its path.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A copy of this file with its permission bits.
    File(PathBuf),
    /// A copy of everything in this folder.
    Folder(PathBuf),
    /// A file of mode 755 with these bytes.
    Bytes(Vec<u8>),
}

/// What is connected to the command's standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// `/dev/null`.
    #[default]
    Nothing,
    /// Our terminal, in raw mode; output then goes to our standard output byte by byte and `on_line` is not called.
    Terminal,
}

/// What to do in the host.
#[derive(Clone, Debug)]
pub(crate) struct HostJob {
    /// The program and its arguments; they reach it unchanged. Empty: an interactive shell.
    pub command: Vec<String>,
    /// Laid over the host's root, in order; usually starts as [`standard_files`].
    pub files: Vec<Overlay>,
    /// Environment variables besides those every command gets.
    pub env: Vec<(String, String)>,
    /// How long the host may take, from its power-on to the command's end.
    pub timeout: Duration,
    /// The command's standard input.
    pub stdin: Stdin,
}

/// How a command in the host ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostExit {
    /// With this exit status (128 + n: killed by signal n).
    Status(u8),
    /// Not in time; the host was stopped.
    TimedOut,
    /// The host died under it; these are the last lines of its console.
    Died(Vec<String>),
}

/// The kernels that [`standard_files`] offers as guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Guest {
    /// The kernel's label; also its folder under `/kedge/guests`, with `-16k` appended where pages have 16 KiB.
    pub label: String,
    /// Its page size.
    pub page_size: PageSize,
}

/// Boots the host, runs the command there, calls `on_line` for each line it prints, returns how it ended.
///
/// # Errors
/// The host could not be built, or did not come up (the error shows the last lines of its console).
pub(crate) fn run(
    _config: &HostConfig,
    _job: &HostJob,
    _on_line: &mut dyn FnMut(&str),
) -> anyhow::Result<HostExit> {
    bail!("not there yet")
}

/// What commands in the host find there: our programs in `/kedge/bin`, bare-metal payloads in `/kedge/payloads`, each of
/// `guests` in `/kedge/guests/<label>`, `/kedge/guests/root.ext4` and `/kedge/lib/e2fsck`.
///
/// Builds and fetches whatever of it is missing or stale, so call it once and reuse the result.
pub(crate) fn standard_files(_guests: &[Guest]) -> anyhow::Result<Vec<Overlay>> {
    bail!("not there yet")
}
