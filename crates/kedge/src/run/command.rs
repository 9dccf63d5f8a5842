//! The flags of `kedge run` and their help.

use clap::{Arg, Command};
use kedge_hv::{GicVersion, VcpuFeatures};
use kedge_vmm::spec::{KernelFormat, PsciVersion, Transport};
use tracing::level_filters::LevelFilter;

use super::rom;
use crate::devices;
use crate::flags::{
    Choices, dry_run, dump_dtb, file, help, io_threads, on_reset, one_of, option, pci_slots,
    removable, track_changes,
};
use crate::guest_abi;

pub(super) const KERNEL_FORMATS: Choices<KernelFormat> =
    &[("auto", KernelFormat::Auto), ("flat", KernelFormat::Flat)];

pub(super) const FEATURES: Choices<VcpuFeatures> = &[
    ("pmu", VcpuFeatures::PMU_V3),
    ("sve", VcpuFeatures::SVE),
    ("ptrauth", VcpuFeatures::PTRAUTH),
];

pub(super) const PSCI: Choices<PsciVersion> = &[
    ("0.1", PsciVersion::V0_1),
    ("0.2", PsciVersion::V0_2),
    ("1.0", PsciVersion::V1_0),
    ("1.1", PsciVersion::V1_1),
    ("1.2", PsciVersion::V1_2),
    ("1.3", PsciVersion::V1_3),
];

pub(super) const GICS: Choices<GicVersion> = &[("v2", GicVersion::V2), ("v3", GicVersion::V3)];

pub(super) const TRANSPORTS: Choices<Transport> =
    &[("mmio", Transport::Mmio), ("pci", Transport::Pci)];

pub(super) const LOG_LEVELS: Choices<LevelFilter> = &[
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

const EXAMPLES: &str = "\
Examples:
  A kernel with an initial RAM disk, on this terminal (Ctrl-A x ends it):
    kedge run --kernel Image --initrd initrd.gz --cmdline console=ttyS0

  Two CPUs, a disk, a network interface and a source of entropy:
    kedge run --kernel Image --cpus 2 --memory 1G --disk path=root.ext4 --net tap=tap0 --rng \\
        --cmdline \"console=ttyS0 root=/dev/vda rw\"

  What the machine would be, on any host:
    kedge run --kernel Image --disk path=root.ext4 --dry-run

On a terminal: Ctrl-A x ends the machine, Ctrl-A a sends Ctrl-A, Ctrl-A h lists these.

Exit status: 0 when the guest powered off or was ended from the terminal, 1 after an error, 2 when
the command line makes no sense, 3 after a kernel panic of the guest, 128 + N after signal N.";

/// `kedge run`.
pub(crate) fn command() -> Command {
    Command::new("run")
        .bin_name("kedge run")
        .about("Run a virtual machine described by flags")
        .disable_help_flag(true)
        .override_usage("kedge run --kernel FILE [OPTIONS]")
        .after_help(EXAMPLES)
        .next_help_heading("What boots")
        .args(boot())
        .next_help_heading("The machine")
        .args(machine())
        .next_help_heading("Its devices")
        .arg(serial())
        .args(devices::flags())
        .next_help_heading("What kedge does")
        .args(kedge())
}

fn boot() -> [Arg; 4] {
    [
        file("kernel").required(true).help(
            "The kernel: an arm64 Image, plain or compressed\n\
             (gzip, zstd, lz4), EFI zboot or ELF",
        ),
        one_of("kernel-format", "FORMAT", KERNEL_FORMATS).default_value("auto").help(
            "auto: by what the file says; flat: code without header,\n\
             loaded and entered at RAM base + 0x80000",
        ),
        file("initrd").help("An initial RAM disk"),
        option("cmdline", "TEXT")
            .default_value("")
            .hide_default_value(true)
            .help("The kernel's command line, to the letter (console=ttyS0)"),
    ]
}

fn machine() -> [Arg; 11] {
    [
        option("cpus", "N").default_value("1").help("Virtual CPUs"),
        option("memory", "SIZE")
            .default_value("512M")
            .help("Memory: 512M, 2G, 1GiB; a bare number counts MiB"),
        rom::flag(),
        one_of("cpu-features", "LIST", FEATURES)
            .value_delimiter(',')
            .help("Features to give the CPUs, of: pmu,sve,ptrauth"),
        guest_abi::flag(),
        one_of("psci", "VERSION", PSCI).help(
            "PSCI version shown to the guest: 0.1, 0.2 or 1.0 to 1.3\n\
             [default: the profile's]",
        ),
        one_of("gic", "VERSION", GICS)
            .help("Interrupt controller: v2 or v3 [default: the host's best]"),
        one_of("transport", "BUS", TRANSPORTS).help(
            "What virtio devices are attached to: mmio, or pci with\n\
             message-signalled interrupts (needs a GICv3 with ITS)\n\
             [default: mmio]",
        ),
        pci_slots("0"),
        removable(),
        on_reset("restart"),
    ]
}

fn serial() -> Arg {
    option("serial", "PORT").default_value("stdio").help(
        "Serial port: stdio, socket (for `kedge console`, needs\n\
             --id), file=PATH (written only) or none",
    )
}

fn kedge() -> impl Iterator<Item = Arg> {
    let own = [io_threads(), track_changes(), dry_run(), dump_dtb(), log_level_flag(), help()];
    reachable_flags().into_iter().chain(own)
}

/// How the machine is found while it runs.
pub(crate) fn reachable_flags() -> [Arg; 2] {
    [
        option("id", "NAME").help(
            "The machine's name: kedge's other commands find it by that\n\
             (letters, digits and hyphens)",
        ),
        file("api-sock").help("Answer Firecracker's API at this socket"),
    ]
}

/// `--log-level`.
pub(crate) fn log_level_flag() -> Arg {
    one_of("log-level", "LEVEL", LOG_LEVELS)
        .default_value("warn")
        .help("Log on stderr: off, error, warn, info, debug or trace")
}
