//! The real-time clock as a guest sees it.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::virtio::testing::TestLoop;
use crate::virtio::worker::EventLoop;

const DR: u64 = 0x000;
const MR: u64 = 0x004;
const LR: u64 = 0x008;
const CR: u64 = 0x00c;
const IMSC: u64 = 0x010;
const RIS: u64 = 0x014;
const MIS: u64 = 0x018;
const ICR: u64 = 0x01c;

/// 2026-01-01, as recognisable as a time gets.
const NEW_YEAR: u64 = 1_767_225_600;
const NEW_YEAR_32: u32 = 1_767_225_600;

/// A clock that stands still until a test moves it.
#[derive(Default)]
struct TestClock {
    now: AtomicU64,
    wake_at: Mutex<Option<u64>>,
}

impl TestClock {
    fn at(now: u64) -> Arc<Self> {
        Arc::new(Self { now: AtomicU64::new(now), wake_at: Mutex::default() })
    }

    fn advance(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    fn asked_for(&self) -> Option<u64> {
        *self.wake_at.lock().unwrap()
    }
}

impl Clock for TestClock {
    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }
    fn wake_at(&self, seconds: Option<u64>) {
        *self.wake_at.lock().unwrap() = seconds;
    }
}

fn rtc_at(now: u64) -> (Rtc, Arc<TestClock>, EventFd) {
    let clock = TestClock::at(now);
    let (line, irq) = IrqLine::observed().unwrap();
    (Rtc::new(clock.clone(), line), clock, irq)
}

/// What is saved of `rtc`, which goes on.
fn saved_of(rtc: &Rtc) -> Part {
    rtc.pause(Instant::now()).unwrap();
    let saved = rtc.save().unwrap();
    rtc.resume().unwrap();
    saved
}

/// A clock that was saved and has gone on.
fn restored(saved: &Part, clock: Arc<TestClock>, irq: IrqLine) -> Rtc {
    let rtc = Rtc::new(clock, irq);
    rtc.restore(saved).unwrap();
    rtc.resume().unwrap();
    rtc
}

fn load(rtc: &Rtc, offset: u64) -> u32 {
    let mut word = [0; 4];
    rtc.read(offset, &mut word).unwrap();
    u32::from_le_bytes(word)
}

fn store(rtc: &Rtc, offset: u64, value: u32) {
    rtc.write(offset, &value.to_le_bytes()).unwrap();
}

#[test]
fn the_counter_shows_the_time_and_goes_on() {
    let (rtc, clock, _irq) = rtc_at(NEW_YEAR);
    assert_eq!(load(&rtc, DR), NEW_YEAR_32);
    clock.advance(59);
    assert_eq!(load(&rtc, DR), NEW_YEAR_32 + 59);
}

#[test]
fn a_load_moves_the_counter() {
    let (rtc, clock, _irq) = rtc_at(NEW_YEAR);
    store(&rtc, LR, 1000);
    clock.advance(5);
    assert_eq!(load(&rtc, DR), 1005);
    assert_eq!(load(&rtc, LR), 1000);
}

#[test]
fn a_fresh_clock_asks_for_no_wake_up_and_raises_nothing() {
    let (rtc, clock, irq) = rtc_at(0);
    rtc.wake();
    assert_eq!(clock.asked_for(), None);
    assert_eq!((load(&rtc, MR), load(&rtc, RIS), load(&rtc, CR)), (0, 0, 1));
    irq.read().unwrap_err();
}

#[test]
fn an_alarm_interrupts_once_when_its_second_comes() {
    let (rtc, clock, irq) = rtc_at(NEW_YEAR);
    store(&rtc, MR, NEW_YEAR_32 + 10);
    store(&rtc, IMSC, 1);
    assert_eq!(clock.asked_for(), Some(NEW_YEAR + 10));
    clock.advance(9);
    rtc.wake();
    irq.read().unwrap_err();
    clock.advance(1);
    rtc.wake();
    rtc.wake();
    assert_eq!(irq.read().unwrap(), 1);
    assert_eq!((load(&rtc, RIS), load(&rtc, MIS)), (1, 1));
    assert_eq!(clock.asked_for(), None);
}

