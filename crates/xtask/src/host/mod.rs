//! The emulated arm64 host: a stock Debian arm64 kernel with KVM at EL2 under QEMU's software emulation.
//!
//! [`run`] boots one, runs one command there and hands its output over line by line. What lies in the host's file
//! system besides busybox is the caller's choice: [`standard_files`] is what the project's own commands find there.

mod console;
mod job;
mod qemu;
mod terminal;

use std::{
    fs::{self, File},
    io::{IsTerminal, Write, stdin, stdout},
    os::fd::AsRawFd,
    path::PathBuf,
    process::{self, ExitCode},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::{
    build,
    debian::{self, kernels},
    images, paths, setup,
};

const DEFAULT_CPU: &str = "max,pauth-impdef=on,sve=off";
/// For whoever sits before a terminal: a year.
pub(crate) const NO_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// `cargo xtask host`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// Stop the host after this many seconds [default: none with a terminal, else 600]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Kernels to put below /kedge/guests [default: the host's own]
    #[arg(long = "guest", value_name = "KERNEL")]
    guests: Vec<String>,
    /// Have a Debian with systemd as the disk /kedge/guests/debian.ext4
    #[arg(long)]
    debian: bool,
    /// Have Debian's fio, iperf3 and the like as the disk /kedge/guests/programs.ext4
    #[arg(long)]
    programs: bool,
    /// The command and its arguments; without one, a shell
    #[arg(last = true)]
    command: Vec<String>,
}

/// Options that say which machine to emulate.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MachineArgs {
    /// The host's kernel: 5.10, 6.1, 6.12 or 7.2
    #[arg(long, default_value = "6.12")]
    pub kernel: String,
    /// QEMU's -cpu, such as neoverse-n1, cortex-a57 or max,pauth-impdef=on
    #[arg(long, default_value = DEFAULT_CPU)]
    pub cpu: String,
    /// Version of the interrupt controller
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    pub gic: u8,
    /// Count time in instructions, on one CPU, so that a run repeats
    #[arg(long)]
    pub icount: bool,
    /// Number of CPUs
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub smp: u32,
    /// Emulate all CPUs on one thread: less work, but nothing happens at the same time
    #[arg(long)]
    pub one_thread: bool,
    /// Page size of the host's kernel; 16k exists for 6.12 and later
    #[arg(long, value_enum, default_value_t)]
    pub page_size: PageSize,
    /// Memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 3072)]
    pub memory: u32,
}

impl MachineArgs {
    /// The machine they describe.
    pub(crate) fn config(&self) -> HostConfig {
        let Self { kernel, cpu, gic, icount, smp, one_thread, page_size, memory } = self.clone();
        HostConfig {
            kernel,
            cpu,
            gic,
            icount,
            smp,
            threads: if one_thread { Threads::One } else { Threads::OnePerCpu },
            page_size,
            memory_mib: memory,
            ..HostConfig::default()
        }
    }
}

/// Runs `cargo xtask host`.
///
/// # Errors
/// The host cannot be built or does not come up, or the command is not done in time.
pub(crate) fn main(args: &Args) -> anyhow::Result<ExitCode> {
    let on_terminal = stdin().is_terminal() && stdout().is_terminal();
    if args.command.is_empty() && !on_terminal {
        bail!("a shell needs a terminal; give a command after `--`");
    }
    setup::ensure()?;
    let config = args.machine.config();
    let own = Guest { label: config.kernel.clone(), page_size: config.page_size };
    let named =
        args.guests.iter().map(|label| Guest { label: label.clone(), page_size: PageSize::K4 });
    let guests: Vec<Guest> = if args.guests.is_empty() { vec![own] } else { named.collect() };
    let mut job = HostJob::new(args.command.clone(), standard_files(&guests)?);
    if args.debian {
        job.disks.push(debian_disk()?);
    }
    if args.programs {
        add_programs(&config, &mut job)?;
    }
    if on_terminal {
        job.stdin = Stdin::Terminal;
        job.timeout = NO_TIMEOUT;
    }
    if let Some(seconds) = args.timeout {
        job.timeout = Duration::from_secs(seconds);
    }
    match run(&config, &job, &mut |line| println!("{line}"))? {
        HostExit::Status(status) => Ok(ExitCode::from(status)),
        HostExit::TimedOut => bail!("the command was not done after {} s", job.timeout.as_secs()),
        HostExit::Silent(console) | HostExit::Died(console) => {
            bail!("the host died under the command:\n{}", indented(&console))
        }
    }
}

/// The size of a page in a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PageSize {
    /// 4 KiB: every label of [`HostConfig::kernel`].
    #[default]
    #[value(name = "4k")]
    K4,
    /// 16 KiB: 6.12 and later.
    #[value(name = "16k")]
    K16,
}

/// What emulates the CPUs of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Threads {
    /// One thread, a CPU after the other: an instruction that excludes other CPUs costs no more than any other.
    One,
    /// A thread for each CPU: they run at the same time, as far as there are CPUs to run them.
    #[default]
    OnePerCpu,
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
    /// What emulates them.
    pub threads: Threads,
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
            cpu: DEFAULT_CPU.to_owned(),
            gic: 3,
            icount: false,
            smp: 2,
            threads: Threads::default(),
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

impl Overlay {
    /// A copy at `path` of the file `from`, or of everything in the folder `from`.
    pub(crate) fn copy(path: &str, from: PathBuf) -> Self {
        Self { path: path.to_owned(), content: Content::Copy(from) }
    }
}

/// What an [`Overlay`] puts at its path.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// A copy of this file with its permission bits, or of everything in this folder.
    Copy(PathBuf),
    /// A file of mode 755 with these bytes.
    #[allow(dead_code, reason = "tests lay their own scripts over the host")]
    Bytes(Vec<u8>),
}

