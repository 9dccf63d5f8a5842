//! Firecracker's `/cpu-config` bodies on top of profiles.

use expect_test::expect;
use kedge_diag::report;
use kedge_ids::RegId;
use proptest::prelude::*;

use super::PFR0;
use crate::abi::{ARM64_V1, CpuConfig, GuestAbi, HOST, IdPromise, Implementation, builtin};
use crate::hex::Hex;
use crate::register::{Firmware, FwReg};

fn config(text: &str) -> CpuConfig {
    CpuConfig::read(text.as_bytes()).unwrap()
}

fn modifiers(of: &[(&str, &str)]) -> CpuConfig {
    let entries: Vec<_> = of
        .iter()
        .map(|(addr, bitmap)| format!("{{ \"addr\": \"{addr}\", \"bitmap\": \"{bitmap}\" }}"))
        .collect();
    config(&format!("{{ \"reg_modifiers\": [{}] }}", entries.join(",")))
}

fn features(bitmap: &str) -> CpuConfig {
    config(&format!("{{ \"vcpu_features\": [{{ \"index\": 0, \"bitmap\": \"{bitmap}\" }}] }}"))
}

fn on(profile: &str, config: &CpuConfig) -> GuestAbi {
    builtin(profile).unwrap().overlay(config).unwrap()
}

fn refusals(profile: &str, configs: &[CpuConfig]) -> String {
    let profile = builtin(profile).unwrap();
    let refusal = |config| report(&profile.overlay(config).unwrap_err()) + "\n";
    configs.iter().map(refusal).collect()
}

#[test]
fn bits_of_firmware_registers_become_promises() {
    let abi = on(
        HOST,
        &modifiers(&[
            ("0x6030000000140000", "0b00000000000000010000000000000001"),
            ("0x6030000000160000", "0b0"),
            ("0x6030000000160002", "0bxxxx_xx01"),
            ("0x6030000000140001", "0b0001"),
        ]),
    );
    let promised = [FwReg::PsciVersion, FwReg::StdBmap, FwReg::VendorHypBmap]
        .map(|reg| abi.firmware.get(Firmware::Known(reg)));
    assert_eq!(promised, [Some(0x1_0001), Some(0), Some(1)]);
    assert_eq!(abi.levels.get(Firmware::Known(FwReg::Workaround1)), Some(1));
}

#[test]
fn bits_of_id_registers_become_promises_with_a_mask() {
    let abi = on(ARM64_V1, &modifiers(&[("0x603000000013c020", "0b0001xxxx0000xxxx")]));
    let promise = IdPromise {
        id: PFR0,
        name: "ID_AA64PFR0_EL1".to_owned(),
        value: Hex(0x1000),
        mask: Hex(0xf0f0),
    };
    assert_eq!(abi.cpu.id_registers, [promise]);
    expect!["arm64-v1+cpu-config-780b83b0"].assert_eq(&abi.name);
    assert_eq!(abi.validate(), Ok(()));
}

#[test]
fn more_bits_of_a_register_join_those_that_are_promised() {
    let abi = on(ARM64_V1, &modifiers(&[("0x603000000013c020", "0b0001xxxx")]));
    let abi = abi.overlay(&modifiers(&[("0x603000000013c020", "0bxxxx0010")])).unwrap();
    let [promise] = abi.cpu.id_registers.as_slice() else { panic!("{abi:?}") };
    assert_eq!((promise.value, promise.mask), (Hex(0x12), Hex(0xff)));
}

#[test]
fn who_sets_the_implementation_wants_it_promised() {
    let midr = RegId(0x6030_0000_0013_c000);
    let abi = on(HOST, &modifiers(&[(&midr.to_string(), "0b01000001")]));
    assert_eq!(abi.cpu.implementation, Implementation::Promised);
}

#[test]
fn features_are_these_and_no_others() {
    let sve_and_ptrauth = features("0b111xxxx");
    let abi = on(ARM64_V1, &sve_and_ptrauth);
    assert_eq!(abi.cpu.features, Some(vec!["sve".to_owned(), "ptrauth".to_owned()]));
    assert_eq!(on(ARM64_V1, &features("0bxxxx1xx")).cpu.features, None);
    assert_eq!(on(ARM64_V1, &features("0b0xxxx")).cpu.features, Some(Vec::new()));
}

#[test]
fn a_capability_comes_with_its_feature() {
    let text = r#"{ "kvm_capabilities": ["170", "!121", "102"],
        "vcpu_features": [{ "index": 0, "bitmap": "0b1xxxx" }], "reg_modifiers": null }"#;
    assert_eq!(on(ARM64_V1, &config(text)).cpu.features, Some(vec!["sve".to_owned()]));
}

