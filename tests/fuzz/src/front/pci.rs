//! A device as a PCI function (Virtio 1.2, 4.1), reached as a guest does: through
//! configuration spaces and a window. Beside it there is a port with a slot, into which an
//! entropy device comes and goes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arbitrary::{Result, Unstructured};
use kedge_bus::{Doorbell, DoorbellPost, MmioDevice, MsiPort, Stateful};
use kedge_devices::pci::{Ecam, Function, FunctionNumber, Root, RootPort, Window};
use kedge_devices::virtio::change::Target;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::rng::Rng;
use kedge_devices::virtio::transport::{PciSite, PciTransport, Transport};
use kedge_guest_memory::GuestRange;

use super::{Front, Place, Register};

/// Where the window is, and where the driver puts the registers.
const WINDOW: GuestRange = GuestRange::new(0x1000_0000, 0x100_0000);
const BAR: u64 = WINDOW.start.0 + 0x4_0000;
/// Where the parts of the registers are that the driver uses.
const NOTIFY: u64 = 0x4000;
const TABLE: u64 = 0x8000;

/// The device's function, and the port's.
const DEVICE: u64 = 3 << 3;
const PORT: u64 = 31 << 3 | 2;
/// The number that the driver gives the bus below the port.
const BUS: u8 = 5;
const BELOW: u64 = (BUS as u64) << 8;

/// Registers of configuration spaces: command, the range's address, a bridge's buses and
/// control, and from where on capabilities are.
const COMMAND: u64 = 0x04;
const BAR0: u64 = 0x10;
const BUSES: u64 = 0x18;
const BRIDGE_CONTROL: u64 = 0x3e;
const CAPABILITIES: u64 = 0x40;
/// Of the port: Slot Control and Slot Status.
const SLOT_CONTROL: u64 = 0x58;
const SLOT_STATUS: u64 = 0x5a;
/// Its capability for messages, and where the driver puts its registers in the window.
const PORT_MSIX: u64 = 0x7c;
const PORT_BAR: u64 = 0x10_0000;
/// What drivers store to Slot Control: a card works, is about to, is off, and is let go.
const SLOT: [u16; 4] = [0x11e1, 0x12e1, 0x15e1, 0x17e1];

/// Field and width of the common configuration (4.1.4.3).
fn field(register: Register) -> (u64, usize) {
    match register {
        Register::Status => (0x14, 1),
        Register::DeviceFeaturesSelect => (0x00, 4),
        Register::DeviceFeatures => (0x04, 4),
        Register::DriverFeaturesSelect => (0x08, 4),
        Register::DriverFeatures => (0x0c, 4),
        Register::QueueSelect => (0x16, 2),
        Register::QueueSize => (0x18, 2),
        Register::QueueReady => (0x1c, 2),
        Register::QueueReset => (0x3a, 2),
        Register::Descriptors => (0x20, 4),
        Register::Available => (0x28, 4),
        Register::Used => (0x30, 4),
    }
}

/// The doorbells that hang, by address. No two hang in one place, and what is taken down
/// has hung there.
#[derive(Default)]
struct Post(Mutex<BTreeSet<u64>>);

impl DoorbellPost for Post {
    fn hang(&self, address: u64, bell: &Doorbell) -> bool {
        self.0.lock().expect("nobody panicked").insert(address + bell.offset)
    }

    fn take_down(&self, address: u64, bell: &Doorbell) {
        let hung = self.0.lock().expect("nobody panicked").remove(&(address + bell.offset));
        assert!(hung, "a doorbell is taken down that does not hang");
    }
}

fn put(device: Box<dyn VirtioDevice>, place: &Place, post: &Arc<Post>) -> Arc<PciTransport> {
    let (messages, _) = MsiPort::observed();
    let site = PciSite {
        memory: &place.memory,
        event_loop: &place.event_loop,
        windows: &[WINDOW],
        post: Arc::<Post>::clone(post),
        messages,
    };
    Arc::new(PciTransport::new(device, site).expect("file descriptors"))
}

/// The device, and its machine as far as PCI goes.
pub(crate) struct Pci {
    place: Place,
    post: Arc<Post>,
    transport: Arc<PciTransport>,
    port: Arc<RootPort>,
    /// What is in the slot.
    card: Option<Arc<PciTransport>>,
    ecam: Ecam,
    window: Window,
}

