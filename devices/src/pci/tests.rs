//! A root port as a guest's driver sees it, and cards that come and go behind it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use expect_test::expect;
use kedge_bus::{Message, MmioDevice, MsiPort, Stateful, Unsuitable};
use kedge_diag::report;
use kedge_guest_memory::GuestRange;
use kedge_saved_state::Part;

use super::saved::PortV1;
use super::{Ecam, Function, FunctionNumber, Root, RootPort, Window};

const WINDOW: GuestRange = GuestRange::new(0x1000_0000, 0x100_0000);
/// Where the card's registers are, and the port's.
const CARD: u64 = 0x1020_0000;
const PORT: u64 = 0x1010_0000;
/// The number that the driver gives the bus below.
const BUS: u8 = 5;
/// The capability is the first one.
const EXPRESS: u64 = 0x40;
const LINK_STATUS: u64 = EXPRESS + 0x12;
const CONTROL: u64 = EXPRESS + 0x18;
const STATUS: u64 = EXPRESS + 0x1a;
/// Slot Control as Linux's driver has it: interrupts for the button and the link.
const LISTENS: u16 = 1 << 12 | 1 << 5 | 1;
const ON: u16 = LISTENS | 0b01 << 8 | 0b11 << 6;
const BLINKS: u16 = LISTENS | 0b10 << 8 | 0b11 << 6;
const OFF: u16 = LISTENS | 0b01 << 8 | 0b11 << 6 | 1 << 10;
const DARK: u16 = LISTENS | 0b11 << 8 | 0b11 << 6 | 1 << 10;
const BUTTON: u16 = 1;
const PRESENCE: u16 = 1 << 3;
const PRESENT: u16 = 1 << 6;
const LINK: u16 = 1 << 8;

/// A card of one word of registers, which counts its resets.
#[derive(Default)]
struct Card(AtomicUsize);

impl Function for Card {
    fn read_config(&self, _: u16, data: &mut [u8]) {
        data.fill(0xca);
    }
    fn write_config(&self, _: u16, _: &[u8]) {}
    fn start(&self) -> Option<u64> {
        Some(CARD)
    }
    fn size(&self) -> u64 {
        4
    }
    fn reset(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
    fn read(&self, _: u64, data: &mut [u8]) -> Result<(), Unsuitable> {
        data.fill(0xcb);
        Ok(())
    }
    fn write(&self, _: u64, _: &[u8]) -> Result<(), Unsuitable> {
        Ok(())
    }
}

struct Machine {
    port: Arc<RootPort>,
    ecam: Ecam,
    window: Window,
    sent: Arc<Mutex<Vec<Message>>>,
    let_go: Arc<AtomicUsize>,
}

impl Machine {
    fn new() -> Self {
        let (messages, sent) = MsiPort::observed();
        let let_go = Arc::<AtomicUsize>::default();
        let heard = Arc::clone(&let_go);
        let hear = Box::new(move || {
            heard.fetch_add(1, Ordering::SeqCst);
        });
        let port = Arc::new(RootPort::new(3, &[WINDOW], messages, hear));
        let number = FunctionNumber::device(31).unwrap().beside(2).unwrap();
        let root = Root::default().with_ports(vec![(number, Arc::clone(&port))]);
        let root = Arc::new(root);
        let ecam = Ecam::new(Arc::clone(&root), 0x100_0000);
        let window = Window::new(root, WINDOW.start.0, WINDOW.size);
        Self { port, ecam, window, sent, let_go }
    }

    /// The same, with a driver that has set the port up.
    fn driven() -> Self {
        let machine = Self::new();
        machine.store(0x10, &PORT.to_le_bytes());
        machine.store(0x18, &[0, BUS, BUS, 0]);
        machine.store(0x04, &6_u16.to_le_bytes());
        let entry = [0x809_0040_u32, 0, 0x77, 0].map(u32::to_le_bytes).concat();
        for (at, word) in (0..).step_by(4).zip(entry.chunks(4)) {
            machine.window.write(PORT - WINDOW.start.0 + at, word).unwrap();
        }
        let msix = u64::from(machine.load::<1>(EXPRESS + 1)[0]);
        machine.store(msix + 2, &0x8000_u16.to_le_bytes());
        machine.store(CONTROL, &DARK.to_le_bytes());
        machine
    }

    /// The same, with a card that the driver has switched on.
    fn working() -> (Self, Arc<Card>) {
        let (machine, card) = (Self::driven(), Arc::new(Card::default()));
        machine.port.put_in(Arc::<Card>::clone(&card));
        machine.store(CONTROL, &BLINKS.to_le_bytes());
        machine.store(CONTROL, &ON.to_le_bytes());
        machine.acknowledges();
        machine.messages();
        (machine, card)
    }