/// A block device of the host, for what is too large to be in its memory.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// The raw image.
    pub image: PathBuf,
    /// Absolute path in the host: a link to the device.
    pub path: String,
    /// What becomes of what the host writes.
    pub writes: Writes,
}

/// What becomes of what a host writes to a [`Disk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// It is in the image.
    Kept,
    /// It is gone with the host; several may have the image.
    Dropped,
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
    /// Its block devices, in order.
    pub disks: Vec<Disk>,
    /// Environment variables besides those every command gets.
    pub env: Vec<(String, String)>,
    /// How long the host may take, from its power-on to the command's end.
    pub timeout: Duration,
    /// How long it may print nothing once it is up.
    pub silence: Duration,
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
    /// It printed nothing for too long; the host was stopped. These are the last lines of its console.
    Silent(Vec<String>),
    /// The host died under it; these are the last lines of its console.
    Died(Vec<String>),
}

impl HostJob {
    /// `command` with `files`, nothing on its standard input, and ten minutes.
    pub(crate) fn new(command: Vec<String>, files: Vec<Overlay>) -> Self {
        Self {
            command,
            files,
            disks: Vec::new(),
            env: Vec::new(),
            timeout: Duration::from_secs(600),
            silence: NO_TIMEOUT,
            stdin: Stdin::Nothing,
        }
    }
}

/// A kernel that [`standard_files`] offers as a guest.
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
/// The host could not be built, or did not come up (the error shows the last lines of its console). A kernel that is
/// gone from the mirror is a [`crate::debian::kernels::KernelGone`].
pub(crate) fn run(
    config: &HostConfig,
    job: &HostJob,
    on_line: &mut dyn FnMut(&str),
) -> anyhow::Result<HostExit> {
    let kernel = kernels::kernel(&config.kernel, config.page_size)?;
    let mut root = images::host_root(&kernel)?;
    for overlay in &job.files {
        match &overlay.content {
            Content::Copy(from) => root.copy(&overlay.path, from)?,
            Content::Bytes(bytes) => root.file(&overlay.path, 0o755, bytes)?,
        }
    }
    root.file("kedge/job", 0o644, job::script(config, job).as_bytes())?;
    let initrd = nameless_file(&root.finish()?)?;
    // QEMU opens it through us: a file without a name leaves nothing behind, however we end.
    let path = PathBuf::from(format!("/proc/{}/fd/{}", process::id(), initrd.as_raw_fd()));
    let mut qemu = qemu::command(config, &kernel.image(), &path)?;
    qemu.args(job.disks.iter().zip(0..).flat_map(qemu::disk));
    console::run(qemu, job, on_line)
}

/// What commands in the host find there: our programs in `/kedge/bin`, bare-metal payloads in `/kedge/payloads`, each of
/// `guests` in `/kedge/guests/<label>`, `/kedge/guests/root.ext4` and `/kedge/lib/e2fsck`.
///
/// Builds and fetches whatever of it is missing or stale, so call it once and reuse the result.
///
/// # Errors
/// A program does not build, or something cannot be fetched.
pub(crate) fn standard_files(guests: &[Guest]) -> anyhow::Result<Vec<Overlay>> {
    let mut files = build::host_programs()?;
    files.push(Overlay::copy("/kedge/lib/e2fsck", debian::e2fsck()?));
    files.push(Overlay::copy("/kedge/guests/root.ext4", images::root_ext4()?));
    for guest in guests {
        files.extend(guest_files(guest)?);
    }
    Ok(files)
}

/// The kernel and the initrd of one guest, in `/kedge/guests/<label>`.
///
/// # Errors
/// They cannot be fetched or made.
pub(crate) fn guest_files(guest: &Guest) -> anyhow::Result<[Overlay; 2]> {
    let kernel = kernels::kernel(&guest.label, guest.page_size)?;
    let folder = format!("/kedge/guests/{}", kernel.name);
    Ok([
        Overlay::copy(&format!("{folder}/Image"), kernel.image()),
        Overlay::copy(&format!("{folder}/initrd.gz"), images::initrd(&kernel)?),
    ])
}

/// A Debian with systemd, as a disk for a guest: `/kedge/guests/debian.ext4`.
///
/// # Errors
/// It cannot be made.
pub(crate) fn debian_disk() -> anyhow::Result<Disk> {
    Ok(Disk {
        image: images::debian_ext4()?,
        path: "/kedge/guests/debian.ext4".to_owned(),
        writes: Writes::Dropped,
    })
}

/// Adds programs of Debian as a disk for guests, `/kedge/guests/programs.ext4`, and what the host needs to mount it itself.
///
/// # Errors
/// They cannot be fetched.
pub(crate) fn add_programs(config: &HostConfig, job: &mut HostJob) -> anyhow::Result<()> {
    job.disks.push(Disk {
        image: images::programs_ext4()?,
        path: "/kedge/guests/programs.ext4".to_owned(),
        writes: Writes::Dropped,
    });
    let kernel = kernels::kernel(&config.kernel, config.page_size)?;
    job.files.extend(images::disk::modules(&kernel)?);
    Ok(())
}

fn nameless_file(content: &[u8]) -> anyhow::Result<File> {
    let work = paths::work();
    fs::create_dir_all(&work)?;
    let mut file = tempfile::tempfile_in(&work)
        .with_context(|| format!("cannot make a file in {}", work.display()))?;
    file.write_all(content).with_context(|| format!("no room in {}", work.display()))?;
    Ok(file)
}

/// Lines as they follow the first of an error.
fn indented(lines: &[String]) -> String {
    lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
