//! Rows 39 to 49: the PSCI version is part of the machine.

use anyhow::{Context, ensure};
use kedge_firmware::ARM64_V1;
use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;
use rustix::process::Signal;

use super::PSCI_VERSION;
use super::kvm::{errno, machine, machine_with};
use crate::fingerprint::Fingerprint;
use crate::host::{Host, Need, SYSTEM_SUSPEND};
use crate::kedge::Kedge;
use crate::linux::{BOOT, Report};
use crate::profile::Profile;
use crate::suite::{Outcome, Suite, after, ensure_contains};
use crate::trace::{Event, Trace};

/// What a guest calls to know the version.
const PSCI_VERSION_CALL: u32 = 0x8400_0000;

pub(crate) fn tests(suite: &mut Suite) {
    let mut add = |name: &str, needs, test: fn(&Host) -> Outcome| {
        suite.every_kernel(&format!("rows::{name}"), needs, test);
    };
    add("row_39_one_write_through_one_vcpu_sets_every_vcpus_version", &[], one_write);
    add("row_41_a_capability_is_part_of_the_profile", &[SYSTEM_SUSPEND], capability);
    add("row_45_user_tree_register_and_guest_agree_on_psci_0_2", &[], |host| {
        agree(host, "0.2", 0x2)
    });
    add("row_45_user_tree_register_and_guest_agree_on_psci_1_0", &[], |host| {
        agree(host, "1.0", 0x1_0000)
    });
    add("row_45_user_tree_register_and_guest_agree_on_psci_1_1", &[Need::Kernel(5, 18)], |host| {
        agree(host, "1.1", 0x1_0001)
    });
    add("row_47_without_its_feature_psci_is_listed_and_0_1", &[], |_| listed_and_0_1());
    let mut add = |name: &str, needs, [version, log]: [&'static str; 2]| {
        let name = format!("rows::{name}_linux_turns_its_cpus_on_by_psci_{version}");
        suite.once(&name.replace('.', "_"), needs, move |host| linux(host, version, log));
    };
    add("row_48", &[], ["0.1", "psci: Using PSCI v0.1 Function IDs from DT"]);
    add("row_49", &[], ["0.2", "psci: PSCIv0.2 detected in firmware"]);
    add("row_49", &[], ["1.0", "psci: PSCIv1.0 detected in firmware"]);
    add("row_49", &[Need::Kernel(5, 18)], ["1.1", "psci: PSCIv1.1 detected in firmware"]);
    suite.every_kernel(
        "rows::row_49_linux_turns_its_cpus_on_by_psci_1_3",
        &[Need::Kernel(6, 13)],
        |host| linux(host, "1.3", "psci: PSCIv1.3 detected in firmware"),
    );
}

fn one_write(host: &Host) -> Outcome {
    let fresh = machine(4)?;
    fresh[0].set_reg64(RegId::PSCI_VERSION, 0x2)?;
    let last = fresh[3].reg64(RegId::PSCI_VERSION)?;
    ensure!(last == 0x2, "the fourth vCPU has {last:#x}");
    let flags = "--cpus 4 --psci 0.2";
    let trace = Trace::of(Kedge::run(host.payload("null")).flags("--memory 16M").flags(flags))?;
    let written = trace.written(PSCI_VERSION);
    ensure!(written == [0x2], "written: {written:x?}\n{trace}");
    let guest = Fingerprint::take(host, flags)?;
    let answer = guest.answer(PSCI_VERSION_CALL)?;
    ensure!(answer == "0x2", "the guest is told {answer}");
    Ok(())
}

/// No register shows it.
fn capability(host: &Host) -> Outcome {
    const SYSTEM_SUSPEND: u32 = 0xc400_000e;
    for (wanted, answer) in [(true, "0x0"), (false, "-1")] {
        let profile = Profile::like(ARM64_V1, |abi| abi.machine.system_suspend = Some(wanted))?;
        let guest = Fingerprint::of(profile.given_to(Fingerprint::guest(host)))?;
        let found = guest.feature("psci_features", SYSTEM_SUSPEND)?;
        ensure!(found == answer, "system_suspend {wanted}: the guest is told {found}");
    }
    Ok(())
}

/// What the user asks for, what the device tree says, what the register holds, and what
/// a guest is told.
fn agree(host: &Host, version: &str, value: u64) -> Outcome {
    let guest = Fingerprint::take(host, &format!("--psci {version}"))?;
    let compatible = after(guest.whole(), "firmware tree psci compatible ")?;
    let expected = if value < 0x1_0000 { "arm,psci-0.2" } else { "arm,psci-1.0 arm,psci-0.2" };
    ensure!(compatible == expected, "the tree says {compatible}");
    let null = Kedge::run(host.payload("null")).flags("--memory 16M");
    let trace = Trace::of(null.with(["--psci", version]))?;
    let last = trace.before_the_first_run().iter().rev().find_map(|event| match event {
        Event::Set { id: PSCI_VERSION, value, .. }
        | Event::Get { id: PSCI_VERSION, value: Ok(value), .. } => {
            Some(crate::trace::number(value))
        }
        _ => None,
    });
    ensure!(last == Some(value), "the register holds {last:x?}:\n{trace}");
    let told = guest.answer(PSCI_VERSION_CALL)?;
    ensure!(told == format!("{value:#x}"), "the guest is told {told}");
    Ok(())
}

fn listed_and_0_1() -> Outcome {
    let machine = machine_with(1, VcpuFeatures::NONE)?;
    let listed = machine[0].reg_list()?.contains(&RegId::PSCI_VERSION);
    let version = machine[0].reg64(RegId::PSCI_VERSION)?;
    ensure!(listed && version == 1, "listed: {listed}, {version:#x}");
    let errno = errno(&machine[0].set_reg64(RegId::PSCI_VERSION, 0x2));
    ensure!(errno == libc::EINVAL, "0.2 without the feature: errno {errno}");
    Ok(())
}

/// Linux on two CPUs, by this version, which it logs.
fn linux(host: &Host, version: &str, log: &str) -> Outcome {
    let kedge = Kedge::run(host.linux()?)
        .with(["--initrd".into(), host.initrd()?])
        .with(["--psci", version])
        .flags("--cpus 2 --memory 256M")
        .cmdline("console=ttyS0 loglevel=1 kedge.run=one kedge.then=halt")
        .start()?;
    kedge.wait_for("=== done", 1, BOOT)?;
    // The oldest version cannot turn a machine off.
    let ended = kedge.terminate()?.by_signal(Signal::TERM)?;
    let said = Report::new(&ended.stdout);
    let cpus = said.section("cpus")?.lines().next().context("no CPUs")?;
    ensure!(cpus == "0-1", "CPUs online: {cpus}");
    ensure_contains(said.section("psci")?, &[log])
}
