//! PSCI SYSTEM_SUSPEND: only the last vCPU that is on may ask for it.

use std::thread;
use std::time::Duration;

use kedge_hv::GicVersion;
use kedge_hv_model::{ModelHypervisor, Program, Recording, Step, Width, psci, release};
use kedge_ids::VcpuId;
use kedge_vmm::Ended;

use crate::guest::{
    ENTRY, Guest, SERIAL, await_input, call, off, print_reg, program, turn_on, want_input,
};

/// PSCI's `DENIED`, in a byte.
const DENIED: u8 = 0xfd;

fn suspend(context: u64) -> Vec<Step> {
    call(psci::SYSTEM_SUSPEND, [ENTRY, context, 0])
}

/// Shows x0, waits for input, takes it, and suspends the machine, as soon as no other
/// vCPU is on.
fn sleeper() -> Program {
    let take = Step::Load { reg: 9, address: SERIAL, width: Width::Byte };
    let awake = [want_input(), print_reg(0), await_input(), vec![take]].concat();
    program(&[awake, suspend(u64::from(b'W')), vec![Step::Jump(-5)]])
}

#[test]
fn a_machine_alone_sleeps_until_input_wakes_it_at_the_entry_it_gave() {
    let guest = Guest::new(&[sleeper()]).start();
    guest.says([0]);
    guest.types(b"1");
    thread::sleep(Duration::from_millis(50));
    guest.says([0]);
    guest.types(b"2");
    guest.says([0, b'W']);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(guest.stop().outcome(), ("\0W", Ended::Stopped));
}

/// Cortex-A57 r1p0.
const MIDR_WITH_ERRATUM_834220: &str = "plain 603000000013c000 411fd070";

/// What x9 holds before and after a sleep on a Cortex-A57 r1p0.
/// `KVM_ARM_VCPU_INIT`, which unmaps the guest's memory, would zero it.
fn x9_over_a_sleep_on_cortex_a57(release_name: &str) -> Vec<u8> {
    let release = release(release_name).unwrap();
    let recording = [release.recording, MIDR_WITH_ERRATUM_834220].join("\n");
    let host = Recording::parse(&recording).unwrap();
    let model = ModelHypervisor::on(release, host, &[GicVersion::V3]);
    let take = Step::Load { reg: 9, address: SERIAL, width: Width::Byte };
    let awake = [want_input(), print_reg(9), await_input(), vec![take]].concat();
    let sleeper = program(&[awake, suspend(0)]);
    let guest = Guest::over(model.with_program(VcpuId(0), sleeper)).start();
    guest.says([0]);
    guest.types(b"1");
    thread::sleep(Duration::from_millis(50));
    guest.types(b"2");
    guest.screen.wait(|said| said.len() == 2);
    guest.stop().said
}

#[test]
fn where_unmapped_tables_are_fatal_the_memory_stays_mapped() {
    assert_eq!(x9_over_a_sleep_on_cortex_a57("7.2"), [0, b'1']);
}

#[test]
fn a_kernel_too_old_to_make_that_mistake_resets_the_vcpu_itself() {
    assert_eq!(x9_over_a_sleep_on_cortex_a57("6.1"), [0, 0]);
}

#[test]
fn the_last_vcpu_that_is_on_may_be_any() {
    // Linux 6.1 wants the power state of the first reset at every other.
    let first = program(&[turn_on(1), call(psci::CPU_OFF, [0; 3])]);
    let guest = Guest::on("6.1", &[first, sleeper()]).start();
    guest.says([0]);
    guest.types(b"1");
    thread::sleep(Duration::from_millis(50));
    guest.types(b"2");
    guest.says([0, b'W']);
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn it_is_denied_while_another_vcpu_is_on() {
    // Often enough for the second vCPU's thread to be late at times.
    for _ in 0..50 {
        let first = program(&[turn_on(1), suspend(0), print_reg(0), off()]);
        let finished = Guest::new(&[first, program(&[vec![Step::Wait]])]).run();
        assert_eq!(finished.ended.unwrap(), Ended::Off);
        assert_eq!(finished.said, [DENIED]);
    }
}

#[test]
fn it_is_denied_to_all_who_ask_at_once() {
    const TIMES: usize = 50;
    let asks = vec![[suspend(0), print_reg(0)].concat(); TIMES].concat();
    let others = [asks.clone(), vec![Step::Wait]];
    let first = program(&[turn_on(1), turn_on(2), asks]);
    let guest = Guest::new(&[first, program(&others), program(&others)]).start();
    guest.screen.wait(|said| said.len() == 3 * TIMES);
    assert_eq!(guest.stop().said, [DENIED; 3 * TIMES]);
}

#[test]
fn a_machine_that_suspends_or_sleeps_can_be_stopped() {
    let asks = [suspend(0), vec![Step::Jump(-5)]].concat();
    let guest = Guest::new(&[program(&[turn_on(1), asks.clone()]), program(&[asks])]).start();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
    let asleep = Guest::new(&[program(&[suspend(0)])]).start();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(asleep.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn a_host_without_it_does_not_know_the_call() {
    let guest = Guest::on("5.10", &[program(&[suspend(0), print_reg(0), off()])]);
    assert_eq!(guest.run().said, [0xff]);
}
