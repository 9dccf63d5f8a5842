//! What cases share: machines to try things on, guests to run, and two checks.

use std::fmt::Debug;
use std::ops::{Index, IndexMut};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use kedge_guest_memory::{GuestAddress, RamRegion};
use kedge_hv::{
    Access, Conduit, Exit, GicConfig, GicVersion, HvError, Limits, SystemEvent, Vcpu, VcpuFeatures,
    Vm, VmConfig,
};
use kedge_hv_model::Program;
use kedge_ids::{RegId, VcpuId, u64_from};

use crate::Backend;

/// Where guests have their RAM.
pub const RAM: u64 = 0x8000_0000;
/// Where they have nothing: every access leaves them.
pub const DEVICE: u64 = 0x1000_0000;
/// Where they have memory that they cannot store to.
pub const ROM: u64 = 0x4000_0000;
/// Bytes of RAM for each vCPU's code.
const CODE: u64 = 0x1_0000;
/// Where in there the vectors begin.
const VECTORS: u64 = 0x8000;
/// From the vector base: a synchronous exception taken from EL1.
const SYNCHRONOUS: u64 = 0x200;
/// `VBAR_EL1`.
const VBAR_EL1: RegId = RegId::system(3, 0, 12, 0, 0);

/// The vCPU features of a plain guest.
pub const PLAIN: VcpuFeatures = VcpuFeatures::PSCI_0_2;
/// Bits of a guest physical address that cases ask for: every host has them.
pub const IPA_BITS: u8 = 36;

/// What a case runs on.
#[derive(Clone, Copy)]
#[expect(missing_debug_implementations, reason = "a back end is whatever it is")]
pub struct Ctx<'a> {
    backend: &'a dyn Backend,
}

/// A machine and its vCPUs, gone in the order that lets the machine go last.
#[expect(missing_debug_implementations, reason = "the traits do not show what they are")]
pub struct Machine {
    /// The vCPUs, by index.
    pub vcpus: Vec<Box<dyn Vcpu>>,
    /// The machine.
    pub vm: Arc<dyn Vm>,
    /// The memory of a guest, at [`RAM`].
    pub ram: Option<Arc<RamRegion>>,
}

impl Index<usize> for Machine {
    type Output = dyn Vcpu;

    fn index(&self, index: usize) -> &Self::Output {
        self.vcpus[index].as_ref()
    }
}

impl IndexMut<usize> for Machine {
    fn index_mut(&mut self, index: usize) -> &mut Self::Output {
        self.vcpus[index].as_mut()
    }
}

impl<'a> Ctx<'a> {
    /// The cases' view of a back end.
    pub fn new(backend: &'a dyn Backend) -> Self {
        Self { backend }
    }

    /// What the host can give.
    pub fn limits(&self) -> Limits {
        self.backend.hypervisor().limits()
    }

    /// What the host can do that others cannot.
    pub fn host_abilities(&self) -> kedge_hv::Abilities {
        self.backend.hypervisor().abilities()
    }

    /// A machine with this many address bits.
    ///
    /// # Errors
    /// The hypervisor refuses it.
    pub fn vm_of(&self, ipa_bits: u8) -> Result<Arc<dyn Vm>, HvError> {
        self.backend.hypervisor().create_vm(&VmConfig::new(ipa_bits))
    }

