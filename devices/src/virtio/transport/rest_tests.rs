//! A transport that is paused, saved and restored under a driver that notices
//! nothing of it.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use event_manager::{EventOps, Events};
use expect_test::{Expect, expect};
use kedge_bus::{MmioDevice, Stateful};
use kedge_diag::report;
use kedge_saved_state::Part;
use proptest::prelude::*;

use super::reg;
use super::saved::TransportV1;
use crate::virtio::device::ActiveQueue;
use crate::virtio::testing::{
    ACKNOWLEDGE, DRIVER, Driver, EVENT_IDX, Echo, NEEDS_RESET, RAM, RAM_SIZE, TestLoop, VERSION_1,
};
use crate::virtio::worker::Worker;

fn echo() -> Box<Echo> {
    Box::default()
}

fn running() -> Driver {
    Driver::running(echo(), 0)
}

fn saved(driver: &Driver) -> TransportV1 {
    driver.save().read().unwrap()
}

/// What became of a restore of what `damage` makes of a sound state.
fn restored(damage: impl FnOnce(&mut TransportV1)) -> Result<Driver, String> {
    let driver = running();
    let mut state = saved(&driver);
    damage(&mut state);
    driver.moved(echo(), &Part::of(&state)).map_err(|error| report(&error))
}

fn refused(damage: impl FnOnce(&mut TransportV1), expected: &Expect) {
    expected.assert_eq(&restored(damage).map(|_| "it is restored").unwrap_err());
}

