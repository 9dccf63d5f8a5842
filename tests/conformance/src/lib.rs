//! The cases every hypervisor back end must pass, run over the model and over KVM.
#![forbid(unsafe_code)]
