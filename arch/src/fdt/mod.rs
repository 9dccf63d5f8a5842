//! The device tree that a guest boots with (Devicetree Specification 0.4;
//! Linux, Documentation/devicetree/bindings).

mod chosen;
mod cpus;
mod devices;
mod interrupts;
mod memory;
mod pci;

use kedge_bus::Node;
use kedge_diag::Fix;
use kedge_guest_memory::{Bytes as _, GuestAddress, GuestMemory, GuestRange, about_to_fill};
use kedge_hv::GicConfig;
use kedge_ids::{Mpidr, Ppi, Spi, u64_from};
use vm_fdt::{Error, FdtWriter};

use crate::cache::Caches;
use crate::layout::PciLayout;
use crate::{Layout, PsciVersion};

/// A machine, as far as its device tree tells of it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The affinity of each vCPU, the first one first.
    pub cpus: Vec<Mpidr>,
    /// The caches of each vCPU.
    pub caches: Caches,
    /// RAM, in rising order.
    pub memory: Vec<GuestRange>,
    /// What the guest must not touch in it.
    pub reserved: Vec<GuestRange>,
    /// The kernel's command line.
    pub cmdline: String,
    /// The initial RAM disk.
    pub initrd: Option<GuestRange>,
    /// Entropy for the guest's random number generator.
    pub rng_seed: Option<[u8; 64]>,
    /// Entropy for the address the kernel moves itself to.
    pub kaslr_seed: Option<u64>,
    /// The PSCI version the guest is offered.
    pub psci: PsciVersion,
    /// The interrupt controller.
    pub gic: GicConfig,
    /// The interrupts of the timers.
    pub timers: Timers,
    /// The overflow interrupt of the performance monitors, where there are any.
    pub pmu: Option<Ppi>,
    /// The address of the device that the kernel's first messages go to.
    pub stdout: Option<GuestAddress>,
    /// Devices, in the order in which the guest finds them.
    pub devices: Vec<PlacedDevice>,
    /// PCI, where there is any.
    pub pci: Option<PciLayout>,
}

/// The interrupts of the timers that a guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Of the virtual timer.
    pub virtual_timer: Ppi,
    /// Of the physical timer.
    pub physical_timer: Ppi,
}

impl Default for Timers {
    /// Those of Arm's Base System Architecture (DEN0094, 3.8), and of KVM.
    fn default() -> Self {
        Self { virtual_timer: Ppi::VIRTUAL_TIMER, physical_timer: Ppi::PHYSICAL_TIMER }
    }
}

/// A device and its place in the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedDevice {
    /// The first address of its registers.
    pub address: GuestAddress,
    /// The size of its registers in bytes.
    pub size: u64,
    /// The interrupt it raises, edge by edge.
    pub interrupt: Option<Spi>,
    /// What it says of itself.
    pub node: Node,
}

/// Why there is no device tree.
#[derive(Debug, thiserror::Error)]
pub enum FdtError {
    /// The machine cannot be described.
    #[error("the machine's device tree cannot be written")]
    Build {
        /// What is wrong with it.
        source: Error,
    },
    /// The machine has too many parts.
    #[error("the machine's device tree takes {size} bytes, there is room for {most}")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
        /// Bytes there are for it.
        most: u64,
    },
    /// The guest's memory has no room where the device tree belongs.
    #[error("the device tree cannot be written to guest memory at {:#x}", address.0)]
    Write {
        /// Where it belongs.
        address: GuestAddress,
        /// What the memory said.
        source: kedge_guest_memory::GuestMemoryError,
    },
}

impl Fix for FdtError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::TooLarge { .. } => Some("give the machine fewer vCPUs or devices".to_owned()),
            Self::Build { .. } | Self::Write { .. } => None,
        }
    }
}

/// What a fragment of the tree comes to.
type Written = Result<(), Error>;

/// Handles by which nodes refer to others.
mod phandle {
    pub(super) const GIC: u32 = 1;
    pub(super) const CLOCK: u32 = 2;
    pub(super) const ITS: u32 = 3;
    /// The first vCPU's; the others' follow.
    pub(super) const CPUS: u32 = 0x1000;
    /// The first cache's; the others' follow.
    pub(super) const CACHES: u32 = 0x2000;
}

/// The device tree of `machine`, as a blob (Devicetree Specification 0.4, 5). The
/// same machine gives the same bytes.
///
/// # Errors
/// A text in it cannot stand in a device tree.
pub fn build(machine: &Machine) -> Result<Vec<u8>, FdtError> {
    let tree = || {
        let mut fdt = FdtWriter::new()?;
        node(&mut fdt, "", |fdt| root(fdt, machine))?;
        fdt.finish()
    };
    tree().map_err(|source| FdtError::Build { source })
}

/// Puts `fdt` where `layout` has room for it.
///
/// # Errors
/// It is larger than that.
pub fn write(fdt: &[u8], memory: &GuestMemory, layout: &Layout) -> Result<GuestAddress, FdtError> {
    let GuestRange { start: address, size: most } = layout.fdt_area();
    let size = u64_from(fdt.len());
    if size > most {
        return Err(FdtError::TooLarge { size, most });
    }
    about_to_fill(memory, GuestRange { start: address, size });
    memory.write_slice(fdt, address).map_err(|source| FdtError::Write { address, source })?;
    Ok(address)
}

fn root(fdt: &mut FdtWriter, machine: &Machine) -> Written {
    // The name that Linux's documentation gives machines made of nothing but
    // virtual devices; no kernel needs code for it.
    fdt.property_string("compatible", "linux,dummy-virt")?;
    fdt.property_string("model", "kedge")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", phandle::GIC)?;
    // Of all devices: they are programs, and see memory as vCPUs do. Linux takes others for
    // broken where cache lines are longer than it expects.
    fdt.property_null("dma-coherent")?;
    chosen::write(fdt, machine)?;
    memory::write(fdt, machine)?;
    cpus::write(fdt, machine)?;
    cpus::write_psci(fdt, machine.psci)?;
    interrupts::write_gic(fdt, machine)?;
    interrupts::write_timer(fdt, machine)?;
    interrupts::write_pmu(fdt, machine)?;
    devices::write(fdt, machine)?;
    pci::write(fdt, machine)
}

/// A node called `name` with `body` inside.
fn node(fdt: &mut FdtWriter, name: &str, body: impl FnOnce(&mut FdtWriter) -> Written) -> Written {
    let open = fdt.begin_node(name)?;
    body(fdt)?;
    fdt.end_node(open)
}

/// A list of strings.
fn strings(fdt: &mut FdtWriter, name: &str, values: &[&str]) -> Written {
    fdt.property_string_list(name, values.iter().map(|&value| value.to_owned()).collect())
}

/// `reg` in two cells of address and two of size.
fn reg(fdt: &mut FdtWriter, ranges: &[GuestRange]) -> Written {
    let cells: Vec<_> = ranges.iter().flat_map(|range| [range.start.0, range.size]).collect();
    fdt.property_array_u64("reg", &cells)
}
