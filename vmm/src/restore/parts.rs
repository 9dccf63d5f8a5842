//! The parts of a saved machine, read and checked on their own.

use kedge_arch::gic_state::{GicState, GicV2StateV1, GicV3StateV1, ItsStateV1};
use kedge_firmware::{Born, RegisterState};
use kedge_saved_state::{Entry, FileError, Header, Part, StateError, StateFile, Versioned};

use super::RestoreError;
use crate::build::{CLOCK_PAGE, GENERATION, RTC, SERIAL, card_name, port_name, virtio_name};
use crate::own_device::is_saved_name;
use crate::save::describe::{ARCHITECTURE, page_size};
use crate::save::saved::{self, BornV1, ClockV1, LayoutV1, MachineV1, RegistersV1, RegistersV2};

/// What a snapshot holds of a machine beside its devices and its memory.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) machine: MachineV1,
    pub(crate) born: Born,
    pub(crate) registers: RegisterState,
    pub(crate) clock: ClockV1,
    pub(crate) layout: LayoutV1,
    pub(crate) gic: GicState,
    pub(crate) its: Option<ItsStateV1>,
}

impl Parts {
    /// Reads the parts of `state`, and looks whether this host and this release are for
    /// it.
    ///
    /// # Errors
    /// A part is missing, unknown or damaged, or the machine is another host's kind.
    pub(super) fn read(state: &StateFile) -> Result<Self, RestoreError> {
        check_host(state.header())?;
        let machine: MachineV1 = state.read_part()?;
        check_sections(state.header(), &machine)?;
        let BornV1 { gic, gicd_revision, system_suspend, pv_time, services } = state.read_part()?;
        let registers = saved::registers(state)?;
        let born = Born {
            birth: registers.birth.clone(),
            gic,
            gicd_revision,
            system_suspend,
            pv_time,
            services,
            warnings: Vec::new(),
        };
        let (clock, layout) = (state.read_part()?, state.read_part()?);
        let (gic, its) = controller(state)?;
        let vcpus = registers.vcpus.len();
        if u32::try_from(vcpus) != Ok(machine.cpus) {
            let problem = format!("is {}, and {vcpus} vCPUs were saved", machine.cpus);
            return Err(field("cpus", problem));
        }
        Ok(Self { machine, born, registers, clock, layout, gic, its })
    }
}

/// The interrupt controller, and its translation service if it has one.
fn controller(state: &StateFile) -> Result<(GicState, Option<ItsStateV1>), FileError> {
    let kinds = [GicV3StateV1::KIND, GicV2StateV1::KIND];
    let gic = kinds.into_iter().find_map(|kind| state.find(kind, ""));
    let missing = || FileError::Missing { kind: GicV3StateV1::KIND, instance: String::new() };
    let gic = GicState::from_part(gic.ok_or_else(missing)?)?;
    let its = state.find(ItsStateV1::KIND, "").map(Part::read).transpose()?;
    Ok((gic, its))
}

/// What is wrong with a field of the machine's description.
pub(super) fn field(name: &str, problem: impl Into<String>) -> RestoreError {
    FileError::from(StateError::field::<MachineV1>(name, problem)).into()
}

fn check_host(header: &Header) -> Result<(), RestoreError> {
    let about = &header.about;
    if about.architecture != ARCHITECTURE {
        return Err(RestoreError::Architecture { found: about.architecture.clone() });
    }
    if about.page_size != page_size() {
        return Err(RestoreError::PageSize { saved: about.page_size, here: page_size() });
    }
    Ok(())
}

/// Refuses what this release would leave out of the machine.
fn check_sections(header: &Header, machine: &MachineV1) -> Result<(), FileError> {
    /// What the memory file holds; its reader knows the version.
    const MEMORY_MAP: &str = "memory-map";
    let known = [
        (MachineV1::KIND, MachineV1::VERSION),
        (BornV1::KIND, BornV1::VERSION),
        (RegistersV1::KIND, RegistersV1::VERSION),
        (RegistersV2::KIND, RegistersV2::VERSION),
        (ClockV1::KIND, ClockV1::VERSION),
        (LayoutV1::KIND, LayoutV1::VERSION),
        (GicV2StateV1::KIND, GicV2StateV1::VERSION),
        (GicV3StateV1::KIND, GicV3StateV1::VERSION),
        (ItsStateV1::KIND, ItsStateV1::VERSION),
    ];
    let mut names = [SERIAL, RTC, CLOCK_PAGE, GENERATION].map(str::to_owned).to_vec();
    let built_in = machine.devices.len().saturating_sub(machine.plugged.len());
    names.extend((0..built_in).map(virtio_name));
    names.extend((1..=machine.pci_slots).map(port_name));
    names.extend(machine.plugged.iter().copied().map(card_name));
    header.check_sections(|entry: &Entry| match entry.instance.as_str() {
        "" if entry.kind == MEMORY_MAP => true,
        "" => known.contains(&(entry.kind.as_str(), entry.version)),
        // Of which kind and version, the device knows.
        // Which of them there are, the layout says.
        instance if is_saved_name(instance) => true,
        instance => names.iter().any(|name| name == instance),
    })
}
