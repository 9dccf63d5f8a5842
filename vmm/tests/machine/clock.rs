//! The time of guests that are paused: their counters.

use kedge_firmware::{PHYSICAL_COUNTER, VIRTUAL_COUNTER};
use kedge_hv::{Hypervisor, VcpuFeatures, VmConfig};
use kedge_hv_model::ModelHypervisor;
use kedge_ids::VcpuId;
use kedge_vmm::Clock;

use crate::faulty::ClockChange;
use crate::guest::Guest;
use crate::pause::{letters_and_digits, says_more, watch};

/// The counter of this host.
fn counter(host: &ModelHypervisor) -> u64 {
    let vm = host.create_vm(&VmConfig::new(40)).unwrap();
    let mut vcpu = vm.create_vcpu(VcpuId(0)).unwrap();
    vcpu.init(VcpuFeatures::PSCI_0_2).unwrap();
    vcpu.reg64(PHYSICAL_COUNTER).unwrap()
}

/// What is done to the time of a guest on this release that is paused once.
fn clock_changes_of_a_pause(release: &str, clock: Clock) -> Vec<ClockChange> {
    let (guest, host) = watch(Guest::on(release, &letters_and_digits()));
    says_more(&guest);
    guest.handle.pause().unwrap();
    guest.handle.resume(clock).unwrap();
    guest.stop();
    host.clock_changes()
}

#[test]
fn time_stands_still_by_one_call_for_the_whole_machine() {
    let (guest, host) = watch(Guest::new(&letters_and_digits()));
    says_more(&guest);
    let earliest = counter(&guest.hypervisor);
    guest.handle.pause().unwrap();
    let from = counter(&guest.hypervisor);
    while counter(&guest.hypervisor) < from + 1_000_000 {}
    let to = counter(&guest.hypervisor);
    guest.handle.resume(Clock::default()).unwrap();
    let latest = counter(&guest.hypervisor);
    guest.stop();
    let changes = host.clock_changes();
    let [ClockChange::Offset(born), ClockChange::Offset(resumed)] = changes[..] else {
        panic!("{changes:?}")
    };
    assert!((to - from..latest - earliest).contains(&(resumed - born)));
}

#[test]
fn an_older_hosts_counter_is_written_once_whatever_the_number_of_vcpus() {
    let changes = clock_changes_of_a_pause("6.1", Clock::default());
    assert_eq!(changes, [ClockChange::Written(VcpuId(0), VIRTUAL_COUNTER)]);
}

#[test]
fn nothing_is_done_to_time_that_is_to_pass() {
    assert_eq!(clock_changes_of_a_pause("6.1", Clock::Advance), []);
    assert_eq!(clock_changes_of_a_pause("6.12", Clock::Advance).len(), 1);
}