impl Pci {
    /// A machine with `device` and an empty slot.
    fn machine(device: Box<dyn VirtioDevice>, place: &Place) -> Self {
        let (place, post) = (place.clone(), Arc::default());
        let transport = put(device, &place, &post);
        let (messages, _) = MsiPort::observed();
        let port = Arc::new(RootPort::new(1, &[WINDOW], messages, Box::new(|| {})));
        let number = FunctionNumber::device(3).expect("there are 32");
        let function: Arc<dyn Function> = Arc::<PciTransport>::clone(&transport);
        let of_port = FunctionNumber::device(31).and_then(|number| number.beside(2));
        let of_port = of_port.expect("there are 32 with 8 each");
        let root = Root::new(vec![(number, function)]);
        let root = Arc::new(root.with_ports(vec![(of_port, Arc::clone(&port))]));
        let ecam = Ecam::new(Arc::clone(&root), 0x100_0000);
        let window = Window::new(root, WINDOW.start.0, WINDOW.size);
        Self { place, post, transport, port, card: None, ecam, window }
    }

    fn configure(&self, function: u64, offset: u64, data: &[u8]) {
        let _ = self.ecam.write(function << 12 | offset, data);
    }

    fn look(&self, function: u64, offset: u64, data: &mut [u8]) {
        let _ = self.ecam.read(function << 12 | offset, data);
    }

    fn at(offset: u64) -> u64 {
        BAR - WINDOW.start.0 + offset
    }

    /// Something is done to a configuration space.
    fn space(&self, from: &mut Unstructured<'_>) -> Result<()> {
        let functions = [DEVICE, PORT, BELOW, from.arbitrary::<u8>()?.into()];
        let function = functions[from.int_in_range(0..=3_usize)?];
        let known = [
            COMMAND,
            BAR0,
            BUSES,
            BRIDGE_CONTROL,
            SLOT_CONTROL,
            SLOT_STATUS,
            CAPABILITIES + u64::from(from.arbitrary::<u8>()? & 0x7f),
            u64::from(from.arbitrary::<u16>()? & 0xfff),
        ];
        let offset = known[from.int_in_range(0..=7_usize)?];
        let width = [1, 2, 4, 8][from.int_in_range(0..=3_usize)?];
        let mut data = from.arbitrary::<[u8; 8]>()?;
        match from.arbitrary()? {
            true => self.configure(function, offset, &data[..width]),
            false => self.look(function, offset, &mut data[..width]),
        }
        Ok(())
    }

    /// Sets up the window in the device's space to its registers (4.1.4.9), and uses it.
    fn access(&self, from: &mut Unstructured<'_>) -> Result<()> {
        // It is the last capability: the one that the others lead to.
        let (mut at, mut next) = ([0], [0x34]);
        for _ in 0..16 {
            at = next;
            self.look(DEVICE, u64::from(at[0]) + u64::from(at[0] != 0x34), &mut next);
            if next[0] == 0 {
                break;
            }
        }
        let at = u64::from(at[0]);
        let length = [1, 2, 4, 3][from.int_in_range(0..=3_usize)?];
        let offset = match from.arbitrary()? {
            true => u32::from(from.arbitrary::<u16>()?) / length * length,
            false => from.arbitrary()?,
        };
        self.configure(DEVICE, at + 4, &[u8::from(from.ratio(1, 8)?)]);
        self.configure(DEVICE, at + 8, &offset.to_le_bytes());
        self.configure(DEVICE, at + 12, &length.to_le_bytes());
        let mut data = from.arbitrary::<[u8; 4]>()?;
        match from.arbitrary()? {
            true => self.configure(DEVICE, at + 16, &data),
            false => self.look(DEVICE, at + 16, &mut data),
        }
        Ok(())
    }

    /// Something is done to messages: a vector is set or masked, of the device or the port.
    fn vectors(&self, from: &mut Unstructured<'_>) -> Result<()> {
        let entry = TABLE + 16 * from.int_in_range(0..=5_u64)?;
        let data: [u8; 8] = from.arbitrary()?;
        match from.int_in_range(0..=5)? {
            0 => {
                let _ = self.window.write(Self::at(entry), &data);
            }
            1 => {
                let _ = self.window.write(Self::at(entry + 8), &data[..4]);
            }
            2 => {
                let _ = self.window.write(Self::at(entry + 12), &[data[0] & 1, 0, 0, 0]);
            }
            3 => {
                // Message Control: on, or on and all masked.
                self.configure(DEVICE, CAPABILITIES + 2, &[0, 0x80 | data[0] & 0x40]);
            }
            4 => {
                let mut pending = [0; 8];
                let _ = self.window.read(Self::at(0xc000), &mut pending);
                let _ = self.window.read(Self::at(entry), &mut pending);
            }
            _ => {
                // `queue_msix_vector` and `config_msix_vector`.
                let vector = u16::from(data[0] & 7).to_le_bytes();
                self.store(Register::QueueSelect, (data[1] & 3).into());
                let _ = self.window.write(Self::at(0x1a), &vector);
                let _ = self.window.write(Self::at(0x10), &[data[2] & 7, 0]);
            }
        }
        Ok(())
    }