#[test]
fn an_alarm_that_was_cleared_can_be_set_again() {
    let (rtc, clock, irq) = rtc_at(NEW_YEAR);
    store(&rtc, IMSC, 1);
    store(&rtc, MR, NEW_YEAR_32);
    store(&rtc, ICR, 1);
    assert_eq!((load(&rtc, RIS), load(&rtc, MIS)), (0, 0));
    store(&rtc, MR, NEW_YEAR_32 + 1);
    clock.advance(1);
    rtc.wake();
    assert_eq!(irq.read().unwrap(), 2);
}

#[test]
fn a_masked_alarm_shows_in_ris_only_until_it_is_let_through() {
    let (rtc, clock, irq) = rtc_at(NEW_YEAR);
    store(&rtc, MR, NEW_YEAR_32 + 1);
    clock.advance(3600);
    assert_eq!((load(&rtc, RIS), load(&rtc, MIS)), (1, 0));
    irq.read().unwrap_err();
    store(&rtc, IMSC, 1);
    assert_eq!(irq.read().unwrap(), 1);
}

#[test]
fn an_alarm_in_the_past_waits_for_the_counter_to_come_round() {
    let (rtc, clock, _irq) = rtc_at(NEW_YEAR);
    store(&rtc, IMSC, 1);
    store(&rtc, MR, NEW_YEAR_32 - 1);
    assert_eq!(clock.asked_for(), Some(NEW_YEAR - 1 + (1 << 32)));
    assert_eq!((load(&rtc, MR), load(&rtc, RIS)), (NEW_YEAR_32 - 1, 0));
}

#[test]
fn a_load_moves_the_alarm_with_the_counter() {
    let (rtc, clock, _irq) = rtc_at(NEW_YEAR);
    store(&rtc, MR, 1060);
    store(&rtc, IMSC, 1);
    store(&rtc, LR, 1000);
    assert_eq!(clock.asked_for(), Some(NEW_YEAR + 60));
    assert_eq!(load(&rtc, MR), 1060);
}

#[test]
fn a_wake_up_before_time_asks_for_another() {
    let (rtc, clock, irq) = rtc_at(NEW_YEAR);
    store(&rtc, MR, NEW_YEAR_32 + 10);
    store(&rtc, IMSC, 1);
    clock.wake_at(None);
    rtc.wake();
    assert_eq!(clock.asked_for(), Some(NEW_YEAR + 10));
    irq.read().unwrap_err();
}

