//! Firmware calls that the machine answers, by the service of the library's example.

use expect_test::expect;
use kedge_diag::report;
use kedge_hv_model::{Program, Step};
use kedge_vmm::Ended;

use crate::guest::{Guest, call, off, print_reg, program, turn_on};
use lap_counter::{LAP, LapCounter};

#[path = "../../examples/firmware_service/lap_counter.rs"]
mod lap_counter;

/// Reports `laps` and shows the low bytes of what is answered.
fn report_laps(laps: u64) -> Vec<Step> {
    let shown = [0, 1, 2, 3].map(print_reg).concat();
    [call(LAP, [laps, 0, 0]), shown].concat()
}

#[test]
fn a_guest_is_answered_by_the_service_of_a_program() {
    let counter = LapCounter::default();
    let guest = Guest::new(&[program(&[report_laps(5), report_laps(2), off()])]);
    let finished = guest.with_service(counter.clone()).run();
    assert_eq!(finished.ended.unwrap(), Ended::Off);
    assert_eq!(finished.said, [0, 5, 5, 0, 0, 7, 5, 0]);
    assert_eq!(counter.laps(), 7);
}

#[test]
fn a_call_goes_by_either_instruction() {
    let [arguments @ .., _] = Step::call(LAP, [3, 0, 0]);
    let steps = [arguments.to_vec(), vec![Step::SecureCall], print_reg(1), off()];
    let finished = Guest::new(&[program(&steps)]).with_service(LapCounter::default()).run();
    assert_eq!(finished.said, [3]);
}

#[test]
fn every_vcpu_is_answered() {
    let counter = LapCounter::default();
    let first = program(&[turn_on(1), report_laps(1)]);
    let second = program(&[report_laps(1), vec![Step::Wait]]);
    let guest = Guest::new(&[first, second]).with_service(counter.clone()).start();
    guest.screen.wait(|said| said.len() == 8);
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
    assert_eq!(counter.laps(), 2);
}

#[test]
fn without_the_service_the_guest_is_told_that_there_is_none() {
    let finished = Guest::new(&[program(&[report_laps(5), off()])]).run();
    assert_eq!(finished.said, [0xff, 0, 0, 0]);
}

#[test]
fn a_service_goes_on_over_a_reset() {
    let counter = LapCounter::default();
    let guest = Guest::new(&[program(&[report_laps(5), crate::guest::reset()])])
        .then(program(&[report_laps(1), off()]))
        .with(|spec| spec.on_reset = kedge_vmm::spec::OnReset::Restart)
        .with_service(counter.clone());
    assert_eq!(guest.run().ended.unwrap(), Ended::Off);
    assert_eq!(counter.laps(), 6);
}

#[test]
fn a_host_that_hands_over_no_calls_is_refused_with_the_calls() {
    let guest = Guest::on("6.1", &[Program::default()]).with_service(LapCounter::default());
    let error = guest.build().err().map(|error| report(&error)).unwrap();
    expect![[r#"
        error: this host keeps all firmware calls to itself; the guest's are to be answered (0xc3000100)
          fix: run on Linux 6.4 or later, or have no such calls: they come from `smccc_filter` and `vendor_hyp_bmap_2` in the profile, and from services that a program adds"#]]
    .assert_eq(&error);
}
