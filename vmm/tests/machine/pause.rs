//! Pausing and resuming a machine through its handle.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use expect_test::expect;
use kedge_diag::report;
use kedge_hv::GicVersion;
use kedge_hv_model::{ModelHypervisor, Program, Step, Width, psci};
use kedge_ids::VcpuId;
use kedge_vmm::smccc::{Call, Functions, Results, Service};
use kedge_vmm::spec::OnReset;
use kedge_vmm::{Clock, ControlError, Ended, Lifecycle};

use crate::faulty::Faulty;
use crate::guest::{
    ENTRY, Guest, Running, SERIAL, await_input, call, off, print, print_reg, program, reset,
    turn_on, want_input,
};

/// What every guest here says over and over, one byte an access.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
const DIGITS: &str = "0123456789";

/// A moment in which a guest that runs says a lot.
const A_WHILE: Duration = Duration::from_millis(20);

/// Does `steps` for ever.
fn for_ever(steps: Vec<Step>) -> Vec<Step> {
    let back = -i32::try_from(steps.len()).unwrap();
    [steps, vec![Step::Jump(back)]].concat()
}

/// Says the letters for ever.
pub(crate) fn letters() -> Program {
    program(&[for_ever(print(LETTERS))])
}

/// Turns on the next vCPU and says the letters for ever; that one says the digits.
pub(crate) fn letters_and_digits() -> [Program; 2] {
    [program(&[turn_on(1), for_ever(print(LETTERS))]), program(&[for_ever(print(DIGITS))])]
}

/// Whether those bytes of `said` that are in `cycle` are `cycle` over and over: none of
/// the accesses was lost, none was done twice.
pub(crate) fn goes_round(said: &[u8], cycle: &str) -> bool {
    let own = said.iter().filter(|byte| cycle.as_bytes().contains(byte));
    own.zip(cycle.bytes().cycle()).all(|(said, expected)| *said == expected)
}

/// Waits until it has said more than now.
pub(crate) fn says_more(guest: &Running) {
    let before = guest.screen.bytes().len();
    guest.screen.wait(|said| said.len() > before + 100);
}

/// Starts `guest` on a host that notes what is done.
pub(crate) fn watch(guest: Guest) -> (Running, Arc<Faulty>) {
    let (note, noted) = sync_channel(1);
    let guest = guest.watched(move |model| {
        let host = Arc::new(Faulty::new(model, usize::MAX));
        note.send(Arc::clone(&host)).unwrap();
        host
    });
    (guest.start(), noted.recv().unwrap())
}

/// Types on a thread of its own.
fn types_meanwhile(guest: &Running, bytes: &'static [u8]) -> JoinHandle<()> {
    let input = guest.input.clone();
    thread::spawn(move || input.send(bytes).unwrap())
}

/// What it says in a while.
fn says_in_a_while(guest: &Running) -> usize {
    let before = guest.screen.bytes().len();
    thread::sleep(A_WHILE);
    guest.screen.bytes().len() - before
}

#[test]
fn a_paused_guest_stands_still_until_it_is_resumed() {
    let guest = Guest::new(&letters_and_digits()).start();
    says_more(&guest);
    guest.handle.pause().unwrap();
    assert_eq!(says_in_a_while(&guest), 0);
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    let finished = guest.stop();
    assert_eq!(finished.ended.unwrap(), Ended::Stopped);
    assert!(goes_round(&finished.said, LETTERS) && goes_round(&finished.said, DIGITS));
}

#[test]
fn a_machine_shows_where_it_is_in_its_life() {
    let built = Guest::new(&[letters()]).build().unwrap();
    let handle = built.machine.handle();
    assert_eq!(handle.status(), Lifecycle::Configured);
    let guest = built.start();
    says_more(&guest);
    assert_eq!(handle.status(), Lifecycle::Running);
    handle.pause().unwrap();
    assert_eq!(handle.status(), Lifecycle::Paused);
    handle.resume(Clock::default()).unwrap();
    assert_eq!(handle.status(), Lifecycle::Running);
    let finished = guest.stop();
    assert_eq!(handle.status(), Lifecycle::Stopped);
    drop(finished);
    assert_eq!(handle.status(), Lifecycle::Stopped);
}

#[test]
fn what_a_machine_is_at_already_is_no_error() {
    let guest = Guest::new(&[letters()]).start();
    guest.handle.resume(Clock::default()).unwrap();
    guest.handle.pause().unwrap();
    guest.handle.pause().unwrap();
    assert_eq!(says_in_a_while(&guest), 0);
    guest.handle.resume(Clock::default()).unwrap();
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    guest.stop();
}

#[test]
fn no_access_is_lost_or_done_twice_however_often_a_guest_is_paused() {
    let guest = Guest::new(&letters_and_digits()).start();
    for _ in 0..300 {
        guest.handle.pause().unwrap();
        guest.handle.resume(Clock::default()).unwrap();
    }
    says_more(&guest);
    let finished = guest.stop();
    assert!(goes_round(&finished.said, LETTERS) && goes_round(&finished.said, DIGITS));
}

