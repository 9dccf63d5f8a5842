//! The host the tests run on: what it has, by its own kernel's word and not by
//! kedge's, and what a test could leave behind there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::{env, process};

use anyhow::Context;

use crate::sys;

/// What a test needs of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// KVM offers guests a GICv2.
    GicV2,
    /// KVM offers guests a GICv3.
    GicV3,
    /// KVM does not offer guests a GICv2.
    NoGicV2,
    /// Guests can have SVE.
    Sve,
    /// Guests cannot.
    NoSve,
    /// Guests can have pointer authentication.
    PtrAuth,
    /// Guests cannot.
    NoPtrAuth,
    /// Guests can have performance monitors.
    Pmu,
    /// Guests cannot.
    NoPmu,
    /// A capability of KVM by its number and name.
    Cap(u32, &'static str),
    /// The processor is this one of those that QEMU emulates.
    Cpu(&'static str),
    /// Pages have 4 KiB.
    SmallPages,
    /// There is a disk with Debian and systemd.
    Debian,
    /// There is a disk with programs of Debian.
    Programs,
    /// The kernel carries frames for guests (vhost-net).
    VhostNet,
    /// The kernel is this one or newer.
    Kernel(u32, u32),
    /// The kernel is older than this one.
    OlderThan(u32, u32),
    /// Guests can begin with their MMU on, as all do that are restored. From Linux 6.15 on those on a Cortex-A57 with
    /// erratum 834220 hang if their tables are not mapped yet.
    MmuAtFirst,
    /// The same for guests whose tables have five levels, as those of Linux 6.12 have where pages of 4 KiB reach 52 bits
    /// (FEAT_LPA2). QEMU before 8.0 tells KVM the level of the guest's table where it should tell its own, and KVM before
    /// Linux 6.8 does not know that one.
    FiveLevelsAtFirst,
}

/// `KVM_CAP_ARM_SYSTEM_SUSPEND`.
pub(crate) const SYSTEM_SUSPEND: Need = Need::Cap(216, "KVM_CAP_ARM_SYSTEM_SUSPEND");

#[rustfmt::skip]
mod cap {
    pub(super) const MAX_VCPUS:           u32 = 66;
    pub(super) const ARM_PMU_V3:          u32 = 126;
    pub(super) const ARM_VM_IPA_SIZE:     u32 = 165;
    pub(super) const ARM_SVE:             u32 = 170;
    pub(super) const ARM_PTRAUTH_ADDRESS: u32 = 171;
    pub(super) const ARM_PTRAUTH_GENERIC: u32 = 172;
}

/// The host.
#[derive(Debug)]
pub(crate) struct Host {
    /// The kernel's release, as numbers.
    kernel: (u32, u32),
    /// The emulated processor's name; empty on a real host.
    cpu: String,
    /// The interrupt controller's name in the host's device tree.
    gic: String,
    guests: PathBuf,
    payloads: PathBuf,
}

impl Host {
    /// Looks at the host. What cannot be found out is missed by the tests that need
    /// it.
    pub(crate) fn probe() -> Self {
        let folder =
            |name, default: &str| PathBuf::from(env::var_os(name).unwrap_or(default.into()));
        Self {
            kernel: kernel(),
            cpu: cpu(),
            gic: gic().unwrap_or_default(),
            guests: folder("KEDGE_GUESTS", "/kedge/guests"),
            payloads: folder("KEDGE_PAYLOADS", "/kedge/payloads"),
        }
    }

    /// Why a test with this need cannot run here.
    pub(crate) fn lacks(&self, need: Need) -> Option<String> {
        let has = |number| sys::kvm_capability(number) > 0;
        let ptrauth = || has(cap::ARM_PTRAUTH_ADDRESS) && has(cap::ARM_PTRAUTH_GENERIC);
        let (met, what) = match need {
            Need::GicV2 => (self.gic != "arm,gic-v3", "a GICv2".to_owned()),
            Need::GicV3 => (self.gic == "arm,gic-v3", "a GICv3".to_owned()),
            Need::NoGicV2 => (self.gic == "arm,gic-v3", "a GICv3 that is no GICv2 too".to_owned()),
            Need::Sve => (has(cap::ARM_SVE), "SVE".to_owned()),
            Need::NoSve => (!has(cap::ARM_SVE), "no SVE".to_owned()),
            Need::PtrAuth => (ptrauth(), "pointer authentication".to_owned()),
            Need::NoPtrAuth => (!ptrauth(), "no pointer authentication".to_owned()),
            Need::Pmu => (has(cap::ARM_PMU_V3), "performance monitors".to_owned()),
            Need::NoPmu => (!has(cap::ARM_PMU_V3), "no performance monitors".to_owned()),
            Need::Cap(number, name) => (has(number), name.to_owned()),
            Need::Cpu(name) => (self.cpu == name, format!("an emulated {name}")),
            Need::SmallPages => (rustix::param::page_size() == 4096, "pages of 4 KiB".to_owned()),
            Need::Debian => (self.debian().exists(), self.debian().display().to_string()),
            Need::Programs => (self.programs().exists(), self.programs().display().to_string()),
            Need::VhostNet => (Path::new("/dev/vhost-net").exists(), "/dev/vhost-net".to_owned()),
            Need::Kernel(major, minor) => {
                (self.kernel >= (major, minor), format!("Linux {major}.{minor} or newer"))
            }
            Need::OlderThan(major, minor) => {
                (self.kernel < (major, minor), format!("Linux older than {major}.{minor}"))
            }
            Need::MmuAtFirst => {
                let hangs = self.cpu == "cortex-a57" && self.kernel >= (6, 15);
                (!hangs, "no erratum 834220, or Linux older than 6.15".to_owned())
            }
            Need::FiveLevelsAtFirst => {
                let fails = self.cpu == "max" && self.kernel < (6, 8);
                (!fails, "no QEMU's max, or Linux 6.8 or newer".to_owned())
            }
        };
        (!met).then(|| format!("the host must have {what}"))
    }

    /// The most vCPUs of a machine, by KVM's word.
    pub(crate) fn most_vcpus(&self) -> u32 {
        match self.lacks(Need::GicV3) {
            Some(_) => 8,
            None => sys::kvm_capability(cap::MAX_VCPUS).min(512),
        }
    }

    /// Bits of a guest physical address.
    pub(crate) fn ipa_bits(&self) -> u32 {
        match sys::kvm_capability(cap::ARM_VM_IPA_SIZE) {
            0 => 40,
            bits => bits,
        }
    }

    /// The bare-metal guest called `name`.
    pub(crate) fn payload(&self, name: &str) -> PathBuf {
        self.payloads.join(name).with_extension("img")
    }

    /// A Linux kernel: the host's own kind, where there are several.
    pub(crate) fn linux(&self) -> anyhow::Result<PathBuf> {
        Ok(self.guest()?.join("Image"))
    }

    /// The initial RAM disk that goes with [`Self::linux`].
    pub(crate) fn initrd(&self) -> anyhow::Result<PathBuf> {
        Ok(self.guest()?.join("initrd.gz"))
    }

    /// The guests' ext4 disk. Not to be written to.
    pub(crate) fn disk(&self) -> PathBuf {
        self.guests.join("root.ext4")
    }

    /// A disk with Debian and systemd, a device of the host. It may be written to, by
    /// one test.
    pub(crate) fn debian(&self) -> PathBuf {
        self.guests.join("debian.ext4")
    }

    /// A disk with programs of Debian, a device of the host. Not to be written to.
    pub(crate) fn programs(&self) -> PathBuf {
        self.guests.join("programs.ext4")
    }

    /// The folders of the kernels that are to be guests here, each with an `Image` and an
    /// `initrd.gz`: the host's own kind unless others were asked for.
    pub(crate) fn kernels(&self) -> anyhow::Result<Vec<PathBuf>> {
        let labels = env::var("KEDGE_GUEST_KERNELS").unwrap_or_default();
        match labels.trim() {
            "" => Ok(vec![self.guest()?]),
            labels => Ok(labels.split(' ').map(|label| self.of_kernel(label)).collect()),
        }
    }

    /// The folder of the kernel with this label and the host's pages.
    fn of_kernel(&self, label: &str) -> PathBuf {
        self.guests.join(match env::var("KEDGE_HOST_PAGE_SIZE").as_deref() {
            Ok("16k") => format!("{label}-16k"),
            _ => label.to_owned(),
        })
    }

    /// The folder of a kernel: the host's own where it is there.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn guest(&self) -> anyhow::Result<PathBuf> {
        let own = self.of_kernel(&env::var("KEDGE_HOST_KERNEL").unwrap_or_default());
        if own.join("Image").exists() {
            return Ok(own);
        }
        let entries = fs::read_dir(&self.guests)
            .with_context(|| format!("cannot read {}", self.guests.display()))?;
        let mut guests = entries.filter_map(|entry| Some(entry.ok()?.path()));
        guests
            .find(|guest| guest.join("Image").exists())
            .with_context(|| format!("there is no kernel in {}", self.guests.display()))
    }
}

