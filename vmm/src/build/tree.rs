//! The machine's device tree: what the guest is told about everything else.

use std::io;
use std::path::Path;

use kedge_arch::fdt::{self, Machine, Timers};
use kedge_arch::{Layout, cache};
use kedge_firmware::Born;
use kedge_guest_memory::{GuestMemory, GuestRange};
use kedge_ids::Ppi;

use super::BuildError;
use super::cpus::Cpus;
use super::devices::Placed;
use crate::spec::MachineSpec;
use crate::surroundings::Surroundings;

/// What the device tree tells of.
pub(super) struct Tree<'a> {
    pub(super) spec: &'a MachineSpec,
    pub(super) layout: &'a Layout,
    pub(super) initrd: Option<GuestRange>,
    pub(super) cpus: &'a Cpus,
    pub(super) born: &'a Born,
}

impl Tree<'_> {
    /// Writes the device tree into guest memory and returns it.
    ///
    /// # Errors
    /// It does not fit, or the host has no entropy for its seeds.
    pub(super) fn write(
        &self,
        placed: &Placed,
        surroundings: &Surroundings,
        memory: &GuestMemory,
    ) -> Result<Vec<u8>, BuildError> {
        let (rng_seed, kaslr_seed) =
            seeds(surroundings).map_err(BuildError::host("give random numbers"))?;
        let Self { spec, layout, initrd, cpus, born } = *self;
        let timers = born.birth.abi.machine.timer_ppis;
        let ppi = |intid, usual| Ppi::try_from(intid).unwrap_or(usual);
        let machine = Machine {
            cpus: cpus.mpidrs.clone(),
            caches: cache::read(Path::new("/sys")),
            memory: layout.ram().to_vec(),
            reserved: vec![layout.own_area()],
            cmdline: spec.boot.cmdline.clone(),
            initrd,
            rng_seed: Some(rng_seed),
            kaslr_seed: Some(kaslr_seed),
            psci: cpus.psci,
            gic: layout.gic(),
            timers: Timers {
                virtual_timer: ppi(timers.virtual_timer, Ppi::VIRTUAL_TIMER),
                physical_timer: ppi(timers.physical_timer, Ppi::PHYSICAL_TIMER),
            },
            pmu: cpus.pmu,
            stdout: Some(layout.serial().range.start),
            devices: placed.nodes.clone(),
            pci: layout.pci(),
        };
        let blob = fdt::build(&machine)?;
        fdt::write(&blob, memory, layout)?;
        Ok(blob)
    }
}

fn seeds(surroundings: &Surroundings) -> io::Result<([u8; 64], u64)> {
    let mut random = [0; 72];
    (surroundings.entropy)(&mut random)?;
    let (rng, kaslr) = random.split_at(64);
    let seeds = rng.try_into().ok().zip(kaslr.try_into().ok());
    let (rng, kaslr) = seeds.expect("72 bytes are 64 and 8");
    Ok((rng, u64::from_le_bytes(kaslr)))
}