    fn store(&self, offset: u64, data: &[u8]) {
        let space = (31 << 3 | 2) * 0x1000;
        for (at, word) in (offset..).step_by(4).zip(data.chunks(4)) {
            self.ecam.write(space + at, word).unwrap();
        }
    }

    fn load<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.ecam.read((31 << 3 | 2) * 0x1000 + offset, &mut data).unwrap();
        data
    }

    fn half(&self, offset: u64) -> u16 {
        u16::from_le_bytes(self.load(offset))
    }

    /// Clears all events, as a driver does, and says which there were.
    fn acknowledges(&self) -> u16 {
        let status = self.half(STATUS);
        self.store(STATUS, &status.to_le_bytes());
        status
    }

    fn messages(&self) -> usize {
        self.sent.lock().unwrap().drain(..).filter(|message| message.data == 0x77).count()
    }

    /// What the guest reads of the configuration space and of the registers of the card.
    fn looks(&self) -> (u8, Option<u8>) {
        let (mut space, mut register) = ([0; 4], [0; 4]);
        self.ecam.read(u64::from(BUS) << 20, &mut space).unwrap();
        let read = self.window.read(CARD - WINDOW.start.0, &mut register);
        (space[0], read.ok().map(|()| register[0]))
    }

    fn let_go(&self) -> usize {
        self.let_go.load(Ordering::SeqCst)
    }
}

#[test]
fn a_port_is_a_bridge_with_a_slot_that_is_empty_and_dark() {
    let machine = Machine::new();
    assert_eq!(machine.load::<4>(0), [0x36, 0x1b, 0x0c, 0x00]);
    assert_eq!((machine.load::<1>(0x0e), machine.load::<4>(0x08)), ([0x81], [0, 0, 4, 6]));
    // Windows for I/O ports and prefetchable memory cannot be set.
    machine.store(0x1c, &[0xff; 2]);
    machine.store(0x24, &[0xff; 4]);
    assert_eq!((machine.load::<2>(0x1c), machine.load::<4>(0x24)), ([0; 2], [0; 4]));
    assert_eq!(machine.half(EXPRESS + 2), 0x142);
    assert_eq!(u32::from_le_bytes(machine.load(EXPRESS + 0x14)) >> 19, 3);
    assert_eq!(machine.half(STATUS), 0);
    assert_eq!(machine.half(LINK_STATUS) & 1 << 13, 0);
    assert!(machine.port.is_free());
}

#[test]
fn a_guest_notices_a_card_and_finds_it_once_it_has_power() {
    let (machine, card) = (Machine::driven(), Arc::new(Card::default()));
    assert_eq!(machine.looks(), (0xff, None));
    machine.port.put_in(Arc::<Card>::clone(&card));
    assert_eq!(machine.messages(), 1);
    assert!(!machine.port.is_free());
    assert_eq!(machine.looks(), (0xff, None), "it has no power yet");
    assert_eq!(machine.acknowledges(), PRESENT | PRESENCE | BUTTON);
    assert_eq!(machine.half(STATUS), PRESENT);
    machine.store(CONTROL, &BLINKS.to_le_bytes());
    assert_eq!(machine.messages(), 1, "the link came up");
    assert_eq!(machine.half(LINK_STATUS), 0x2011);
    assert_eq!(machine.looks(), (0xca, Some(0xcb)));
}

#[test]
fn a_card_goes_once_the_guest_has_let_go_of_it() {
    let (machine, card) = Machine::working();
    machine.port.ask();
    assert_eq!(machine.messages(), 1);
    assert_eq!(machine.acknowledges(), PRESENT | BUTTON);
    machine.store(CONTROL, &OFF.to_le_bytes());
    assert_eq!(machine.looks(), (0xff, None));
    assert_eq!(card.0.load(Ordering::SeqCst), 1, "what it was at is over");
    assert_eq!((machine.let_go(), machine.port.has_let_go()), (0, false));
    machine.store(CONTROL, &DARK.to_le_bytes());
    assert_eq!((machine.let_go(), machine.port.has_let_go()), (1, true));
    assert!(machine.port.take_out().is_some());
    assert!(machine.port.is_free());
    assert_eq!(machine.acknowledges() & PRESENT, 0);
    assert_eq!(Arc::strong_count(&card), 1);
}

