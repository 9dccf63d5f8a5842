//! Cases for a host with performance monitors and GICv3.

use kedge_hv::VcpuFeatures;
use kedge_ids::Ppi;
use libc::EBUSY;

use crate::bench::{Bench, GIC_V3, errno};
use crate::code;

#[test]
#[ignore = "needs /dev/kvm"]
fn performance_monitors_are_ready_after_the_interrupt_controller() {
    let features = VcpuFeatures::PSCI_0_2 | VcpuFeatures::PMU_V3;
    let mut bench = Bench::with_features(&code::STORE_AND_LOAD, features).started();
    let gic = bench.vm.create_gic(&GIC_V3).unwrap();
    gic.init().unwrap();
    bench.boot.init_pmu(Ppi::PMU).unwrap();
    bench.second.init_pmu(Ppi::PMU).unwrap();
    assert_eq!(errno(bench.boot.init_pmu(Ppi::PMU)), EBUSY);
    assert_eq!(bench.runs(), "store [41] at 0x9000000");
}
