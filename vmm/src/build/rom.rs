//! The machine's read-only memory.

use kedge_arch::Layout;
use kedge_arch::layout::ipa_bits;
use kedge_arch::rom::{Area, load_rom};
use kedge_guest_memory::{GuestAddress, GuestMemory, GuestMemoryRegion, GuestRange, regions};
use kedge_hv::Limits;

use super::{BuildError, open_file};
use crate::spec::RomSpec;

/// Loads all of it, each piece a memory of its own.
///
/// # Errors
/// A file cannot be read, or cannot be where it is asked for.
pub(super) fn load(
    specs: &[RomSpec],
    layout: &Layout,
    limits: &Limits,
) -> Result<Vec<GuestMemory>, BuildError> {
    let mut taken = layout.areas();
    let mut roms = Vec::with_capacity(specs.len());
    for RomSpec { path, address } in specs {
        let refused = |source| BuildError::Rom { path: path.clone(), address: *address, source };
        let file =
            open_file(path).map_err(|source| BuildError::Open { path: path.clone(), source })?;
        let rom =
            load_rom(&file, GuestAddress(*address), &taken, ipa_bits(limits)).map_err(refused)?;
        let name = format!("`{}`", path.display());
        taken.extend(ranges(&rom).map(|range| Area { name: name.clone(), range }));
        roms.push(rom);
    }
    Ok(roms)
}

/// Where `rom` lies.
pub(super) fn ranges(rom: &GuestMemory) -> impl Iterator<Item = GuestRange> {
    regions(rom)
        .into_iter()
        .map(|region| GuestRange { start: region.start_addr(), size: region.len() })
}