#[test]
fn what_is_typed_around_pauses_arrives_once() {
    let take = Step::Load { reg: 9, address: SERIAL, width: Width::Byte };
    let echo = [await_input(), vec![take], print_reg(9)].concat();
    let guest = Guest::new(&[program(&[want_input(), for_ever(echo)])]).start();
    for (count, typed) in (1..).zip(LETTERS.bytes()) {
        guest.types(&[typed]);
        guest.handle.pause().unwrap();
        guest.handle.resume(Clock::default()).unwrap();
        guest.screen.wait(|said| said.len() == count);
    }
    guest.handle.pause().unwrap();
    let typing = types_meanwhile(&guest, b"!");
    assert_eq!(says_in_a_while(&guest), 0);
    assert!(!typing.is_finished(), "who types waits for the guest");
    guest.handle.resume(Clock::default()).unwrap();
    typing.join().unwrap();
    guest.screen.wait(|said| said == format!("{LETTERS}!").as_bytes());
    guest.stop();
}

#[test]
fn no_vcpu_is_in_the_middle_of_an_access_while_its_machine_is_paused() {
    let (guest, host) = watch(Guest::new(&letters_and_digits()));
    for _ in 0..300 {
        guest.handle.pause().unwrap();
        assert_eq!(host.open_accesses(), 0);
        guest.handle.resume(Clock::default()).unwrap();
    }
    assert!(goes_round(&guest.stop().said, LETTERS));
}

