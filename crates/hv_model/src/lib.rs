//! The hypervisor traits as an executable model of KVM/arm64, per kernel release.
#![forbid(unsafe_code)]
