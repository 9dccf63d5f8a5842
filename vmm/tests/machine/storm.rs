//! Machines that are asked for everything at once, at random.

use std::thread;
use std::time::Duration;

use kedge_hv_model::{Step, psci};
use kedge_vmm::spec::OnReset;
use kedge_vmm::{Clock, Ended, Handle};

use crate::guest::{ENTRY, Guest, call, print, program, reset, turn_on};
use crate::pause::{goes_round, letters_and_digits};

/// How often each of those who ask does.
const REQUESTS: u32 = 80;

/// Numbers without a pattern, the same each time (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Asks for this and that, and last for the machine to go on.
fn ask(handle: &Handle, seed: u64) {
    let mut random = Random(seed);
    for _ in 0..REQUESTS {
        // A machine that has ended is fine: others ask, too.
        match random.below(6) {
            0 | 1 => drop(handle.pause()),
            2 => drop(handle.resume(Clock::Stop)),
            3 => drop(handle.resume(Clock::Advance)),
            4 => drop(handle.status()),
            _ => thread::sleep(Duration::from_micros(random.below(300))),
        }
    }
    drop(handle.resume(Clock::default()));
}

/// Has several ask at once, each with its own seed from this one.
fn ask_at_once(handle: &Handle, seed: u64) {
    thread::scope(|scope| {
        for asker in 1..=3 {
            scope.spawn(move || ask(handle, seed * 10 + asker));
        }
    });
}

#[test]
fn accesses_survive_whatever_is_asked_by_whom() {
    for seed in 1..=6 {
        let guest = Guest::new(&letters_and_digits()).start();
        ask_at_once(&guest.handle, seed);
        let before = guest.screen.bytes().len();
        guest.screen.wait(|said| said.len() > before + 100);
        let finished = guest.stop();
        assert_eq!(finished.ended.unwrap(), Ended::Stopped);
        let said = finished.said;
        let whole = goes_round(&said, "abcdefghijklmnopqrstuvwxyz");
        assert!(whole && goes_round(&said, "0123456789"), "seed {seed}");
    }
}

#[test]
fn a_guest_that_suspends_and_resets_meanwhile_is_none_the_worse() {
    for seed in 1..=6 {
        let ask_once = [call(psci::SYSTEM_SUSPEND, [ENTRY, 0, 0]), print(".")].concat();
        let asks = vec![ask_once; 20].concat();
        let second = program(&[asks.clone(), vec![Step::Jump(0)]]);
        let first = program(&[turn_on(1), asks, reset()]);
        let guest =
            Guest::new(&[first, second]).with(|spec| spec.on_reset = OnReset::Restart).start();
        ask_at_once(&guest.handle, seed);
        let before = guest.screen.bytes().len();
        guest.screen.wait(|said| said.len() > before + 100);
        assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped, "seed {seed}");
    }
}

#[test]
fn a_machine_can_be_stopped_at_any_moment() {
    for seed in 1..=40 {
        let guest = Guest::new(&letters_and_digits()).start();
        let (handle, asker) = (guest.handle.clone(), guest.handle.clone());
        let asking = thread::spawn(move || ask(&asker, seed));
        thread::sleep(Duration::from_micros(Random(seed).below(3000)));
        handle.stop();
        assert_eq!(guest.end().ended.unwrap(), Ended::Stopped, "seed {seed}");
        asking.join().unwrap();
    }
}
