//! Rows 39 to 49: the PSCI version (March 2024).

use std::fs;
use std::path::Path;

use expect_test::expect;
use kedge_arch::PsciVersion;
use kedge_firmware::{ARM64_V1, FwReg, GuestAbi, HOST, Promises, RegValue, builtin};
use kedge_hv::{Vcpu, VcpuFeatures};
use kedge_hv_model::{RELEASES, Release, V6_1, V6_12, V7_2};
use kedge_ids::RegId;

use crate::machine::{Machine, refusals};

const PSCI: RegId = RegId::PSCI_VERSION;
/// PSCI_VERSION.
const ASK: (u32, u64) = (0x8400_0000, 0);

#[test]
fn row_39_one_write_through_one_vcpu_sets_the_version_of_all() {
    let machine = Machine::with(&V7_2, 4, VcpuFeatures::PSCI_0_2);
    machine.write(0, PSCI, 0x1_0000);
    assert_eq!(machine.read(3, PSCI), 0x1_0000);
    let mut machine = Machine::calling(&V7_2, &[ASK]);
    machine.write(1, PSCI, 0x1_0000);
    assert_eq!(machine.answers()[0][0], 0x1_0000);
}

#[test]
fn row_40_a_state_that_contradicts_its_profile_is_refused() {
    let old = Machine::new(&V7_2);
    let mut state = old.save(old.born(ARM64_V1));
    let psci = state.machine.iter_mut().find(|saved| saved.id == PSCI).unwrap();
    psci.value = RegValue::from(0x1_0003);
    let plan = Machine::new(&V7_2).plan(&state).plan;
    expect![[r#"
        [
            "psci_version: 1.1 wanted, 1.3 offered: profile `arm64-v1` promises the one, and the saved registers hold the other",
        ]
    "#]]
    .assert_debug_eq(&refusals(&plan));
}

/// PSCI_FEATURES of SYSTEM_SUSPEND.
const HAS_SUSPEND: (u32, u64) = (0x8400_000a, 0x8400_000e);

#[test]
fn row_41_a_capability_that_no_register_shows_is_in_the_profile_and_enabled_again() {
    let machine = |abi: &GuestAbi| {
        let machine = Machine::calling(&V6_12, &[HAS_SUSPEND]);
        if abi.machine.system_suspend == Some(true) {
            machine.vm.enable_system_suspend().unwrap();
        }
        machine
    };
    let mut old = machine(&builtin(ARM64_V1).unwrap());
    let state = old.save(old.born(ARM64_V1));
    let mut new = machine(&state.birth.abi);
    new.load(&state);
    assert_eq!([new.answers()[0][0], old.answers()[0][0]], [0, 0]);
    assert_eq!(machine(&builtin(HOST).unwrap()).answers()[0][0], u64::MAX);
}

/// PSCI_FEATURES of the first 32 functions, in both forms.
fn all_features() -> Vec<(u32, u64)> {
    let forms = [0x8400_0000_u64, 0xc400_0000];
    forms.into_iter().flat_map(|form| (0..32).map(move |n| (0x8400_000a, form + n))).collect()
}

/// Functions of PSCI after which the vCPU that calls goes on, of those that it could be
/// told by (Arm DEN0022, 5.1).
fn goes_on(function: u32) -> bool {
    const NAPS_AND_ENDS: [u32; 9] = [0x1, 0x2, 0x8, 0x9, 0xc, 0xd, 0xe, 0x12, 0x15];
    !NAPS_AND_ENDS.contains(&(function & 0x1f))
}

#[test]
fn row_42_no_call_of_a_guest_chooses_its_version() {
    const ANOTHER: u64 = 0x2;
    let all = (0x8400_0000..0x8400_0020).chain(0xc400_0000..0xc400_0020);
    let calls: Vec<_> = all.filter(|id| goes_on(*id)).map(|id| (id, ANOTHER)).collect();
    for release in RELEASES {
        let mut machine = Machine::calling(release, &calls);
        let before = machine.read(0, PSCI);
        assert_eq!(machine.answers().len(), calls.len(), "{}", release.name);
        assert_eq!(machine.read(0, PSCI), before, "{}", release.name);
    }
}

#[test]
fn row_43_a_guest_that_moves_sees_no_other_psci() {
    let mut calls = all_features();
    calls.push(ASK);
    let fenced = &RELEASES[1..];
    for source in fenced {
        let mut old = Machine::calling(source, &calls);
        let state = old.save(old.born(ARM64_V1));
        let before = old.answers();
        for destination in fenced {
            let mut new = Machine::calling(destination, &calls);
            // In no register: whoever makes the machine goes by the profile.
            new.vm.enable_system_suspend().unwrap();
            new.load_firmware(&state);
            assert_eq!(new.answers(), before, "{} to {}", source.name, destination.name);
        }
    }
}

fn with_psci(version: u64) -> GuestAbi {
    let firmware = Promises::of([(FwReg::PsciVersion, version)]);
    GuestAbi { firmware, ..builtin(HOST).unwrap() }
}

/// Where a host shows what its own firmware is.
const HOSTS_OWN: [&str; 3] = ["/proc/device-tree", "/sys/firmware", "/sys/devices/system/psci"];

#[test]
fn row_44_nothing_looks_at_the_hosts_own_firmware() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let shipped = ["arch", "devices", "firmware", "vmm", "crates/hv_kvm", "crates/kedge"];
    let mut folders: Vec<_> = shipped.iter().map(|name| root.join(name).join("src")).collect();
    let mut read = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let bytes = fs::read(entry.path()).unwrap();
            let text = String::from_utf8_lossy(&bytes);
            let found = HOSTS_OWN.into_iter().find(|path| text.contains(path));
            assert_eq!(found, None, "{}", entry.path().display());
            read += 1;
        }
    }
    assert!(read > 100, "{read} files are not all of them");
}

