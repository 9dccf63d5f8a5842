//! A machine that clients of the API describe before it starts. What they name is opened
//! at once, so that they learn at once what is wrong with it; what cannot be had changes
//! nothing.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use kedge_api::call::{BootSource, Profile, Serial, Setting};
use kedge_devices::virtio::catalog::{Clash, DeviceConfig};
use kedge_diag::Fix;
use kedge_firmware::OverlayError;
use kedge_vmm::OpenDevices;
use kedge_vmm::metadata::BadConfig as BadMetadata;
use kedge_vmm::spec::MachineSpec;

use super::configuration::{Beside, Configuration, NoMachine};
use super::machine_config::{self, BadMachine};
use crate::abi::load::{self, BadFile};
use crate::api::Told;
use crate::guest_abi;

/// A machine that is being described.
#[derive(Debug)]
pub(crate) struct Draft {
    configuration: Configuration,
    open: OpenDevices,
    beside: Beside,
}

/// Why something cannot be said of a machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadSetting {
    /// There are no such machines.
    #[error(transparent)]
    Machine(#[from] BadMachine),
    /// A file to boot from cannot be opened.
    #[error("cannot open `{}`", path.display())]
    Boot {
        /// What it is.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the host said: clients look for it in this place.
        error: io::Error,
    },
    /// A device cannot be there with the others.
    #[error(transparent)]
    Clash(#[from] Clash),
    /// A device cannot be opened.
    #[error(transparent)]
    Device(Told),
    /// No such profile.
    #[error(transparent)]
    Profile(#[from] BadFile),
    /// The CPU configuration and the profile want different things.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// There can be no such metadata service.
    #[error(transparent)]
    Metadata(#[from] BadMetadata),
    /// Something that kedge does not have yet.
    #[error("kedge does not have `{0}` yet")]
    NotYet(&'static str),
}

impl BadSetting {
    /// What messages about it begin with, behind what they are about (FIRECRACKER_API.md,
    /// 6).
    pub(crate) fn prefix(&self) -> String {
        match self {
            Self::Boot { what, error, .. } => {
                format!("The {what} file cannot be opened: {error}: ")
            }
            Self::Device(told) => told.prefix().to_owned(),
            Self::Metadata(error) => format!("{} ", error.known_as()),
            Self::Clash(Clash::Leaders { .. }) => "A root block device already exists! ".to_owned(),
            _ => String::new(),
        }
    }
}

impl Fix for BadSetting {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Machine(source) => source.fix(),
            Self::Boot { .. } => Some("name a file that exists and can be read".to_owned()),
            Self::Clash(source) => source.fix(),
            Self::Device(source) => source.fix(),
            Self::Profile(source) => source.fix(),
            Self::Overlay(source) => source.fix(),
            Self::Metadata(source) => source.fix(),
            Self::NotYet(_) => Some("leave it out".to_owned()),
        }
    }
}

impl Draft {
    /// A machine of which nothing is said but `beside`.
    pub(crate) fn new(beside: Beside) -> Self {
        Self { configuration: Configuration::default(), open: OpenDevices::default(), beside }
    }

    /// What is said of it.
    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Its devices, which are open.
    pub(crate) fn open_devices(&self) -> &OpenDevices {
        &self.open
    }

    /// The machine.
    ///
    /// # Errors
    /// Something is missing, or does not suit the rest.
    pub(crate) fn spec(&self) -> Result<MachineSpec, NoMachine> {
        self.configuration.spec(&self.beside)
    }

    /// Makes it what `setting` says.
    ///
    /// # Errors
    /// It cannot be so; it is as before then.
    pub(crate) fn set(&mut self, setting: Setting) -> Result<(), BadSetting> {
        let draft = &mut self.configuration;
        match setting {
            Setting::Machine(machine) => {
                machine_config::check(&machine)?;
                draft.machine = Some(machine);
            }
            Setting::MachineChange(change) => {
                let machine = change.of(draft.machine.clone().unwrap_or_default());
                machine_config::check(&machine)?;
                draft.machine = Some(machine);
            }
            Setting::Boot(boot) => {
                check_boot(&boot)?;
                draft.boot = Some(boot);
            }
            Setting::Serial(Serial { serial_out_path, rate_limiter }) => {
                if rate_limiter.is_some_and(|limiter| limiter.limits()) {
                    return Err(BadSetting::NotYet("rate_limiter"));
                }
                draft.serial = serial_out_path;
            }
            Setting::Cpu(config) => {
                let abi = self.beside.guest_abi.as_ref().or(draft.guest_abi.as_ref());
                abi.cloned().unwrap_or_else(guest_abi::default).overlay(&config)?;
                draft.cpu_config = Some(*config);
            }
            Setting::GuestAbi(profile) => {
                draft.guest_abi = Some(match profile {
                    Profile::Named(name) => load::profile(&name)?,
                    Profile::Document(document) => *document,
                });
            }
            Setting::Metadata(config) => draft.put_metadata(config)?,
            Setting::Device(device) => self.set_device(device)?,
        }
        Ok(())
    }

    /// Opens a device and takes it, in place of another of its kind and name, which is
    /// closed first: it may hold what the new one needs.
    fn set_device(&mut self, device: Box<dyn DeviceConfig>) -> Result<(), BadSetting> {
        let (kind, id) = (device.kind(), device.id().to_owned());
        let before = self.configuration.put_device(device)?;
        if let Some(before) = &before {
            self.open.close(before.as_ref());
        }
        let mut devices = self.configuration.devices.iter();
        let device = devices.find(|device| device.kind().key == kind.key && device.id() == id);
        let opened = device.map_or(Ok(()), |device| self.open.open(device.as_ref()));
        let Err(source) = opened else { return Ok(()) };
        if let Some(before) = &before {
            // Where that one is gone as well, starting the machine says so.
            let _ = self.open.open(before.as_ref());
        }
        self.configuration.put_back((kind.key, &id), before);
        Err(BadSetting::Device(Told::new(kind.api.unopened, source)))
    }
}

/// Opens what the machine is to boot from, to see that it can be.
fn check_boot(boot: &BootSource) -> Result<(), BadSetting> {
    let files = [("kernel", Some(&boot.kernel_image_path)), ("initrd", boot.initrd_path.as_ref())];
    for (what, path) in files {
        let Some(path) = path else { continue };
        // Nothing that would be waited for.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let opened = opened.and_then(|file| file.metadata());
        let opened = opened.and_then(|found| match found.is_dir() {
            true => Err(io::ErrorKind::IsADirectory.into()),
            false => Ok(()),
        });
        opened.map_err(|error| BadSetting::Boot { what, path: path.clone(), error })?;
    }
    Ok(())
}
