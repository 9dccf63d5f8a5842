//! A machine as it was saved, built anew: the order is that of KVM (KVM's API has it for
//! each device, `firmware` for registers).
//!
//! First all that can be refused is asked of a machine without memory, files or devices;
//! then the memory is mapped, since tables of interrupts are in it; then registers, the
//! interrupt controller, and only then the devices, whose events may be wired to
//! interrupts once the controller knows them.

use std::collections::BTreeSet;
use std::sync::Arc;

use kedge_arch::gic_state::{Devices, ItsStateV1, Misfit, Tables};
use kedge_arch::psci::PsciVersion;
use kedge_arch::vcpu::init_features;
use kedge_arch::{GicChoice, Layout, features, gic, regs};
use kedge_devices::virtio::device::VirtioDevice;
use kedge_diag::Trouble;
use kedge_firmware::{
    Firmware, FwReg, Lines, Live, Manner, Newborn, Plan, PlanLine, Planned, Rules, Subject,
    Verdict, plan, settle_parts,
};
use kedge_guest_memory::{GuestAddress, GuestMemory};
use kedge_hv::{Gic, GicVersion, Hypervisor, Limits, Vcpu, VcpuFeatures, Vm};
use kedge_ids::{RegId, VcpuId};
use kedge_saved_state::FileError;
use tracing::warn;

use super::birth::vm_config;
use super::cpus::{self, Choice, Cpus};
use super::memory::{self, Backing, Recalled};
use super::{BuildError, Built, Frame, Infant, Parts, devices, map_into, metadata, rom, services};
use crate::own_device::check_names;
use crate::restore::{
    MemorySource, Parts as SavedParts, Restoration, RestoreError, Saved, WantedMemory,
};
use crate::run::event_loop::LoopThreads;
use crate::run::{GuestTime, lost_memory};
use crate::save::describe;
use crate::save::saved::{LayoutV1, PlaceV1, RomV1};
use crate::spec::MachineSpec;
use crate::surroundings::Surroundings;

/// A machine that can be given what was saved: all of its registers are planned.
pub(crate) struct Reborn {
    infant: Infant,
    planned: Planned,
}

/// A machine of which is known what can become of it.
pub(crate) struct Examined {
    limits: Limits,
    vm: Arc<dyn Vm>,
    layout: Layout,
    cpus: Cpus,
    gic: Box<dyn Gic>,
    time: GuestTime,
    planned: Planned,
    /// What no register shows.
    others: Plan,
}

impl Examined {
    /// Whether it cannot be what its guest knows.
    fn is_refused(&self) -> bool {
        self.others.is_refused() || self.planned.plan.is_refused()
    }

    /// All of the plan.
    pub(crate) fn plan(self) -> Plan {
        let mut all = self.others;
        all.lines.extend(self.planned.plan.lines);
        all
    }
}

/// Makes what is needed to plan what becomes of a saved machine here, which `spec`
/// describes: without memory, files or devices. Registers of `allow` may be otherwise; the
/// plan of registers has `lines`.
///
/// # Errors
/// There can be no such machine here. What it cannot be given is no error, but in the plan.
pub(crate) fn examine(
    (spec, saved): (&MachineSpec, &SavedParts),
    (allow, lines): (&BTreeSet<RegId>, Lines),
    hypervisor: &dyn Hypervisor,
    surroundings: &Surroundings,
) -> Result<Examined, RestoreError> {
    let (limits, abilities) = (hypervisor.limits(), hypervisor.abilities());
    let features = saved.registers.features.without(VcpuFeatures::PSCI_0_2);
    features::check(features, &limits)?;
    let abi = saved.born.exact();

    let psci = abi.firmware.get(Firmware::Known(FwReg::PsciVersion)).map(PsciVersion::reported);
    let config = vm_config(&abi, hypervisor, &limits);
    let vm = hypervisor.create_vm_for(&config, init_features(VcpuId(0), features, psci))?;
    let choice = match gic::choose(vm.as_ref(), Some(saved.gic.version())) {
        Ok(GicChoice::V3 { its }) => GicChoice::V3 { its: its && saved.its.is_some() },
        chosen => chosen.map_err(BuildError::from)?,
    };
    let layout = Layout::new(spec.memory, spec.cpus, choice, &limits)
        .and_then(|layout| layout.with_transport(spec.transport))
        .map_err(BuildError::from)?;
    check_names(&surroundings.devices).map_err(BuildError::from)?;
    let layout = layout.with_own_devices(surroundings.devices.len()).map_err(BuildError::from)?;
    check_layout(&saved.layout, &describe::layout(&layout, spec, &surroundings.devices))?;
    let vector_lengths = saved.registers.vector_lengths(0).map(|lengths| lengths.0.clone());
    let vcpus = Choice { features, psci, vector_lengths };
    let cpus = cpus::create(vm.as_ref(), spec.cpus, &vcpus)?;
    let gic = vm.create_gic(&layout.gic())?;
    gic.init()?;

    let time = GuestTime::again(vm.as_ref(), cpus.first(), &abilities, (&saved.clock, &abi))?;
    let vcpus: Vec<&dyn Vcpu> = cpus.all().collect();
    let services = surroundings.services_on_record();
    let (vcpus, services) = (vcpus.as_slice(), services.as_slice());
    let (gic_of, notes) = (Some(gic.as_ref()), surroundings.notes(features));
    let newborn = Newborn { hypervisor, vm: vm.as_ref(), gic: gic_of, vcpus, services, notes };
    let mut all = settle_parts(&newborn, &saved.born).map_err(BuildError::from)?;
    saved.gic.check(&cpus.mpidrs, describe::spis(&layout)).map_err(FileError::from)?;
    all.lines.extend(misfits(saved, gic.as_ref())?);
    all.lines.extend(frequency(saved.clock.counter_hz, abilities.counter_hz));
    let rows = regs::rows();
    let rules = Rules { allow: allow.clone(), lines, ..Rules::new(&rows) };
    let mut live = Live::new(vcpus, abilities).on(hypervisor);
    let planned = plan(&saved.registers, &mut live, &rules)?;
    Ok(Examined { limits, vm, layout, cpus, gic, time, planned, others: all })
}

