//! Why a machine cannot be built.

use std::io;
use std::path::PathBuf;

use kedge_arch::cmdline::CmdlineError;
use kedge_arch::fdt::FdtError;
use kedge_arch::features::AbsentFeature;
use kedge_arch::gic::GicError;
use kedge_arch::image::{InitrdError, KernelError};
use kedge_arch::layout::{LayoutError, TooManyDevices};
use kedge_arch::rom::RomError;
use kedge_bus::Conflict;
use kedge_devices::virtio::catalog::Clash;
use kedge_diag::{Fix, Trouble};
use kedge_firmware::BirthError;
use kedge_guest_memory::MapError;
use kedge_hv::HvError;
use kedge_metadata::BadConfig;

use super::ProfileConflict;
use super::services::ServicesError;
use crate::console::ConsoleError;
use crate::own_device::OwnDeviceError;
use crate::spec::BadSlots;

/// Why a machine cannot be built. Nothing is left behind then.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Memory or vCPUs that the host or kedge cannot give.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A vCPU feature the host lacks.
    #[error(transparent)]
    Features(#[from] AbsentFeature),
    /// No such interrupt controller here.
    #[error(transparent)]
    Gic(#[from] GicError),
    /// More devices than interrupts.
    #[error(transparent)]
    Devices(#[from] TooManyDevices),
    /// Two devices at one address: ours to avoid.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Devices that cannot be in one machine together.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// A device of the program around the machine.
    #[error(transparent)]
    OwnDevice(#[from] OwnDeviceError),
    /// Slots that the machine cannot have.
    #[error(transparent)]
    Slots(#[from] BadSlots),
    /// A device cannot be opened.
    #[error(transparent)]
    Device(#[from] Trouble),
    /// A metadata service that the machine cannot have.
    #[error(transparent)]
    Metadata(#[from] BadConfig),
    /// The host cannot map the guest's memory.
    #[error(transparent)]
    Memory(#[from] MapError),
    /// The kernel, the initial RAM disk or a file of read-only memory cannot be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The kernel cannot be loaded.
    #[error("cannot boot the kernel `{}`", path.display())]
    Kernel {
        /// The kernel's file.
        path: PathBuf,
        /// What is wrong with it.
        source: KernelError,
    },
    /// The initial RAM disk cannot be loaded.
    #[error("cannot load the initial RAM disk `{}`", path.display())]
    Initrd {
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        source: InitrdError,
    },
    /// Read-only memory cannot be had.
    #[error("cannot place the read-only memory `{}` at {address:#x}", path.display())]
    Rom {
        /// Its file.
        path: PathBuf,
        /// The address asked for.
        address: u64,
        /// What is wrong with it.
        source: RomError,
    },
    /// The command line is not one.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// The device tree cannot be written.
    #[error(transparent)]
    DeviceTree(#[from] FdtError),
    /// The console cannot be set up.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The host cannot honour the guest's profile.
    #[error(transparent)]
    Birth(#[from] BirthError),
    /// The machine asks for something else than its guest's profile.
    #[error(transparent)]
    Profile(#[from] ProfileConflict),
    /// The guest cannot be given what it is promised besides registers.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The hypervisor refuses something that it should not.
    #[error("cannot set up the virtual machine")]
    Hypervisor(#[from] HvError),
    /// The host lacks resources: threads, file descriptors, entropy.
    #[error("the host cannot {what}")]
    Host {
        /// What for.
        what: &'static str,
        /// What the host said.
        source: io::Error,
    },
}

impl BuildError {
    /// A wrapper for an error of the host's.
    pub(crate) fn host(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { what, source }
    }
}

impl Fix for BuildError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Layout(source) => source.fix(),
            Self::Features(source) => source.fix(),
            Self::Gic(source) => source.fix(),
            Self::Devices(source) => source.fix(),
            Self::Conflict(source) => source.fix(),
            Self::Clash(source) => source.fix(),
            Self::OwnDevice(source) => source.fix(),
            Self::Slots(source) => source.fix(),
            Self::Device(source) => source.fix(),
            Self::Metadata(source) => source.fix(),
            Self::Memory(source) => source.fix(),
            Self::Open { source, .. } => Some(match source.kind() {
                io::ErrorKind::NotFound => "name a file that exists".to_owned(),
                io::ErrorKind::IsADirectory => "name a regular file".to_owned(),
                _ => "name a file that this user may read".to_owned(),
            }),
            Self::Kernel { source, .. } => source.fix(),
            Self::Initrd { source, .. } => source.fix(),
            Self::Rom { source, .. } => source.fix(),
            Self::Cmdline(source) => source.fix(),
            Self::DeviceTree(source) => source.fix(),
            Self::Console(source) => source.fix(),
            Self::Birth(source) => source.fix(),
            Self::Profile(source) => source.fix(),
            Self::Services(source) => source.fix(),
            Self::Hypervisor(source) => source.fix(),
            Self::Host { .. } => Some("raise the limits of the process (ulimit -a)".to_owned()),
        }
    }
}
