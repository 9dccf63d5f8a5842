//! Machines of the model, and moving the registers of one to another.

use std::sync::Arc;

use kedge_arch::regs;
use kedge_firmware::{
    Birth, Firmware, GuestAbi, Live, Manner, Newborn, Plan, Planned, RegRow, RegisterState,
    Restored, Rules, Source, baseline, builtin, capture, plan, probe, settle,
};
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Exit, Gic, GicConfig, Hypervisor, Vcpu, VcpuFeatures, Vm, VmConfig};
use kedge_hv_model::{ModelHypervisor, Program, Release, Step, Width, psci};
use kedge_ids::{RegId, VcpuId};

use crate::recorder::{Access, Log, Recorder};

/// A machine with some vCPUs.
pub(crate) struct Machine {
    pub(crate) vcpus: Vec<Recorder>,
    pub(crate) features: VcpuFeatures,
    pub(crate) hypervisor: ModelHypervisor,
    pub(crate) vm: Arc<dyn Vm>,
    gic: Option<Box<dyn Gic>>,
    log: Log,
}

/// Where guest code tells the answers of its calls.
const TELL: u64 = 0x900_0000;

const GIC: GicConfig = GicConfig::V3 {
    distributor: GuestAddress(0x800_0000),
    redistributors: GuestAddress(0x80a_0000),
    its: None,
    spis: 32,
};

impl Machine {
    /// Two vCPUs without optional features.
    pub(crate) fn new(release: &Release) -> Self {
        Self::with(release, 2, VcpuFeatures::PSCI_0_2)
    }

    pub(crate) fn with(release: &Release, vcpus: u32, features: VcpuFeatures) -> Self {
        Self::on(ModelHypervisor::new(release).unwrap(), vcpus, features)
    }

    /// Two vCPUs, the first of which will make these calls: function, and arguments.
    pub(crate) fn calling(release: &Release, calls: &[(u32, u64)]) -> Self {
        let tell = (0..4).map(|reg| Step::Store { reg, address: TELL, width: Width::Double });
        let one = |(function, x1): (u32, u64)| {
            Step::call(function, [x1, 0, 0]).into_iter().chain(tell.clone())
        };
        let off = Step::call(psci::SYSTEM_OFF, [0; 3]);
        let program = Program::new(calls.iter().copied().flat_map(one).chain(off));
        let hypervisor = ModelHypervisor::new(release).unwrap().with_program(VcpuId(0), program);
        Self::on(hypervisor, 2, VcpuFeatures::PSCI_0_2)
    }

    /// The first run of such a machine changes ID registers.
    pub(crate) fn without_gic(release: &Release) -> Self {
        Self::on_with(ModelHypervisor::new(release).unwrap(), (2, VcpuFeatures::PSCI_0_2), None)
    }

    pub(crate) fn on(hypervisor: ModelHypervisor, vcpus: u32, features: VcpuFeatures) -> Self {
        Self::on_with(hypervisor, (vcpus, features), Some(&GIC))
    }

    fn on_with(
        hypervisor: ModelHypervisor,
        (vcpus, features): (u32, VcpuFeatures),
        gic: Option<&GicConfig>,
    ) -> Self {
        let vm = hypervisor.create_vm(&VmConfig::new(40)).unwrap();
        let log = Log::default();
        let create = |id| {
            let vcpu = vm.create_vcpu(VcpuId(id)).unwrap();
            Recorder { vcpu, log: Arc::clone(&log), broken: None, flagged: None }
        };
        let mut vcpus: Vec<_> = (0..vcpus).map(create).collect();
        for vcpu in &mut vcpus {
            vcpu.init(features).unwrap();
            if features.contains(VcpuFeatures::SVE) {
                vcpu.finalize_sve().unwrap();
            }
        }
        let gic = gic.map(|config| vm.create_gic(config).unwrap());
        gic.iter().for_each(|gic| gic.init().unwrap());
        Self { vcpus, features, hypervisor, vm, gic, log }
    }

    pub(crate) fn refs(&self) -> Vec<&dyn Vcpu> {
        self.vcpus.iter().map(|vcpu| -> &dyn Vcpu { vcpu }).collect()
    }

    pub(crate) fn list(&self) -> Vec<RegId> {
        self.vcpus[0].reg_list().unwrap()
    }

    pub(crate) fn read(&self, vcpu: usize, id: RegId) -> u64 {
        self.vcpus[vcpu].reg64(id).unwrap()
    }

    pub(crate) fn write(&self, vcpu: usize, id: RegId, value: u64) {
        self.vcpus[vcpu].set_reg64(id, value).unwrap();
    }

    /// Forgets what was done to registers so far.
    pub(crate) fn forget(&self) {
        self.log.lock().unwrap().clear();
    }

    /// What was done to registers.
    pub(crate) fn accesses(&self) -> Vec<Access> {
        self.log.lock().unwrap().clone()
    }

    /// How often a register was written, through whatever vCPU.
    pub(crate) fn writes(&self, id: RegId) -> usize {
        let log = self.accesses();
        log.iter().filter(|access| matches!(access, Access::Written(_, of) if *of == id)).count()
    }