#[test]
fn what_the_profile_promises_already_makes_no_other_profile() {
    let config = modifiers(&[("0x6030000000160002", "0b11"), ("0x6030000000160003", "0bx0")]);
    assert_eq!(on(ARM64_V1, &config), builtin(ARM64_V1).unwrap());
    assert_eq!(on(ARM64_V1, &config_of_nothing()), builtin(ARM64_V1).unwrap());
}

fn config_of_nothing() -> CpuConfig {
    modifiers(&[("0x603000000013c020", "0bxxxx")])
}

#[test]
fn the_name_follows_from_what_is_promised() {
    let [one, same, other] = ["0b0001", "0b_00_01", "0b0010"]
        .map(|bits| on(ARM64_V1, &modifiers(&[("0x603000000013c020", bits)])).name);
    assert_eq!(one, same);
    assert_ne!(one, other);
}

#[test]
fn what_the_profile_promises_otherwise_is_refused() {
    expect![[r#"
        error: the CPU configuration sets bits 0x2 of psci_version to 0x2 (`1.3`), and `arm64-v1` promises 0x0 (`1.1`)
          fix: leave it out of the CPU configuration, or use a profile that promises it, or nothing of it, instead of `arm64-v1`
        error: the CPU configuration sets bits 0x2 of vendor_hyp_bmap to 0x0 (`func-feat`), and `arm64-v1` promises 0x2 (`func-feat,ptp`)
          fix: leave it out of the CPU configuration, or use a profile that promises it, or nothing of it, instead of `arm64-v1`
    "#]].assert_eq(&refusals(
        ARM64_V1,
        &[
            modifiers(&[("0x6030000000140000", "0b11")]),
            modifiers(&[("0x6030000000160002", "0b0x")]),
        ],
    ));
    let profile = on(ARM64_V1, &modifiers(&[("0x603000000013c020", "0b0001xxxx")]));
    let error = profile.overlay(&modifiers(&[("0x603000000013c020", "0b0010xxxx")])).unwrap_err();
    expect![[r#"
        error: the CPU configuration sets bits 0x30 of ID_AA64PFR0_EL1 to 0x20, and `arm64-v1+cpu-config-95d86191` promises 0x10
          fix: leave it out of the CPU configuration, or use a profile that promises it, or nothing of it, instead of `arm64-v1+cpu-config-95d86191`"#]].assert_eq(&report(&error));
    let profile = on(ARM64_V1, &features("0b1xxxx"));
    let error = profile.overlay(&features("0b0xxxx")).unwrap_err();
    expect![[r#"
        error: the CPU configuration does not want the vCPU feature `sve`, and `arm64-v1+cpu-config-ec22eac9` promises otherwise
          fix: leave it out of the CPU configuration, or use a profile that promises it, or nothing of it, instead of `arm64-v1+cpu-config-ec22eac9`"#]].assert_eq(&report(&error));
}

#[test]
fn what_cannot_be_promised_is_refused() {
    let twice = ("0x603000000013c020", "0b1");
    let capability = config(r#"{ "kvm_capabilities": ["170"] }"#);
    let word = config(r#"{ "vcpu_features": [{ "index": 1, "bitmap": "0b1" }] }"#);
    expect![[r#"
        error: the CPU configuration leaves bits 0x10002 of psci_version, and `host` does not promise them
          fix: write each of these bits as 0 or 1
        error: `psci_version` cannot be 0x4001
          fix: set it to one of: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3
        error: the CPU configuration leaves bits 0x1 of vendor_hyp_bmap, and `host` does not promise them
          fix: write each of these bits as 0 or 1
        error: the CPU configuration leaves bits 0xfffffffffffffffe of 0x6030000000160009, and `host` does not promise them
          fix: write each of these bits as 0 or 1
        error: ID_AA64PFR0_EL1 has 64 bits, and the CPU configuration gives more
          fix: write `x` for the bits above, or leave them out
        error: 0x6030000000100040 is a core register, which kedge or the guest sets: nothing can be promised of it
          fix: leave it out
        error: 0x603000000013c500 is a system register, which kedge or the guest sets: nothing can be promised of it
          fix: leave it out
        error: ID_AA64PFR0_EL1 is there twice in the CPU configuration
          fix: make one entry of the two
        error: bit 0 of word 0 of the vCPU features cannot be 1
          fix: write `x` there; kedge has, in word 0: 0x8 pmu, 0x10 sve, 0x60 ptrauth
        error: bit 2 of word 0 of the vCPU features cannot be 0
          fix: write `x` there; kedge has, in word 0: 0x8 pmu, 0x10 sve, 0x60 ptrauth
        error: the vCPU feature `ptrauth` is bits 0x60, and the CPU configuration gives some
          fix: give all of them the same value
        error: bit 0 of word 1 of the vCPU features cannot be 1
          fix: write `x` there; kedge has, in word 0: 0x8 pmu, 0x10 sve, 0x60 ptrauth
        error: the KVM capability 170 is none that the vCPUs' features need
          fix: leave it out: kedge asks the host for what the machine needs
    "#]].assert_eq(&refusals(
        HOST,
        &[
            modifiers(&[("0x6030000000140000", "0b1")]),
            modifiers(&[("0x6030000000140000", "0b00000000000000000100000000000001")]),
            modifiers(&[("0x6030000000160002", "0b1x")]),
            modifiers(&[("0x6030000000160009", "0b1")]),
            modifiers(&[("0x603000000013c020", &format!("0b1{}", "x".repeat(64)))]),
            modifiers(&[("0x6030000000100040", "0b1")]),
            modifiers(&[("0x603000000013c500", "0b1")]),
            modifiers(&[twice, twice]),
            features("0b1"),
            features("0b0xx"),
            features("0b1xxxxx"),
            word,
            capability,
        ],
    ));
}

#[test]
fn a_body_that_is_none_is_refused_with_its_place() {
    let mut reports = String::new();
    for text in [
        "{",
        "{ \"cpuid_modifiers\": [] }",
        "{ \"reg_modifers\": [] }",
        "{ \"reg_modifiers\": [{ \"addr\": \"0x6030000000140000\" }] }",
        "{ \"reg_modifiers\": [{ \"addr\": 7, \"bitmap\": \"0b1\" }] }",
        "{ \"reg_modifiers\": [{ \"addr\": \"0x1\", \"bitmap\": \"0b12\" }] }",
        "{ \"kvm_capabilities\": [170] }",
        "{ \"vcpu_features\": [{ \"index\": 7, \"bitmap\": \"0b1\" }] }",
    ] {
        reports += &(report(&CpuConfig::read(text.as_bytes()).unwrap_err()) + "\n");
    }
    expect![[r#"
        error: line 1, column 1: EOF while parsing an object
          fix: mend the JSON there
        error: line 1, column 3: there is no key `cpuid_modifiers`
          fix: write `vcpu_features`
        error: line 1, column 3: there is no key `reg_modifers`
          fix: write `reg_modifiers`
        error: line 1, column 21: `reg_modifiers[0].bitmap` is missing
          fix: add it: its bits
        error: line 1, column 31: `reg_modifiers[0].addr` cannot be 7
          fix: write a register's id, such as "0x603000000013c020"
        error: line 1, column 48: `reg_modifiers[0].bitmap` cannot be `0b12`
          fix: write bits such as "0b1x0": set, left, cleared; at most 128, the lowest last
        error: line 1, column 24: `kvm_capabilities[0]` cannot be 170
          fix: write a KVM capability's number as a text, such as "170" or "!170"
        error: line 1, column 32: `vcpu_features[0].index` cannot be 7
          fix: write a whole number from 0 to 6
    "#]]
    .assert_eq(&reports);
}

proptest! {
    #[test]
    fn no_body_panics(
        addr in prop_oneof![
            any::<u64>(),
            (0_u64..0x10).prop_map(|low| 0x6030_0000_0016_0000 | low),
            (0_u64..0x10).prop_map(|low| 0x6030_0000_0014_0000 | low),
            (0xc000_u64..0xc040).prop_map(|low| 0x6030_0000_0013_0000 | low),
        ],
        bitmap in "0b[01x]{1,70}",
        word in "0b[01x]{1,40}",
        profile in prop::sample::select(vec![ARM64_V1, HOST]),
    ) {
        let text = format!(
            "{{ \"reg_modifiers\": [{{ \"addr\": \"{addr:#x}\", \"bitmap\": \"{bitmap}\" }}], \
             \"vcpu_features\": [{{ \"index\": 0, \"bitmap\": \"{word}\" }}] }}"
        );
        if let Ok(abi) = builtin(profile).unwrap().overlay(&config(&text)) {
            // What it came to is what the same body asks for.
            prop_assert_eq!(abi.overlay(&config(&text)), Ok(abi));
        }
    }
}
