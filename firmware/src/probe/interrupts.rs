//! What interrupt controllers show of themselves.

use kedge_guest_memory::GuestAddress;
use kedge_hv::{Gic, GicConfig, GicReg, GicVersion, HvError, Hypervisor, Vm};
use kedge_ids::VcpuId;

use super::{ProbeError, scratch};
use crate::hex::Hex;
use crate::host::FoundGic;

/// Where the frames lie: anywhere, since nothing else is in a scratch machine.
const DISTRIBUTOR: GuestAddress = GuestAddress(0x800_0000);
const BESIDE: GuestAddress = GuestAddress(0x80a_0000);
const SPIS: u32 = 32;

/// Every controller that `vm` can have.
pub(super) fn found(hypervisor: &dyn Hypervisor, vm: &dyn Vm) -> Result<Vec<FoundGic>, ProbeError> {
    let versions = [GicVersion::V2, GicVersion::V3];
    let there = versions.into_iter().filter(|version| vm.supports_gic(*version));
    there.map(|version| Ok(one(hypervisor, version)?)).collect()
}

/// A controller of this version, as small as it can be.
pub(super) const fn config(version: GicVersion) -> GicConfig {
    match version {
        GicVersion::V2 => {
            GicConfig::V2 { distributor: DISTRIBUTOR, cpu_interface: BESIDE, spis: SPIS }
        }
        GicVersion::V3 => GicConfig::V3 {
            distributor: DISTRIBUTOR,
            redistributors: BESIDE,
            its: None,
            spis: SPIS,
        },
    }
}

fn one(hypervisor: &dyn Hypervisor, version: GicVersion) -> Result<FoundGic, HvError> {
    let vm = scratch::vm(hypervisor)?;
    let mut vcpu = vm.create_vcpu(VcpuId(0))?;
    vcpu.init(scratch::PLAIN)?;
    let gic = vm.create_gic(&config(version))?;
    gic.init()?;
    let revision = gic.distributor_revision()?;
    let stores = |revision: &u32| {
        gic.set_distributor_revision(*revision).is_ok()
            && gic.distributor_revision().is_ok_and(|stored| stored == *revision)
    };
    let revisions = (0..16).filter(stores).collect();
    let typer2 = typer2(gic.as_ref());
    Ok(FoundGic { version, revision, revisions, typer2 })
}

/// `GICD_TYPER2`, which a GICv2 does not have.
pub(crate) fn typer2(gic: &dyn Gic) -> Option<Hex> {
    const GICD_TYPER2: GicReg = GicReg::Distributor { offset: 0xc };
    let has = gic.version() == GicVersion::V3;
    has.then(|| gic.reg(GICD_TYPER2).ok().map(Hex)).flatten()
}
