//! Registers that a driver finds in memory: what is there is what an exit would answer.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use kedge_bus::{IrqLine, MmioDevice, Stateful, Wire};
use kedge_guest_memory::{GuestRange, RegisterPages, map_anonymous};
use proptest::prelude::*;
use serde_json::json;

use super::tests::store;
use super::{MmioTransport, reg};
use crate::virtio::block::KIND;
use crate::virtio::change::{Change, Target};
use crate::virtio::testing::{
    ACKNOWLEDGE, DRIVER, DRIVER_OK, Driver, Echo, FEATURES_OK, NEEDS_RESET, RAM, RAM_SIZE,
    TestLoop, wait_for,
};

const PLACE: GuestRange = GuestRange::new(0x4000_3000, 0x1000);

fn shown(driver: &Driver) -> RegisterPages {
    let pages = RegisterPages::new(PLACE).unwrap();
    driver.transport.show_in(pages.clone());
    pages
}

fn fresh() -> (Driver, RegisterPages) {
    let driver = Driver::new(Box::new(Echo::default()));
    let pages = shown(&driver);
    (driver, pages)
}

/// Memory and exits do not differ, as far as there are registers.
fn agree(driver: &Driver, pages: &RegisterPages) {
    for offset in (0..0x200).step_by(4) {
        assert_eq!(pages.get(offset), driver.read(offset), "at {offset:#x}");
    }
}

#[test]
fn a_driver_that_runs_finds_all_registers() {
    let (mut driver, pages) = fresh();
    assert_eq!(pages.get(reg::MAGIC_VALUE), 0x7472_6976);
    driver.run(0);
    assert_eq!(pages.get(reg::STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    driver.transport.write(reg::CONFIG + 2, &[1, 2, 3]).unwrap();
    assert_eq!([0, 4].map(|at| pages.get(reg::CONFIG + at)), [0x0201_0000, 3]);
    agree(&driver, &pages);
}

#[test]
fn a_used_buffer_is_seen_before_its_interrupt() {
    let (mut driver, pages) = fresh();
    driver.run(0);
    driver.request(&[b"hello"], &[8]).unwrap();
    assert!(driver.wait_interrupt());
    assert_eq!(pages.get(reg::INTERRUPT_STATUS), 1);
    driver.write(reg::STATUS, 0);
    assert_eq!(pages.get(reg::INTERRUPT_STATUS), 0);
    agree(&driver, &pages);
}

#[test]
fn a_device_that_breaks_at_work_says_so() {
    let (mut driver, pages) = fresh();
    driver.run(0);
    driver.set_available_index(0, 999);
    driver.kick(0);
    assert!(wait_for(|| pages.get(reg::STATUS) & NEEDS_RESET != 0));
    assert!(driver.wait_interrupt());
    assert_eq!(pages.get(reg::INTERRUPT_STATUS), 2);
    agree(&driver, &pages);
    driver.run(0);
    assert_eq!(pages.get(reg::STATUS) & NEEDS_RESET, 0);
}

/// The far end of a wire, which looks at the registers at each edge.
struct Looks(OnceLock<RegisterPages>, Mutex<Vec<[u32; 3]>>);

impl Wire for Looks {
    fn pulse(&self) {
        let pages = self.0.get().unwrap();
        let seen = [reg::INTERRUPT_STATUS, reg::CONFIG_GENERATION, reg::CONFIG];
        self.1.lock().unwrap().push(seen.map(|offset| pages.get(offset)));
    }
}

#[test]
fn a_configuration_that_changes_is_seen_before_its_interrupt() {
    let looks = Arc::new(Looks(OnceLock::new(), Mutex::default()));
    let memory = map_anonymous(&[GuestRange::new(RAM, RAM_SIZE)]).unwrap();
    let event_loop = TestLoop::start();
    let line = IrqLine::new(Arc::<Looks>::clone(&looks));
    let echo = Box::new(Echo::default());
    let transport = MmioTransport::new(echo, memory, line, event_loop.handle()).unwrap();
    let pages = RegisterPages::new(PLACE).unwrap();
    transport.show_in(pages.clone());
    looks.0.set(pages).unwrap();
    let write = |register, value: u32| transport.write(register, &value.to_le_bytes()).unwrap();
    write(reg::DRIVER_FEATURES_SEL, 1);
    write(reg::DRIVER_FEATURES, 1);
    write(reg::STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    let change = Change::from_json(&KIND, json!({"drive_id": "echo"})).unwrap();
    transport.change(&change, Instant::now() + Duration::from_secs(10)).unwrap();
    assert_eq!(*looks.1.lock().unwrap(), [[2, 1, 1]]);
    transport.shutdown();
}

#[test]
fn a_device_that_moves_shows_what_it_was() {
    let (mut driver, _) = fresh();
    driver.run(0);
    driver.write(reg::QUEUE_SEL, 1);
    driver.request(&[b"hello"], &[8]).unwrap();
    let saved = driver.save();
    let moved = driver.moved(Box::new(Echo::default()), &saved).unwrap();
    let pages = shown(&moved);
    assert_eq!(pages.get(reg::QUEUE_NUM_MAX), 16);
    let there = Driver::new(Box::new(Echo::default()));
    let pages = shown(&there);
    there.transport.restore(&saved).unwrap();
    assert_eq!(pages.get(reg::QUEUE_NUM_MAX), 16);
    assert_eq!(pages.get(reg::INTERRUPT_STATUS), 1);
    agree(&there, &pages);
}

proptest! {
    #[test]
    fn whatever_is_stored_memory_and_exits_answer_the_same(
        stores in prop::collection::vec(store(), 1..50)
    ) {
        let (mut driver, pages) = fresh();
        driver.run(0);
        for (offset, value) in stores {
            let _ = driver.transport.write(offset, &value.to_le_bytes());
            agree(&driver, &pages);
        }
    }
}
