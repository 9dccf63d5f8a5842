//! The serial port as a guest and its user see it.

use std::sync::{Arc, mpsc};
use std::thread;

use expect_test::expect;
use kedge_bus::Wire;
use kedge_diag::report;
use proptest::prelude::*;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::saved::SerialV1;
use super::*;

const DATA: u64 = 0;
const IER: u64 = 1;
const IIR: u64 = 2;
const LSR: u64 = 5;

/// What the guest sent, for a test to read.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Fixture {
    port: SerialPort,
    irq: EventFd,
    drained: EventFd,
}

fn fixture(out: impl Write + Send + 'static) -> Fixture {
    let (line, irq) = IrqLine::observed().unwrap();
    let drained = EventFd::new(EFD_NONBLOCK).unwrap();
    let port = SerialPort::new(Box::new(out), line, drained.try_clone().unwrap());
    Fixture { port, irq, drained }
}

fn load(port: &SerialPort, offset: u64) -> u8 {
    let mut byte = [0];
    port.read(offset, &mut byte).unwrap();
    byte[0]
}

fn load_all(port: &SerialPort, count: usize) -> Vec<u8> {
    (0..count).map(|_| load(port, DATA)).collect()
}

fn send(port: &SerialPort, text: &[u8]) {
    for byte in text {
        port.write(DATA, &[*byte]).unwrap();
    }
}

#[test]
fn what_the_guest_sends_appears_at_once() {
    let screen = Screen::default();
    let guest = fixture(screen.clone());
    send(&guest.port, b"login: ");
    assert_eq!(screen.text(), "login: ");
    assert_eq!(guest.port.counters().sent.load(Ordering::Relaxed), 7);
}

#[test]
fn input_interrupts_a_guest_that_asked_for_it() {
    let guest = fixture(io::sink());
    guest.port.write(IER, &[1]).unwrap();
    assert_eq!(guest.port.receive(b"ls"), 2);
    assert_eq!(guest.irq.read().unwrap(), 1);
    assert_eq!(load(&guest.port, LSR) & 1, 1);
    assert_eq!(load_all(&guest.port, 2), b"ls");
    assert_eq!(load(&guest.port, LSR) & 1, 0);
}

#[test]
fn a_driver_that_sends_from_its_interrupt_finds_the_byte_before_gone() {
    struct Observed {
        sent: Screen,
        at_interrupt: Mutex<Vec<String>>,
    }
    impl Wire for Observed {
        fn pulse(&self) {
            self.at_interrupt.lock().unwrap().push(self.sent.text());
        }
    }
    let sent = Screen::default();
    let wire = Arc::new(Observed { sent: sent.clone(), at_interrupt: Mutex::default() });
    let drained = EventFd::new(EFD_NONBLOCK).unwrap();
    let port = SerialPort::new(Box::new(sent), IrqLine::new(wire.clone()), drained);
    port.write(IER, &[2]).unwrap();
    load(&port, IIR);
    send(&port, b"a");
    assert_eq!(*wire.at_interrupt.lock().unwrap(), ["", "a"]);
}

#[test]
fn input_that_does_not_fit_stays_with_the_sender_until_the_guest_has_read() {
    let guest = fixture(io::sink());
    let input: Vec<u8> = (0..100).collect();
    let taken = guest.port.receive(&input);
    assert_eq!(taken, 64);
    assert_eq!(guest.port.receive(&input[taken..]), 0);
    assert_eq!(load_all(&guest.port, 63), input[..63]);
    guest.drained.read().unwrap_err();
    assert_eq!(load_all(&guest.port, 1), input[63..64]);
    guest.drained.read().unwrap();
    assert_eq!(guest.port.receive(&input[taken..]), 36);
    assert_eq!(guest.port.counters().received.load(Ordering::Relaxed), 100);
}

#[test]
fn input_that_fitted_is_read_without_a_ring() {
    let guest = fixture(io::sink());
    assert_eq!(guest.port.receive(b"x"), 1);
    assert_eq!(load_all(&guest.port, 1), b"x");
    guest.drained.read().unwrap_err();
}

#[test]
fn input_waits_while_the_driver_probes_in_loopback() {
    let guest = fixture(io::sink());
    guest.port.write(u64::from(reg::MCR), &[reg::MCR_LOOP]).unwrap();
    assert_eq!(guest.port.receive(b"x"), 0);
    guest.drained.read().unwrap_err();
    guest.port.write(u64::from(reg::MCR), &[0]).unwrap();
    guest.drained.read().unwrap();
    assert_eq!(guest.port.receive(b"x"), 1);
}

#[test]
fn an_output_that_fails_costs_the_bytes_and_no_more() {
    let (reader, writer) = io::pipe().unwrap();
    let guest = fixture(writer);
    drop(reader);
    send(&guest.port, b"gone");
    assert_eq!(guest.port.counters().lost.load(Ordering::Relaxed), 4);
    assert_eq!(guest.port.receive(b"y"), 1);
    assert_eq!(load(&guest.port, LSR) & 0x60, 0x60);
}

#[test]
fn input_arrives_while_the_output_blocks() {
    struct Blocked {
        entered: mpsc::Sender<()>,
        leave: mpsc::Receiver<()>,
    }
    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.entered.send(()).unwrap();
            self.leave.recv().unwrap();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (entered, has_entered) = mpsc::channel();
    let (let_go, leave) = mpsc::channel();
    let guest = fixture(Blocked { entered, leave });
    thread::scope(|scope| {
        scope.spawn(|| send(&guest.port, b"."));
        has_entered.recv().unwrap();
        assert_eq!(guest.port.receive(b"x"), 1);
        let_go.send(()).unwrap();
    });
}

