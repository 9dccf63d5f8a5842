//! The guest physical memory map.
//!
//! | from | size | what |
//! |---|---|---|
//! | `0x0800_0000` | 64 KiB | GICv3 or GICv2: distributor |
//! | `0x0801_0000` | 8 KiB | GICv2: CPU interface |
//! | `0x0808_0000` | 128 KiB | GICv3: Interrupt Translation Service |
//! | `0x080a_0000` | 64 MiB | GICv3: redistributors, 128 KiB for each of 512 vCPUs |
//! | `0x1000_0000` | 512 MiB | PCI: window to the functions' registers |
//! | `0x3000_0000` | 16 MiB | PCI: configuration spaces of 16 buses |
//! | `0x4000_0000` | 4 KiB | boot timer |
//! | `0x4000_1000` | 4 KiB | real-time clock, SPI 1 |
//! | `0x4000_2000` | 4 KiB | serial port, SPI 0 |
//! | `0x4000_3000` | 4 KiB each | virtio-mmio transports, SPIs 2 to 93 |
//! | `0x5000_0000` | 1 MiB each | up to 16 devices of the program around the machine, SPIs 93 downwards |
//! | `0x8000_0000` | 128 KiB | RAM: kedge's own, reserved in the device tree |
//! | `0x8000_0000` | 32 KiB | of it, 64 bytes of stolen time for each of 512 vCPUs |
//! | `0x8000_8000` | 4 KiB | of it, the machine's generation, SPI 95 |
//! | `0x8001_0000` | 64 KiB | of it, the machine's clock page, SPI 94 |
//! | `0x8002_0000` | 384 KiB | RAM: the device tree |
//! | `0x8008_0000` | the rest | RAM: where flat binaries load and kernels may |
//!
//! SPIs are counted from the first (INTID 32). All RAM is one run of addresses of
//! at most 1022 GiB, so that 40 bits address every machine; the hypervisor may
//! want it in several memory slots. The window of PCI is below 4 GiB for the bridges that
//! take no other, and there alone: it is large enough for all functions, and lies in the
//! same place on hosts that address less than others. The kernel is as low as it can be, the initrd
//! as high.

mod error;

use kedge_guest_memory::{GuestAddress, GuestRange};
use kedge_hv::{GicConfig, Limits};
use kedge_ids::{Spi, VcpuId};
use serde::Serialize;

pub use self::error::{LayoutError, TooManyDevices};
use crate::GicChoice;
use crate::rom::Area;

/// The first address of RAM.
pub const RAM_BASE: u64 = 0x8000_0000;
/// The most RAM a machine has, in bytes: up to the last address of 40 bits.
pub const RAM_MOST: u64 = (1 << 40) - RAM_BASE;
/// The least RAM a machine has, in bytes: what lies below the kernel and some more.
pub const RAM_LEAST: u64 = 2 << 20;
/// RAM comes in multiples of this many bytes, the largest page an arm64 host has,
/// so that a machine fits hosts of every page size.
pub const RAM_UNIT: u64 = 64 << 10;

#[rustfmt::skip]
mod map {
    pub(super) const GIC_DISTRIBUTOR:    u64 = 0x0800_0000;
    pub(super) const GIC_CPU_INTERFACE:  u64 = 0x0801_0000;
    pub(super) const GIC_ITS:            u64 = 0x0808_0000;
    pub(super) const GIC_REDISTRIBUTORS: u64 = 0x080a_0000;
    pub(super) const PCI_WINDOW:         u64 = 0x1000_0000;
    pub(super) const PCI_WINDOW_SIZE:    u64 = 0x2000_0000;
    pub(super) const PCI_CONFIG:         u64 = 0x3000_0000;
    pub(super) const PCI_CONFIG_SIZE:    u64 = 0x0100_0000;
    pub(super) const BOOT_TIMER:         u64 = 0x4000_0000;
    pub(super) const RTC:                u64 = 0x4000_1000;
    pub(super) const SERIAL:             u64 = 0x4000_2000;
    pub(super) const VIRTIO:             u64 = 0x4000_3000;
    pub(super) const MMIO_SLOT:          u64 = 0x1000;
    pub(super) const OWN_DEVICES:        u64 = 0x5000_0000;
    pub(super) const OWN_DEVICE:         u64 = 0x0010_0000;
    pub(super) const OWN_OFFSET:         u64 = 0;
    pub(super) const OWN_SIZE:           u64 = 0x2_0000;
    pub(super) const PV_TIME_OFFSET:     u64 = 0;
    pub(super) const PV_TIME_RECORD:     u64 = 64;
    pub(super) const GENERATION_OFFSET:  u64 = 0x8000;
    pub(super) const GENERATION_SIZE:    u64 = 0x1000;
    // A page to itself, whatever the guest's page size: its programs may see it.
    pub(super) const CLOCK_OFFSET:       u64 = 0x1_0000;
    pub(super) const CLOCK_SIZE:         u64 = 0x1_0000;
    pub(super) const FDT_OFFSET:         u64 = 0x2_0000;
    pub(super) const FDT_SIZE:           u64 = 0x6_0000;
    pub(super) const LOAD_OFFSET:        u64 = 0x8_0000;
}

