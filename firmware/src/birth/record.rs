//! What a machine was born with: a record for life.

use kedge_hv::GicVersion;
use serde::{Deserialize, Serialize};

use super::services::{self, ServiceRecord};
use crate::abi::{GuestAbi, UnknownFirmware};
use crate::plan::Plan;
use crate::register::{Domain, Firmware, FwReg};
use crate::state::{Birth, SavedRegister};

/// What a machine was born with. It never changes, and goes with the machine to other
/// hosts: what is not in it the guest was not offered.
///
/// ID registers are not in it. They freeze with the first run, and only then a kernel
/// clears fields whose conditions are not met: what [`crate::settle`] read back may still
/// change once. Whoever saves a machine that has run reads them all anyway, final
/// ([`crate::capture`]), and whoever compares a restored machine does so again after its
/// first run ([`crate::Restored::compare_identity`]). Freezing them at birth would take a
/// run that ends before any guest code. It was decided against: afterwards nothing of the
/// whole VM can be written, registers to be restored least of all; devices that are yet
/// to be made ready would meet a machine that has run; and a vCPU that runs on another
/// thread than the first time makes Linux before 6.13 wait until no processor can still
/// read of the old one, milliseconds of every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Born {
    /// Its profile, and every firmware register that the kernel listed.
    pub birth: Birth,
    /// The interrupt controller.
    pub gic: Option<GicVersion>,
    /// The revision in `GICD_IIDR`, bits 15:12.
    pub gicd_revision: Option<u32>,
    /// Whether PSCI offers SYSTEM_SUSPEND.
    pub system_suspend: bool,
    /// Whether there is to be memory for stolen time.
    pub pv_time: bool,
    /// The services of the program around it, which answer its guest's calls.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceRecord>,
    /// What its user should know, a sentence each.
    pub warnings: Vec<String>,
}

impl Born {
    /// The value of a firmware register of 64 bits; nothing where the kernel had none.
    pub fn value(&self, reg: FwReg) -> Option<u64> {
        let id = reg.spec().id;
        let found = self.birth.firmware.iter().find(|register| register.id == id);
        found.and_then(|register| register.value.as_u64())
    }

    /// What becomes of its services in a program that has those in `here`: one that is
    /// not there, or answers other functions, is refused; one that it was not born with
    /// is to answer nothing.
    pub fn services_in(&self, here: &[ServiceRecord]) -> Plan {
        services::judge(&self.services, here)
    }

    /// The profile that promises all that this machine was born with, and nothing else.
    pub fn exact(&self) -> GuestAbi {
        let mut abi = self.birth.abi.clone();
        for SavedRegister { id, value } in &self.birth.firmware {
            let level = |firmware: &Firmware| {
                firmware.spec().is_some_and(|spec| matches!(spec.domain, Domain::Level(_)))
            };
            let firmware = Firmware::of(*id).filter(|firmware| !level(firmware));
            if let (Some(firmware), Some(value)) = (firmware, value.as_u64()) {
                abi.firmware.set(firmware, value);
            }
        }
        abi.unknown_firmware = UnknownFirmware::Neutralise;
        abi.machine.gic = self.gic;
        abi.machine.gicd_revision = self.gicd_revision;
        abi.machine.system_suspend = Some(self.system_suspend);
        abi.machine.pv_time = Some(self.pv_time);
        abi
    }
}
