//! The hypervisor of test builds: KVM, or the model of one of its releases that
//! `KEDGE_MODEL` names. Whatever kernel a machine is given there, its first CPU runs a
//! script: it prints a line, and from then on each byte that is typed alone.

#[cfg(not(debug_assertions))]
compile_error!("the feature `model` is for tests: leave it out of what is released");

use std::sync::Arc;
use std::{env, io};

use kedge_hv::{Abilities, HvError, Hypervisor, Limits, OpenError, VcpuFeatures, Vm, VmConfig};
use kedge_hv_kvm::{Kvm, Ready};
use kedge_hv_model::{ModelHypervisor, Program, Step, Width, release};
use kedge_ids::{Spi, VcpuId};

/// The variable with the release, as in `6.12`.
const RELEASE: &str = "KEDGE_MODEL";

/// The host's hypervisor, or what stands in for it.
#[derive(Debug)]
pub(crate) enum Host {
    /// The host's.
    Kvm(Kvm),
    /// The model.
    Model(Box<ModelHypervisor>),
}

impl Host {
    /// Opens it.
    ///
    /// # Errors
    /// There is none, or no model of such a release.
    pub(crate) fn open() -> Result<Self, OpenError> {
        let Ok(wanted) = env::var(RELEASE) else { return Ok(Self::Kvm(Kvm::open()?)) };
        let failed = |text: String| OpenError::Open {
            path: format!("{RELEASE}={wanted}"),
            source: io::Error::other(text),
        };
        let release = release(&wanted).ok_or_else(|| failed("no such release".to_owned()))?;
        let model = ModelHypervisor::new(release).map_err(|error| failed(error.to_string()))?;
        Ok(Self::Model(Box::new(model.with_program(VcpuId(0), echo()))))
    }

    /// Makes a machine ready, where that saves time.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn make_ready(
        &self,
        config: &VmConfig,
        features: VcpuFeatures,
    ) -> Result<(), HvError> {
        match self {
            Self::Kvm(kvm) => kvm.make_ready(config, features),
            Self::Model(_) => Ok(()),
        }
    }

    /// Takes it away.
    pub(crate) fn take_ready(&self) -> Option<Ready> {
        match self {
            Self::Kvm(kvm) => kvm.take_ready(),
            Self::Model(_) => None,
        }
    }

    fn one(&self) -> &dyn Hypervisor {
        match self {
            Self::Kvm(kvm) => kvm,
            Self::Model(model) => &**model,
        }
    }
}

impl Hypervisor for Host {
    fn limits(&self) -> Limits {
        self.one().limits()
    }

    fn abilities(&self) -> Abilities {
        self.one().abilities()
    }

    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, HvError> {
        self.one().create_vm(config)
    }
}

/// What the guest prints first.
const GREETING: &[u8] = b"the model's guest echoes\n";
/// Where machines have their serial port: a 16550A.
const SERIAL: u64 = 0x4000_2000;
/// Its register for what is sent and received.
const DATA: u64 = SERIAL;
/// Its register of the interrupts that are enabled.
const IER: u64 = SERIAL + 1;
/// There is something to read.
const RECEIVED: u64 = 1;

fn echo() -> Program {
    /// A register that nothing else uses.
    const BYTE: u8 = 9;
    let irq = Spi::try_from(32).expect("the first one is one");
    let greeting =
        GREETING.iter().flat_map(|byte| Step::store(DATA, Width::Byte, u64::from(*byte)));
    let listens = Step::store(IER, Width::Byte, RECEIVED);
    let echoes = [
        Step::AwaitIrq(irq),
        Step::Load { reg: BYTE, address: DATA, width: Width::Byte },
        Step::Store { reg: BYTE, address: DATA, width: Width::Byte },
        Step::Jump(-3),
    ];
    Program::new(greeting.chain(listens).chain(echoes))
}
