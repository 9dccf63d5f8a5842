//! Rows 1 to 11: registers that a VMM has to know, or not.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use kedge_firmware::{ARM64_V1, Hex, IdPromise};
use kedge_ids::RegId;

use super::kvm::{errno, machine};
use super::{PSCI_VERSION, WRITABLE_IDS};
use crate::fingerprint::Fingerprint;
use crate::host::Host;
use crate::kedge::Kedge;
use crate::profile::Profile;
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::trace::Trace;

/// A bank of 256 bitmaps, of which a kernel has the first few.
const BITMAP_BANK: u64 = 0x6030_0000_0016_0000;

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("rows::row_04_no_register_outside_the_list_is_touched", &[], unlisted);
    suite.every_kernel(
        "rows::row_07_zero_in_an_id_register_means_not_there",
        &[WRITABLE_IDS],
        zero_means_not_there,
    );
    suite.every_host("rows::row_08_a_psci_version_is_never_emptied", &[], never_emptied);
    suite.every_host(
        "rows::row_09_every_listed_register_is_read_and_takes_its_value_back",
        &[],
        |_| takes_its_value_back(),
    );
}

fn null(host: &Host) -> Kedge {
    Kedge::run(host.payload("null")).flags("--memory 16M")
}

/// What a plain vCPU lists.
fn list() -> anyhow::Result<BTreeSet<u64>> {
    Ok(machine(1)?[0].reg_list()?.into_iter().map(|id| id.0).collect())
}

fn unlisted(host: &Host) -> Outcome {
    let listed = list()?;
    let machine = machine(1)?;
    let unlisted = (BITMAP_BANK..=BITMAP_BANK + 0xff).filter(|id| !listed.contains(id));
    for id in unlisted {
        let errno = errno(&machine[0].reg64(RegId(id)));
        ensure!(errno == libc::ENOENT, "{id:#x} is not listed, errno {errno}");
    }
    for flags in ["", "--guest-abi arm64-v0", "--guest-abi host"] {
        let trace = Trace::of(null(host).flags(flags))?;
        let strays: Vec<_> = trace.touched().filter(|id| !listed.contains(id)).collect();
        ensure!(strays.is_empty(), "{flags}: {strays:#x?} are touched and not listed");
    }
    Ok(())
}

/// Limited ordering regions: an ID register's field that KVM enforces, of a feature that
/// processors have from Armv8.1 on.
fn zero_means_not_there(host: &Host) -> Outcome {
    const ID_AA64MMFR1_EL1: RegId = RegId::system(3, 0, 0, 7, 1);
    const LO: u64 = 0xf << 16;
    let born = Fingerprint::take(host, "")?;
    let there = born.id("ID_AA64MMFR1_EL1")? & LO != 0;
    let found = if there { "cpu LORC_EL1 works" } else { "cpu LORC_EL1 undefined" };
    ensure_contains(born.whole(), &[found])?;
    let profile = Profile::like(ARM64_V1, |abi| {
        let name = "ID_AA64MMFR1_EL1".to_owned();
        let promise = IdPromise { id: ID_AA64MMFR1_EL1, name, value: Hex(0), mask: Hex(LO) };
        abi.cpu.id_registers.push(promise);
    })?;
    let without = Fingerprint::of(profile.given_to(Fingerprint::guest(host)))?;
    ensure!(without.id("ID_AA64MMFR1_EL1")? & LO == 0, "{}", without.part("id"));
    ensure_contains(without.whole(), &["cpu LORC_EL1 undefined"])
}

/// No value of a version means that there is none.
fn never_emptied(host: &Host) -> Outcome {
    let errno = errno(&machine(1)?[0].set_reg64(RegId(PSCI_VERSION), 0));
    ensure!(errno == libc::EINVAL, "writing 0: errno {errno}");
    let trace = Trace::of(null(host).flags("--guest-abi arm64-v0"))?;
    let others = trace.writes().filter(|id| id >> 16 & 0xfff == 0x14 && *id != PSCI_VERSION);
    ensure!(others.count() == 0, "a register of bank 0x14 is written:\n{trace}");
    ensure!(!trace.written(PSCI_VERSION).contains(&0), "{trace}");
    Ok(())
}

fn takes_its_value_back() -> Outcome {
    let machine = machine(1)?;
    for id in machine[0].reg_list()? {
        let value = machine[0].reg(id).with_context(|| format!("{id} is listed"))?;
        machine[0].set_reg(id, &value).with_context(|| format!("{id} takes its value back"))?;
    }
    Ok(())
}
