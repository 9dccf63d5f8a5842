//! What the flags of `kedge run` ask for, as a machine's specification.

use std::path::PathBuf;

use kedge_api::http::Limits;
use kedge_devices::virtio::options::OptionError;
use kedge_diag::Fix;
use kedge_hv::VcpuFeatures;
use kedge_vmm::spec::{Boot, MachineSpec, OnPanic, SerialSpec};
use tracing::level_filters::LevelFilter;

use super::command::{FEATURES, GICS, KERNEL_FORMATS, LOG_LEVELS, PSCI, TRANSPORTS};
use super::rom;
use crate::abi::load::BadFile;
use crate::api::{Identity, Reachable};
use crate::devices::{self, BadDevice};
use crate::flags::{
    Given, IO_THREADS, PCI_SLOTS, TRACK_CHANGES, chosen, count_of, is_set, on_reset_of, path,
    removable_of, text, texts,
};
use crate::guest_abi;
use crate::machine::Request;
use crate::machines::{self, BadId};
use crate::size::{self, BadSize};

/// A flag's value that describes no machine.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadFlag {
    /// Not a count of CPUs.
    #[error("`--cpus` cannot be `{0}`")]
    Cpus(String),
    /// Not a size.
    #[error("`--memory` cannot be `{value}`")]
    Memory {
        /// What was asked for.
        value: String,
        /// Why not.
        source: BadSize,
    },
    /// Not a place for the serial port's output.
    #[error(transparent)]
    Serial(#[from] BadSerial),
    /// Not read-only memory.
    #[error(transparent)]
    Rom(#[from] OptionError),
    /// Not a device.
    #[error(transparent)]
    Device(#[from] BadDevice),
    /// Not a profile.
    #[error(transparent)]
    GuestAbi(#[from] BadFile),
    /// Not a way to it.
    #[error(transparent)]
    Reach(#[from] BadReach),
}

impl Fix for BadFlag {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Cpus(_) => Some("write a whole number from 1".to_owned()),
            Self::Memory { source, .. } => source.fix(),
            Self::Serial(source) => source.fix(),
            Self::Rom(source) => source.fix(),
            Self::Device(source) => source.fix(),
            Self::GuestAbi(source) => source.fix(),
            Self::Reach(source) => source.fix(),
        }
    }
}

/// Not a place for the serial port's output.
#[derive(Debug, thiserror::Error)]
#[error("`--serial` cannot be `{0}`")]
pub(crate) struct BadSerial(String);

impl Fix for BadSerial {
    fn fix(&self) -> Option<String> {
        Some("write one of: stdio, socket, file=PATH, none".to_owned())
    }
}

/// Not a way to a machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadReach {
    /// Not a name.
    #[error(transparent)]
    Id(#[from] BadId),
    /// There is no folder for the serial port's socket.
    #[error("`--serial socket` is for machines with a name")]
    Unnamed,
}

impl Fix for BadReach {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Id(source) => source.fix(),
            Self::Unnamed => Some("add --id NAME".to_owned()),
        }
    }
}

/// What `flags` ask for.
///
/// # Errors
/// A value makes no sense.
pub(super) fn from_flags(flags: &dyn Given) -> Result<Request, BadFlag> {
    let spec = MachineSpec {
        cpus: cpus(text(flags, "cpus"))?,
        memory: memory(text(flags, "memory"))?,
        cpu_features: features(flags),
        guest_abi: guest_abi::from_flags(flags)?.unwrap_or_else(guest_abi::default),
        psci: chosen(flags, "psci", PSCI),
        gic: chosen(flags, "gic", GICS),
        transport: chosen(flags, "transport", TRANSPORTS).unwrap_or_default(),
        pci_slots: count_of(flags, PCI_SLOTS),
        boot: Boot {
            kernel: path(flags, "kernel").unwrap_or_default(),
            kernel_format: chosen(flags, "kernel-format", KERNEL_FORMATS).unwrap_or_default(),
            initrd: path(flags, "initrd"),
            cmdline: text(flags, "cmdline").to_owned(),
        },
        rom: rom::from_flags(flags)?,
        serial: serial_of(text(flags, "serial"))?,
        devices: devices::from_flags(flags)?,
        removable: removable_of(flags),
        plugged: Vec::new(),
        io_threads: count_of(flags, IO_THREADS),
        on_reset: on_reset_of(flags),
        metadata: None,
        on_panic: OnPanic::Exit,
    };
    let (dry_run, dump_dtb) = (is_set(flags, "dry-run"), path(flags, "dump-dtb"));
    let notes_changes = is_set(flags, TRACK_CHANGES);
    let reachable = reachable(flags)?;
    let companions = reachable.as_ref().map(|reachable| reachable.companions.clone());
    Ok(Request { spec, companions, dry_run, dump_dtb, notes_changes, reachable })
}

/// How the machine is to be reached: one without name and socket is not.
///
/// # Errors
/// Its name can be none, or it needs one.
pub(crate) fn reachable(flags: &dyn Given) -> Result<Option<Reachable>, BadReach> {
    let (id, socket) = (text(flags, "id"), path(flags, "api-sock"));
    let named = !flags.all("id").is_empty();
    if named {
        machines::check_id(id)?;
    }
    let offers_console = text(flags, "serial") == SOCKET;
    if offers_console && !named {
        return Err(BadReach::Unnamed);
    }
    if !named && socket.is_none() {
        return Ok(None);
    }
    let identity = Identity { id: id.to_owned(), program: "kedge" };
    let reachable = Reachable::new(identity, socket, Limits::default());
    Ok(Some(Reachable { named, offers_console, ..reachable }))
}

/// How much the log is to say.
pub(crate) fn log_level(flags: &dyn Given) -> LevelFilter {
    chosen(flags, "log-level", LOG_LEVELS).expect("the flag has a default")
}

fn cpus(value: &str) -> Result<u32, BadFlag> {
    value.parse().ok().filter(|&cpus| cpus > 0).ok_or_else(|| BadFlag::Cpus(value.to_owned()))
}

fn memory(value: &str) -> Result<u64, BadFlag> {
    size::parse(value).map_err(|source| BadFlag::Memory { value: value.to_owned(), source })
}

/// `--serial` of a machine to which `kedge console` is to be attached.
const SOCKET: &str = "socket";

/// Where the serial port leads, as `--serial` says.
///
/// # Errors
/// It says nothing that it can.
pub(crate) fn serial_of(value: &str) -> Result<SerialSpec, BadSerial> {
    match (value, value.strip_prefix("file=")) {
        // What the machine is told is the same: its process leads both elsewhere.
        ("stdio" | SOCKET, _) => Ok(SerialSpec::Stdio),
        // The port is there; nobody listens.
        ("none", _) => Ok(SerialSpec::File(PathBuf::from("/dev/null"))),
        (_, Some(path)) if !path.is_empty() => Ok(SerialSpec::File(PathBuf::from(path))),
        _ => Err(BadSerial(value.to_owned())),
    }
}

fn features(flags: &dyn Given) -> VcpuFeatures {
    let words = texts(flags, "cpu-features");
    let asked = |name: &str| words.contains(&name);
    FEATURES
        .iter()
        .filter(|(name, _)| asked(name))
        .fold(VcpuFeatures::NONE, |all, &(_, feature)| all | feature)
}