#[test]
fn only_single_bytes_of_the_eight_registers_can_be_accessed() {
    let guest = fixture(io::sink());
    assert_eq!(guest.port.read(0, &mut [0; 4]), Err(Unsuitable { offset: 0, length: 4 }));
    assert_eq!(guest.port.write(8, &[0]), Err(Unsuitable { offset: 8, length: 1 }));
    assert_eq!(guest.port.read(0x100, &mut [0]), Err(Unsuitable { offset: 0x100, length: 1 }));
}

#[test]
fn the_device_tree_calls_it_ns16550a() {
    let node = fixture(io::sink()).port.node();
    assert_eq!(node.name, "serial");
    assert_eq!(
        node.properties,
        [
            ("compatible", Value::Strings(vec!["ns16550a".to_owned()])),
            ("clock-frequency", Value::Cells(vec![1_843_200])),
        ]
    );
}

/// What is saved of a port, which stays at rest.
fn saved(guest: &Fixture) -> Part {
    guest.port.pause(Instant::now()).unwrap();
    guest.port.save().unwrap()
}

/// A port as it was saved, at rest.
fn moved(part: &Part) -> Fixture {
    let moved = fixture(io::sink());
    moved.port.restore(part).unwrap();
    moved
}

#[test]
fn a_port_moves_with_all_its_registers_and_what_was_received() {
    let guest = fixture(io::sink());
    let registers = [(3, 0x83), (0, 1), (1, 2), (3, 3), (4, 8), (7, 0x5a)];
    registers.iter().for_each(|&(at, value)| guest.port.write(at, &[value]).unwrap());
    assert_eq!(guest.port.receive(b"ls\n"), 3);
    let part = saved(&guest);
    let moved = moved(&part);
    assert_eq!(saved(&moved), part);
    moved.port.resume().unwrap();
    assert_eq!(load_all(&moved.port, 3), b"ls\n");
    assert_eq!([3, 4, 7].map(|at| load(&moved.port, at)), [3, 8, 0x5a]);
    moved.port.write(3, &[0x83]).unwrap();
    assert_eq!([0, 1].map(|at| load(&moved.port, at)), [1, 2]);
}

#[test]
fn an_interrupt_that_the_guest_may_not_have_seen_is_raised_after_a_move() {
    let guest = fixture(io::sink());
    guest.port.write(IER, &[1]).unwrap();
    assert_eq!(guest.port.receive(b"x"), 1);
    let moved = moved(&saved(&guest));
    assert!(moved.irq.read().is_err(), "it rests");
    moved.port.resume().unwrap();
    assert_eq!(moved.irq.read().unwrap(), 1);
}

#[test]
fn input_that_comes_during_a_pause_stays_with_the_sender() {
    let guest = fixture(io::sink());
    guest.port.write(IER, &[1]).unwrap();
    let part = saved(&guest);
    assert_eq!(guest.port.receive(b"ls"), 0);
    assert_eq!(guest.port.save().unwrap(), part);
    guest.drained.read().unwrap_err();
    guest.port.resume().unwrap();
    guest.drained.read().unwrap();
    assert_eq!(guest.port.receive(b"ls"), 2);
    assert_eq!(guest.irq.read().unwrap(), 1);
}

#[test]
fn a_port_at_work_is_not_saved() {
    let error = fixture(io::sink()).port.save().unwrap_err();
    expect!["the serial port cannot be saved while it works"].assert_eq(&error.to_string());
}

#[test]
fn registers_that_no_port_has_are_refused() {
    let refused = |change: fn(&mut SerialV1)| {
        let mut state: SerialV1 = saved(&fixture(io::sink())).read().unwrap();
        change(&mut state);
        report(&fixture(io::sink()).port.restore(&Part::of(&state)).unwrap_err())
    };
    expect![[r#"
        error: the serial port cannot be restored
          because: the saved `ns16550a` is not plausible: `received` is 65 bytes long, and the FIFO 64
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refused(|state| state.received.0 = vec![0; 65]));
    expect![[r#"
        error: the serial port cannot be restored
          because: the saved `ns16550a` is not plausible: `interrupt_enable` is 0x10, with bits that are always 0
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refused(|state| state.interrupt_enable = 0x10));
    expect![[r#"
        error: the serial port cannot be restored
          because: the saved `ns16550a` is not plausible: `interrupt_identification` is 0x0, which names no interrupt
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refused(|state| state.interrupt_identification = 0));
    expect![[r#"
        error: the serial port cannot be restored
          because: the saved `ns16550a` is not plausible: `line_status` is 0x61, and with 0 bytes received 0x60
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refused(|state| state.line_status = 0x61));
}

proptest! {
    #[test]
    fn whatever_was_done_to_a_port_moves(
        accesses in prop::collection::vec((0_u64..8, any::<u8>()), 0..32), input: Vec<u8>
    ) {
        let guest = fixture(io::sink());
        let taken = guest.port.receive(&input);
        for (at, value) in accesses {
            guest.port.write(at, &[value]).unwrap();
            load(&guest.port, u64::from(value % 8));
        }
        let part = saved(&guest);
        prop_assert!(taken <= input.len());
        prop_assert_eq!(saved(&moved(&part)), part);
    }
}