/// Brings the machine of `restoration` into being.
///
/// # Errors
/// The host cannot give the guest what it was saved with: all of it is named.
pub(crate) fn bear_again(
    restoration: &Restoration<'_>,
    hypervisor: &dyn Hypervisor,
    surroundings: &Surroundings,
) -> Result<Reborn, RestoreError> {
    let machine = (&restoration.spec, &restoration.saved.parts);
    let examine = |lines| examine(machine, (&restoration.allow, lines), hypervisor, surroundings);
    let examined = examine(Lines::Changed)?;
    if examined.is_refused() {
        // Its user is to see all of it.
        drop(examined);
        return Err(RestoreError::Refused(examine(Lines::All)?.plan()));
    }
    let Examined { limits, vm, layout, mut cpus, gic, time, mut planned, others } = examined;
    tell(others, &mut planned.plan);

    let born = &restoration.saved.parts.born;
    let around = surroundings.with_only(&born.services);
    let dispatcher = services::prepare(vm.as_ref(), cpus.first(), &born.birth.abi, &around)
        .map_err(BuildError::from)?;
    cpus.finish(born)?;
    let infant = Infant { limits, vm, layout, cpus, gic, dispatcher, time };
    Ok(Reborn { infant, planned })
}

/// Tells of what a plan adapts.
fn tell(mut all: Plan, registers: &mut Plan) {
    all.lines.append(&mut registers.lines);
    all.adaptations().for_each(|line| warn!("{line}"));
}

/// What the guest would see of another interrupt controller.
fn misfits(saved: &SavedParts, gic: &dyn Gic) -> Result<Vec<PlanLine>, RestoreError> {
    let misfits = saved.gic.misfits(gic)?;
    let line = |misfit: &Misfit| PlanLine {
        subject: Subject::part(misfit.field),
        wanted: format!("{:#x}", misfit.saved),
        offered: format!("{:#x}", misfit.here),
        verdict: refused("the interrupt controller is another"),
    };
    // Its revision is promised at birth, and has its line with the rest of that.
    let promised = |misfit: &&Misfit| misfit.field == "GICD_IIDR.Revision";
    let mut lines: Vec<_> = misfits.iter().filter(|misfit| !promised(misfit)).map(line).collect();
    if saved.its.is_some() && gic.version() != GicVersion::V3 {
        lines.push(PlanLine {
            subject: Subject::part("ITS"),
            wanted: "yes".to_owned(),
            offered: "no".to_owned(),
            verdict: refused("the interrupt controller has no translation service"),
        });
    }
    Ok(lines)
}

/// Guests read how fast their counter ticks, and nothing can change it.
pub(crate) fn frequency(saved: u32, here: u32) -> Option<PlanLine> {
    (saved != 0 && here != 0 && saved != here).then(|| PlanLine {
        subject: Subject::part("CNTFRQ_EL0"),
        wanted: format!("{saved} Hz"),
        offered: format!("{here} Hz"),
        verdict: refused("no host can change how fast its guests' counters tick"),
    })
}

fn refused(why: &str) -> Verdict {
    Verdict::Refuse { why: why.to_owned(), cure: None }
}

/// Whether the guest finds all where it was.
fn check_layout(saved: &LayoutV1, here: &LayoutV1) -> Result<(), RestoreError> {
    let word = |place: Option<&PlaceV1>| {
        place.map_or_else(
            || "nothing more".to_owned(),
            |PlaceV1 { name, address, interrupt }| match interrupt {
                Some(interrupt) => format!("{name} at {address:#x}, interrupt {interrupt}"),
                None => format!("{name} at {address:#x}"),
            },
        )
    };
    let longest = saved.places.len().max(here.places.len());
    let pairs = (0..longest).map(|index| (saved.places.get(index), here.places.get(index)));
    match pairs.into_iter().find(|(saved, here)| saved != here) {
        Some((saved, here)) => Err(RestoreError::Layout { saved: word(saved), here: word(here) }),
        None => Ok(()),
    }
}

