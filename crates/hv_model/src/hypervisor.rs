//! The model hypervisor: one kernel release on one recorded host.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use kedge_hv::{GicVersion, HvError, Hypervisor, Limits, Vm, VmConfig};
use kedge_ids::{Spi, VcpuId};

use crate::machine::Machine;
use crate::program::Program;
use crate::recording::{BadRecording, Recording};
use crate::release::Release;
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
}

impl Shared {
    /// The host's counter: some ticks later each time it is looked at.
    pub(crate) fn counter(&self) -> u64 {
        const TICKS: u64 = 1000;
        self.counter.fetch_add(TICKS, Ordering::Relaxed)
    }
}

/// KVM/arm64 as a model.
#[derive(Debug)]
pub struct ModelHypervisor {
    shared: Arc<Shared>,
    /// For each vCPU, its programs in the first machine, the second and so on.
    programs: Mutex<BTreeMap<u32, Vec<Program>>>,
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
        };
        Self { shared: Arc::new(shared), programs: Mutex::default(), machines: Mutex::default() }
    }

    /// The same, whose vCPU `id` runs `program`. Said again, the program is for
    /// the next machine; the last one is for all machines behind it, too.
    #[must_use]
    pub fn with_program(self, id: VcpuId, program: Program) -> Self {
        self.add_program(id, program);
        self
    }

    /// As [`Self::with_program`], for a hypervisor that is in use. It holds for
    /// machines made from now on.
    pub fn add_program(&self, id: VcpuId, program: Program) {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.entry(id.0).or_default().push(program);
    }

    /// What its vCPUs do.
    pub fn trace(&self) -> Trace {
        self.shared.trace.clone()
    }

    /// How often an interrupt was raised, in all machines that there still are.
    pub fn raised(&self, spi: Spi) -> u64 {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        machines.iter().filter_map(Weak::upgrade).map(|machine| machine.raised(spi)).sum()
    }

    fn programs_of(&self, machine: usize) -> BTreeMap<u32, Program> {
        let programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let pick = |all: &Vec<Program>| all.get(machine).or(all.last()).cloned();
        programs.iter().filter_map(|(id, all)| Some((*id, pick(all)?))).collect()
    }
}

impl Hypervisor for ModelHypervisor {
    fn limits(&self) -> Limits {
        self.shared.host.limits
    }

    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, HvError> {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let programs = self.programs_of(machines.len());
        let machine = Arc::new(Machine::new(Arc::clone(&self.shared), config, programs)?);
        machines.push(Arc::downgrade(&machine));
        Ok(Arc::new(ModelVm { machine }))
    }
}
