//! The generation as a guest finds it.

use std::sync::atomic::{AtomicU8, Ordering};

use expect_test::expect;
use kedge_bus::Value;
use kedge_diag::report;
use kedge_guest_memory::{GuestRange, map_anonymous};
use vmm_sys_util::eventfd::EventFd;

use super::*;

const PAGE: u64 = 0x8000_8000;

/// Entropy that is 1, 1, 1... the first time, then 2, 2, 2...
fn counted() -> Entropy {
    let next = AtomicU8::new(1);
    Arc::new(move |buffer: &mut [u8]| {
        buffer.fill(next.fetch_add(1, Ordering::Relaxed));
        Ok(())
    })
}

fn generation(entropy: Entropy) -> (Generation, EventFd) {
    let memory = map_anonymous(&[GuestRange::new(PAGE, 0x1000)]).unwrap();
    let (line, irq) = IrqLine::observed().unwrap();
    (Generation::new(memory, GuestAddress(PAGE), line, entropy), irq)
}

/// What the guest reads.
fn read(generation: &Generation) -> [u8; SIZE] {
    generation.memory.read_obj(GuestAddress(PAGE)).unwrap()
}

fn saved() -> Part {
    let (generation, _irq) = generation(counted());
    generation.pause(Instant::now()).unwrap();
    generation.save().unwrap()
}

#[test]
fn a_new_machine_has_a_generation_and_no_interrupt() {
    let (generation, irq) = generation(counted());
    generation.begin().unwrap();
    assert_eq!(read(&generation), [1; SIZE]);
    assert!(irq.read().is_err());
}

#[test]
fn a_pause_is_no_new_generation() {
    let (generation, irq) = generation(counted());
    generation.begin().unwrap();
    generation.pause(Instant::now()).unwrap();
    generation.resume().unwrap();
    assert_eq!(read(&generation), [1; SIZE]);
    assert!(irq.read().is_err());
}

#[test]
fn a_restored_machine_has_another_generation_and_is_told_once() {
    let (generation, irq) = generation(counted());
    generation.begin().unwrap();
    generation.restore(&saved()).unwrap();
    assert_eq!(read(&generation), [1; SIZE], "it rests");
    generation.resume().unwrap();
    generation.resume().unwrap();
    assert_eq!(read(&generation), [2; SIZE]);
    assert_eq!(irq.read().unwrap(), 1);
}

#[test]
fn a_machine_that_was_restored_and_never_ran_is_saved_as_it_was() {
    let (generation, _irq) = generation(counted());
    generation.restore(&saved()).unwrap();
    generation.pause(Instant::now()).unwrap();
    assert_eq!(generation.save().unwrap(), saved());
}

#[test]
fn a_machine_without_entropy_does_not_go_on_as_another() {
    let (generation, irq) = generation(Arc::new(|_| Err(io::ErrorKind::Unsupported.into())));
    generation.restore(&saved()).unwrap();
    let error = generation.resume().unwrap_err();
    expect![[r#"
        error: the machine's generation cannot go on
          because: the host has no random bytes for the machine's generation
          because: unsupported"#]]
    .assert_eq(&report(&error));
    assert!(irq.read().is_err());
    assert!(generation.save().is_ok(), "it still rests");
}

#[test]
fn a_generation_outside_memory_is_an_error() {
    let memory = map_anonymous(&[GuestRange::new(PAGE, 0x1000)]).unwrap();
    let at = GuestAddress(PAGE + 0x1000 - 8);
    let generation = Generation::new(memory, at, IrqLine::detached(), counted());
    expect!["the machine's generation cannot be written to guest memory at 0x80008ff8"]
        .assert_eq(&generation.begin().unwrap_err().to_string());
}

#[test]
fn a_part_of_another_device_is_refused() {
    let part = Part { kind: "pl031".to_owned(), ..saved() };
    let error = generation(counted()).0.restore(&part).unwrap_err();
    expect![[r#"
        error: the machine's generation cannot be restored
          because: a saved `pl031` stands where a `vmgenid` belongs
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&report(&error));
}

#[test]
fn the_device_tree_calls_it_vmgenid() {
    let node = generation(counted()).0.node();
    let compatible = Value::Strings(vec!["microsoft,vmgenid".to_owned()]);
    assert_eq!((node.name, node.properties), ("rng", vec![("compatible", compatible)]));
}
