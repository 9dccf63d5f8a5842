//! What a machine is made of, as a user says it: plain data, checked when the
//! machine is built. The command line, the configuration file and embedders all
//! produce the same value.

use std::path::PathBuf;

use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_hv::{GicVersion, VcpuFeatures};
use serde::{Serialize, Serializer};

/// A machine.
#[derive(Debug, Serialize)]
pub struct MachineSpec {
    /// vCPUs, from 1.
    pub cpus: u32,
    /// RAM in bytes: a multiple of the host's page size.
    pub memory: u64,
    /// Features asked for beyond the plain architecture: `pmu`, `sve`, `ptrauth`.
    #[serde(serialize_with = "feature_names")]
    pub cpu_features: VcpuFeatures,
    /// The PSCI version the guest is offered; the host's newest where not given.
    pub psci: Option<Psci>,
    /// The interrupt controller; the host's best where not given.
    pub gic: Option<GicVersion>,
    /// What runs.
    pub boot: Boot,
    /// Where the serial port leads.
    pub serial: SerialSpec,
    /// Virtio devices, each with the key of its kind, in the order in which the
    /// guest finds them.
    #[serde(serialize_with = "devices_as_json")]
    pub devices: Vec<Box<dyn DeviceConfig>>,
    /// What a reset by the guest does.
    pub on_reset: OnReset,
}

/// What a machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Boot {
    /// The kernel: an arm64 Image, plain or compressed, EFI zboot or ELF.
    pub kernel: PathBuf,
    /// How to take the kernel's file.
    pub kernel_format: KernelFormat,
    /// The initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line, to the letter.
    pub cmdline: String,
}

/// How to take a kernel's file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelFormat {
    /// By what the file says it is.
    #[default]
    Auto,
    /// As code without header, entered at RAM base + 0x80000.
    Flat,
}

/// The PSCI versions that KVM has offered (Arm DEN0022).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Psci {
    /// Function ids of the firmware's own choice.
    #[serde(rename = "0.1")]
    V0_1,
    /// Standard function ids.
    #[serde(rename = "0.2")]
    V0_2,
    /// PSCI_FEATURES, SYSTEM_SUSPEND.
    #[serde(rename = "1.0")]
    V1_0,
    /// SYSTEM_RESET2.
    #[serde(rename = "1.1")]
    V1_1,
    /// Nothing visible but the number.
    #[serde(rename = "1.2")]
    V1_2,
    /// SYSTEM_OFF2.
    #[serde(rename = "1.3")]
    V1_3,
}

/// Where the serial port leads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SerialSpec {
    /// To the process's standard output, and from its standard input.
    #[default]
    Stdio,
    /// To a file or FIFO; nothing comes back.
    File(PathBuf),
    /// To the embedder: see `Machine::serial`.
    Pipe,
}

/// What a reset by the guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReset {
    /// The machine ends, as after a power-off.
    Exit,
    /// The machine is built anew from its specification.
    Restart,
}

fn feature_names<S: Serializer>(features: &VcpuFeatures, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(features.names())
}

fn devices_as_json<S: Serializer>(
    devices: &[Box<dyn DeviceConfig>],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(devices.iter().map(|device| device.to_json()))
}
