//! Message-signalled interrupts: stores that a device makes to a translation service.

/// A message of a device's (Arm IHI 0069, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Msi {
    /// Who sends it: of a PCI function its bus, device and function number.
    pub device: u32,
    /// Where it is stored to: the service's `GITS_TRANSLATER`, for it to mean anything.
    pub address: u64,
    /// What is stored: the number of the device's event.
    pub data: u32,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsiFate {
    /// It is an interrupt now, pending.
    Pending,
    /// The guest has no interrupt for it: it is gone.
    Dropped,
}