#[rustfmt::skip]
mod spi {
    pub(super) const COUNT:      u32 = 96;
    pub(super) const SERIAL:     u32 = 0;
    pub(super) const RTC:        u32 = 1;
    pub(super) const VIRTIO:     u32 = 2;
    pub(super) const CLOCK_PAGE: u32 = 94;
    pub(super) const GENERATION: u32 = 95;
}

/// Virtio devices there are interrupts for.
const VIRTIO_MOST: u32 = spi::CLOCK_PAGE - spi::VIRTIO;

/// Virtio devices there is room for on bus 0 of PCI. Number 0 is where a host bridge shows
/// itself, and the last one is left for bridges.
const PCI_VIRTIO_MOST: u32 = 30;

/// The most devices that a program brings along.
pub const OWN_DEVICES_MOST: u32 = 16;

/// The most bytes of registers that such a device has.
pub const OWN_DEVICE_BYTES: u64 = map::OWN_DEVICE;

/// Bits of a guest physical address that every machine fits into.
const IPA_BITS: u8 = 40;

/// Bits of a guest physical address to create a machine with: the same on every
/// host that has them, so that a machine can move.
#[must_use]
pub fn ipa_bits(limits: &Limits) -> u8 {
    limits.ipa_bits.min(IPA_BITS)
}

/// Where a device lies and the interrupt it raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its registers, or its part of RAM.
    pub range: GuestRange,
    /// Its interrupt.
    pub spi: Spi,
}

/// What a machine's virtio devices are attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Registers in memory, a page for each device, found by the device tree.
    #[default]
    Mmio,
    /// PCI, found by looking.
    Pci,
}

/// Where a machine has PCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciLayout {
    /// The configuration spaces, 1 MiB for each bus.
    pub config: GuestRange,
    /// The addresses that lead to functions.
    pub window: GuestRange,
}

/// A machine's memory map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    memory: u64,
    cpus: u32,
    gic: GicChoice,
    transport: Transport,
    /// Devices of the program around the machine.
    own_devices: u32,
    ram: Vec<GuestRange>,
}

impl Layout {
    /// The map of a machine with `memory` bytes of RAM and `cpus` vCPUs.
    ///
    /// # Errors
    /// The host or kedge cannot give that much of either.
    pub fn new(
        memory: u64,
        cpus: u32,
        gic: GicChoice,
        limits: &Limits,
    ) -> Result<Self, LayoutError> {
        check_memory(memory, limits)?;
        check_cpus(cpus, gic, limits)?;
        let ram = split(memory, limits)?;
        Ok(Self { memory, cpus, gic, transport: Transport::Mmio, own_devices: 0, ram })
    }

    /// The map of the same machine with its virtio devices on `transport`.
    ///
    /// # Errors
    /// Its interrupt controller is not for that.
    pub fn with_transport(self, transport: Transport) -> Result<Self, LayoutError> {
        match (transport, self.gic) {
            (Transport::Mmio, _) | (Transport::Pci, GicChoice::V3 { its: true }) => {
                Ok(Self { transport, ..self })
            }
            (Transport::Pci, gic) => Err(LayoutError::PciWithoutIts { gic }),
        }
    }

    /// The map of the same machine with so many devices of the program around it.
    ///
    /// # Errors
    /// There is no room for as many.
    pub fn with_own_devices(self, count: usize) -> Result<Self, TooManyDevices> {
        match u32::try_from(count) {
            Ok(own_devices) if own_devices <= OWN_DEVICES_MOST => Ok(Self { own_devices, ..self }),
            _ => Err(TooManyDevices::Own),
        }
    }