#[test]
fn vcpus_come_home_whether_they_run_wait_or_are_off() {
    let first = program(&[turn_on(1), turn_on(2), print("go"), vec![Step::Jump(0)]]);
    let second = program(&[vec![Step::Wait]]);
    let third = program(&[call(psci::CPU_OFF, [0; 3])]);
    let guest = Guest::new(&[first, second, third, program(&[])]).start();
    guest.says("go");
    for _ in 0..50 {
        guest.handle.pause().unwrap();
        guest.handle.resume(Clock::default()).unwrap();
    }
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn a_paused_machine_can_be_stopped() {
    let guest = Guest::new(&letters_and_digits()).start();
    guest.handle.pause().unwrap();
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn what_is_asked_before_a_machine_runs_is_done_when_it_does() {
    let built = Guest::new(&[letters()]).build().unwrap();
    let handle = built.machine.handle();
    let asker = handle.clone();
    let asking = thread::spawn(move || asker.pause());
    thread::sleep(A_WHILE);
    assert_eq!(handle.status(), Lifecycle::Configured);
    let guest = built.start();
    asking.join().unwrap().unwrap();
    assert_eq!(says_in_a_while(&guest), 0);
    guest.stop();
}

#[test]
fn a_machine_that_has_ended_says_so() {
    let finished = Guest::new(&[program(&[off()])]).run();
    let handle = finished.machine.handle();
    expect!["error: the machine has ended"].assert_eq(&report(&handle.pause().unwrap_err()));
    assert!(matches!(handle.resume(Clock::default()), Err(ControlError::Ended)));
    handle.stop();
    assert_eq!(handle.status(), Lifecycle::Stopped);
}

#[test]
fn a_machine_that_goes_before_it_ran_leaves_nobody_waiting() {
    let built = Guest::new(&[letters()]).build().unwrap();
    let handle = built.machine.handle();
    let asker = handle.clone();
    let asking = thread::spawn(move || asker.pause());
    thread::sleep(A_WHILE);
    drop(built);
    assert!(matches!(asking.join().unwrap(), Err(ControlError::Ended)));
    assert_eq!(handle.status(), Lifecycle::Stopped);
}

#[test]
fn a_guest_that_powers_off_before_it_is_paused_has_ended() {
    for _ in 0..50 {
        let guest = Guest::new(&[program(&[print("."), off()])]).start();
        let paused = guest.handle.pause().is_ok();
        let status = guest.handle.status();
        let expected = if paused { Ended::Stopped } else { Ended::Off };
        assert_eq!(guest.stop().ended.unwrap(), expected);
        assert!(!paused || status == Lifecycle::Paused);
    }
}

#[test]
fn a_pause_outlasts_a_reset_of_the_guest() {
    let guest = Guest::new(&[program(&[print("."), reset()])])
        .with(|spec| spec.on_reset = OnReset::Restart)
        .start();
    for _ in 0..20 {
        guest.handle.pause().unwrap();
        assert_eq!(guest.handle.status(), Lifecycle::Paused);
        assert_eq!(says_in_a_while(&guest), 0);
        guest.handle.resume(Clock::default()).unwrap();
    }
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn a_guest_that_panics_is_not_given_up_while_it_is_paused() {
    let report = print("Kernel panic - not syncing: that was it\r\n");
    let guest = Guest::new(&[program(&[report, for_ever(print("."))])]).start();
    guest.screen.wait(|said| said.ends_with(b"."));
    guest.handle.pause().unwrap();
    // Its last words would be over.
    thread::sleep(Duration::from_millis(5500));
    assert_eq!(guest.handle.status(), Lifecycle::Paused);
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn a_machine_that_sleeps_goes_on_sleeping() {
    let suspend = call(psci::SYSTEM_SUSPEND, [ENTRY, u64::from(b'W'), 0]);
    let take = Step::Load { reg: 9, address: SERIAL, width: Width::Byte };
    let awake = [want_input(), print_reg(0), await_input(), vec![take]].concat();
    let guest = Guest::new(&[program(&[awake, suspend])]).start();
    guest.says([0]);
    guest.types(b"1");
    thread::sleep(A_WHILE);
    guest.handle.pause().unwrap();
    guest.handle.resume(Clock::default()).unwrap();
    assert_eq!(says_in_a_while(&guest), 0);
    guest.handle.pause().unwrap();
    let typing = types_meanwhile(&guest, b"2");
    assert_eq!(says_in_a_while(&guest), 0);
    guest.handle.resume(Clock::default()).unwrap();
    typing.join().unwrap();
    guest.says([0, b'W']);
    guest.stop();
}

#[test]
fn vcpus_that_ask_to_suspend_are_answered_before_a_pause() {
    const DENIED: u8 = 0xfd;
    let ask = [call(psci::SYSTEM_SUSPEND, [ENTRY, 0, 0]), print_reg(0)].concat();
    let guest = Guest::new(&[
        program(&[turn_on(1), turn_on(2), for_ever(ask.clone())]),
        program(&[for_ever(ask)]),
        program(&[vec![Step::Jump(0)]]),
    ]);
    let guest = guest.start();
    for _ in 0..200 {
        guest.handle.pause().unwrap();
        guest.handle.resume(Clock::default()).unwrap();
    }
    says_more(&guest);
    let finished = guest.stop();
    assert!(finished.said.iter().all(|answer| *answer == DENIED));
}

#[test]
fn a_vcpu_that_cannot_go_on_ends_a_machine_that_is_to_be_paused() {
    for _ in 0..20 {
        let failing = program(&[print("0"), vec![Step::Fail("hardware".to_owned())]]);
        let first = program(&[turn_on(1), for_ever(print("a"))]);
        let guest = Guest::new(&[first, failing]).start();
        guest.screen.wait(|said| said.contains(&b'0'));
        let paused = guest.handle.pause();
        guest.handle.resume(Clock::default()).ok();
        assert!(guest.end().ended.is_err());
        assert!(matches!(paused, Ok(()) | Err(ControlError::Ended)));
    }
}

/// Answers a call when it is told to.
struct Slow {
    called: SyncSender<()>,
    go_on: Mutex<Receiver<()>>,
}

const SLOW: u32 = 0xc300_0200;

impl Service for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    fn functions(&self) -> &[Functions] {
        const FUNCTIONS: &[Functions] = &[SLOW..=SLOW];
        FUNCTIONS
    }

    fn call(&self, _: &Call) -> Results {
        self.called.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        [u64::from(b'!'), 0, 0, 0]
    }
}

impl std::fmt::Debug for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slow")
    }
}

#[test]
fn a_guest_that_does_not_stop_runs_on_and_can_be_paused_later() {
    let ((called, was_called), (go_on, told)) = (sync_channel(1), sync_channel(1));
    let slow = Slow { called, go_on: Mutex::new(told) };
    let steps = [call(SLOW, [0; 3]), print_reg(0), for_ever(print("a"))];
    let guest = Guest::new(&[program(&[turn_on(1)]), program(&steps)]).with_service(slow).start();
    was_called.recv().unwrap();
    let (first, second) = (guest.handle.clone(), guest.handle.clone());
    let asking = thread::spawn(move || first.pause());
    thread::sleep(A_WHILE);
    assert_eq!(second.status(), Lifecycle::Running);
    let also = thread::spawn(move || second.resume(Clock::default()));
    expect![[r#"
        error: vCPU 1 did not stop within 5 seconds: a device keeps it waiting
          fix: see that the serial port's output is read, and try again"#]]
    .assert_eq(&report(&asking.join().unwrap().unwrap_err()));
    also.join().unwrap().unwrap();
    go_on.send(()).unwrap();
    guest.screen.wait(|said| said.starts_with(b"!aaa"));
    guest.handle.pause().unwrap();
    assert_eq!(says_in_a_while(&guest), 0);
    guest.stop();
}

#[test]
fn a_guest_with_a_gicv2_is_paused_alike() {
    let release = kedge_hv_model::release("6.12").unwrap();
    let host = kedge_hv_model::Recording::parse(release.recording).unwrap();
    let model = ModelHypervisor::on(release, host, &[GicVersion::V2]);
    let guest = Guest::over(model.with_program(VcpuId(0), letters())).start();
    says_more(&guest);
    guest.handle.pause().unwrap();
    assert_eq!(says_in_a_while(&guest), 0);
    guest.handle.resume(Clock::default()).unwrap();
    says_more(&guest);
    guest.stop();
}
