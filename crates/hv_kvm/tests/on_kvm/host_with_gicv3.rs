//! Cases for a host that can give its guests a GICv3 with a translation service.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use kedge_guest_memory::GuestAddress;
use kedge_hv::{Access, GicConfig};
use kedge_ids::{Ppi, RegId, Ring, Spi, VcpuId};
use libc::{EBUSY, EEXIST, EFAULT, EINVAL, ENODEV, ENOENT};
use vmm_sys_util::eventfd::EventFd;

use crate::bench::{Bench, DONE, GIC_V3, MMIO, RAM, assert_answers, errno, new_vm, region};
use crate::code;

#[test]
#[ignore = "needs /dev/kvm"]
fn an_event_interrupts_the_guest_through_a_gicv3() {
    let mut bench = Bench::with_gic(&code::TAKE_INTERRUPT_V3, &GIC_V3);
    let trigger = EventFd::new(0).unwrap();
    bench.vm.connect_irq(Spi::try_from(33).unwrap(), &trigger).unwrap();
    assert_eq!(bench.runs(), "store [1, 0, 0, 0, 0, 0, 0, 0] at 0x9000000");
    trigger.write(1).unwrap();
    assert_eq!(bench.runs(), "store [21, 0, 0, 0, 0, 0, 0, 0] at 0x9000000");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn an_edge_interrupts_the_guest_through_a_gicv3() {
    let mut bench = Bench::with_gic(&code::TAKE_INTERRUPT_V3, &GIC_V3);
    assert_eq!(bench.runs(), "store [1, 0, 0, 0, 0, 0, 0, 0] at 0x9000000");
    bench.vm.pulse_irq(Spi::try_from(33).unwrap()).unwrap();
    assert_eq!(bench.runs(), "store [21, 0, 0, 0, 0, 0, 0, 0] at 0x9000000");
}

#[test]
#[ignore = "needs /dev/kvm"]
fn no_kick_is_lost_however_it_meets_the_vcpu() {
    const KICKS: usize = 300;
    let mut bench = Bench::with_gic(&code::WAIT, &GIC_V3);
    let (to_us, from_vcpu) = mpsc::channel();
    let thread = thread::spawn(move || {
        let kick = bench.boot.kicker().unwrap();
        to_us.send(Some(kick)).unwrap();
        for _ in 0..KICKS {
            assert_eq!(bench.runs(), "Interrupted");
            to_us.send(None).unwrap();
        }
        // The vCPU outlives its thread, as it may in a machine being taken down.
        bench
    });
    let kick = from_vcpu.recv().unwrap().unwrap();
    for n in 0..KICKS {
        // Some before the run, some inside the guest.
        thread::sleep(Duration::from_micros(7 * u64::try_from(n % 40).unwrap()));
        kick.kick();
        assert!(from_vcpu.recv_timeout(Duration::from_secs(10)).unwrap().is_none());
    }
    let bench = thread.join().unwrap();
    kick.kick();
    drop(bench);
    kick.kick();
}

#[test]
#[ignore = "needs /dev/kvm"]
fn a_gic_has_up_to_960_spis() {
    // arm-vgic-v3.rst allows 1024 interrupts, with 32 private ones; the code does not.
    let answers = [("most", DONE, 960), ("none", EINVAL, 0), ("too many", EINVAL, 992)]
        .map(|(what, expected, spis)| (what, expected, errno(new_vm().create_gic(&with(spis)))));
    assert_answers(&answers);
}

fn with(spis: u32) -> GicConfig {
    GicConfig::V3 {
        distributor: GuestAddress(0x0800_0000),
        redistributors: GuestAddress(0x080a_0000),
        its: None,
        spis,
    }
}

#[test]
#[ignore = "needs /dev/kvm"]
fn refusals_carry_the_kernels_errno() {
    let bench = Bench::with_gic(&code::WAIT, &GIC_V3);
    let (vm, event) = (&bench.vm, EventFd::new(0).unwrap());
    let answers = [
        (
            "slot in use",
            EEXIST,
            errno(vm.map_ram(0, region(0x2000_0000, 0x1_0000), Access::ReadWrite)),
        ),
        ("overlap", EEXIST, errno(vm.map_ram(7, region(RAM, 0x1_0000), Access::ReadWrite))),
        (
            "beyond the address bits",
            EFAULT,
            errno(vm.map_ram(7, region(1 << 40, 0x1_0000), Access::ReadWrite)),
        ),
        (
            "no such slot",
            EINVAL,
            errno(vm.map_ram(1 << 20, region(0x2000_0000, 0x1_0000), Access::ReadWrite)),
        ),
        ("vCPU after the GIC", EBUSY, errno(vm.create_vcpu(VcpuId(2)))),
        ("second GIC", EEXIST, errno(vm.create_gic(&GIC_V3))),
        ("GIC ready twice", DONE, errno(bench.gic.as_ref().unwrap().init())),
        ("SPI wired", DONE, errno(vm.connect_irq(Spi::from_offset(0).unwrap(), &event))),
        ("event wired twice", EBUSY, errno(vm.connect_irq(Spi::from_offset(1).unwrap(), &event))),
        (
            "no such SPI",
            EINVAL,
            errno(vm.connect_irq(Spi::from_offset(64).unwrap(), &EventFd::new(0).unwrap())),
        ),
        ("doorbell", DONE, errno(vm.connect_doorbell(GuestAddress(MMIO), Ring::Word(0), &event))),
        (
            "doorbell twice",
            EEXIST,
            errno(vm.connect_doorbell(GuestAddress(MMIO), Ring::Word(0), &event)),
        ),
        (
            "no doorbell",
            ENOENT,
            errno(vm.disconnect_doorbell(GuestAddress(MMIO), Ring::Word(9), &event)),
        ),
        ("no register", ENOENT, errno(bench.boot.reg(RegId(0x6030_0000_0014_00ff)))),
        ("PMU of none", ENODEV, errno(bench.boot.init_pmu(Ppi::PMU))),
    ];
    assert_answers(&answers);
}