#[test]
fn the_identification_registers_say_pl031() {
    let (rtc, _clock, _irq) = rtc_at(NEW_YEAR);
    let ids: Vec<u32> = (0xfe0..0x1000).step_by(4).map(|offset| load(&rtc, offset)).collect();
    assert_eq!(ids, [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn stores_to_read_only_and_reserved_registers_change_nothing() {
    let (rtc, _clock, _irq) = rtc_at(NEW_YEAR);
    let before = saved_of(&rtc);
    for offset in [DR, CR, RIS, MIS, 0x20, 0xfe0, 0xffc] {
        store(&rtc, offset, 0);
    }
    assert_eq!(saved_of(&rtc), before);
    assert_eq!(load(&rtc, 0x20), 0);
}

#[test]
fn only_whole_registers_can_be_accessed() {
    let (rtc, _clock, _irq) = rtc_at(NEW_YEAR);
    assert_eq!(rtc.read(0, &mut [0; 1]), Err(Unsuitable { offset: 0, length: 1 }));
    assert_eq!(rtc.read(0, &mut [0; 8]), Err(Unsuitable { offset: 0, length: 8 }));
    assert_eq!(rtc.write(2, &[0; 4]), Err(Unsuitable { offset: 2, length: 4 }));
}

#[test]
fn an_alarm_that_came_due_while_saved_rings_on_restore() {
    let (rtc, _clock, _irq) = rtc_at(NEW_YEAR);
    store(&rtc, MR, NEW_YEAR_32 + 10);
    store(&rtc, IMSC, 1);
    let (line, irq) = IrqLine::observed().unwrap();
    let restored = restored(&saved_of(&rtc), TestClock::at(NEW_YEAR + 3600), line);
    assert_eq!(irq.read().unwrap(), 1);
    assert_eq!(load(&restored, DR), NEW_YEAR_32 + 3600);
    assert_eq!(load(&restored, MR), NEW_YEAR_32 + 10);
}

#[test]
fn an_alarm_that_is_still_to_come_is_armed_on_restore() {
    let (rtc, _clock, _irq) = rtc_at(NEW_YEAR);
    store(&rtc, MR, NEW_YEAR_32 + 10);
    store(&rtc, IMSC, 1);
    let clock = TestClock::at(NEW_YEAR + 1);
    restored(&saved_of(&rtc), clock.clone(), IrqLine::detached());
    assert_eq!(clock.asked_for(), Some(NEW_YEAR + 10));
}

#[test]
fn an_alarm_that_comes_due_during_a_pause_rings_when_it_is_over() {
    let (rtc, clock, irq) = rtc_at(NEW_YEAR);
    store(&rtc, MR, NEW_YEAR_32 + 10);
    store(&rtc, IMSC, 1);
    rtc.pause(Instant::now()).unwrap();
    let part = rtc.save().unwrap();
    clock.advance(60);
    rtc.wake();
    assert!(irq.read().is_err());
    assert_eq!(rtc.save().unwrap(), part);
    rtc.resume().unwrap();
    assert_eq!(irq.read().unwrap(), 1);
}

#[test]
fn an_alarm_that_nobody_has_cleared_rings_again_after_a_move() {
    let (rtc, clock, _irq) = rtc_at(NEW_YEAR);
    store(&rtc, MR, NEW_YEAR_32 + 10);
    store(&rtc, IMSC, 1);
    clock.advance(10);
    rtc.wake();
    let (line, irq) = IrqLine::observed().unwrap();
    restored(&saved_of(&rtc), TestClock::at(NEW_YEAR + 11), line);
    assert_eq!(irq.read().unwrap(), 1);
}

#[test]
fn a_clock_at_work_is_not_saved() {
    assert!(rtc_at(NEW_YEAR).0.save().is_err());
}

#[test]
fn the_host_clock_rings_the_alarm_through_an_event_loop() {
    let event_loop = TestLoop::start();
    let irq = EventFd::new(0).unwrap();
    let line = IrqLine::from_event(irq.try_clone().unwrap());
    let rtc = Rtc::on_host_time(event_loop.handle(), line);
    store(&rtc, MR, load(&rtc, DR) + 1);
    store(&rtc, IMSC, 1);
    assert_eq!(irq.read().unwrap(), 1);
    assert_eq!(load(&rtc, MIS), 1);
}

#[test]
fn the_host_clock_starts_no_event_loop_without_an_alarm() {
    let event_loop = EventLoop::on_demand(|| panic!("nobody asked for an alarm"));
    let rtc = Rtc::on_host_time(event_loop, IrqLine::detached());
    assert_ne!(load(&rtc, DR), 0);
}

proptest! {
    #[test]
    fn any_saved_state_can_be_used_and_saved_again(
        offset: u32, match_at: u64, load_register: u32, masked_in: bool, raised: bool, now: u64,
        stores in prop::collection::vec((0_u64..0x400, any::<u32>()), 0..8),
    ) {
        let saved = saved::Pl031V1 { offset, match_at, load: load_register, masked_in, raised };
        let clock = TestClock::at(now);
        let rtc = restored(&Part::of(&saved), clock, IrqLine::detached());
        for (register, value) in stores {
            store(&rtc, register * 4, value);
            load(&rtc, register * 4);
        }
        let part = saved_of(&rtc);
        let again = restored(&part, TestClock::at(now), IrqLine::detached());
        prop_assert_eq!(saved_of(&again), part);
    }
}
