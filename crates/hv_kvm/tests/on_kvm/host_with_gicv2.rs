//! Cases for a host that can give its guests a GICv2.

use kedge_ids::Spi;
use vmm_sys_util::eventfd::EventFd;

use crate::bench::{Bench, GIC_V2};
use crate::code;

#[test]
#[ignore = "needs /dev/kvm"]
fn an_event_interrupts_the_guest_through_a_gicv2() {
    let mut bench = Bench::with_gic(&code::TAKE_INTERRUPT_V2, &GIC_V2);
    let trigger = EventFd::new(0).unwrap();
    bench.vm.connect_irq(Spi::try_from(33).unwrap(), &trigger).unwrap();
    assert_eq!(bench.runs(), "store [1, 0, 0, 0, 0, 0, 0, 0] at 0x9000000");
    trigger.write(1).unwrap();
    assert_eq!(bench.runs(), "store [21, 0, 0, 0, 0, 0, 0, 0] at 0x9000000");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn an_edge_interrupts_the_guest_through_a_gicv2() {
    let mut bench = Bench::with_gic(&code::TAKE_INTERRUPT_V2, &GIC_V2);
    assert_eq!(bench.runs(), "store [1, 0, 0, 0, 0, 0, 0, 0] at 0x9000000");
    bench.vm.pulse_irq(Spi::try_from(33).unwrap()).unwrap();
    assert_eq!(bench.runs(), "store [21, 0, 0, 0, 0, 0, 0, 0] at 0x9000000");
}