    /// Where PCI is, where there is any.
    pub const fn pci(&self) -> Option<PciLayout> {
        match self.transport {
            Transport::Mmio => None,
            Transport::Pci => Some(PciLayout {
                config: GuestRange::new(map::PCI_CONFIG, map::PCI_CONFIG_SIZE),
                window: GuestRange::new(map::PCI_WINDOW, map::PCI_WINDOW_SIZE),
            }),
        }
    }

    /// RAM in bytes.
    pub const fn memory(&self) -> u64 {
        self.memory
    }

    /// vCPUs.
    pub const fn cpus(&self) -> u32 {
        self.cpus
    }

    /// RAM, a range for each memory slot, each starting where the one before ends.
    pub fn ram(&self) -> &[GuestRange] {
        &self.ram
    }

    /// The first address behind RAM.
    pub const fn ram_end(&self) -> u64 {
        RAM_BASE + self.memory
    }

    /// What kedge keeps for itself in RAM: to be reserved in the device tree.
    pub const fn own_area(&self) -> GuestRange {
        GuestRange::new(RAM_BASE + map::OWN_OFFSET, map::OWN_SIZE)
    }

    /// Where the hypervisor tells `cpu` of the time stolen from it (Arm DEN0057, 3):
    /// 64 bytes of a region that starts at a multiple of 64 KiB, in
    /// [`Self::own_area`]. The same for every machine, whatever its size: a guest
    /// finds it again wherever it moves to.
    pub fn pv_time(&self, cpu: VcpuId) -> GuestAddress {
        GuestAddress(RAM_BASE + map::PV_TIME_OFFSET + u64::from(cpu.0) * map::PV_TIME_RECORD)
    }

    /// Where the guest finds its generation, in [`Self::own_area`]: the same for
    /// every machine.
    pub fn generation(&self) -> Place {
        let start = RAM_BASE + map::GENERATION_OFFSET;
        place(GuestRange::new(start, map::GENERATION_SIZE), spi::GENERATION)
    }

    /// The clock page, in [`Self::own_area`]: the same for every machine.
    pub fn clock_page(&self) -> Place {
        let start = RAM_BASE + map::CLOCK_OFFSET;
        place(GuestRange::new(start, map::CLOCK_SIZE), spi::CLOCK_PAGE)
    }

    /// Where the device tree goes, and how large it may be.
    pub const fn fdt_area(&self) -> GuestRange {
        GuestRange::new(RAM_BASE + map::FDT_OFFSET, map::FDT_SIZE)
    }

    /// The lowest address a kernel may load at, and where a flat binary does.
    pub const fn load_floor(&self) -> u64 {
        RAM_BASE + map::LOAD_OFFSET
    }

    /// The boot timer, which raises no interrupt.
    pub const fn boot_timer(&self) -> GuestRange {
        mmio_slot(map::BOOT_TIMER)
    }

    /// The real-time clock.
    pub fn rtc(&self) -> Place {
        place(mmio_slot(map::RTC), spi::RTC)
    }

    /// The serial port.
    pub fn serial(&self) -> Place {
        place(mmio_slot(map::SERIAL), spi::SERIAL)
    }

    /// The transport of virtio device `index`, from 0.
    ///
    /// # Errors
    /// There is no interrupt left for it.
    pub fn virtio(&self, index: usize) -> Result<Place, TooManyDevices> {
        let most = VIRTIO_MOST - self.own_devices;
        match u32::try_from(index) {
            Ok(index) if index < most => {
                let address = map::VIRTIO + u64::from(index) * map::MMIO_SLOT;
                Ok(place(mmio_slot(address), spi::VIRTIO + index))
            }
            _ => Err(TooManyDevices::Virtio { most }),
        }
    }

    /// The `size` bytes of registers of the program's device `index`, from 0: the same
    /// wherever the machine moves to, whatever else it has.
    ///
    /// # Errors
    /// The machine was laid out for less of them.
    pub fn own_device(&self, index: usize, size: u64) -> Result<Place, TooManyDevices> {
        match u32::try_from(index) {
            Ok(index) if index < self.own_devices => {
                let start = map::OWN_DEVICES + u64::from(index) * map::OWN_DEVICE;
                let range = GuestRange::new(start, size.min(OWN_DEVICE_BYTES));
                Ok(place(range, spi::CLOCK_PAGE - 1 - index))
            }
            _ => Err(TooManyDevices::Own),
        }
    }

    /// The number on bus 0 of virtio device `index`, from 0.
    ///
    /// # Errors
    /// There is none left for it.
    pub fn pci_virtio(&self, index: usize) -> Result<u8, TooManyDevices> {
        match u8::try_from(index) {
            Ok(index) if u32::from(index) < PCI_VIRTIO_MOST => Ok(index + 1),
            _ => Err(TooManyDevices::Virtio { most: PCI_VIRTIO_MOST }),
        }
    }

