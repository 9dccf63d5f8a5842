//! Rows 23 to 38: what a guest is offered, and who decides.

use anyhow::ensure;
use kedge_firmware::{ARM64_V1, FilterAction, FilterRange, Firmware, FwReg, Hex, IdPromise};
use kedge_hv::MpState;
use kedge_ids::RegId;

use super::kvm::{errno, machine};
use super::{
    BITMAPS, PSCI_VERSION, STD_BMAP, STD_HYP_BMAP, VENDOR_HYP_BMAP, WRITABLE_IDS, is_firmware,
    is_identity, is_whole_vm,
};
use crate::fingerprint::Fingerprint;
use crate::host::{Host, Need};
use crate::kedge::Kedge;
use crate::profile::Profile;
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::trace::{Event, Trace, number};

/// Calls that each of the first three bitmaps opens.
const TRNG_RND64: u32 = 0xc400_0053;
const TRNG_VERSION: u32 = 0x8400_0050;
const PV_TIME_FEATURES: u32 = 0xc500_0020;
const KVM_FEATURES: u32 = 0x8600_0000;

pub(crate) fn tests(suite: &mut Suite) {
    let mut add = |name: &str, needs, test: fn(&Host) -> Outcome| {
        suite.every_kernel(&format!("rows::{name}"), needs, test);
    };
    add("row_25_the_user_decides_which_calls_a_guest_has", &[BITMAPS], decides);
    add("row_25_calls_without_a_bit_are_denied_by_a_filter", &[Need::Kernel(6, 4)], denied);
    add("row_31_a_guest_has_all_calls_unless_told_otherwise", &[BITMAPS], all_calls);
    add("row_34_what_is_written_was_read_and_is_less", &[BITMAPS], read_then_written);
    add("row_35_nothing_is_written_when_nothing_is_asked_for", &[], nothing_written);
    add(
        "row_36_a_service_that_the_host_has_not_is_refused_by_name",
        &[BITMAPS, Need::OlderThan(6, 15)],
        refused_by_name,
    );
    add("row_38_an_id_register_is_what_the_profile_says", &[WRITABLE_IDS], identity);
    add("row_37_what_freezes_is_frozen_by_the_first_run", &[BITMAPS], |_| frozen());
    add("row_37_a_psci_version_is_written_before_the_first_run_only", &[], psci_is_settled);
}

fn null(host: &Host) -> Kedge {
    Kedge::run(host.payload("null")).flags("--memory 16M")
}

fn decides(host: &Host) -> Outcome {
    let profile = Profile::like(ARM64_V1, |abi| {
        for reg in [FwReg::StdBmap, FwReg::StdHypBmap, FwReg::VendorHypBmap] {
            abi.firmware.set(Firmware::Known(reg), 0);
        }
        abi.machine.pv_time = Some(false);
    })?;
    let without = Fingerprint::of(profile.given_to(Fingerprint::guest(host)))?;
    for function in [TRNG_VERSION, TRNG_RND64, PV_TIME_FEATURES, KVM_FEATURES] {
        let answer = without.answer(function)?;
        ensure!(answer == "-1", "{function:#x}, which is off, answers {answer}");
    }
    let with = Fingerprint::take(host, "--guest-abi arm64-v1")?;
    for function in [TRNG_VERSION, KVM_FEATURES] {
        let answer = with.answer(function)?;
        ensure!(!answer.starts_with('-'), "{function:#x}, which is on, answers {answer}");
    }
    Ok(())
}

/// No register has a bit for it.
fn denied(host: &Host) -> Outcome {
    const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    let with = Fingerprint::take(host, "--guest-abi arm64-v1")?;
    let profile = Profile::like(ARM64_V1, |abi| {
        abi.machine.smccc_filter.push(FilterRange {
            base: Hex(MIGRATE_INFO_TYPE.into()),
            count: 1,
            action: FilterAction::Deny,
        });
    })?;
    let without = Fingerprint::of(profile.given_to(Fingerprint::guest(host)))?;
    let expected = [
        "-firmware call 0x84000006 0x0 0x2".to_owned(),
        "+firmware call 0x84000006 0x0 -1".to_owned(),
    ];
    let differences = with.differences(&without);
    ensure!(differences == expected, "{}", differences.join("\n"));
    Ok(())
}

fn all_calls(host: &Host) -> Outcome {
    let fresh = machine(1)?;
    let trace = Trace::of(null(host))?;
    for id in [STD_BMAP, STD_HYP_BMAP, VENDOR_HYP_BMAP] {
        let default = fresh[0].reg64(RegId(id))?;
        let others: Vec<_> =
            trace.written(id).into_iter().filter(|value| *value != default).collect();
        ensure!(others.is_empty(), "{id:#x} is born as {default:#x}, written: {others:x?}");
    }
    let guest = Fingerprint::take(host, "")?;
    let lines = [
        "firmware call 0xc4000053 0x40 succeeds",
        "firmware call 0x84000050 0x0 0x10000",
        "firmware call 0x86000000 0x0 0x3",
        "firmware arch_features 0xc5000020 0x0",
    ];
    ensure_contains(guest.whole(), &lines)
}

