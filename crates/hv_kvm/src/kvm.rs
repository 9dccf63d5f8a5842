//! `/dev/kvm`: opening it, what it can do, and the machines it makes.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use kedge_hv::{Abilities, HvError, Hypervisor, Limits, OpenError, VcpuFeatures, Vm, VmConfig};
use kedge_ids::u64_from;
use kvm_bindings::{
    KVM_API_VERSION, KVM_CAP_ARM_INJECT_EXT_DABT, KVM_CAP_ARM_NISV_TO_USER,
    KVM_CAP_ARM_WRITABLE_IMP_ID_REGS, KVM_CAP_COUNTER_OFFSET, KVM_CAP_PTP_KVM, KVM_CAP_STEAL_TIME,
};
use kvm_ioctls::Cap;
use libc::{EACCES, ENODEV, ENOENT, ENXIO, EPERM};
use rustix::param::page_size;

use crate::counter;
use crate::vm::KvmVm;

/// Linux KVM on an arm64 host.
#[derive(Debug)]
pub struct Kvm {
    fd: kvm_ioctls::Kvm,
    /// Asked for once: each answer is a call of the kernel.
    limits: OnceLock<Limits>,
    abilities: OnceLock<Abilities>,
    ready: Mutex<Option<Ready>>,
}

/// A machine with a vCPU, there before it is asked for.
pub struct Ready {
    config: VmConfig,
    features: VcpuFeatures,
    vm: KvmVm,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, features, vm: _ } = self;
        f.debug_tuple("Ready").field(config).field(features).finish()
    }
}

impl Kvm {
    const DEVICE: &str = "/dev/kvm";
    const VERSION: i32 = KVM_API_VERSION.cast_signed();

    /// Opens `/dev/kvm`.
    ///
    /// # Errors
    /// There is none, it is not for this user, or it cannot do what kedge needs.
    pub fn open() -> Result<Self, OpenError> {
        Self::open_at(Path::new(Self::DEVICE))
    }

    /// Opens KVM under another name.
    ///
    /// # Errors
    /// As [`Kvm::open`].
    pub fn open_at(path: &Path) -> Result<Self, OpenError> {
        let name = || path.display().to_string();
        let refused = |source| OpenError::Open { path: name(), source };
        let c_path = CString::new(path.as_os_str().as_bytes())
            .map_err(|nul| refused(io::Error::from(nul)))?;
        let fd = kvm_ioctls::Kvm::new_with_path(c_path).map_err(|error| match error.errno() {
            // The last two: a node that no driver stands behind.
            ENOENT | ENXIO | ENODEV => OpenError::NoDevice { path: name() },
            EACCES | EPERM => OpenError::NoPermission { path: name() },
            errno => refused(io::Error::from_raw_os_error(errno)),
        })?;
        match fd.get_api_version() {
            Self::VERSION => {}
            found if found < 0 => return Err(OpenError::NotKvm { path: name() }),
            found => {
                return Err(OpenError::Version { path: name(), found, wanted: Self::VERSION });
            }
        }
        if let Some(&(_, capability)) = REQUIRED.iter().find(|(cap, _)| !has(&fd, *cap)) {
            return Err(OpenError::Lacks { capability });
        }
        Ok(Self {
            fd,
            limits: OnceLock::new(),
            abilities: OnceLock::new(),
            ready: Mutex::default(),
        })
    }

    /// Makes a machine ready before it is asked for, while there is time: with its first
    /// vCPU, initialised with `features`, of which it is noted which registers are zero.
    /// Whoever asks for such a machine next ([`Hypervisor::create_vm_for`]) gets it.
    ///
    /// # Errors
    /// What making and initialising them says.
    pub fn make_ready(&self, config: &VmConfig, features: VcpuFeatures) -> Result<(), HvError> {
        let vm = KvmVm::create(&self.fd, config)?;
        vm.make_vcpu_ready(features)?;
        *self.ready() = Some(Ready { config: *config, features, vm });
        Ok(())
    }

    /// Takes away what was made ready and not asked for. It takes the kernel a while to
    /// drop it.
    pub fn take_ready(&self) -> Option<Ready> {
        self.ready().take()
    }

    fn ready(&self) -> MutexGuard<'_, Option<Ready>> {
        // It changes in one step.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that the kernel gives as a capability's value; 0 without it.
    fn amount(&self, cap: Cap) -> u32 {
        u32::try_from(self.fd.check_extension_int(cap)).unwrap_or(0)
    }

    fn features(&self) -> VcpuFeatures {
        OPTIONAL
            .iter()
            .filter(|(caps, _)| caps.iter().all(|&cap| self.fd.check_extension(cap)))
            .fold(VcpuFeatures::POWER_OFF | VcpuFeatures::PSCI_0_2, |all, &(_, one)| all | one)
    }
}

impl Hypervisor for Kvm {
    fn limits(&self) -> Limits {
        *self.limits.get_or_init(|| Limits {
            ipa_bits: u8::try_from(self.amount(Cap::ArmVmIPASize)).unwrap_or(u8::MAX),
            vcpus: self.amount(Cap::MaxVcpus),
            slot_bytes: slot_bytes(page_size()),
            slots: self.amount(Cap::NrMemslots),
            features: self.features(),
        })
    }