    /// Everything the map gives to something, whatever this machine has of it but for PCI,
    /// so that what is free is free on every host.
    pub fn areas(&self) -> Vec<Area> {
        const GIC_END: u64 = map::GIC_REDISTRIBUTORS + 512 * 0x2_0000;
        let mmio_end = map::VIRTIO + u64::from(VIRTIO_MOST) * map::MMIO_SLOT;
        let area = |name: &str, start, end| Area {
            name: name.to_owned(),
            range: GuestRange::new(start, end - start),
        };
        let mut areas = vec![
            area("the interrupt controller", map::GIC_DISTRIBUTOR, GIC_END),
            area("the devices' registers", map::BOOT_TIMER, mmio_end),
            area("the machine's memory", RAM_BASE, self.ram_end()),
        ];
        if self.own_devices > 0 {
            let end = map::OWN_DEVICES + u64::from(self.own_devices) * map::OWN_DEVICE;
            areas.push(area("the program's devices", map::OWN_DEVICES, end));
        }
        areas.extend(self.pci().map(|pci| area("PCI", pci.window.start.0, pci.config.end())));
        areas
    }

    /// The interrupt controller's frames.
    pub fn gic(&self) -> GicConfig {
        let distributor = GuestAddress(map::GIC_DISTRIBUTOR);
        let spis = spi::COUNT;
        match self.gic {
            GicChoice::V2 => GicConfig::V2 {
                distributor,
                cpu_interface: GuestAddress(map::GIC_CPU_INTERFACE),
                spis,
            },
            GicChoice::V3 { its } => GicConfig::V3 {
                distributor,
                redistributors: GuestAddress(map::GIC_REDISTRIBUTORS),
                its: its.then_some(GuestAddress(map::GIC_ITS)),
                spis,
            },
        }
    }
}

const fn mmio_slot(address: u64) -> GuestRange {
    GuestRange::new(address, map::MMIO_SLOT)
}

fn place(range: GuestRange, offset: u32) -> Place {
    let spi = Spi::from_offset(offset).expect("the map's interrupts are within the SPI range");
    Place { range, spi }
}

fn check_memory(asked: u64, limits: &Limits) -> Result<(), LayoutError> {
    let ipa_bits = limits.ipa_bits;
    let most = 1_u64.checked_shl(ipa_bits.into()).unwrap_or(u64::MAX).saturating_sub(RAM_BASE);
    match asked {
        0 => Err(LayoutError::NoMemory),
        _ if asked > RAM_MOST => Err(LayoutError::TooMuchMemory { asked }),
        _ if asked > most => Err(LayoutError::MemoryBeyondHost { asked, ipa_bits, most }),
        _ if asked < RAM_LEAST => Err(LayoutError::TooLittleMemory { asked }),
        _ if !asked.is_multiple_of(RAM_UNIT) => Err(LayoutError::OddMemory { asked }),
        _ => Ok(()),
    }
}

fn check_cpus(asked: u32, gic: GicChoice, limits: &Limits) -> Result<(), LayoutError> {
    match asked {
        0 => Err(LayoutError::NoCpus),
        _ if asked > gic.most_cpus() => Err(LayoutError::TooManyCpusForGic { asked, gic }),
        _ if asked > limits.vcpus => Err(LayoutError::TooManyCpus { asked, most: limits.vcpus }),
        _ => Ok(()),
    }
}

/// RAM in as few ranges as the hypervisor's slots allow.
fn split(memory: u64, limits: &Limits) -> Result<Vec<GuestRange>, LayoutError> {
    let &Limits { slots, slot_bytes, .. } = limits;
    let beyond = LayoutError::MemoryBeyondSlots { asked: memory, slots, slot_bytes };
    // Huge pages on both sides of a boundary, where slots are large enough.
    let unit = [1 << 30, 2 << 20, RAM_UNIT].into_iter().find(|unit| slot_bytes >= *unit);
    let step = unit.map(|unit| slot_bytes / unit * unit).ok_or(beyond)?;
    if memory.div_ceil(step) > u64::from(slots) {
        return Err(beyond);
    }
    let range = |n| {
        let offset = n * step;
        GuestRange::new(RAM_BASE + offset, step.min(memory - offset))
    };
    Ok((0..memory.div_ceil(step)).map(range).collect())
}

#[cfg(test)]
mod tests;
