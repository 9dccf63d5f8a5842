//! The suite over this host's KVM.
//!
//! With `KEDGE_HOST_KERNEL` (5.10, 6.1, 6.12, 7.2) set, what the kernel does is
//! compared with the model of that release, too. With `--record`, it prints what
//! the model needs to know of this host instead (`crates/hv_model/recordings`).
#![forbid(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod kvm;

#[cfg(target_arch = "aarch64")]
fn main() -> anyhow::Result<std::process::ExitCode> {
    kvm::main()
}

#[cfg(not(target_arch = "aarch64"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("this host is not arm64; `cargo test -p kedge-conformance` runs over the model")
}
