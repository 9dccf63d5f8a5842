//! A host on which nothing more can be made.

use std::sync::Arc;

use kedge_hv::{Abilities, HvError, Hypervisor, Limits, Vm, VmConfig};
use kedge_hv_model::ModelHypervisor;

/// A host that makes no machine any more.
pub(crate) struct Closed<'a>(pub(crate) &'a ModelHypervisor);

impl Hypervisor for Closed<'_> {
    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn abilities(&self) -> Abilities {
        self.0.abilities()
    }

    fn create_vm(&self, _: &VmConfig) -> Result<Arc<dyn Vm>, HvError> {
        Err(HvError::new("create another machine", 28))
    }
}
