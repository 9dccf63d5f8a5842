//! What a profile promises of a guest's vCPUs.

use kedge_ids::RegId;
use serde::{Deserialize, Serialize};

use crate::hex::{Hex, id};

/// What is promised of the vCPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuAbi {
    /// The optional features that the vCPUs have, by name (`pmu`, `sve`, `ptrauth`), no
    /// others; where absent, whatever the machine asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
    /// Values of ID registers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub id_registers: Vec<IdPromise>,
    /// Fields that may read differently from host to host, each with the reason why a
    /// guest can live with it. Nothing is promised of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub varying: Vec<Varying>,
    /// The SVE vector lengths in bits, ascending, of vCPUs with `sve`; where absent, the
    /// host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sve_lengths: Option<Vec<u32>>,
    /// The implementation ID registers.
    #[serde(default)]
    pub implementation: Implementation,
    /// The processors that a guest is told it may find itself on, where
    /// `vendor_hyp_bmap_2` offers to tell; where absent, the one that its vCPUs show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implementations: Vec<ImplementationIds>,
}

/// A processor, by what identifies it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImplementationIds {
    /// `MIDR_EL1`.
    pub midr: Hex,
    /// `REVIDR_EL1`.
    #[serde(default)]
    pub revidr: Hex,
    /// `AIDR_EL1`.
    #[serde(default)]
    pub aidr: Hex,
}

/// Some bits of an ID register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdPromise {
    /// Its id.
    #[serde(with = "id")]
    pub id: RegId,
    /// Its name, for readers.
    #[serde(default)]
    pub name: String,
    /// What the bits of `mask` read.
    pub value: Hex,
    /// The bits that are promised.
    pub mask: Hex,
}

/// Some bits of a register that are not promised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Varying {
    /// The register's id.
    #[serde(with = "id")]
    pub id: RegId,
    /// Its name, for readers.
    #[serde(default)]
    pub name: String,
    /// The bits.
    pub mask: Hex,
    /// Why a guest can live with it.
    pub reason: String,
}

/// `MIDR_EL1`, `REVIDR_EL1` and `AIDR_EL1`: which CPU a guest takes its own for, and so
/// which errata it works around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Implementation {
    /// The host's own; a guest is not moved to a host with others.
    #[default]
    Host,
    /// Those among `id_registers`, whatever the host's CPU (Linux 6.15).
    Promised,
}