    fn abilities(&self) -> Abilities {
        *self.abilities.get_or_init(|| Abilities {
            counter_offset: has(&self.fd, KVM_CAP_COUNTER_OFFSET),
            pv_time: has(&self.fd, KVM_CAP_STEAL_TIME),
            writable_imp_ids: has(&self.fd, KVM_CAP_ARM_WRITABLE_IMP_ID_REGS),
            ptp: has(&self.fd, KVM_CAP_PTP_KVM),
            counter_hz: counter::frequency(),
        })
    }

    fn create_vm(&self, config: &VmConfig) -> Result<Arc<dyn Vm>, HvError> {
        Ok(Arc::new(KvmVm::create(&self.fd, config)?))
    }

    fn create_vm_for(
        &self,
        config: &VmConfig,
        features: VcpuFeatures,
    ) -> Result<Arc<dyn Vm>, HvError> {
        let is_it = |ready: &mut Ready| ready.config == *config && ready.features == features;
        match self.ready().take_if(is_it) {
            Some(ready) => Ok(Arc::new(ready.vm)),
            None => self.create_vm(config),
        }
    }
}

/// What every KVM from Linux 5.10 on can do, and kedge cannot do without.
#[rustfmt::skip]
const REQUIRED: [(u32, &str); 10] = [
    (cap(Cap::OneReg),           "KVM_CAP_ONE_REG"),
    (cap(Cap::ArmPsci02),        "KVM_CAP_ARM_PSCI_0_2"),
    (cap(Cap::DeviceCtrl),       "KVM_CAP_DEVICE_CTRL"),
    (cap(Cap::Irqfd),            "KVM_CAP_IRQFD"),
    (cap(Cap::Ioeventfd),        "KVM_CAP_IOEVENTFD"),
    (cap(Cap::ReadonlyMem),      "KVM_CAP_READONLY_MEM"),
    (cap(Cap::ImmediateExit),    "KVM_CAP_IMMEDIATE_EXIT"),
    (cap(Cap::ArmVmIPASize),     "KVM_CAP_ARM_VM_IPA_SIZE"),
    (KVM_CAP_ARM_NISV_TO_USER,   "KVM_CAP_ARM_NISV_TO_USER"),
    (KVM_CAP_ARM_INJECT_EXT_DABT, "KVM_CAP_ARM_INJECT_EXT_DABT"),
];

/// vCPU features and the capabilities that announce them
/// (api.rst, `KVM_ARM_VCPU_INIT`).
const OPTIONAL: [(&[Cap], VcpuFeatures); 4] = [
    (&[Cap::ArmEl132bit], VcpuFeatures::EL1_32BIT),
    (&[Cap::ArmPmuV3], VcpuFeatures::PMU_V3),
    (&[Cap::ArmSve], VcpuFeatures::SVE),
    (&[Cap::ArmPtrAuthAddress, Cap::ArmPtrAuthGeneric], VcpuFeatures::PTRAUTH),
];

#[expect(clippy::as_conversions, reason = "the number of an enum's variant, a u32 by its repr")]
const fn cap(cap: Cap) -> u32 {
    cap as u32
}

fn has(fd: &kvm_ioctls::Kvm, cap: u32) -> bool {
    fd.check_extension_raw(cap.into()) > 0
}

/// The longest memory slot: KVM takes 2^31 - 1 pages (`KVM_MEM_MAX_NR_PAGES`),
/// kedge the power of two below, so that what follows it stays aligned.
fn slot_bytes(page_size: usize) -> u64 {
    u64_from(page_size) << 30
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kedge_diag::report;

    use super::*;

    fn assert_refused(path: &Path, expected: &Expect) {
        expected.assert_eq(&report(&Kvm::open_at(path).unwrap_err()));
    }

    #[test]
    fn a_host_without_the_device_is_told_how_to_get_it() {
        assert_refused(
            Path::new("/dev/no-kvm"),
            &expect![[r#"
                error: there is no `/dev/no-kvm` on this host
                  fix: load the kvm module or boot the host at EL2; inside a virtual machine, nested virtualization must be on"#]],
        );
    }

    #[test]
    fn a_device_that_is_not_kvm_is_named() {
        assert_refused(
            Path::new("/dev/null"),
            &expect!["error: `/dev/null` is not KVM: it does not know its calls"],
        );
    }

    #[test]
    fn a_regular_file_is_not_kvm() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Kvm::open_at(file.path()), Err(OpenError::NotKvm { .. })));
    }

    #[test]
    fn a_directory_cannot_be_opened() {
        assert_refused(
            Path::new("/dev"),
            &expect![[r#"
                error: cannot open `/dev`
                  because: Is a directory (os error 21)"#]],
        );
    }

    #[test]
    fn a_path_that_no_file_can_have_is_an_error() {
        assert!(matches!(Kvm::open_at(Path::new("/dev/\0")), Err(OpenError::Open { .. })));
    }

    #[test]
    fn a_slot_is_a_power_of_two_of_pages_below_kvms_limit() {
        assert_eq!(slot_bytes(4 << 10), 4 << 40);
        assert_eq!(slot_bytes(64 << 10), 64 << 40);
    }
}
