//! The serial console between a guest and its user.

use std::fs;
use std::io::ErrorKind;
use std::thread;
use std::time::Duration;

use kedge_hv_model::Step;
use kedge_vmm::Ended;
use kedge_vmm::spec::{OnReset, SerialSpec};
use tempfile::TempDir;

use crate::guest::{Guest, await_input, echo, off, print, print_reg, program, reset, want_input};

#[test]
fn every_byte_arrives_as_it_was_sent() {
    let all: Vec<Step> = (0..=0xff)
        .flat_map(|value| [vec![Step::Set { reg: 7, value }], print_reg(7)].concat())
        .collect();
    let finished = Guest::new(&[program(&[all, off()])]).run();
    assert_eq!(finished.said, (0..=0xff).collect::<Vec<u8>>());
}

#[test]
fn output_goes_to_a_file_and_stays_over_lives() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("console.log");
    let guest = Guest::new(&[program(&[print("one "), reset()])])
        .then(program(&[print("two"), off()]))
        .with(|spec| {
            spec.serial = SerialSpec::File(path.clone());
            spec.on_reset = OnReset::Restart;
        });
    assert_eq!(guest.run().outcome(), ("", Ended::Off));
    assert_eq!(fs::read_to_string(path).unwrap(), "one two");
}

#[test]
fn what_is_typed_reaches_the_guest() {
    let guest =
        Guest::new(&[program(&[want_input(), print(">"), await_input(), echo(5), off()])]).start();
    guest.says(">");
    guest.types(b"hello");
    assert_eq!(guest.end().outcome(), (">hello", Ended::Off));
}

#[test]
fn input_waits_for_a_guest_that_is_slower() {
    let read = |count| [await_input(), echo(count)].concat();
    let steps = [want_input(), print(">"), read(64), read(64), read(64), read(8), off()];
    let guest = Guest::new(&[program(&steps)]).start();
    let input: Vec<u8> = (0..200).collect();
    guest.says(">");
    guest.types(&input);
    assert_eq!(guest.end().said[1..], input);
}

#[test]
fn what_two_type_at_once_arrives_one_after_the_other() {
    let read = [await_input(), echo(64)].concat();
    let again = Step::Jump(-i32::try_from(read.len()).unwrap());
    let guest = Guest::new(&[program(&[want_input(), print(">"), read, vec![again]])]).start();
    guest.says(">");
    for byte in *b"ab" {
        let input = guest.input.clone();
        thread::spawn(move || input.send(&[byte; 100]).unwrap());
    }
    // An empty FIFO reads as zeros.
    let typed =
        |said: &[u8]| said[1..].iter().copied().filter(|&byte| byte != 0).collect::<Vec<_>>();
    guest.screen.wait(|said| typed(said).len() == 200);
    let said = typed(&guest.stop().said);
    assert_eq!(said[..100], [said[0]; 100]);
    assert_eq!(said[100..], [said[199]; 100]);
}

#[test]
fn input_that_a_guest_has_not_taken_is_there_for_its_next_life() {
    let first = program(&[want_input(), print("1"), await_input(), reset()]);
    let second =
        program(&[want_input(), print("2"), await_input(), echo(36), await_input(), echo(1)]);
    let guest =
        Guest::new(&[first]).then(second).with(|spec| spec.on_reset = OnReset::Restart).start();
    let input: Vec<u8> = (100..200).collect();
    guest.says("1");
    // The FIFO takes 64 bytes, which are lost with it.
    guest.types(&input);
    guest.screen.wait(|said| said.starts_with(b"12"));
    // An interrupt for those that came before the guest wanted any.
    guest.types(b"!");
    guest.screen.wait(|said| said.starts_with(&[b"12", &input[64..]].concat()));
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
}

#[test]
fn whoever_types_is_told_when_the_machine_is_gone() {
    let guest = Guest::new(&[program(&[print(">")])]).start();
    let input = guest.input.clone();
    guest.says(">");
    let typist = thread::spawn(move || {
        let blocked = input.send(&[b'x'; 100]).unwrap_err().kind();
        (blocked, input.send(b"x").unwrap_err().kind())
    });
    thread::sleep(Duration::from_millis(50));
    assert!(!typist.is_finished());
    guest.stop();
    assert_eq!(typist.join().unwrap(), (ErrorKind::BrokenPipe, ErrorKind::BrokenPipe));
}
