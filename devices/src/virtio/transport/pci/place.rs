//! Where in a function's one range of memory its registers lie, and its capabilities that
//! say so (Virtio 1.2, 4.1.4).

use crate::pci::{ConfigSpace, Header, Identity, Msix, MsixBar};
use crate::virtio::device::DeviceId;

/// The range's size in bytes.
pub(super) const SIZE: u64 = 0x1_0000;

/// From its start. Each part has a page of 4 KiB to itself, or several.
#[rustfmt::skip]
pub(super) mod at {
    pub(in super::super) const COMMON:  u64 = 0x0000;
    pub(in super::super) const ISR:     u64 = 0x1000;
    pub(in super::super) const DEVICE:  u64 = 0x2000;
    pub(in super::super) const NOTIFY:  u64 = 0x4000;
    pub(in super::super) const TABLE:   u64 = 0x8000;
    pub(in super::super) const PENDING: u64 = 0xc000;
}

/// Bytes of the parts.
pub(super) mod size {
    pub(in super::super) const COMMON: u64 = 0x40;
    pub(in super::super) const ISR: u64 = 4;
    pub(in super::super) const DEVICE: u64 = 0x1000;
    pub(in super::super) const NOTIFY: u64 = 0x4000;
}

/// Bytes from one queue's doorbell to the next one's.
pub(super) const DOORBELL: u64 = 4;
/// Vectors that the table has room for.
pub(super) const MOST_VECTORS: u16 = 1024;

/// The capability's number: specific to the vendor.
const CAPABILITY: u8 = 0x09;

/// `cfg_type` (4.1.4).
mod kind {
    pub(super) const COMMON: u8 = 1;
    pub(super) const NOTIFY: u8 = 2;
    pub(super) const ISR: u8 = 3;
    pub(super) const DEVICE: u8 = 4;
    pub(super) const ACCESS: u8 = 5;
}

/// `virtio_pci_cfg_cap`, a window to the memory for who has none (4.1.4.9): from the
/// capability's start.
pub(super) mod window {
    pub(in super::super) const BAR: usize = 4;
    pub(in super::super) const OFFSET: usize = 8;
    pub(in super::super) const LENGTH: usize = 12;
    pub(in super::super) const DATA: usize = 16;
}

/// The vendor of virtio devices, and the first number of those that follow Virtio 1 (4.1.2).
const VENDOR: u16 = 0x1af4;
const FIRST_DEVICE: u16 = 0x1040;
/// From 1 on, no driver takes it for one from before (4.1.2.1).
const REVISION: u8 = 1;
/// The subsystem's number says no more than that (4.1.2.1).
const SUBSYSTEM: u16 = 0x40;

/// Where in the space the capabilities lie that the guest can write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) msix: usize,
    pub(super) window: usize,
}

/// The configuration space of a virtio device.
pub(super) fn space(device: DeviceId, msix: &Msix) -> (ConfigSpace, Places) {
    let number = u16::try_from(device.number()).unwrap_or(0);
    let mut space = ConfigSpace::new(
        &Identity {
            vendor: VENDOR,
            device: FIRST_DEVICE + number,
            revision: REVISION,
            class: class(device),
            header: Header::Endpoint { subsystem_vendor: VENDOR, subsystem: SUBSYSTEM },
        },
        SIZE,
    );
    let bar = MsixBar { table: low(at::TABLE), pending: low(at::PENDING) };
    let msix = msix.add_to(&mut space, bar);
    for (kind, at, size) in [
        (kind::COMMON, at::COMMON, size::COMMON),
        (kind::ISR, at::ISR, size::ISR),
        (kind::DEVICE, at::DEVICE, size::DEVICE),
    ] {
        space.add_capability(CAPABILITY, &body::<14>(kind, at, size), &[]);
    }
    let mut notify = body::<18>(kind::NOTIFY, at::NOTIFY, size::NOTIFY);
    notify[14..].copy_from_slice(&low(DOORBELL).to_le_bytes());
    space.add_capability(CAPABILITY, &notify, &[]);
    // All but what it is: length, kind, identifier and padding.
    let mut writable = [0xff; 18];
    writable[..2].fill(0);
    writable[3..6].fill(0);
    let window = space.add_capability(CAPABILITY, &body::<18>(kind::ACCESS, 0, 0), &writable);
    (space, Places { msix, window })
}

/// `virtio_pci_cap` behind its link, in a capability of N + 2 bytes: what lies in BAR 0.
fn body<const N: usize>(kind: u8, at: u64, size: u64) -> [u8; N] {
    let mut body = [0; N];
    body[0] = u8::try_from(N + 2).unwrap_or(0);
    body[1] = kind;
    body[6..10].copy_from_slice(&low(at).to_le_bytes());
    body[10..14].copy_from_slice(&low(size).to_le_bytes());
    body
}

fn low(word: u64) -> u32 {
    u32::try_from(word).expect("the range has 64 KiB")
}

/// The class codes of PCI (PCI Code and ID Assignment 1.11, 1), for those who list devices.
fn class(device: DeviceId) -> [u8; 3] {
    match device {
        DeviceId::Net => [0x02, 0x00, 0x00],
        DeviceId::Block => [0x01, 0x80, 0x00],
        DeviceId::Vsock => [0x07, 0x80, 0x00],
        // What fits no class.
        _ => [0xff, 0x00, 0x00],
    }
}
