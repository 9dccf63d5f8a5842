//! The registers of a machine as state: captured whole, planned for a destination,
//! restored in order.
//!
//! [`capture`] is blind: it takes every register that the running kernel lists, of any
//! size and any bank, known or not. What the whole machine holds is held once. [`plan`]
//! offers the destination what would be refused if anything were, and says of each
//! register whether it is kept, adapted or refused. The machine that is being built is
//! the one that is asked: nothing has run in it, nothing else belongs to it, and if the
//! plan is refused it is thrown away. [`Planned::restore`] writes the rest.

mod capture;
mod class;
mod destination;
mod firmware;
mod packed;
mod plan;
mod recorded;
mod restore;
mod rules;
mod settle;
mod vcpus;

use kedge_hv::{MpState, SError, VcpuFeatures};
use kedge_ids::RegId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::abi::GuestAbi;
use crate::hex::{Hex, RegValue, id};

pub use capture::{CaptureError, Source, as_the_guest_reads, capture};
pub use class::{PHYSICAL_COUNTER, VIRTUAL_COUNTER};
pub use destination::{Destination, Live, RegList};
pub use packed::{pack, unpack};
pub use plan::{PlanError, Planned, plan};
pub use recorded::{MissingFeatures, Recorded};
pub use restore::{Deviation, Manner, RestoreError, Restored, Writes};
#[cfg(test)]
pub(crate) use rules::name as name_of;
pub use rules::{Lines, Quirk, RegRow, Rules, When};

/// A register and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRegister {
    /// All 64 bits of its id, also those that mean nothing to this release.
    #[serde(with = "id")]
    pub id: RegId,
    /// Its bytes.
    pub value: RegValue,
}

/// What a guest was born with. It is carried through every save, never made anew: what
/// is absent here, and present where the guest wakes up, is firmware that it must not
/// gain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Its profile, as it was given.
    #[serde(deserialize_with = "profile")]
    pub abi: GuestAbi,
    /// Every firmware register that was listed at its birth, with its value.
    pub firmware: Vec<SavedRegister>,
}

/// Names the profile that cannot be read: it is what fleets are upgraded by.
fn profile<'de, D: Deserializer<'de>>(deserializer: D) -> Result<GuestAbi, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    GuestAbi::deserialize(&value).map_err(|error| D::Error::custom(not_honoured(&value, &error)))
}

fn not_honoured(profile: &serde_json::Value, error: &serde_json::Error) -> String {
    let name = profile.get("name").and_then(serde_json::Value::as_str).unwrap_or("without name");
    format!(
        "the guest was born with the profile `{name}`, which this release cannot honour: {error}"
    )
}

/// The profile that a guest was born with, of its JSON document.
///
/// # Errors
/// It is none that this release can honour; the text says which one it is.
pub fn born_profile(json: &[u8]) -> Result<GuestAbi, String> {
    if let Some(abi) = GuestAbi::read_born(json) {
        return Ok(abi);
    }
    let value: serde_json::Value =
        serde_json::from_slice(json).map_err(|error| format!("it is no document: {error}"))?;
    GuestAbi::deserialize(&value).map_err(|error| not_honoured(&value, &error))
}

/// All registers of a machine, and what the hypervisor holds of its vCPUs beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterState {
    /// The features of all vCPUs, as [`VcpuFeatures`] counts them, without the one that
    /// leaves a vCPU off.
    pub features: VcpuFeatures,
    /// Whether the kernel that it was saved on offers precise time, which tells what it
    /// showed the guest where it had no bitmaps ([`crate::Absent`]).
    pub ptp: bool,
    /// What the guest was born with.
    pub birth: Birth,
    /// What the whole machine holds, by id.
    pub machine: Vec<SavedRegister>,
    /// Each vCPU, by index.
    pub vcpus: Vec<VcpuRegisters>,
}

/// What one vCPU holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuRegisters {
    /// Its registers in the order of its kernel's list. A register that is usually the
    /// whole machine's is here when two vCPUs read it differently.
    pub registers: Vec<SavedRegister>,
    /// Whether it is on.
    pub power: Power,
    /// The SError that waits for the guest, which is in no register.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serror: Option<PendingSError>,
}

/// An SError that waits for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingSError {
    /// The instruction-specific syndrome, on a host with RAS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub esr: Option<Hex>,
}

impl From<SError> for PendingSError {
    fn from(SError { esr }: SError) -> Self {
        Self { esr: esr.map(Hex) }
    }
}

impl From<PendingSError> for SError {
    fn from(PendingSError { esr }: PendingSError) -> Self {
        Self { esr: esr.map(|esr| esr.0) }
    }
}

/// Whether a vCPU is on (see [`MpState`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// It runs.
    Runnable,
    /// It is off.
    Stopped,
    /// It waits for an interrupt: SYSTEM_SUSPEND.
    Suspended,
}

impl From<MpState> for Power {
    fn from(state: MpState) -> Self {
        match state {
            MpState::Runnable => Self::Runnable,
            MpState::Stopped => Self::Stopped,
            MpState::Suspended => Self::Suspended,
        }
    }
}

impl From<Power> for MpState {
    fn from(power: Power) -> Self {
        match power {
            Power::Runnable => Self::Runnable,
            Power::Stopped => Self::Stopped,
            Power::Suspended => Self::Suspended,
        }
    }
}

impl RegisterState {
    /// What the whole machine holds for `id`.
    pub fn of_machine(&self, id: RegId) -> Option<&RegValue> {
        find(&self.machine, id)
    }

    /// What a vCPU reads from `id`: its own value, or the machine's.
    pub fn of_vcpu(&self, vcpu: usize, id: RegId) -> Option<&RegValue> {
        let own = self.vcpus.get(vcpu).and_then(|vcpu| find(&vcpu.registers, id));
        own.or_else(|| self.of_machine(id))
    }

    /// The SVE vector lengths of a vCPU with SVE. They are to be written to
    /// [`RegId::SVE_VLS`] between its initialisation and
    /// [`kedge_hv::Vcpu::finalize_sve`]: afterwards nobody can.
    pub fn vector_lengths(&self, vcpu: usize) -> Option<&RegValue> {
        self.of_vcpu(vcpu, RegId::SVE_VLS)
    }

    /// Whether any vCPU reads `id`.
    pub(crate) fn has(&self, id: RegId) -> bool {
        self.of_machine(id).is_some()
            || self.vcpus.iter().any(|vcpu| find(&vcpu.registers, id).is_some())
    }
}

fn find(registers: &[SavedRegister], id: RegId) -> Option<&RegValue> {
    registers.iter().find(|saved| saved.id == id).map(|saved| &saved.value)
}
