//! The hypervisor of this host: KVM. Test builds may have a model in its place, which runs
//! on any host.

#[cfg(feature = "model")]
mod model;

#[cfg(not(feature = "model"))]
pub(crate) use kedge_hv_kvm::Kvm as Host;
#[cfg(feature = "model")]
pub(crate) use model::Host;
