//! `/machine-config`, `/boot-source` and `/serial` (FIRECRACKER_API.md, 3.2 and 3.4): a
//! machine without its devices. The configuration file holds the same objects.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Call, Fault, Parsed, Setting, body};

/// `PUT /machine-config`, and its answer to `GET`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// vCPUs, from 1.
    pub vcpu_count: u8,
    /// RAM in MiB.
    pub mem_size_mib: u64,
    /// Whether two vCPUs share a core, which arm64 has not.
    #[serde(default)]
    pub smt: bool,
    /// One of Firecracker's CPU templates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<String>,
    /// Whether it is noted what the guest changes, so that differences can be saved.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// The pages behind the guest's memory.
    #[serde(default = "small")]
    pub huge_pages: String,
}

/// What there is of no template and of no huge pages.
pub const NONE: &str = "None";

fn small() -> String {
    NONE.to_owned()
}

impl Default for MachineConfig {
    /// A machine of which nobody has said anything.
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            cpu_template: None,
            track_dirty_pages: false,
            huge_pages: small(),
        }
    }
}

/// `PATCH /machine-config`: what is to be otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineChange {
    vcpu_count: Option<u8>,
    mem_size_mib: Option<u64>,
    smt: Option<bool>,
    cpu_template: Option<String>,
    track_dirty_pages: Option<bool>,
    huge_pages: Option<String>,
}

impl MachineChange {
    /// `before` as it is from then on.
    #[must_use]
    pub fn of(self, before: MachineConfig) -> MachineConfig {
        let Self { vcpu_count, mem_size_mib, smt, cpu_template, track_dirty_pages, huge_pages } =
            self;
        MachineConfig {
            vcpu_count: vcpu_count.unwrap_or(before.vcpu_count),
            mem_size_mib: mem_size_mib.unwrap_or(before.mem_size_mib),
            smt: smt.unwrap_or(before.smt),
            cpu_template: cpu_template.or(before.cpu_template),
            track_dirty_pages: track_dirty_pages.unwrap_or(before.track_dirty_pages),
            huge_pages: huge_pages.unwrap_or(before.huge_pages),
        }
    }
}

pub(super) fn read_config(bytes: &[u8]) -> Result<Parsed, Fault> {
    let config: MachineConfig = body::read(bytes)?;
    let deprecated = config.cpu_template.is_some();
    Ok(Parsed { call: Call::Set(Setting::Machine(config)), deprecated })
}

pub(super) fn read_change(bytes: &[u8]) -> Result<Parsed, Fault> {
    let change: MachineChange = body::read(bytes)?;
    if change == MachineChange::default() {
        return Err(Fault::Empty(crate::http::Method::Patch));
    }
    let deprecated = change.cpu_template.is_some();
    Ok(Parsed { call: Call::Set(Setting::MachineChange(change)), deprecated })
}

/// `PUT /boot-source`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    /// The kernel.
    pub kernel_image_path: PathBuf,
    /// The initial RAM disk.
    pub initrd_path: Option<PathBuf>,
    /// What the kernel is told, to which words for the devices are added.
    pub boot_args: Option<String>,
}

pub(super) fn read_boot(bytes: &[u8]) -> Result<Parsed, Fault> {
    Ok(Call::Set(Setting::Boot(body::read(bytes)?)).into())
}

/// `PUT /serial`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// The file or FIFO that takes what the guest prints; standard output where there is
    /// none.
    pub serial_out_path: Option<PathBuf>,
    /// How fast it may print.
    pub rate_limiter: Option<TokenBucket>,
}

/// A limit (FIRECRACKER_API.md, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    /// How much there can be at once.
    pub size: u64,
    /// The time in milliseconds after which it is there again.
    pub refill_time: u64,
    /// How much there is beside at the beginning, and never again.
    pub one_time_burst: Option<u64>,
}

impl TokenBucket {
    /// Whether it limits anything.
    pub const fn limits(&self) -> bool {
        self.size != 0 && self.refill_time != 0
    }
}

pub(super) fn read_serial(bytes: &[u8]) -> Result<Parsed, Fault> {
    Ok(Call::Set(Setting::Serial(body::read(bytes)?)).into())
}