/// The kernel's release, as numbers.
pub(crate) fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// QEMU's `-cpu` without properties.
fn cpu() -> String {
    let words = env::var("KEDGE_HOST_CPU").unwrap_or_default();
    words.split(',').next().unwrap_or_default().to_owned()
}

/// The first interrupt controller of the host's device tree.
fn gic() -> Option<String> {
    let nodes = fs::read_dir("/proc/device-tree").ok()?;
    let compatible = |node: &Path| fs::read_to_string(node.join("compatible")).ok();
    nodes
        .filter_map(|node| Some(node.ok()?.path()))
        .filter(|node| node.join("interrupt-controller").exists())
        .filter_map(|node| compatible(&node))
        .find_map(|text| {
            text.split('\0').next().filter(|name| name.contains("gic")).map(str::to_owned)
        })
}

/// What a run of kedge could leave behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    /// Processes, zombies included.
    processes: BTreeSet<String>,
    /// Network interfaces.
    interfaces: BTreeSet<String>,
    /// Files in the folders for temporary ones and for sockets.
    files: BTreeSet<String>,
}

impl Traces {
    /// What there is. Machines leave notes on their host on purpose, and a folder around
    /// those.
    pub(crate) fn now() -> anyhow::Result<Self> {
        const MACHINES: &str = "/run/kedge";
        const NOTES: &str = "/run/kedge/.host";
        let folders = ["/tmp", "/run", "/dev/shm", MACHINES].map(names);
        let mut files: BTreeSet<_> = folders.into_iter().flatten().collect();
        if files.remove(NOTES) {
            files.remove(MACHINES);
        }
        Ok(Self { processes: children()?, interfaces: names("/sys/class/net"), files })
    }
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())).collect()
}

/// Kedges, and children of this process: number and name of each.
fn children() -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        // A process may end while it is looked at.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((start, rest)) = stat.rsplit_once(") ") else { continue };
        let parent = rest.split(' ').nth(1).and_then(|parent| parent.parse::<u32>().ok());
        if parent == Some(process::id()) || start.ends_with("(kedge") {
            found.insert(start.to_owned());
        }
    }
    Ok(found)
}
