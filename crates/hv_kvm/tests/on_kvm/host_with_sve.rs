//! Cases for a host with the Scalable Vector Extension.

use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;
use libc::EPERM;

use crate::bench::{Bench, errno};
use crate::code;

#[test]
#[ignore = "needs /dev/kvm"]
fn vectors_are_2048_bits_on_an_sve_vcpu() {
    const Z1: RegId = RegId(0x6080_0000_0015_0020);
    let features = VcpuFeatures::PSCI_0_2 | VcpuFeatures::SVE;
    let mut bench = Bench::with_features(&code::WAIT, features);
    assert_eq!(errno(bench.boot.reg_list()), EPERM);
    bench.boot.finalize_sve().unwrap();
    assert_eq!(errno(bench.boot.finalize_sve()), EPERM);
    let value: Vec<u8> = (0..=255).collect();
    bench.boot.set_reg(Z1, &value).unwrap();
    assert_eq!(bench.boot.reg(Z1).unwrap()[..16], value[..16]);
}