/// Never a constant: what is written has no bit that was not read.
fn read_then_written(host: &Host) -> Outcome {
    let profile = Profile::like(ARM64_V1, |abi| {
        abi.firmware.set(Firmware::Known(FwReg::StdBmap), 0);
        abi.firmware.set(Firmware::Known(FwReg::VendorHypBmap), 1);
    })?;
    let trace = Trace::of(profile.given_to(null(host)))?;
    let bitmaps = [(STD_BMAP, vec![0]), (VENDOR_HYP_BMAP, vec![1])];
    for (id, expected) in bitmaps {
        let written = trace.written(id);
        ensure!(written == expected, "{id:#x} is written as {written:x?}:\n{trace}");
    }
    for (place, event) in trace.events().iter().enumerate() {
        let Event::Set { id, value, .. } = event else { continue };
        if !is_firmware(*id) {
            continue;
        }
        let before = trace.events().iter().take(place).rev();
        let read = before.filter_map(|event| match event {
            Event::Get { id: of, value: Ok(value), .. } if of == id => Some(number(value)),
            _ => None,
        });
        let read: Vec<_> = read.collect();
        ensure!(!read.is_empty(), "{id:#x} is written unread:\n{trace}");
        let is_bitmap = id >> 16 & 0xfff == 0x16;
        let known = read.iter().fold(0, |bits, value| bits | value);
        ensure!(!is_bitmap || number(value) & !known == 0, "{id:#x} gains a bit:\n{trace}");
    }
    Ok(())
}

fn nothing_written(host: &Host) -> Outcome {
    let trace = Trace::of(null(host).flags("--guest-abi host"))?;
    ensure!(trace.writes().count() > 0, "nothing is seen of vCPUs that start");
    let ours: Vec<_> = trace.writes().filter(|id| is_firmware(*id) || is_identity(*id)).collect();
    ensure!(ours.is_empty(), "{ours:#x?} are written:\n{trace}");
    Ok(())
}

fn refused_by_name(host: &Host) -> Outcome {
    let profile = Profile::offering(FwReg::VendorHypBmap2, 0x3)?;
    let ended = profile.given_to(null(host)).finish()?.with_status(1)?;
    ensure!(ended.stdout.is_empty(), "the guest ran:\n{}", ended.stdout);
    ensure_contains(&ended.stderr, &["vendor_hyp_bmap_2", "impl-version", "impl-cpus"])
}

/// A run of no instruction is a run.
fn frozen() -> Outcome {
    let mut machine = machine(2)?;
    machine[1].set_mp_state(MpState::Stopped)?;
    machine[0].complete_access()?;
    for id in [STD_BMAP, STD_HYP_BMAP, VENDOR_HYP_BMAP] {
        let value = machine[1].reg64(RegId(id))?;
        let errno = errno(&machine[1].set_reg64(RegId(id), value ^ 1));
        ensure!(errno == libc::EBUSY, "{id:#x} after the first run: errno {errno}");
        machine[1].set_reg64(RegId(id), value)?;
    }
    // The kernel lets it change under a running guest: nobody but us keeps it.
    Ok(machine[0].set_reg64(RegId(PSCI_VERSION), 0x2)?)
}

/// Neoverse N1 and all that QEMU emulates have it.
fn identity(host: &Host) -> Outcome {
    const ID_AA64ISAR0_EL1: RegId = RegId::system(3, 0, 0, 6, 0);
    /// `Atomic`, `CRC32`.
    const FIELDS: u64 = 0xff_0000;
    let born = Fingerprint::take(host, "--guest-abi arm64-v1")?;
    let full = born.id("ID_AA64ISAR0_EL1")?;
    ensure!(full & FIELDS != 0, "the host has neither: {full:#x}");
    let profile = Profile::like(ARM64_V1, |abi| {
        abi.cpu.id_registers.push(IdPromise {
            id: ID_AA64ISAR0_EL1,
            name: "ID_AA64ISAR0_EL1".to_owned(),
            value: Hex(0),
            mask: Hex(FIELDS),
        });
    })?;
    let less = Fingerprint::of(profile.given_to(Fingerprint::guest(host)))?;
    let found = less.id("ID_AA64ISAR0_EL1")?;
    ensure!(found == full & !FIELDS, "{full:#x} became {found:#x}");
    ensure!(born.part("firmware") == less.part("firmware"), "{:?}", born.differences(&less));
    Ok(())
}

fn psci_is_settled(host: &Host) -> Outcome {
    let trace = Trace::of(null(host).flags("--cpus 2 --guest-abi arm64-v0"))?;
    ensure!(trace.events().contains(&Event::Run), "no vCPU ran");
    let early = trace.before_the_first_run().len();
    let late = trace.events().iter().skip(early);
    let late = late.filter(|event| matches!(event, Event::Set { id, .. } if is_whole_vm(*id)));
    ensure!(late.count() == 0, "written after the first run:\n{trace}");
    let memory = trace.events().iter().position(|event| matches!(event, Event::Memory { .. }));
    let last = trace
        .events()
        .iter()
        .rposition(|event| matches!(event, Event::Set { id, .. } if is_firmware(*id)));
    ensure!(last < memory, "firmware is settled after memory is mapped:\n{trace}");
    Ok(())
}
