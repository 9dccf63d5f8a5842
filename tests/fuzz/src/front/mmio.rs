//! A device behind virtio-mmio (Virtio 1.2, 4.2).

use arbitrary::{Result, Unstructured};
use kedge_bus::{Doorbell, IrqLine, MmioDevice, Stateful};
use kedge_devices::virtio::change::Target;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::transport::{MmioTransport, Transport};

use super::{Front, Place, Register};

/// `QueueNumMax` and `QueueNotify` (4.2.2); the others have names in [`offset`].
const QUEUE_NUM_MAX: u64 = 0x34;
const QUEUE_NOTIFY: u64 = 0x50;

fn offset(register: Register) -> u64 {
    match register {
        Register::Status => 0x70,
        Register::DeviceFeaturesSelect => 0x14,
        Register::DeviceFeatures => 0x10,
        Register::DriverFeaturesSelect => 0x24,
        Register::DriverFeatures => 0x20,
        Register::QueueSelect => 0x30,
        Register::QueueSize => 0x38,
        Register::QueueReady => 0x44,
        Register::QueueReset => 0xc0,
        Register::Descriptors => 0x80,
        Register::Available => 0x90,
        Register::Used => 0xa0,
    }
}

/// The device.
pub(crate) struct Mmio {
    /// Absent while one is exchanged for another.
    transport: Option<MmioTransport>,
}

impl Mmio {
    fn transport(&self) -> &MmioTransport {
        self.transport.as_ref().expect("there is one")
    }
}

impl Front for Mmio {
    const CONFIG: u16 = 0x100;

    fn new(device: Box<dyn VirtioDevice>, place: &Place) -> Self {
        let (wire, _) = IrqLine::observed().expect("file descriptors");
        let transport =
            MmioTransport::new(device, place.memory.clone(), wire, place.event_loop.clone());
        Self { transport: Some(transport.expect("file descriptors")) }
    }

    fn reach(&self) {
        let transport = self.transport();
        let bells = transport.doorbells().len();
        drop(format!("{bells} {} {:?}", transport.size(), transport.node()));
    }

    fn load(&self, register: Register) -> u32 {
        let offset = match register {
            Register::QueueSize => QUEUE_NUM_MAX,
            other => offset(other),
        };
        let mut data = [0; 4];
        self.transport().read(offset, &mut data).expect("registers have 32 bits");
        u32::from_le_bytes(data)
    }

    fn store(&self, register: Register, value: u32) {
        let written = self.transport().write(offset(register), &value.to_le_bytes());
        written.expect("registers have 32 bits");
    }

    fn ring(&self, queue: u32) {
        let written = self.transport().write(QUEUE_NOTIFY, &queue.to_le_bytes());
        written.expect("registers have 32 bits");
    }

    fn read(&self, offset: u16, data: &mut [u8]) {
        let _ = self.transport().read(u64::from(offset & 0xfff), data);
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let _ = self.transport().write(u64::from(offset & 0xfff), data);
    }

    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        // What a driver does after an interrupt: it looks, and acknowledges what it saw, or
        // what the hypervisor hears without telling.
        let mut status = [0; 4];
        self.read(0x60, &mut status);
        match from.arbitrary()? {
            true => self.write(0x64, &status),
            false => {
                let acknowledged = |bell: &Doorbell| bell.offset == 0x64;
                let bells = self.transport().doorbells();
                let bell = bells.iter().find(|bell| acknowledged(bell));
                bell.into_iter().for_each(|bell| drop(bell.event.write(1)));
            }
        }
        Ok(())
    }

    fn parts(&self) -> Vec<&dyn Stateful> {
        vec![self.transport()]
    }

    fn target(&self) -> &dyn Target {
        self.transport()
    }

    fn exchange(&mut self, device: impl FnOnce() -> Box<dyn VirtioDevice>, place: &Place) {
        self.shutdown();
        // What it holds of the host's is free for the other.
        self.transport = None;
        *self = Self::new(device(), place);
    }

    fn shutdown(&self) {
        Transport::shutdown(self.transport());
        drop(format!("{:?}", self.transport));
    }
}
