//! A guest's kernel that panics, as its console tells.

use std::time::{Duration, Instant};

use kedge_hv_model::{Program, Step};
use kedge_vmm::Ended;
use kedge_vmm::spec::{OnPanic, OnReset};

use crate::guest::{Guest, off, print, program, reset};

const PANIC: &str = "[    0.5] Kernel panic - not syncing: Attempted to kill init!";
const END: &str = "[    0.6] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---";

/// Panics, says more, and then does this.
fn panics(then: &[Vec<Step>]) -> Program {
    let report = [print(PANIC), print("\r\nCPU: 0\r\n")];
    program(&[report.as_slice(), then].concat())
}

#[test]
fn a_panic_ends_the_machine_once_its_report_is_out() {
    let finished = Guest::new(&[panics(&[print(END), print("\r\n")])]).run();
    assert_eq!(finished.outcome().1, Ended::Panicked);
    assert_eq!(finished.panics, [PANIC, END]);
    assert!(finished.outcome().0.ends_with("]---\r\n"));
}

#[test]
fn a_reset_after_a_panic_ends_the_machine_whatever_a_reset_does() {
    let guest = Guest::new(&[panics(&[reset()])]).with(|spec| spec.on_reset = OnReset::Restart);
    let finished = guest.run();
    assert_eq!(finished.outcome().1, Ended::Panicked);
    assert_eq!(finished.panics, [PANIC]);
}

#[test]
fn a_guest_that_falls_silent_in_its_panic_is_given_five_seconds() {
    let started = Instant::now();
    assert_eq!(Guest::new(&[panics(&[])]).run().outcome().1, Ended::Panicked);
    assert!((4..10).contains(&started.elapsed().as_secs()));
}

#[test]
fn a_stop_ends_a_machine_that_panics_at_once() {
    let guest = Guest::new(&[panics(&[])]).start();
    guest.screen.wait(|said| said.ends_with(b"CPU: 0\r\n"));
    let stopped = Instant::now();
    assert_eq!(guest.stop().outcome().1, Ended::Stopped);
    assert!(stopped.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_guest_may_go_on_after_a_panic_where_that_is_wanted() {
    let panicking = panics(&[print(END), print("\r\n"), reset()]);
    let guest = Guest::new(&[panicking]).then(program(&[print("again"), off()])).with(|spec| {
        spec.on_panic = OnPanic::Continue;
        spec.on_reset = OnReset::Restart;
    });
    let finished = guest.run();
    assert_eq!(finished.outcome().1, Ended::Off);
    assert!(finished.outcome().0.ends_with("again"));
    assert_eq!(finished.panics, [PANIC, END]);
}

#[test]
fn other_lines_are_no_panic() {
    let guest = Guest::new(&[program(&[print("Kernel is fine\npanic attack\n"), off()])]);
    assert!(guest.run().panics.is_empty());
}
