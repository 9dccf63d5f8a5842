//! aarch64: memory layout, boot images, device tree, GIC, vCPU set-up, PSCI.
#![forbid(unsafe_code)]
