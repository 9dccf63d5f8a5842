//! A machine with its vCPUs, its interrupt controller and its firmware, and nothing
//! else: no memory, no file, no device. Whether the host can honour the guest's profile
//! shows here.

use std::sync::Arc;

use kedge_arch::features::{self, named};
use kedge_arch::gic::{self, GicChoice};
use kedge_arch::layout::ipa_bits;
use kedge_arch::smccc::Dispatcher;
use kedge_arch::vcpu::init_features;
use kedge_arch::{Layout, cmdline};
use kedge_diag::Fix;
use kedge_firmware::{Born, GuestAbi, Implementation, Newborn, settle, settle_again};
use kedge_hv::{Gic, Hypervisor, Limits, Vcpu, VcpuFeatures, Vm, VmConfig};
use kedge_ids::VcpuId;
use tracing::warn;

use super::cpus::{self, Choice, Cpus};
use super::{BuildError, services};
use crate::own_device::check_names;
use crate::run::GuestTime;
use crate::spec::MachineSpec;
use crate::surroundings::Surroundings;

/// A machine that was born.
pub(crate) struct Infant {
    pub(super) limits: Limits,
    pub(super) vm: Arc<dyn Vm>,
    pub(super) layout: Layout,
    pub(super) cpus: Cpus,
    pub(super) gic: Box<dyn Gic>,
    pub(super) dispatcher: Dispatcher,
    pub(super) time: GuestTime,
}

/// A machine and its guest's profile want different things.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the machine asks for {asked}, which is not what the guest ABI profile `{profile}` promises"
)]
pub struct ProfileConflict {
    /// What the machine asks for.
    pub asked: String,
    /// The profile.
    pub profile: String,
}

impl Fix for ProfileConflict {
    fn fix(&self) -> Option<String> {
        Some(format!("do not ask for {}, or use another profile", self.asked))
    }
}

/// Brings a machine into being: as `spec` and its profile describe it or, after a reset
/// of its guest, as it was `born` the first time.
///
/// # Errors
/// The host cannot honour the profile; or cannot give what the specification asks for.
pub(crate) fn bear(
    spec: &MachineSpec,
    hypervisor: &dyn Hypervisor,
    surroundings: &Surroundings,
    born: Option<&Born>,
) -> Result<(Infant, Born), BuildError> {
    let limits = hypervisor.limits();
    features::check(spec.cpu_features, &limits)?;
    cmdline::check(&spec.boot.cmdline)?;
    let abi = spec.effective_abi();
    let features = wanted_features(spec, &abi)?;
    // What the host lacks of it is named with all the rest that it lacks.
    let features = VcpuFeatures(features.0 & limits.features.0);

    let vm = hypervisor.create_vm(&vm_config(&abi, hypervisor, &limits))?;
    let gic = choose_gic(spec, &abi, vm.as_ref())?;
    let layout = Layout::new(spec.memory, spec.cpus, gic, &limits)?;
    let layout = layout.with_transport(spec.transport)?;
    check_names(&surroundings.devices)?;
    let layout = layout.with_own_devices(surroundings.devices.len())?;
    let mut cpus = cpus::create(vm.as_ref(), spec.cpus, &Choice::promised(features, &abi))?;
    let gic = vm.create_gic(&layout.gic())?;
    gic.init()?;

    let vcpus: Vec<&dyn Vcpu> = cpus.all().collect();
    let services = surroundings.services_on_record();
    let (vcpus, services) = (vcpus.as_slice(), services.as_slice());
    let (gic_of, notes) = (Some(gic.as_ref()), surroundings.notes(features));
    let newborn = Newborn { hypervisor, vm: vm.as_ref(), gic: gic_of, vcpus, services, notes };
    let born = match born {
        Some(born) => settle_again(&newborn, born)?,
        None => settle(&newborn, &abi)?,
    };
    born.warnings.iter().for_each(|warning| warn!("{warning}"));
    let abilities = hypervisor.abilities();
    let time = GuestTime::begin(vm.as_ref(), cpus.first(), &abilities, &born.birth.abi)?;
    let around = surroundings.with_only(&born.services);
    let dispatcher = services::prepare(vm.as_ref(), cpus.first(), &born.birth.abi, &around)?;
    cpus.finish(&born)?;
    Ok((Infant { limits, vm, layout, cpus, gic, dispatcher, time }, born))
}

/// The machine that most guests of a host are given, and the features of their vCPUs: for
/// who makes one ready before it is known which guest is to come.
pub fn usual_machine(limits: &Limits) -> (VmConfig, VcpuFeatures) {
    let features = init_features(VcpuId(0), VcpuFeatures::NONE, None);
    (VmConfig::new(ipa_bits(limits)), features)
}

pub(super) fn vm_config(abi: &GuestAbi, hypervisor: &dyn Hypervisor, limits: &Limits) -> VmConfig {
    let chosen = abi.cpu.implementation == Implementation::Promised;
    let writable_imp_ids = chosen && hypervisor.abilities().writable_imp_ids;
    VmConfig { writable_imp_ids, ..VmConfig::new(ipa_bits(limits)) }
}

/// The features of the profile, where it has an opinion; else those asked for.
fn wanted_features(spec: &MachineSpec, abi: &GuestAbi) -> Result<VcpuFeatures, ProfileConflict> {
    let Some(names) = &abi.cpu.features else { return Ok(spec.cpu_features) };
    let promised = names.iter().filter_map(|name| named(name).ok());
    let promised = promised.fold(VcpuFeatures::NONE, |all, feature| all | feature);
    let surplus = spec.cpu_features.without(promised);
    if surplus == VcpuFeatures::NONE {
        return Ok(promised);
    }
    let names: Vec<_> = surplus.names().map(|name| format!("`{name}`")).collect();
    Err(ProfileConflict { asked: names.join(", "), profile: abi.name.clone() })
}

/// The controller of the profile, where it has an opinion and the host has that one;
/// else the one asked for.
fn choose_gic(spec: &MachineSpec, abi: &GuestAbi, vm: &dyn Vm) -> Result<GicChoice, BuildError> {
    match (spec.gic, abi.machine.gic) {
        (Some(asked), Some(promised)) if asked != promised => {
            let asked = format!("a GIC{}", gic::name(asked));
            Err(ProfileConflict { asked, profile: abi.name.clone() }.into())
        }
        (_, Some(promised)) if vm.supports_gic(promised) => Ok(gic::choose(vm, Some(promised))?),
        (asked, _) => Ok(gic::choose(vm, asked)?),
    }
}
