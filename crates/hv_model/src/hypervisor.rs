//! The model hypervisor: one kernel release on one recorded host.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use kedge_guest_memory::GuestAddress;
use kedge_hv::{Abilities, GicVersion, HvError, Hypervisor, Limits, Msi, Vm, VmConfig};
use kedge_ids::{Spi, VcpuId};

use crate::machine::Machine;
use crate::program::Program;
use crate::recording::{BadRecording, Recording};
use crate::release::{Ability, Release};
use crate::trace::Trace;
use crate::vm::ModelVm;

/// What all machines of a hypervisor share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) release: Release,
    pub(crate) host: Recording,
    pub(crate) gics: Vec<GicVersion>,
    pub(crate) trace: Trace,
    counter: AtomicU64,
    /// For each vCPU, its programs in the first machine, the second and so on.
    programs: Mutex<BTreeMap<u32, Vec<Program>>>,
}

impl Shared {
    /// The host's counter: some ticks later each time it is looked at.
    pub(crate) fn counter(&self) -> u64 {
        const TICKS: u64 = 1000;
        self.counter.fetch_add(TICKS, Ordering::Relaxed)
    }

    /// What a vCPU runs in the machine of this number.
    pub(crate) fn program(&self, machine: usize, id: VcpuId) -> Program {
        let programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let of_vcpu = programs.get(&id.0).map(Vec::as_slice).unwrap_or_default();
        of_vcpu.get(machine).or(of_vcpu.last()).cloned().unwrap_or_default()
    }
}

/// KVM's call for the precise time.
const PTP: u32 = 0x8600_0001;

/// KVM/arm64 as a model.
#[derive(Debug)]
pub struct ModelHypervisor {
    shared: Arc<Shared>,
    machines: Mutex<Vec<Weak<Machine>>>,
}

impl ModelHypervisor {
    /// This release on the host that was recorded under it: with a GICv3, and
    /// without a GICv2.
    ///
    /// # Errors
    /// The release's recording cannot be read.
    pub fn new(release: &Release) -> Result<Self, BadRecording> {
        let host = Recording::parse(release.recording)?;
        Ok(Self::on(release, host, &[GicVersion::V3]))
    }

    /// This release on any host.
    pub fn on(release: &Release, host: Recording, gics: &[GicVersion]) -> Self {
        let shared = Shared {
            release: release.clone(),
            host,
            gics: gics.to_vec(),
            trace: Trace::default(),
            // Not zero: a host has run for a while.
            counter: AtomicU64::new(1 << 24),
            programs: Mutex::default(),
        };
        Self { shared: Arc::new(shared), machines: Mutex::default() }
    }

    /// The same, whose vCPU `id` runs `program`. Said again, the program is for
    /// the next machine; the last one is for all machines behind it, too.
    #[must_use]
    pub fn with_program(self, id: VcpuId, program: Program) -> Self {
        self.programs().entry(id.0).or_default().push(program);
        self
    }

    /// Gives vCPU `id` of the next machine, and of all behind it, this program and
    /// no other. A vCPU takes its program when it is created.
    pub fn set_program(&self, id: VcpuId, program: Program) {
        self.programs().insert(id.0, vec![program]);
    }

    fn programs(&self) -> MutexGuard<'_, BTreeMap<u32, Vec<Program>>> {
        self.shared.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its vCPUs do.
    pub fn trace(&self) -> Trace {
        self.shared.trace.clone()
    }

    /// How often an interrupt was raised, in all machines that there still are.
    pub fn raised(&self, spi: Spi) -> u64 {
        self.sum(|machine| machine.raised(spi))
    }

    /// How often the guest rang a doorbell at `address`, in all machines that there
    /// still are: stores that did not leave it.
    pub fn rung(&self, address: GuestAddress) -> u64 {
        self.sum(|machine| machine.rung(address))
    }

    /// The messages that devices have sent to translation services, in all machines that
    /// there still are, whatever became of them.
    pub fn messages(&self) -> Vec<Msi> {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.iter().filter_map(Weak::upgrade).flat_map(|machine| machine.messages()).collect()
    }

    fn sum(&self, count: impl Fn(&Machine) -> u64) -> u64 {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.iter().filter_map(Weak::upgrade).map(|machine| count(&machine)).sum()
    }
}

impl Hypervisor for ModelHypervisor {
    fn limits(&self) -> Limits {
        self.shared.host.limits
    }

    fn abilities(&self) -> Abilities {
        let can = |ability| ability == Ability::Present;
        let release = &self.shared.release;
        Abilities {
            counter_offset: can(release.counter_offset),
            pv_time: true,
            writable_imp_ids: can(release.writable_imp_ids),
            ptp: release.services.iter().any(|service| service.function == PTP),
            counter_hz: self.shared.host.counter_hz,
        }
    }

    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, HvError> {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = Machine::new(Arc::clone(&self.shared), config, machines.len())?;
        let machine = Arc::new(machine);
        machines.push(Arc::downgrade(&machine));
        Ok(Arc::new(ModelVm { machine }))
    }
}
