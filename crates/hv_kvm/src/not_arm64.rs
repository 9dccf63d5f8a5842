//! The crate's door on hosts of other architectures: always shut.

use std::path::Path;
use std::sync::Arc;

use kedge_hv::{Abilities, HvError, Hypervisor, Limits, OpenError, VcpuFeatures, Vm, VmConfig};

/// KVM for arm64, of which there is none here: the type has no values.
#[derive(Debug)]
pub enum Kvm {}

impl Kvm {
    /// Says that this host is not arm64.
    ///
    /// # Errors
    /// Always [`OpenError::NotArm64`].
    pub fn open() -> Result<Self, OpenError> {
        Err(OpenError::NotArm64)
    }

    /// Says that this host is not arm64.
    ///
    /// # Errors
    /// Always [`OpenError::NotArm64`].
    pub fn open_at(_path: &Path) -> Result<Self, OpenError> {
        Err(OpenError::NotArm64)
    }

    /// Makes a machine ready, where there are any.
    ///
    /// # Errors
    /// None: there is nothing to call it with.
    pub fn make_ready(&self, _config: &VmConfig, _features: VcpuFeatures) -> Result<(), HvError> {
        match *self {}
    }

    /// Takes it away.
    pub fn take_ready(&self) -> Option<Ready> {
        match *self {}
    }
}

/// A machine that was made ready, of which there is none here.
#[derive(Debug)]
pub enum Ready {}

impl Hypervisor for Kvm {
    fn limits(&self) -> Limits {
        match *self {}
    }

    fn abilities(&self) -> Abilities {
        match *self {}
    }

    fn create_vm(&self, _config: &VmConfig) -> Result<Arc<dyn Vm>, HvError> {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_architecture_is_told_so() {
        assert!(matches!(Kvm::open(), Err(OpenError::NotArm64)));
    }
}
