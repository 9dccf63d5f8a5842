//! Guest code on a real KVM: what a unit test cannot show. Each case is a few
//! instructions, started at the base of RAM with the MMU off. What the traits
//! promise of every hypervisor is the conformance suite's.
//!
//! All of it needs `/dev/kvm` and is ignored by default. On an arm64 host, real or
//! emulated, run it with `--include-ignored`, and `--skip` the modules that name
//! what the host lacks.
#![cfg(target_arch = "aarch64")]
#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml allows it in tests only")]

mod any_host;
mod bench;
mod code;
mod host_with_gicv2;
mod host_with_gicv3;
mod host_with_pmu;
mod host_with_sve;
