//! How machines end, start again, and stop.

use std::sync::Mutex;

use expect_test::expect;
use kedge_devices::virtio::catalog::{DeviceConfig, Kind};
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::rng::{self, RngConfig};
use kedge_diag::{Fix, Trouble, report};
use kedge_hv::SystemEvent;
use kedge_hv_model::{Step, psci};
use kedge_vmm::spec::OnReset;
use kedge_vmm::{Ended, Reset, RunError, Stopper};

use crate::guest::{Guest, call, event, off, print, program, reset, turn_on};

fn end_of(steps: Vec<Step>) -> Ended {
    Guest::new(&[program(&[steps])]).run().ended.unwrap()
}

#[test]
fn every_way_to_end_has_its_name() {
    assert_eq!(end_of(off()), Ended::Off);
    assert_eq!(end_of(reset()), Ended::Reset(Reset::Cold));
    assert_eq!(end_of(event(SystemEvent::Off2)), Ended::Hibernated);
}

#[test]
fn a_guest_that_resets_in_its_own_way_says_which() {
    let own_way = [0x8000_0001, 0xc00_c1e, 0];
    let ended = end_of(call(psci::SYSTEM_RESET2, own_way));
    assert_eq!(ended, Ended::Reset(Reset::Chosen { kind: 0x8000_0001, cookie: 0xc00_c1e }));
}

#[test]
fn a_guest_that_crashed_by_its_own_report_is_an_error() {
    let error = Guest::new(&[program(&[event(SystemEvent::Crash)])]).run().ended.unwrap_err();
    expect!["error: the guest reported that it crashed"].assert_eq(&report(&error));
}

#[test]
fn a_machine_that_restarts_lives_again() {
    let guest = Guest::new(&[program(&[print("one "), reset()])])
        .then(program(&[print("two "), event(SystemEvent::Reset2)]))
        .then(program(&[print("three"), off()]))
        .with(|spec| spec.on_reset = OnReset::Restart);
    assert_eq!(guest.run().outcome(), ("one two three", Ended::Off));
}

#[test]
fn other_vcpus_wait_again_after_a_restart() {
    let second = program(&[print("2"), reset()]);
    let guest = Guest::new(&[program(&[print("1"), turn_on(1)]), second])
        .with(|spec| spec.on_reset = OnReset::Restart)
        .start();
    guest.screen.wait(|said| said.starts_with(b"121212"));
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn a_machine_that_has_ended_does_not_run_again() {
    let mut machine = Guest::new(&[program(&[off()])]).run().machine;
    assert_eq!(machine.run().unwrap(), Ended::Stopped);
    assert!(machine.device_tree().is_empty());
}

#[test]
fn a_machine_that_is_stopped_before_it_runs_stops() {
    let built = Guest::new(&[program(&[])]).build().unwrap();
    built.machine.stopper().stop();
    assert_eq!(built.start().end().ended.unwrap(), Ended::Stopped);
}

#[test]
fn vcpus_stop_whether_they_run_wait_or_are_off() {
    let first = program(&[turn_on(1), turn_on(2), print("go"), vec![Step::Jump(0)]]);
    let second = program(&[vec![Step::Wait]]);
    let third = program(&[call(psci::CPU_OFF, [0; 3])]);
    let guest = Guest::new(&[first, second, third, program(&[])]).start();
    guest.says("go");
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn a_vcpu_that_cannot_go_on_is_named_with_the_reason() {
    let failing = program(&[vec![Step::Fail("hardware entry failure 0x7".to_owned())]]);
    let mut finished = Guest::new(&[program(&[turn_on(1)]), failing]).run();
    let error = finished.ended.unwrap_err();
    assert!(matches!(error, RunError::Vcpu(_)));
    expect![[r#"
        error: the guest cannot run any further
          because: vCPU 1 stopped: hardware entry failure 0x7"#]]
    .assert_eq(&report(&error));
    assert_eq!(finished.machine.run().unwrap(), Ended::Stopped);
}

/// A device that does something when it is opened, that is while its machine is
/// built.
#[derive(Debug, Default)]
struct Opened {
    /// What to stop.
    stopper: Mutex<Option<Stopper>>,
    /// How often it can be opened.
    times: Mutex<u32>,
}

#[derive(Debug, thiserror::Error)]
#[error("the device is gone")]
struct Gone;

impl Fix for Gone {
    fn fix(&self) -> Option<String> {
        Some("bring it back".to_owned())
    }
}

/// The configuration that a machine takes.
#[derive(Debug, Clone)]
struct OnOpen(std::sync::Arc<Opened>);

impl OnOpen {
    fn times(times: u32) -> Self {
        Self(std::sync::Arc::new(Opened { times: Mutex::new(times), ..Opened::default() }))
    }
}

impl DeviceConfig for OnOpen {
    fn kind(&self) -> &'static Kind {
        &rng::KIND
    }

    fn id(&self) -> &str {
        "rng"
    }

    fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        self.0.stopper.lock().unwrap().iter().for_each(Stopper::stop);
        let mut times = self.0.times.lock().unwrap();
        *times = times.checked_sub(1).ok_or_else(|| Trouble::new(Gone))?;
        RngConfig::default().open()
    }
}

#[test]
fn a_stop_while_the_next_life_is_built_is_not_lost() {
    let device = OnOpen::times(2);
    let guest = Guest::new(&[program(&[reset()])]).then(program(&[])).with(|spec| {
        spec.on_reset = OnReset::Restart;
        spec.devices.push(Box::new(device.clone()));
    });
    let built = guest.build().unwrap();
    *device.0.stopper.lock().unwrap() = Some(built.machine.stopper());
    assert_eq!(built.start().end().ended.unwrap(), Ended::Stopped);
}

#[test]
fn a_stop_that_meets_a_reset_is_not_lost() {
    let guest = Guest::new(&[program(&[print("."), reset()])])
        .with(|spec| spec.on_reset = OnReset::Restart)
        .start();
    guest.screen.wait(|said| said.len() > 5);
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn a_life_that_cannot_be_built_ends_the_machine_with_the_cure() {
    let guest = Guest::new(&[program(&[reset()])]).with(|spec| {
        spec.on_reset = OnReset::Restart;
        spec.devices.push(Box::new(OnOpen::times(1)));
    });
    expect![[r#"
        error: the machine could not be built again after the guest's reset
          because: the device is gone
          fix: bring it back"#]]
    .assert_eq(&report(&guest.run().ended.unwrap_err()));
}
