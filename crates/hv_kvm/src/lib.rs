//! The hypervisor traits on Linux KVM for arm64: the one crate that names KVM's bindings.
#![forbid(unsafe_code)]
