//! Virtio devices in a machine: a driver's script for the entropy device.

use std::fs;

use kedge_devices::virtio::rng::RngConfig;
use kedge_hv_model::{Step, Width};
use kedge_vmm::spec::OnReset;
use kedge_vmm::{Clock, Ended, Restoration};

use crate::guest::{
    Guest, await_input, notify_register, off, print, print_reg, program, reset, spi, want_input,
};
use crate::save::{Place, host, save};

/// The registers of the first transport (Virtio 1.2, 4.2.2).
const TRANSPORT: u64 = 0x4000_3000;
/// Where the driver has its rings: a page each.
const DESCRIPTORS: u64 = 0x8018_0000;
const AVAILABLE: u64 = DESCRIPTORS + 0x1000;
const USED: u64 = DESCRIPTORS + 0x2000;
const BUFFER: u64 = DESCRIPTORS + 0x3000;
/// The interrupt of the first transport.
const IRQ: u32 = 2;

fn register(offset: u64, value: u64) -> Vec<Step> {
    Step::store(TRANSPORT + offset, Width::Word, value).to_vec()
}

fn ram(address: u64, width: Width, value: u64) -> Vec<Step> {
    Step::store(address, width, value).to_vec()
}

/// Negotiates, and gives the device one queue of 4.
fn activate() -> Vec<Step> {
    [
        register(0x70, 0),
        register(0x70, 1 | 2),
        register(0x24, 1),
        register(0x20, 1),
        register(0x70, 1 | 2 | 8),
        register(0x30, 0),
        register(0x38, 4),
        register(0x80, DESCRIPTORS),
        register(0x84, 0),
        register(0x90, AVAILABLE),
        register(0x94, 0),
        register(0xa0, USED),
        register(0xa4, 0),
        register(0x44, 1),
        register(0x70, 1 | 2 | 8 | 4),
    ]
    .concat()
}

/// Offers a buffer of 16 bytes and rings.
fn ask() -> Vec<Step> {
    [
        ram(DESCRIPTORS, Width::Double, BUFFER),
        ram(DESCRIPTORS + 8, Width::Word, 16),
        ram(DESCRIPTORS + 12, Width::Half, 2),
        ram(AVAILABLE + 4, Width::Half, 0),
        ram(AVAILABLE + 2, Width::Half, 1),
        register(0x50, 0),
    ]
    .concat()
}

/// Waits for the interrupt, and shows the used index and the length used.
fn answer() -> Vec<Step> {
    let load = |address| vec![Step::Load { reg: 9, address, width: Width::Byte }];
    [vec![Step::AwaitIrq(spi(IRQ))], load(USED + 2), print_reg(9), load(USED + 8), print_reg(9)]
        .concat()
}

fn with_rng(steps: &[Vec<Step>]) -> Guest {
    Guest::new(&[program(steps)]).with(|spec| spec.devices.push(Box::new(RngConfig::default())))
}

#[test]
fn a_queue_is_notified_by_a_doorbell_and_answers_with_an_interrupt() {
    let guest = with_rng(&[activate(), ask(), answer()]).start();
    guest.says([1, 16]);
    assert_eq!(guest.hypervisor.rung(notify_register(0)), 1);
    assert_eq!(guest.hypervisor.raised(spi(IRQ)), 1);
    guest.stop();
}

/// The names of this process's threads: tests run side by side in it.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

#[test]
fn devices_work_on_threads_of_their_own_when_they_are_to() {
    let (place, programs) = (
        Place::new(),
        [program(&[activate(), ask(), answer(), want_input(), await_input(), ask(), off()])],
    );
    let own = |guest: Guest| {
        guest.with(|spec| {
            spec.io_threads = 7;
            spec.devices.push(Box::new(RngConfig::default()));
        })
    };
    let guest = own(host("6.12", &programs)).start();
    guest.says([1, 16]);
    assert!(threads().contains(&"io 0".to_owned()), "{:?}", threads());
    save(guest, &place);
    let snapshot = place.open();
    let restoration = Restoration::of(&snapshot).unwrap();
    assert_eq!(restoration.spec.io_threads, 7);
    let guest = host("6.12", &programs).restore(restoration).unwrap().start();
    guest.handle.resume(Clock::default()).unwrap();
    guest.types(b"1");
    assert_eq!(guest.end().ended.unwrap(), Ended::Off);
}

#[test]
fn devices_work_again_in_the_next_life() {
    let guest = with_rng(&[activate(), ask(), answer(), reset()])
        .then(program(&[activate(), ask(), answer(), off()]))
        .with(|spec| spec.on_reset = OnReset::Restart);
    let finished = guest.run();
    assert_eq!(finished.ended.unwrap(), Ended::Off);
    assert_eq!(finished.said, [1, 16, 1, 16]);
}

#[test]
fn a_machine_stops_while_its_guest_resets_a_device() {
    for _ in 0..20 {
        let work = [activate(), ask(), print(".")].concat();
        let again = Step::Jump(-i32::try_from(work.len()).unwrap());
        let guest = with_rng(&[work, vec![again]]).start();
        guest.screen.wait(|said| said.len() > 3);
        assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
    }
}

#[test]
fn a_transport_that_is_not_there_reads_as_ones() {
    let load = Step::Load { reg: 1, address: TRANSPORT + 0x1000, width: Width::Word };
    let finished = with_rng(&[vec![load], off()]).run();
    assert_eq!(finished.loaded(), [0xffff_ffff]);
}