#[test]
fn a_paused_device_does_nothing_and_then_goes_on() {
    let mut driver = running();
    driver.request(&[b"before"], &[8]).unwrap();
    driver.save();
    let offered = driver.offer(0, &[b"meanwhile"], &[16]);
    driver.kick(0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(driver.used_index(0), 1);
    driver.transport.resume().unwrap();
    assert_eq!(driver.wait_used(0).unwrap().head, u32::from(offered.head));
}

#[test]
fn a_pause_twice_and_a_resume_twice_are_like_one() {
    let mut driver = running();
    assert_eq!(driver.save(), driver.save());
    driver.transport.resume().unwrap();
    driver.transport.resume().unwrap();
    assert!(driver.request(&[b"still"], &[8]).is_some());
    assert_eq!(driver.used_index(0), 1);
}

#[test]
fn a_device_that_rests_starts_nothing_before_it_is_told_to_go_on() {
    let mut driver = Driver::new(echo());
    driver.negotiate(VERSION_1);
    driver.set_up_queue(0, 16);
    driver.offer(0, &[b"hello"], &[8]);
    driver.save();
    driver.start();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(driver.used_index(0), 0);
    driver.transport.resume().unwrap();
    assert!(driver.wait_used(0).is_some());
}

#[test]
fn a_device_at_work_is_not_saved() {
    let error = running().transport.save().unwrap_err();
    expect![[r#"
        error: the echo cannot be saved while it works
          fix: pause the machine first"#]]
    .assert_eq(&report(&error));
}

#[test]
fn requests_that_nobody_served_yet_are_served_after_a_move() {
    let mut driver = running();
    driver.offer(0, &[b"first"], &[8]);
    driver.offer(1, &[b"second"], &[8]);
    let mut moved = driver.move_to(echo());
    assert_eq!(moved.wait_used(0).unwrap().length, 5);
    assert_eq!(moved.wait_used(1).unwrap().length, 6);
}

#[test]
fn a_request_that_a_device_keeps_for_itself_moves_with_the_driver() {
    let mut driver = running();
    driver.offer(0, &[b"k"], &[8]);
    driver.kick(0);
    let moved = driver.move_to(echo());
    assert_eq!(moved.used_index(0), 0);
    assert_eq!(moved.read(reg::STATUS) & NEEDS_RESET, 0);
}

#[test]
fn a_driver_in_the_middle_of_its_negotiation_goes_on_with_it() {
    let driver = Driver::new(echo());
    driver.write(reg::STATUS, ACKNOWLEDGE | DRIVER);
    driver.write(reg::DEVICE_FEATURES_SEL, 1);
    driver.write(reg::QUEUE_SEL, 1);
    driver.write(reg::QUEUE_NUM, 8);
    let moved = driver.move_to(echo());
    assert_eq!(moved.read(reg::STATUS), ACKNOWLEDGE | DRIVER);
    assert_eq!(moved.read(reg::DEVICE_FEATURES), 0x101);
    assert_eq!(moved.read(reg::QUEUE_NUM_MAX), 16);
    assert_eq!(saved(&moved).queues[1].size, 8);
}

#[test]
fn the_configuration_moves_with_the_device() {
    let driver = running();
    driver.transport.write(reg::CONFIG, &[1, 2, 3]).unwrap();
    let mut config = [0; 4];
    driver.move_to(echo()).transport.read(reg::CONFIG, &mut config).unwrap();
    assert_eq!(config, [1, 2, 3, 0]);
}

#[test]
fn an_interrupt_that_nobody_acknowledged_is_raised_again_after_a_move() {
    let mut driver = running();
    driver.request(&[b"hello"], &[8]).unwrap();
    assert!(driver.wait_interrupt());
    let moved = driver.moved(echo(), &driver.save()).unwrap();
    assert!(moved.irq.read().is_err(), "it rests");
    moved.transport.resume().unwrap();
    assert!(moved.wait_interrupt());
    assert_eq!(moved.read(reg::INTERRUPT_STATUS), 1);
}

#[test]
fn an_interrupt_that_was_acknowledged_is_not_raised_again() {
    let mut driver = running();
    driver.request(&[b"hello"], &[8]).unwrap();
    assert!(driver.wait_interrupt());
    driver.write(reg::INTERRUPT_ACK, 1);
    let moved = driver.move_to(echo());
    moved.save();
    assert!(moved.irq.read().is_err());
}

#[test]
fn a_broken_device_is_broken_after_a_move_until_its_driver_resets_it() {
    let mut driver = running();
    driver.set_available_index(0, 999);
    driver.kick(0);
    assert!(driver.wait_broken());
    let mut moved = driver.moved(echo(), &driver.save()).unwrap();
    assert_ne!(moved.read(reg::STATUS) & NEEDS_RESET, 0);
    moved.transport.resume().unwrap();
    assert_ne!(moved.read(reg::STATUS) & NEEDS_RESET, 0);
    moved.run(0);
    assert!(moved.request(&[b"hello"], &[8]).is_some());
}

#[test]
fn a_feature_that_the_guest_was_not_offered_does_not_appear() {
    let moved = restored(|state| state.offered &= !EVENT_IDX).unwrap();
    assert_eq!(moved.offered() & EVENT_IDX, 0);
    moved.transport.resume().unwrap();
    assert_eq!(saved(&moved).offered & EVENT_IDX, 0);
}

#[test]
fn a_feature_that_the_device_has_not_is_refused() {
    refused(
        |state| state.offered |= 1 << 5,
        &expect![[r#"
            error: the echo cannot be restored
              because: the saved `virtio-mmio` is not plausible: `offered` is 0x10130000028, of which this device has not 0x20: perhaps a later release's
              fix: take another snapshot: this one is damaged"#]],
    );
}

#[test]
fn another_kind_of_device_is_refused() {
    refused(
        |state| state.device_id = 2,
        &expect![[r#"
            error: the echo cannot be restored
              because: the saved `virtio-mmio` is not plausible: `device_id` is 2, and the device's is 4
              fix: take another snapshot: this one is damaged"#]],
    );
}

#[test]
fn a_ring_outside_ram_is_refused() {
    refused(
        |state| state.queues[1].used_ring = RAM + RAM_SIZE - 4,
        &expect![[r#"
            error: the echo cannot be restored
              because: the saved `virtio-mmio` is not plausible: `queues[1].used_ring` is 0x803ffffc, and not all of it in RAM
              fix: take another snapshot: this one is damaged"#]],
    );
}

#[test]
fn a_ring_that_lost_a_chain_is_refused() {
    refused(
        |state| state.queues[0].next_available += 1,
        &expect![[r#"
            error: the echo cannot be restored
              because: the saved `virtio-mmio` is not plausible: `queues[0].next_available` is 1, with 1 chains in flight: a device at rest has none
              fix: take another snapshot: this one is damaged"#]],
    );
}

#[test]
fn what_no_driver_can_bring_about_is_refused() {
    let damages: [fn(&mut TransportV1); 14] = [
        |state| state.status |= 1 << 5,
        |state| state.status &= !8,
        |state| state.offered = 0,
        |state| state.accepted |= 1 << 5,
        |state| state.accepted = 0,
        |state| state.strange_features = true,
        |state| state.interrupt_status = 4,
        |state| state.queues.truncate(1),
        |state| state.queues[0].max_size = 512,
        |state| state.queues[0].size = 3,
        |state| state.queues[0].size = 0,
        |state| state.queues[0].descriptor_table = RAM + 8,
        |state| state.queues[0].available_ring = u64::MAX - 1,
        |state| state.device.version = 2,
    ];
    let taken = damages.iter().enumerate().filter(|(_, damage)| restored(damage).is_ok());
    assert_eq!(taken.map(|(index, _)| index).collect::<Vec<_>>(), Vec::<usize>::new());
}

/// A worker that holds up its loop.
struct Stuck {
    holds: mpsc::Sender<()>,
    until: mpsc::Receiver<()>,
}

impl Worker for Stuck {
    fn watch(&mut self, _: &mut EventOps<'_>) -> Result<(), event_manager::Error> {
        self.holds.send(()).unwrap();
        let _ = self.until.recv();
        Ok(())
    }

    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {}

    fn retire(self: Box<Self>) -> Vec<ActiveQueue> {
        Vec::new()
    }
}

#[test]
fn a_device_that_is_late_says_so_and_works_on() {
    let event_loop = TestLoop::start();
    let mut driver = Driver::on(&event_loop, echo());
    driver.run(0);
    let (holds, held) = mpsc::channel();
    let (go_on, until) = mpsc::channel();
    let handle = event_loop.handle();
    let stuck = Box::new(Stuck { holds, until });
    let holder = std::thread::spawn(move || handle.start(stuck).map(drop));
    held.recv().unwrap();
    let late = driver.transport.pause(Instant::now() + Duration::from_millis(5)).unwrap_err();
    expect![[r#"
        error: the echo has not finished its requests in time
          fix: look for what on the host keeps it waiting (a disk on a slow network?) and try again"#]]
    .assert_eq(&report(&late));
    go_on.send(()).unwrap();
    holder.join().unwrap().unwrap();
    assert!(driver.request(&[b"hello"], &[8]).is_some());
    driver.save();
    driver.offer(0, &[b"meanwhile"], &[16]);
    driver.kick(0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(driver.used_index(0), 1, "this time it rests");
    driver.transport.resume().unwrap();
    assert!(driver.wait_used(0).is_some());
}

/// What a driver and its machine do.
#[derive(Clone, Copy, Debug)]
enum Step {
    Offer { queue: usize, length: usize },
    Kick { queue: u32 },
    Await { queue: usize },
    Pause,
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..2, 2_usize..40).prop_map(|(queue, length)| Step::Offer { queue, length }),
        3 => (0_u32..2).prop_map(|queue| Step::Kick { queue }),
        2 => (0_usize..2).prop_map(|queue| Step::Await { queue }),
        1 => Just(Step::Pause),
        2 => Just(Step::Move),
    ]
}

/// A driver that keeps account of what it asked for.
struct Account {
    driver: Driver,
    /// Of each queue, the content and the place of each answer to come.
    due: [std::collections::VecDeque<(Vec<u8>, u16, u64)>; 2],
}

impl Account {
    fn take(&mut self, step: Step) {
        match step {
            Step::Offer { queue, length } if self.driver.available_index(queue) < 7 => {
                let content: Vec<u8> = (1..=u8::try_from(length).unwrap()).collect();
                let offered = self.driver.offer(queue, &[&content], &[length]);
                self.due[queue].push_back((content, offered.head, offered.writable[0]));
            }
            Step::Offer { .. } => {}
            Step::Kick { queue } => self.driver.kick(queue),
            Step::Await { queue } if !self.due[queue].is_empty() => self.settle_one(queue),
            Step::Await { .. } => {}
            Step::Pause => {
                self.driver.save();
                self.driver.transport.resume().unwrap();
            }
            Step::Move => self.driver = self.driver.move_to(echo()),
        }
    }

    /// Sees to it that the next answer comes.
    fn settle_one(&mut self, queue: usize) {
        self.driver.kick(u32::try_from(queue).unwrap());
        self.await_one(queue);
    }

    /// Waits for the next answer, which is that to the first request due.
    fn await_one(&mut self, queue: usize) {
        let (content, head, at) = self.due[queue].pop_front().unwrap();
        let used = self.driver.wait_used(queue).expect("no request is lost");
        assert_eq!(used.head, u32::from(head));
        assert_eq!(self.driver.bytes(at, content.len()), content);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_request_is_lost_or_served_twice(
        steps in prop::collection::vec(step(), 1..40), event_idx: bool
    ) {
        let features = u64::from(event_idx) * EVENT_IDX;
        let driver = Driver::running(echo(), features);
        let mut account = Account { driver, due: Default::default() };
        for step in steps {
            account.take(step);
        }
        for queue in 0..2 {
            while !account.due[queue].is_empty() {
                account.settle_one(queue);
            }
        }
        account.driver.save();
        for queue in 0..2 {
            prop_assert_eq!(
                account.driver.used_index(queue), account.driver.available_index(queue)
            );
        }
    }

    #[test]
    fn a_driver_that_notifies_only_when_asked_gets_all_its_answers(
        steps in prop::collection::vec(step(), 1..40), event_idx: bool
    ) {
        let driver = Driver::running(echo(), u64::from(event_idx) * EVENT_IDX);
        let mut account = Account { driver, due: Default::default() };
        for step in steps {
            match step {
                Step::Offer { queue, .. } if account.driver.available_index(queue) < 7 => {
                    account.take(step);
                    account.driver.kick_if_asked(queue, event_idx);
                }
                Step::Pause | Step::Move => account.take(step),
                Step::Offer { .. } | Step::Kick { .. } | Step::Await { .. } => {}
            }
        }
        for queue in 0..2 {
            while !account.due[queue].is_empty() {
                account.await_one(queue);
            }
        }
    }

    #[test]
    fn what_is_restored_is_saved_as_it_was(
        steps in prop::collection::vec(step(), 1..20), event_idx: bool
    ) {
        let driver = Driver::running(echo(), u64::from(event_idx) * EVENT_IDX);
        let mut account = Account { driver, due: Default::default() };
        for step in steps {
            account.take(step);
        }
        let part = account.driver.save();
        let moved = account.driver.moved(echo(), &part).unwrap();
        prop_assert_eq!(&moved.transport.save().unwrap(), &part);
        prop_assert_eq!(moved.transport.save().unwrap(), part);
    }

    #[test]
    fn damage_is_refused_or_does_no_harm(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut driver = running();
        driver.request(&[b"hello"], &[8]).unwrap();
        let mut part = driver.save();
        for (at, byte) in damage {
            let at = at.index(part.body.len());
            part.body[at] = byte;
        }
        if let Some(cut) = cut {
            part.body.truncate(cut.index(part.body.len() + 1));
        }
        if let Ok(mut moved) = driver.moved(echo(), &part) {
            prop_assert_eq!(
                moved.transport.save().unwrap().read::<TransportV1>().unwrap(),
                part.read::<TransportV1>().unwrap()
            );
            let _ = moved.transport.resume();
            moved.run(0);
            prop_assert!(moved.request(&[b"hello"], &[8]).is_some());
        }
    }

    #[test]
    fn any_numbers_are_refused_or_do_no_harm(
        status in 0_u32..16, accepted: u32, size: u16, addresses: [u16; 3], next: [u16; 2],
        needs_reset: bool, ready: bool,
    ) {
        let state = |state: &mut TransportV1| {
            let queue = &mut state.queues[0];
            state.status = status;
            state.accepted = 1 << 32 | u64::from(accepted & 0x3000_0008);
            state.needs_reset = needs_reset;
            queue.ready = ready;
            queue.size = 1 << (size % 10);
            queue.descriptor_table = RAM + 16 * u64::from(addresses[0]);
            queue.available_ring = RAM + 16 * u64::from(addresses[1]);
            queue.used_ring = RAM + 16 * u64::from(addresses[2]);
            queue.next_available = next[0];
            queue.next_used = if needs_reset { next[0].wrapping_sub(next[1] % 4) } else { next[0] };
        };
        if let Ok(mut moved) = restored(state) {
            moved.transport.resume().unwrap();
            moved.run(0);
            prop_assert!(moved.request(&[b"hello"], &[8]).is_some());
        }
    }
}
