//! The machine: built from a specification, run, paused, saved, restored. A library that other
//! programs embed.
//!
//! It prints nothing, never ends the process, and installs nothing that is the process's own:
//! no signal handler, no panic hook, no logger (what it logs goes to whatever `tracing`
//! subscriber the program has, if any), no environment variable. Any number of machines can be
//! in one process.
//!
//! # A program with a machine
//!
//! Three values make a machine. A [`MachineSpec`](spec::MachineSpec) says what it is: plain
//! data. A [`Hypervisor`](hv::Hypervisor) runs it: on a host with KVM that is `Kvm::open()` of
//! the crate `kedge-hv-kvm`, which is apart so that everything else builds and is tested
//! anywhere. [`Surroundings`] are what it takes from the program: where the serial port leads,
//! who hears of events, and what the program brings along - devices with registers
//! ([`mmio`]), disks ([`disk`]), firmware services ([`smccc`]).
//!
//! [`Machine::build`] makes one and [`Machine::run`] runs it on the calling thread, until it
//! ends. Other threads ask it for things through its [`Handle`]: to pause, to resume, to save,
//! to stop. Here the hypervisor is the model that kedge's own tests use, whose guest is a list
//! of steps; with `kedge_hv_kvm::Kvm::open()?` in its place the same program runs a kernel:
//!
//! ```
//! use std::io::{self, Write};
//! use std::sync::{Arc, Mutex};
//!
//! use kedge_hv_model::{ModelHypervisor, Program, Step, Width, psci, release};
//! use kedge_vmm::smccc::VcpuId;
//! use kedge_vmm::spec::{Boot, KernelFormat, MachineSpec};
//! use kedge_vmm::{Ended, Machine, Surroundings};
//!
//! /// What the guest says.
//! #[derive(Clone, Default)]
//! struct Screen(Arc<Mutex<Vec<u8>>>);
//!
//! impl Write for Screen {
//!     fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
//!         self.0.lock().map_err(|_| io::ErrorKind::Other)?.extend(bytes);
//!         Ok(bytes.len())
//!     }
//!
//!     fn flush(&mut self) -> io::Result<()> {
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A guest that stores `!` to the serial port and powers off.
//! let says = Step::store(0x4000_2000, Width::Byte, u64::from(b'!'));
//! let guest = Program::new([&says[..], &Step::call(psci::SYSTEM_OFF, [0; 3])].concat());
//! let release = release("6.12").ok_or("the model knows it")?;
//! let hypervisor = ModelHypervisor::new(release)?.with_program(VcpuId(0), guest);
//!
//! let kernel = tempfile::NamedTempFile::new()?;
//! # kernel.as_file().write_all(b"flat")?;
//! let mut boot = Boot::new(kernel.path());
//! boot.kernel_format = KernelFormat::Flat;
//! let mut spec = MachineSpec::new(boot);
//! spec.memory = 16 << 20;
//!
//! let screen = Screen::default();
//! let mut machine = Machine::build(spec, Arc::new(hypervisor), Surroundings::new(screen.clone()))?;
//! assert_eq!(machine.run()?, Ended::Off);
//! assert_eq!(*screen.0.lock().unwrap(), b"!");
//! # Ok(())
//! # }
//! ```
//!
//! # Saving and restoring
//!
//! A paused machine is saved by [`Handle::save`], to two files. [`Snapshot::open`] opens them,
//! [`Restoration::of`] reads what is in them, and [`Machine::restore`] makes a machine of that,
//! on this host or another, or says what this host cannot give the guest. What a program brings
//! along it has to bring along again.
//!
//! # Errors
//!
//! Each says what is wrong, and by [`diag::Fix`] what to do about it; [`diag::report`] prints
//! it with its causes.
//!
//! # Threads
//!
//! A machine has three kinds. Its own is the one that calls [`Machine::run`]; it waits for what
//! the others report, and for what is asked of it through its [`Handle`]. Each vCPU has one,
//! which calls devices with registers and firmware services. The devices' workers share one
//! more, which calls disks and waits for nobody, or have some of their own
//! ([`MachineSpec::io_threads`](spec::MachineSpec::io_threads)).
//!
//! [`Snapshot::open`]: saved_state::Snapshot::open
#![deny(unsafe_code)]

mod build;
mod console;
mod control;
mod events;
mod machine;
mod opened;
mod own_device;
mod restore;
mod run;
mod save;
pub mod spec;
mod surroundings;