    /// The registers written, in order.
    pub(crate) fn written(&self) -> Vec<RegId> {
        let of = |access| match access {
            Access::Written(_, id) | Access::Refused(_, id) => Some(id),
            Access::Read(..) => None,
        };
        self.accesses().into_iter().filter_map(of).collect()
    }

    /// Its guest is born with a profile.
    pub(crate) fn born(&self, abi: &str) -> Birth {
        self.born_with(&builtin(abi).unwrap())
    }

    pub(crate) fn born_with(&self, abi: &GuestAbi) -> Birth {
        settle(&self.newborn(&self.refs()), abi).unwrap().birth
    }

    pub(crate) fn newborn<'a>(&'a self, vcpus: &'a [&'a dyn Vcpu]) -> Newborn<'a> {
        let gic = self.gic.as_deref();
        Newborn {
            hypervisor: &self.hypervisor,
            vm: self.vm.as_ref(),
            gic,
            vcpus,
            services: &[],
            notes: None,
        }
    }

    /// Its registers.
    pub(crate) fn save(&self, birth: Birth) -> RegisterState {
        self.save_by(birth, &Rules::new(&[]))
    }

    pub(crate) fn save_by(&self, birth: Birth, rules: &Rules<'_>) -> RegisterState {
        capture(&self.refs(), &self.source(), birth, rules).unwrap()
    }

    pub(crate) fn source(&self) -> Source {
        Source { features: self.features, abilities: self.hypervisor.abilities() }
    }

    /// What becomes of `state` here.
    pub(crate) fn plan(&self, state: &RegisterState) -> Planned {
        self.plan_by(state, &Rules::new(&rows()))
    }

    pub(crate) fn plan_by(&self, state: &RegisterState, rules: &Rules<'_>) -> Planned {
        let vcpus = self.refs();
        let live = Live::new(&vcpus, self.hypervisor.abilities());
        plan(state, &mut live.on(&self.hypervisor), rules).unwrap()
    }

    /// Restores `state` here.
    pub(crate) fn load(&self, state: &RegisterState) -> Restored {
        self.load_by(state, &Rules::new(&rows()))
    }

    pub(crate) fn load_by(&self, state: &RegisterState, rules: &Rules<'_>) -> Restored {
        self.plan_by(state, rules).restore(&self.refs(), &Manner::default()).unwrap()
    }

    /// Restores `state` here, of a guest that has not looked at its processor.
    pub(crate) fn load_firmware(&self, state: &RegisterState) -> Restored {
        let rows = rows();
        self.load_by(state, &whatever_the_cpu(state, &Rules::new(&rows)))
    }

    /// Runs its first vCPU, and gives what its calls were answered.
    pub(crate) fn answers(&mut self) -> Vec<[u64; 4]> {
        let mut told = Vec::new();
        while let Exit::MmioWrite { data, .. } = self.vcpus[0].run().unwrap() {
            told.push(u64::from_le_bytes(data.try_into().unwrap()));
        }
        told.as_chunks().0.to_vec()
    }
}

/// What machines on all of these can be promised: their baseline.
pub(crate) fn common(releases: &[Release]) -> GuestAbi {
    let probed = |release: &Release| {
        let hypervisor = ModelHypervisor::new(release).unwrap();
        (release.name.to_owned(), probe(&hypervisor).unwrap())
    };
    baseline(&releases.iter().map(probed).collect::<Vec<_>>()).unwrap().abi
}

/// The features that a profile names.
pub(crate) fn features(abi: &GuestAbi) -> VcpuFeatures {
    let named = |(name, feature): &(&str, VcpuFeatures)| {
        let names = abi.cpu.features.as_deref().unwrap_or_default();
        names.iter().any(|one| one == name).then_some(*feature)
    };
    let all = [
        ("pmu", VcpuFeatures::PMU_V3),
        ("sve", VcpuFeatures::SVE),
        ("ptrauth", VcpuFeatures::PTRAUTH),
    ];
    let named = all.iter().filter_map(named);
    named.fold(VcpuFeatures::PSCI_0_2, |all, feature| all | feature)
}

/// The same rules, by which only firmware has to stay what it was.
pub(crate) fn whatever_the_cpu<'a>(state: &RegisterState, rules: &Rules<'a>) -> Rules<'a> {
    let own = state.vcpus.iter().flat_map(|vcpu| &vcpu.registers);
    let all = state.machine.iter().chain(own).map(|saved| saved.id);
    Rules { allow: all.filter(|id| Firmware::of(*id).is_none()).collect(), ..rules.clone() }
}

/// The rows of system registers.
pub(crate) fn rows() -> Vec<RegRow> {
    regs::rows()
}

/// The lines of a plan about one thing.
pub(crate) fn lines(plan: &Plan, subject: &str) -> Vec<String> {
    let about = plan.lines.iter().filter(|line| line.subject.to_string() == subject);
    about.map(|line| format!("{}: {line}", line.verdict.word())).collect()
}

/// The refused lines of a plan.
pub(crate) fn refusals(plan: &Plan) -> Vec<String> {
    plan.refusals().map(ToString::to_string).collect()
}