    /// A machine of this kind.
    ///
    /// # Errors
    /// The hypervisor refuses it.
    pub fn vm_with(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, HvError> {
        self.backend.hypervisor().create_vm(config)
    }

    /// A machine with nothing in it.
    ///
    /// # Errors
    /// The hypervisor refuses it.
    pub fn vm(&self) -> Result<Arc<dyn Vm>, HvError> {
        self.vm_of(IPA_BITS)
    }

    /// A machine with vCPUs that are not initialised.
    ///
    /// # Errors
    /// The hypervisor refuses them.
    pub fn raw_machine(&self, vcpus: u32) -> Result<Machine, HvError> {
        let vm = self.vm()?;
        let vcpus = (0..vcpus).map(|id| vm.create_vcpu(VcpuId(id))).collect::<Result<_, _>>()?;
        Ok(Machine { vcpus, vm, ram: None })
    }

    /// A machine whose vCPUs have these features.
    ///
    /// # Errors
    /// The hypervisor refuses them.
    pub fn machine_with(&self, vcpus: u32, features: VcpuFeatures) -> Result<Machine, HvError> {
        let mut machine = self.raw_machine(vcpus)?;
        machine.vcpus.iter_mut().try_for_each(|vcpu| vcpu.init(features))?;
        Ok(machine)
    }

    /// A machine of plain vCPUs.
    ///
    /// # Errors
    /// The hypervisor refuses them.
    pub fn machine(&self, vcpus: u32) -> Result<Machine, HvError> {
        self.machine_with(vcpus, PLAIN)
    }

    /// A machine of plain vCPUs, one for each program, ready to run it.
    ///
    /// # Errors
    /// The hypervisor refuses a part of it.
    pub fn guest(&self, programs: &[Program]) -> anyhow::Result<Machine> {
        self.guest_on(self.vm()?, programs)
    }

    /// The same on a machine that was prepared.
    ///
    /// # Errors
    /// The hypervisor refuses a part of it.
    pub fn guest_on(&self, vm: Arc<dyn Vm>, programs: &[Program]) -> anyhow::Result<Machine> {
        self.load(vm, PLAIN, programs)
    }

    /// The same for vCPUs with these features.
    ///
    /// # Errors
    /// The hypervisor refuses a part of it.
    pub fn guest_of(
        &self,
        features: VcpuFeatures,
        programs: &[Program],
    ) -> anyhow::Result<Machine> {
        self.load(self.vm()?, features, programs)
    }

    fn load(
        &self,
        vm: Arc<dyn Vm>,
        features: VcpuFeatures,
        programs: &[Program],
    ) -> anyhow::Result<Machine> {
        let ram = ram(RAM, CODE * u64_from(programs.len()))?;
        vm.map_ram(0, Arc::clone(&ram), Access::ReadWrite)?;
        vm.map_ram(1, self::ram(ROM, CODE)?, Access::ReadOnly)?;
        let mut vcpus = Vec::new();
        for (id, program) in (0..).zip(programs) {
            let code = CODE * u64::from(id);
            let places = (code, code + VECTORS + SYNCHRONOUS);
            self.backend.guest_code().load(VcpuId(id), program, &ram, places)?;
            let mut vcpu = vm.create_vcpu(VcpuId(id))?;
            vcpu.init(features)?;
            vcpu.set_reg64(RegId::PC, entry(id))?;
            vcpu.set_reg64(VBAR_EL1, entry(id) + VECTORS)?;
            vcpus.push(vcpu);
        }
        Ok(Machine { vcpus, vm, ram: Some(ram) })
    }
}

/// Where vCPU `id` of a guest starts.
pub fn entry(id: u32) -> u64 {
    RAM + CODE * u64::from(id)
}

/// Where its vector for external aborts is.
pub fn vector(id: u32) -> u64 {
    entry(id) + VECTORS + SYNCHRONOUS
}

/// Host memory that a guest would have at `start`.
///
/// # Errors
/// The host has none.
pub fn ram(start: u64, size: u64) -> anyhow::Result<Arc<RamRegion>> {
    let region = RamRegion::from_range(GuestAddress(start), usize::try_from(size)?, None)?;
    Ok(Arc::new(region))
}

/// A controller of the newest version that the host has.
pub fn any_gic(vm: &dyn Vm) -> GicConfig {
    if vm.supports_gic(GicVersion::V3) {
        return gic_v3();
    }
    GicConfig::V2 {
        distributor: GuestAddress(0x800_0000),
        cpu_interface: GuestAddress(0x801_0000),
        spis: 64,
    }
}

/// A GICv3 in places that suit every guest here.
pub const fn gic_v3() -> GicConfig {
    GicConfig::V3 {
        distributor: GuestAddress(0x800_0000),
        redistributors: GuestAddress(0x80a_0000),
        its: None,
        spis: 64,
    }
}

/// A [`kedge_hv::Exit`] that owns what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A load from this address, of so many bytes.
    Load(u64, usize),
    /// A store to this address, of these bytes.
    Store(u64, Vec<u8>),
    /// An access that hardware does not describe.
    Undecoded(u64),
    /// A forwarded firmware call.
    Hypercall(u32, Conduit),
    /// Something for the machine.
    System(SystemEvent),
    /// A kick.
    Interrupted,
}

/// Runs a vCPU until it leaves its guest, at most for [`PATIENCE`]: then it is
/// kicked. A load is answered with the low bytes of `answer`.
///
/// # Errors
/// The vCPU cannot be run.
pub fn run(vcpu: &mut dyn Vcpu, answer: u64) -> anyhow::Result<Seen> {
    run_for(vcpu, answer, PATIENCE)
}

/// The same with another patience.
///
/// # Errors
/// The vCPU cannot be run.
pub fn run_for(vcpu: &mut dyn Vcpu, answer: u64, patience: Duration) -> anyhow::Result<Seen> {
    let kicker = vcpu.kicker()?;
    let (done, watch) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if watch.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                kicker.kick();
            }
        });
        let seen = run_once(vcpu, answer);
        drop(done);
        seen
    })
}

/// How long a guest may be silent. The slowest host is emulated.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a vCPU without a watch over it.
///
/// # Errors
/// The vCPU cannot be run.
pub fn run_once(vcpu: &mut dyn Vcpu, answer: u64) -> anyhow::Result<Seen> {
    Ok(match vcpu.run()? {
        Exit::MmioRead { address, data } => {
            let length = data.len();
            data.copy_from_slice(&answer.to_le_bytes()[..length]);
            Seen::Load(address.0, length)
        }
        Exit::MmioWrite { address, data } => Seen::Store(address.0, data.to_vec()),
        Exit::Undecoded { address, .. } => Seen::Undecoded(address.0),
        Exit::Hypercall { function, conduit } => Seen::Hypercall(function, conduit),
        Exit::System(event) => Seen::System(event),
        Exit::Interrupted => Seen::Interrupted,
        Exit::Failed { reason } => bail!("the vCPU failed: {reason}"),
    })
}

/// The next thing a vCPU does is `expected`.
///
/// # Errors
/// It does something else.
pub fn expect(vcpu: &mut dyn Vcpu, expected: &Seen) -> anyhow::Result<()> {
    equal(&run(vcpu, 0)?, expected)
}

/// The errno of a refusal, 0 for success.
pub fn errno<T>(result: &Result<T, HvError>) -> i32 {
    result.as_ref().err().map_or(0, HvError::errno)
}

/// The call was refused with this errno.
///
/// # Errors
/// It was not.
pub fn refused<T>(result: Result<T, HvError>, expected: i32) -> anyhow::Result<()> {
    let Err(error) = result else { bail!("accepted, where errno {expected} is due") };
    let found = error.errno();
    Err::<(), _>(error)
        .with_context(|| format!("errno {found}, where {expected} is due"))
        .or_else(|error| if found == expected { Ok(()) } else { Err(error) })
}

/// Both are equal.
///
/// # Errors
/// They are not.
pub fn equal<T: Debug + PartialEq>(found: &T, expected: &T) -> anyhow::Result<()> {
    ensure!(found == expected, "found {found:x?}, where {expected:x?} is due");
    Ok(())
}
