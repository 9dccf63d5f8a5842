//! Accesses to addresses that nobody owns, and those that do not suit.

use kedge_hv_model::{Event, Program, Step, Width};
use kedge_vmm::Ended;

use crate::guest::{ENTRY, Guest, NOWHERE, SERIAL, off, print, program};

fn loads(addresses: impl IntoIterator<Item = (u64, Width)>) -> Vec<u64> {
    let load = |(address, width)| Step::Load { reg: 1, address, width };
    let steps: Vec<Step> = addresses.into_iter().map(load).collect();
    Guest::new(&[program(&[steps, off()])]).run().loaded()
}

/// Does `step`; tells whether it aborts.
fn aborting(step: Vec<Step>) -> Program {
    program(&[step, print("no abort"), off()]).with_vector([print("abort"), off()].concat())
}

#[test]
fn a_load_from_nowhere_reads_as_ones() {
    let seen = loads(Width::ALL.map(|width| (NOWHERE, width)));
    assert_eq!(seen, [0xff, 0xffff, 0xffff_ffff, u64::MAX]);
}

#[test]
fn a_load_that_suits_no_register_reads_as_ones() {
    let rtc = 0x4000_1000;
    let seen =
        loads([(SERIAL, Width::Word), (SERIAL + 8, Width::Byte), (rtc + 0xff9, Width::Double)]);
    assert_eq!(seen, [0xffff_ffff, 0xff, u64::MAX]);
}

#[test]
fn a_store_to_nowhere_does_nothing() {
    let stores = Width::ALL.map(|width| Step::store(NOWHERE, width, 0)).concat();
    let finished = Guest::new(&[aborting(stores)]).run();
    assert_eq!(finished.outcome(), ("no abort", Ended::Off));
}

#[test]
fn an_access_that_cannot_be_decoded_is_an_external_abort() {
    let finished = Guest::new(&[aborting(vec![Step::LoadPair { address: NOWHERE }])]).run();
    assert_eq!(finished.outcome(), ("abort", Ended::Off));
    assert_eq!(finished.events, [Event::Aborted { vcpu: 0, pc: ENTRY }]);
}