/// Errors that say how to mend what they report.
pub mod diag {
    pub use kedge_diag::{Fix, Trouble, one_line, report};
}

/// The hypervisor that runs a machine, and what it can do.
pub mod hv {
    pub use kedge_hv::{GicVersion, HvError, Hypervisor, Limits, VcpuFeatures, VmConfig};
}

/// Devices on virtio, as they are configured: what all have in common.
pub mod device {
    pub use kedge_devices::virtio::catalog::{DeviceConfig, Kind};
    pub use kedge_devices::virtio::change::{Change, ChangeError};
    pub use kedge_devices::virtio::limits::{RateLimiter, TokenBucket};
}

/// Disks: on a file or block device of the host's ([`BlockConfig`](disk::BlockConfig)), or on
/// what a program keeps itself ([`BlockBackEnd`](disk::BlockBackEnd)).
pub mod disk {
    pub use kedge_devices::virtio::block::{
        Access, BackEndDisk, BlockBackEnd, BlockConfig, Cache, Caching, Engine, KIND, Root,
    };
}

/// Network cards, on taps of the host's.
pub mod net {
    pub use kedge_devices::virtio::net::{
        Cable, KIND, MacAddress, NetConfig, NotAMacAddress, TapSource,
    };
}

/// The socket device, between programs of host and guest.
pub mod vsock {
    pub use kedge_devices::virtio::vsock::{KIND, VsockConfig};
}

/// The entropy device.
pub mod rng {
    pub use kedge_devices::virtio::rng::{KIND, RngConfig};
}

/// Devices with registers of a program's own: [`Surroundings::with_device`].
pub mod mmio {
    pub use crate::own_device::{OwnDevice, OwnDeviceError, Wiring};
    pub use kedge_bus::{
        Doorbell, IrqLine, MmioDevice, Node, NotAtRest, PauseError, RestoreError, ResumeError,
        Stateful, Unsuitable, Value, Wire,
    };
    pub use kedge_guest_memory::{Bytes, GuestAddress, GuestMemory};
    pub use kedge_ids::Ring;
}

/// Firmware calls that a program answers: [`Surroundings::with_service`].
pub mod smccc {
    pub use kedge_arch::smccc::{Call, Functions, NOT_SUPPORTED, Results, Service, only};
    pub use kedge_hv::Conduit;
    pub use kedge_ids::VcpuId;
}

/// What a guest is promised of its firmware and its CPU, and what a host can keep of it.
pub mod firmware {
    pub use kedge_firmware::{
        ARM64_V0, ARM64_V1, BadDocument, Born, CounterPolicy, CpuAbi, CpuConfig, Difference,
        FilterAction, FilterRange, Firmware, FwReg, GuestAbi, HOST, Hex, HostAbi, IdPromise,
        Implementation, ImplementationIds, MachineAbi, Notes, OverlayError, Plan, PlanLine,
        PmuEventSet, Promises, ServiceRecord, Subject, TimerPpis, UnknownFirmware, Varying,
        Verdict, builtin,
    };
    pub use kedge_ids::RegId;
}

/// Saved machines, as files and in parts.
pub mod saved_state {
    pub use kedge_saved_state::{
        About, Contents, Durability, FileError, Header, Image, OpenError, Part, Section, Snapshot,
        SnapshotId, StateError, StateFile, Versioned, open_state,
    };
}

pub use build::{BuildError, ProfileConflict, ServicesError, usual_machine};
pub use console::{ConsoleError, SerialInput};
pub use control::{Clock, ControlError, Handle, Lifecycle};
pub use events::{MachineEvent, Mishap, MishapKind};
pub use kedge_guest_memory::Lost;
pub use kedge_metadata as metadata;
pub use kedge_metrics as metrics;
pub use machine::{Ended, Machine, Reset, RunError, Stopper};
pub use opened::OpenDevices;
pub use restore::{Forecast, MemorySource, Pages, Restoration, RestoreError, WorkingSetError};
pub use run::{PlugError, VcpuFailure};
pub use save::{Checksums, SaveError, SaveKind, SaveOrder, SaveProgress, Saved, Then};
pub use surroundings::{Entropy, MemoryGuard, PanicListener, StuckListener, Surroundings};

// The guide's programs build.
#[cfg(doctest)]
#[doc = include_str!("../../docs/embedding.md")]
struct Guide;