#[test]
fn row_45_the_version_is_the_machines_and_goes_wherever_it_goes() {
    let versions =
        [(PsciVersion::V0_2, 0x2), (PsciVersion::V1_0, 0x1_0000), (PsciVersion::V1_1, 0x1_0001)];
    for (_, version) in versions {
        let old = Machine::new(&V7_2);
        let state = old.save(old.born_with(&with_psci(version)));
        let mut new = Machine::calling(&V6_1, &[ASK]);
        new.load_firmware(&state);
        assert_eq!([new.read(0, PSCI), new.answers()[0][0]], [version; 2]);
    }
}

#[test]
fn row_46_a_machine_is_more_than_its_registers() {
    let machine = Machine::new(&V7_2);
    let mut json = serde_json::to_value(machine.save(machine.born(ARM64_V1))).unwrap();
    json["birth"].as_object_mut().unwrap().remove("abi");
    let error = serde_json::from_value::<kedge_firmware::RegisterState>(json).unwrap_err();
    assert_eq!(error.to_string(), "missing field `abi`");
}

#[test]
fn row_47_without_its_feature_psci_reads_0_1() {
    for release in RELEASES {
        let machine = Machine::with(release, 2, VcpuFeatures::NONE);
        assert_eq!(machine.read(0, PSCI), 0x1);
    }
}

/// CPU_OFF of PSCI 0.1, by KVM's own number: the one call that tells a vCPU with 0.1
/// from all others.
fn speaks_0_1(release: &Release) -> bool {
    let machine = Machine::with(release, 2, VcpuFeatures::NONE);
    machine.vcpus[0].set_reg64(PSCI, 0x2).is_err()
}

#[test]
fn row_48_psci_0_1_moves_to_machines_with_psci_0_1_only() {
    assert!(RELEASES.iter().all(speaks_0_1));
    let old = Machine::with(&V6_12, 2, VcpuFeatures::NONE);
    let state = old.save(old.born(HOST));
    Machine::with(&V7_2, 2, VcpuFeatures::NONE).load(&state);
    let plan = Machine::with(&V7_2, 2, VcpuFeatures::PSCI_0_2).plan(&state).plan;
    expect![[r#"
        [
            "psci_version: 0.1 wanted, 1.3 offered: this host does not have that version",
        ]
    "#]]
    .assert_debug_eq(&refusals(&plan));
}

#[test]
fn row_49_every_version_from_0_2_on_is_what_the_guest_is_told() {
    for version in [0x2, 0x1_0000, 0x1_0001, 0x1_0003] {
        let mut machine = Machine::calling(&V7_2, &[ASK]);
        machine.born_with(&with_psci(version));
        assert_eq!(machine.answers()[0][0], version);
    }
}
