//! Rows 12 to 22: registers of the machine behind files of vCPUs.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use kedge_firmware::{FoundScope, FwReg, Takes, probe, probe_firmware};
use kedge_hv::VcpuFeatures;
use kedge_hv_kvm::Kvm;
use kedge_ids::RegId;

use super::kvm::{errno, machine, uninitialised};
use super::{BITMAPS, PSCI_VERSION, WRITABLE_IDS, is_whole_vm};
use crate::host::{Host, Need};
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite};
use crate::trace::{Event, Trace};

pub(crate) fn tests(suite: &mut Suite) {
    let mut add = |name: &str, needs, test: fn(&Host) -> Outcome| {
        suite.every_host(&format!("rows::{name}"), needs, test);
    };
    add("row_12_vcpus_of_a_machine_have_the_same_features", &[Need::Kernel(6, 5)], |_| {
        same_features()
    });
    add("row_14_a_probe_tells_whose_a_version_is", &[], |_| version());
    add("row_14_a_probe_tells_whose_a_bitmap_is", &[BITMAPS], |_| bitmaps());
    add("row_14_a_probe_tells_whose_an_id_register_is", &[WRITABLE_IDS], |_| id_registers());
    add("row_14_an_affinity_is_each_vcpus_own", &[], |_| affinity());
    add(
        "row_16_what_is_the_machines_is_written_once_for_1_and_32_vcpus",
        &[Need::GicV3],
        written_once,
    );
    add("row_20_the_first_three_bitmaps_are_born_full", &[BITMAPS], |_| born_full());
    add("row_20_the_fourth_bitmap_is_born_empty", &[Need::Kernel(6, 15)], |_| born_empty());
}

fn same_features() -> Outcome {
    let mut machine = uninitialised(2)?;
    machine[0].init(VcpuFeatures::PSCI_0_2)?;
    let errno = errno(&machine[1].init(VcpuFeatures::NONE));
    ensure!(errno == libc::EINVAL, "features of its own: errno {errno}");
    Ok(())
}

/// Whether what is written through the first vCPU is read through the second; the value
/// is changed by `other`.
fn is_shared(id: RegId, other: fn(u64) -> u64) -> anyhow::Result<bool> {
    let machine = machine(2)?;
    let value = other(machine[0].reg64(id)?);
    machine[0].set_reg64(id, value)?;
    Ok(machine[1].reg64(id)? == value)
}

fn version() -> Outcome {
    let found = probe_firmware(&Kvm::open()?)?;
    let psci = found.iter().find(|found| found.id.0 == PSCI_VERSION).context("no PSCI version")?;
    ensure!(psci.scope == FoundScope::WholeVm, "{psci:?}");
    ensure!(is_shared(RegId::PSCI_VERSION, |_| 0x1_0000)?, "KVM has one for each vCPU");
    Ok(())
}

fn bitmaps() -> Outcome {
    let found = probe_firmware(&Kvm::open()?)?;
    let bitmaps = found.iter().filter(|found| found.firmware().is_bitmap());
    for bitmap in bitmaps {
        ensure!(bitmap.scope == FoundScope::WholeVm, "{bitmap:?}");
        ensure!(is_shared(bitmap.id, |value| value ^ 1)?, "KVM has one for each vCPU: {bitmap:?}");
    }
    Ok(())
}

fn id_registers() -> Outcome {
    const ID_AA64ISAR0_EL1: RegId = RegId::system(3, 0, 0, 6, 0);
    let host = probe(&Kvm::open()?)?;
    let plain = host.cpus.first().context("no vCPU was probed")?;
    let isar0 = plain.id_registers.iter().find(|found| found.id == ID_AA64ISAR0_EL1);
    let isar0 = isar0.context("no ID_AA64ISAR0_EL1")?;
    ensure!(isar0.scope == FoundScope::WholeVm, "{isar0:?}");
    ensure!(is_shared(ID_AA64ISAR0_EL1, |value| value & !0xf0)?, "KVM has one for each vCPU");
    Ok(())
}

fn affinity() -> Outcome {
    let shared = is_shared(RegId::MPIDR_EL1, |value| value ^ 0x100)?;
    ensure!(!shared, "the second vCPU has the affinity of the first");
    Ok(())
}

/// How often each register of the whole machine is written.
fn counts(host: &Host, cpus: u32) -> anyhow::Result<(BTreeMap<u64, u32>, Trace)> {
    let null = Kedge::run(host.payload("null")).flags("--memory 64M --guest-abi arm64-v0");
    let trace = Trace::of(null.flags(&format!("--cpus {cpus}")))?;
    let mut counts = BTreeMap::new();
    for id in trace.writes().filter(|id| is_whole_vm(*id)) {
        *counts.entry(id).or_insert(0) += 1;
    }
    Ok((counts, trace))
}

fn written_once(host: &Host) -> Outcome {
    let (of_one, trace) = counts(host, 1)?;
    eprintln!("written for 1 vCPU: {of_one:x?}");
    ensure!(of_one.values().all(|count| *count == 1), "{of_one:x?}\n{trace}");
    let (of_many, trace) = counts(host, 32)?;
    eprintln!("written for 32 vCPUs: {of_many:x?}");
    ensure!(of_many == of_one, "{of_one:x?} for one vCPU, {of_many:x?} for 32:\n{trace}");
    // What this profile has and no kernel from 5.18 on is born with.
    let newest = machine(1)?[0].reg64(RegId::PSCI_VERSION)?;
    let expected = u32::from(newest != 0x1_0000);
    let found = of_one.get(&PSCI_VERSION).copied().unwrap_or(0);
    ensure!(found == expected, "PSCI_VERSION is written {found} times");
    let late = trace.events().iter().skip_while(|event| **event != Event::Run);
    let late = late.filter(|event| matches!(event, Event::Set { id, .. } if is_whole_vm(*id)));
    ensure!(late.count() == 0, "the machine's registers are written after the first run");
    Ok(())
}

fn born(reg: FwReg) -> anyhow::Result<(u64, Takes)> {
    let found = probe_firmware(&Kvm::open()?)?;
    let found = found.into_iter().find(|found| found.id == reg.spec().id);
    let found = found.with_context(|| format!("no {reg}"))?;
    let fresh = machine(1)?[0].reg64(found.id)?;
    let default = found.default.as_u64().context("it has 64 bits")?;
    ensure!(default == fresh, "{reg}: a fresh machine has {fresh:#x}, the probe {default:#x}");
    Ok((default, found.takes))
}

fn born_full() -> Outcome {
    for (reg, full) in [(FwReg::StdBmap, 1), (FwReg::StdHypBmap, 1), (FwReg::VendorHypBmap, 3)] {
        let (default, takes) = born(reg)?;
        ensure!(default == full, "{reg} is born as {default:#x}");
        let Takes::Bits { bits, empty } = &takes else { anyhow::bail!("{reg} takes {takes:?}") };
        ensure!(bits.0 == full && *empty, "{reg} takes {takes:?}");
    }
    Ok(())
}

/// Whoever does not know it writes nothing, and its guest sees nothing.
fn born_empty() -> Outcome {
    let (default, takes) = born(FwReg::VendorHypBmap2)?;
    ensure!(default == 0, "it is born as {default:#x}");
    ensure!(matches!(&takes, Takes::Bits { bits, .. } if bits.0 == 3), "it takes {takes:?}");
    Ok(())
}