    /// A card comes, is asked for, or goes.
    fn plug(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        match from.int_in_range(0..=5)? {
            0 if self.port.is_free() && self.card.is_none() => {
                let card = put(Box::new(Rng::new()), &self.place, &self.post);
                self.card = Some(Arc::clone(&card));
                self.port.put_in(card);
            }
            1 => self.port.ask(),
            2 if self.port.has_let_go() => {
                drop(self.port.take_out());
                self.card.take().iter().for_each(|card| Transport::shutdown(&**card));
            }
            3 => self.configure(PORT, SLOT_STATUS, &[0x1f, 0x01]),
            _ => {
                let control = SLOT[from.int_in_range(0..=3_usize)?];
                self.configure(PORT, SLOT_CONTROL, &control.to_le_bytes());
            }
        }
        Ok(())
    }
}

impl Front for Pci {
    const CONFIG: u16 = 0x2000;

    fn new(device: Box<dyn VirtioDevice>, place: &Place) -> Self {
        let machine = Self::machine(device, place);
        let bar = (WINDOW.start.0 + PORT_BAR) as u32;
        machine.configure(PORT, BAR0, &bar.to_le_bytes());
        machine.configure(PORT, BUSES, &[0, BUS, BUS, 0]);
        machine.configure(PORT, COMMAND, &[6, 0]);
        machine.configure(PORT, SLOT_CONTROL, &SLOT[3].to_le_bytes());
        // Its one vector is not masked, and messages are on.
        let _ = machine.window.write(PORT_BAR + 12, &[0; 4]);
        machine.configure(PORT, PORT_MSIX + 2, &[0, 0x80]);
        machine
    }

    fn reach(&self) {
        let [low, high] = [BAR as u32, (BAR >> 32) as u32];
        self.configure(DEVICE, BAR0, &low.to_le_bytes());
        self.configure(DEVICE, BAR0 + 4, &high.to_le_bytes());
        self.configure(DEVICE, COMMAND, &[6, 0]);
        let (nodes, start) = ((self.ecam.node(), self.window.node()), self.port.start());
        let bus = self.port.bus();
        drop(format!("{nodes:?} {:?} {:?} {start:?} {bus:?}", self.ecam, self.window));
    }

    fn load(&self, register: Register) -> u32 {
        let (offset, width) = field(register);
        let mut data = [0; 4];
        // It may be elsewhere by now.
        let _ = self.window.read(Self::at(offset), &mut data[..width]);
        u32::from_le_bytes(data)
    }

    fn store(&self, register: Register, value: u32) {
        let (offset, width) = field(register);
        let _ = self.window.write(Self::at(offset), &value.to_le_bytes()[..width]);
    }

    fn ring(&self, queue: u32) {
        let offset = NOTIFY + 4 * u64::from(queue);
        let _ = self.window.write(Self::at(offset), &[0; 2]);
    }

    fn read(&self, offset: u16, data: &mut [u8]) {
        let _ = self.window.read(Self::at(offset.into()), data);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let _ = self.window.write(Self::at(offset.into()), data);
    }

    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        match from.int_in_range(0..=9)? {
            0..=1 => self.space(from),
            2 => self.access(from),
            3..=5 => self.vectors(from),
            6..=7 => self.plug(from),
            8 => {
                let at = u64::from(from.arbitrary::<u32>()?) % WINDOW.size;
                let mut data = [0; 4];
                let _ = self.window.read(at, &mut data);
                let _ = self.window.write(at, &data);
                // The port's own registers are here.
                let at = PORT_BAR + at % 0x1000;
                let _ = self.window.write(at, &data);
                let _ = self.window.read(at, &mut data);
                Ok(())
            }
            _ => {
                // What leads to it was reset.
                self.transport.reset();
                self.port.reset();
                Ok(())
            }
        }
    }

    fn parts(&self) -> Vec<&dyn Stateful> {
        let card = self.card.iter().map(|card| &**card as &dyn Stateful);
        [&*self.transport as &dyn Stateful, &*self.port].into_iter().chain(card).collect()
    }

    fn target(&self) -> &dyn Target {
        &*self.transport
    }

    fn exchange(&mut self, device: impl FnOnce() -> Box<dyn VirtioDevice>, place: &Place) {
        self.shutdown();
        let card = self.card.take().is_some();
        // What the old one holds of the host's is free for the new one.
        *self = Self::machine(Box::new(Rng::new()), place);
        *self = Self::machine(device(), place);
        if card {
            let card = put(Box::new(Rng::new()), &self.place, &self.post);
            self.card = Some(Arc::clone(&card));
            self.port.begin_with(card);
        }
    }

    fn shutdown(&self) {
        Transport::shutdown(&*self.transport);
        self.card.iter().for_each(|card| Transport::shutdown(&**card));
        drop(format!("{:?} {:?}", self.transport, self.port));
    }
}