#[test]
fn a_guest_that_is_at_a_cards_coming_is_asked_when_it_is_done() {
    let (machine, card) = (Machine::driven(), Arc::new(Card::default()));
    machine.port.put_in(card);
    machine.store(CONTROL, &BLINKS.to_le_bytes());
    machine.acknowledges();
    machine.messages();
    machine.port.ask();
    assert_eq!((machine.messages(), machine.half(STATUS) & BUTTON), (0, 0));
    machine.store(CONTROL, &ON.to_le_bytes());
    assert_eq!((machine.messages(), machine.half(STATUS) & BUTTON), (1, BUTTON));
}

#[test]
fn a_card_that_is_torn_out_leaves_nothing_behind() {
    let (machine, card) = Machine::working();
    assert!(machine.port.take_out().is_some());
    assert_eq!(machine.looks(), (0xff, None));
    assert_eq!(machine.messages(), 1);
    assert_eq!(machine.acknowledges() & (PRESENT | PRESENCE | LINK), PRESENCE | LINK);
    assert_eq!(card.0.load(Ordering::SeqCst), 1);
    assert!(machine.port.take_out().is_none());
}

#[test]
fn a_second_event_interrupts_once_the_first_is_acknowledged() {
    let (machine, _card) = Machine::working();
    machine.port.ask();
    machine.port.ask();
    assert_eq!(machine.messages(), 1);
    machine.acknowledges();
    machine.port.ask();
    assert_eq!(machine.messages(), 1);
}

#[test]
fn a_reset_of_the_bus_below_resets_the_card() {
    let (machine, card) = Machine::working();
    machine.store(0x3e, &0x40_u16.to_le_bytes());
    machine.store(0x3e, &0_u16.to_le_bytes());
    assert_eq!(card.0.load(Ordering::SeqCst), 1);
    assert_eq!(machine.looks(), (0xca, Some(0xcb)));
}

#[test]
fn a_port_that_was_saved_goes_on() {
    let (machine, card) = Machine::working();
    machine.port.ask();
    let saved = machine.port.save().unwrap();
    let moved = Machine::new();
    moved.port.begin_with(card);
    moved.port.restore(&saved).unwrap();
    assert_eq!(moved.port.save().unwrap(), saved);
    assert_eq!(moved.looks(), (0xca, Some(0xcb)));
    assert_eq!(moved.acknowledges(), PRESENT | BUTTON);
    moved.store(CONTROL, &OFF.to_le_bytes());
    moved.store(CONTROL, &DARK.to_le_bytes());
    assert_eq!(moved.let_go(), 1);
    assert_eq!(moved.messages(), 1, "the link went down");
}

#[test]
fn a_port_is_not_what_another_was() {
    let refused = |change: fn(&mut PortV1)| {
        let mut saved: PortV1 = Machine::working().0.port.save().unwrap().read().unwrap();
        change(&mut saved);
        let machine = Machine::new();
        machine.port.begin_with(Arc::new(Card::default()));
        report(&machine.port.restore(&Part::of(&saved)).unwrap_err())
    };
    expect![[r#"
        error: PCI slot 3 cannot be restored
          because: the saved `pci-port` is not plausible: `config` is not this port's at 0x5a
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refused(|saved| saved.config.0[0x5a] ^= 1 << 6));
    expect![[r#"
        error: PCI slot 3 cannot be restored
          because: the saved `pci-port` is not plausible: `config` is not this port's at 0x8
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refused(|saved| saved.config.0.truncate(8)));
    expect![[r#"
        error: PCI slot 3 cannot be restored
          because: the saved `pci-port` is not plausible: `vectors` are 0, and a port has one
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refused(|saved| saved.vectors.clear()));
}

proptest::proptest! {
    #[test]
    fn whatever_is_stored_a_port_stays_one(
        stores in proptest::collection::vec((0_u64..64, proptest::prelude::any::<u32>()), 0..64),
        cards in proptest::collection::vec(proptest::prelude::any::<bool>(), 64),
    ) {
        let machine = Machine::driven();
        let identity = machine.load::<4>(0);
        for ((word, value), comes) in stores.into_iter().zip(cards) {
            machine.store(word * 4, &value.to_le_bytes());
            if comes && machine.port.is_free() {
                machine.port.put_in(Arc::new(Card::default()));
            } else if machine.port.has_let_go() {
                machine.port.take_out();
            } else {
                machine.port.ask();
            }
            machine.looks();
        }
        assert_eq!(machine.load::<4>(0), identity);
        let saved = machine.port.save().unwrap();
        let moved = Machine::new();
        if machine.half(STATUS) & PRESENT != 0 {
            moved.port.begin_with(Arc::new(Card::default()));
        }
        moved.port.restore(&saved).unwrap();
        assert_eq!(moved.port.save().unwrap(), saved);
    }
}