/// Builds the rest of the machine around what was reborn, and gives it its state.
///
/// # Errors
/// A resource of the host's is missing or not what the guest knows, or a saved value is
/// not taken.
pub(crate) fn reassemble(
    parts: &Parts<'_>,
    (saved, wanted): (&Saved<'_>, &WantedMemory<'_>),
    reborn: Reborn,
) -> Result<Built, RestoreError> {
    memory::check(wanted, parts.spec)?;
    let Infant { limits, layout, .. } = &reborn.infant;
    let mut opened = devices::open(parts.spec, &parts.surroundings.open)?;
    metadata::attach(parts.spec, parts.surroundings, &mut opened)?;
    devices::hand_counters_out(parts.spec, parts.surroundings, &opened);
    let roms = rom::load(&parts.spec.rom, layout, limits)?;
    check_roms(&saved.parts.machine.rom, parts.spec, &roms)?;
    let about = (parts, saved.id());
    let Recalled { memory, backing, recorder } = memory::recall(wanted, layout.ram(), about)?;
    let its = saved.parts.its.as_ref();
    let translated = its.map_or(Devices::Unknown, |its| translated(its, &wanted.source, layout));
    let around = Around { memory, roms, opened, backing: &backing, translated };
    let revived = revive(parts, saved, reborn, around);
    // What went wrong without the guest's memory went wrong for that.
    backing.check()?;
    let mut built = revived?;
    built.backing = backing.for_life()?;
    built.recorder = recorder;
    Ok(built)
}

/// What a machine is built around.
struct Around<'a> {
    memory: GuestMemory,
    roms: Vec<GuestMemory>,
    opened: Vec<Box<dyn VirtioDevice>>,
    backing: &'a Backing,
    /// The devices whose interrupts the guest has translated.
    translated: Devices,
}

/// Gives a machine its memory, and then all else that was saved of it.
///
/// # Errors
/// The host lacks something, or a saved value is not taken.
fn revive(
    parts: &Parts<'_>,
    saved: &Saved<'_>,
    reborn: Reborn,
    around: Around<'_>,
) -> Result<Built, RestoreError> {
    let Reborn { infant, planned } = reborn;
    let Around { memory, roms, opened, backing, translated } = around;
    let (state, id, saved) = (saved.state, saved.id(), &saved.parts);
    let Infant { vm, layout, cpus, gic, .. } = &infant;
    let next_slot = map_into(vm.as_ref(), &memory, &roms)?;
    if parts.born.pv_time {
        services::place_pv_time(cpus.all(), layout, &parts.born.exact())
            .map_err(BuildError::from)?;
    }

    let vcpus: Vec<&dyn Vcpu> = cpus.all().collect();
    planned.restore(&vcpus, &Manner::default())?;
    saved.gic.restore(gic.as_ref(), &cpus.mpidrs, describe::spis(layout))?;
    if let Some(its) = &saved.its
        && let Tables::Lost(error) = its.restore(gic.as_ref(), translated)?
    {
        warn!(%error, "the guest's tables of interrupts are spoilt: it loses interrupts");
    }

    let loop_threads = LoopThreads::new(parts.spec.io_threads);
    if let Backing::File(lost) = backing {
        let watched = lost_memory::watch(lost, &loop_threads.shared(), parts.events);
        watched.map_err(|error| BuildError::from(Trouble::new(error)))?;
    }
    let site = devices::Site { vm, layout, memory: &memory, next_slot };
    let placed = devices::place(&site, parts, opened, &loop_threads)?;
    placed.devices.restore(state)?;
    let frame = Frame { infant, memory, roms, loop_threads, placed };
    let mut built = frame.into_built(Vec::new(), parts)?;
    built.changes.saved_as(id);
    Ok(built)
}

/// What the memory file says of the devices whose interrupts the guest has translated:
/// none, where their table was never written to.
fn translated(its: &ItsStateV1, memory: &MemorySource<'_>, layout: &Layout) -> Devices {
    let MemorySource::File(image) = memory else { return Devices::Unknown };
    let Some((GuestAddress(table), size)) = its.device_table() else { return Devices::Unknown };
    let base = layout.ram().first().map_or(0, |first| first.start.0);
    // Where it cannot be read, or is in no memory, that is for the hypervisor to say.
    let Some(offset) = table.checked_sub(base) else { return Devices::Unknown };
    match image.is_zero(offset..offset.saturating_add(size)) {
        Ok(true) => Devices::None,
        Ok(false) | Err(_) => Devices::Unknown,
    }
}

/// Whether the guest reads the same where it cannot write.
fn check_roms(
    saved: &[RomV1],
    spec: &MachineSpec,
    roms: &[GuestMemory],
) -> Result<(), RestoreError> {
    for (saved, (spec, rom)) in saved.iter().zip(spec.rom.iter().zip(roms)) {
        if describe::checksum(rom) != saved.checksum {
            return Err(RestoreError::Rom { path: spec.path.clone() });
        }
    }
    Ok(())
}
