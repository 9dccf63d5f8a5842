//! What is said of a machine, whoever says it: a configuration file or clients of the API.
//! Both make the same machine of the same words.

use std::path::PathBuf;

use kedge_api::call::{BootSource, MachineConfig};
use kedge_devices::virtio::catalog::{Clash, DeviceConfig, arrange};
use kedge_devices::virtio::net;
use kedge_diag::{Fix, Trouble};
use kedge_firmware::{CpuConfig, GuestAbi, OverlayError};
use kedge_hv::VcpuFeatures;
use kedge_vmm::metadata::{BadConfig as BadMetadata, Config as MetadataConfig};
use kedge_vmm::spec::{Boot, KernelFormat, MachineSpec, OnPanic, OnReset, SerialSpec, Transport};

use super::cmdline;
use super::machine_config::{self, BadMachine, Size};
use crate::devices::Devices;
use crate::guest_abi;

/// What is said of a machine.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    /// What it runs.
    pub(crate) boot: Option<BootSource>,
    /// Its CPUs and memory.
    pub(crate) machine: Option<MachineConfig>,
    /// Its virtio devices.
    pub(crate) devices: Devices,
    /// What its guest is promised, kedge's own.
    pub(crate) guest_abi: Option<GuestAbi>,
    /// What its guest is promised beside.
    pub(crate) cpu_config: Option<CpuConfig>,
    /// The file that takes what its guest prints.
    pub(crate) serial: Option<PathBuf>,
    /// Where its guest finds a metadata service.
    pub(crate) metadata: Option<MetadataConfig>,
}

/// What the command line says of a machine beside.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    /// A profile in place of any other.
    pub(crate) guest_abi: Option<GuestAbi>,
    /// What a reset by its guest does.
    pub(crate) on_reset: OnReset,
    /// What its virtio devices are attached to.
    pub(crate) transport: Transport,
    /// Slots on PCI.
    pub(crate) pci_slots: u8,
    /// Devices that begin in them.
    pub(crate) removable: Vec<String>,
    /// Threads of the devices' own.
    pub(crate) io_threads: u8,
}

/// Why what is said makes no machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoMachine {
    /// There is nothing to run.
    #[error("there is no kernel to run")]
    NoBoot,
    /// Its size is none.
    #[error(transparent)]
    Size(#[from] BadMachine),
    /// Its CPU configuration does not suit its profile.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// Its devices cannot be together.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// What a device said of itself is none: ours to avoid.
    #[error(transparent)]
    Device(Trouble),
}

impl NoMachine {
    /// What messages about it begin with, behind what they are about (FIRECRACKER_API.md,
    /// 4).
    pub(crate) fn prefix(&self) -> &'static str {
        match self {
            Self::NoBoot => "Cannot start microvm without kernel configuration. ",
            _ => "",
        }
    }
}

impl Fix for NoMachine {
    fn fix(&self) -> Option<String> {
        match self {
            Self::NoBoot => Some(
                "say what it runs: PUT /boot-source {\"kernel_image_path\": \"FILE\"}".to_owned(),
            ),
            Self::Size(source) => source.fix(),
            Self::Overlay(source) => source.fix(),
            Self::Clash(source) => source.fix(),
            Self::Device(source) => source.fix(),
        }
    }
}

impl Configuration {
    /// Whether anything is said of it that a saved machine has of its own.
    pub(crate) fn is_begun(&self) -> bool {
        let Self { boot, machine, devices, metadata, guest_abi: _, cpu_config: _, serial: _ } =
            self;
        boot.is_some() || machine.is_some() || !devices.is_empty() || metadata.is_some()
    }

    /// Its CPUs and memory.
    ///
    /// # Errors
    /// There are no such machines.
    pub(crate) fn size(&self) -> Result<Size, BadMachine> {
        self.machine.as_ref().map_or(Ok(Size::default()), machine_config::check)
    }

    /// Puts `device` in the place of the one of its kind and name, or beside the others:
    /// the one whose place it took.
    ///
    /// # Errors
    /// It cannot be in one machine with the others; then nothing changes.
    pub(crate) fn put_device(
        &mut self,
        device: Box<dyn DeviceConfig>,
    ) -> Result<Option<Box<dyn DeviceConfig>>, Clash> {
        let kind = device.kind().key;
        let is_same =
            |other: &dyn DeviceConfig| other.kind().key == kind && other.id() == device.id();
        let place = self.devices.iter().position(|other| is_same(other.as_ref()));
        let at = place.unwrap_or(self.devices.len());
        let before = place.map(|place| self.devices.remove(place));
        self.devices.insert(at, device);
        let Err(clash) = arrange(&mut self.devices) else { return Ok(before) };
        self.devices.remove(at);
        if let Some(before) = before {
            self.devices.insert(at, before);
        }
        Err(clash)
    }

    /// Takes back what [`Self::put_device`] did last with the device of this kind and name.
    pub(crate) fn put_back(&mut self, id: (&str, &str), before: Option<Box<dyn DeviceConfig>>) {
        let place = self.devices.iter().position(|other| (other.kind().key, other.id()) == id);
        let Some(place) = place else { return };
        self.devices.remove(place);
        if let Some(before) = before {
            self.devices.insert(place, before);
        }
    }

    /// Has its guest find a metadata service.
    ///
    /// # Errors
    /// It cannot, with the cards there are.
    pub(crate) fn put_metadata(&mut self, config: MetadataConfig) -> Result<(), BadMetadata> {
        let cards = self.devices.iter().filter(|device| device.kind().key == net::KIND.key);
        let cards: Vec<&str> = cards.map(|device| device.id()).collect();
        config.check(&cards)?;
        self.metadata = Some(config);
        Ok(())
    }

    /// The machine.
    ///
    /// # Errors
    /// Something is missing, or does not suit the rest.
    pub(crate) fn spec(&self, beside: &Beside) -> Result<MachineSpec, NoMachine> {
        let boot = self.boot.as_ref().ok_or(NoMachine::NoBoot)?;
        let size = self.size()?;
        let abi = beside.guest_abi.as_ref().or(self.guest_abi.as_ref()).cloned();
        let abi = abi.unwrap_or_else(guest_abi::default);
        let guest_abi = match &self.cpu_config {
            Some(cpu_config) => abi.overlay(cpu_config)?,
            None => abi,
        };
        let copies = self.devices.iter().map(|device| (device.kind().from_json)(device.to_json()));
        let devices = copies.collect::<Result<Devices, _>>().map_err(NoMachine::Device)?;
        Ok(MachineSpec {
            cpus: size.cpus,
            memory: size.memory,
            cpu_features: VcpuFeatures::NONE,
            guest_abi,
            psci: None,
            gic: None,
            transport: beside.transport,
            pci_slots: beside.pci_slots,
            boot: Boot {
                kernel: boot.kernel_image_path.clone(),
                kernel_format: KernelFormat::Auto,
                initrd: boot.initrd_path.clone(),
                cmdline: cmdline::compose(boot.boot_args.as_deref(), beside.transport, &devices),
            },
            rom: Vec::new(),
            serial: self.serial.clone().map_or(SerialSpec::Stdio, SerialSpec::File),
            devices,
            removable: beside.removable.clone(),
            plugged: Vec::new(),
            io_threads: beside.io_threads,
            metadata: self.metadata.clone(),
            on_reset: beside.on_reset,
            // A panic ends the machine when its command line says so: `panic=1`.
            on_panic: OnPanic::Continue,
        })
    }
}
