//! Rows 41 to 49 of the demands on firmware: PSCI, from the specification through the
//! device tree to the guest.

use kedge_firmware::{ARM64_V1, FwReg, GuestAbi, builtin};
use kedge_hv_model::Step;
use kedge_vmm::spec::{OnReset, PsciVersion};

use crate::guest::{Guest, call, off, print_reg, program, reset};

const PSCI_VERSION: u32 = 0x8400_0000;
const PSCI_FEATURES: u32 = 0x8400_000a;
const SYSTEM_SUSPEND: u64 = 0x8400_000e;
const NOT_SUPPORTED: u8 = 0xff;

fn features_of(function: u64) -> Vec<Step> {
    [call(PSCI_FEATURES, [function, 0, 0]), print_reg(0)].concat()
}

fn v1(change: impl FnOnce(&mut GuestAbi)) -> GuestAbi {
    let mut abi = builtin(ARM64_V1).unwrap();
    change(&mut abi);
    abi
}

#[test]
fn row_41_suspend_is_enabled_where_the_profile_says_so_and_enabled_again() {
    let said = |abi: GuestAbi| {
        let first = program(&[features_of(SYSTEM_SUSPEND), reset()]);
        let then = program(&[features_of(SYSTEM_SUSPEND), off()]);
        let guest = Guest::on("6.12", &[first]).then(then).with(|spec| {
            spec.guest_abi = abi;
            spec.on_reset = OnReset::Restart;
        });
        guest.run().said
    };
    assert_eq!(said(v1(|_| {})), [0, 0]);
    let without = v1(|abi| abi.machine.system_suspend = Some(false));
    assert_eq!(said(without), [NOT_SUPPORTED; 2]);
}

#[test]
fn row_43_a_machine_of_a_profile_answers_the_same_on_every_kernel() {
    let forms = [0x8400_0000_u64, 0xc400_0000];
    let functions = forms.into_iter().flat_map(|form| (0..32).map(move |n| form + n));
    let asks: Vec<_> = functions.flat_map(features_of).collect();
    let said = |kernel| Guest::on(kernel, &[program(&[asks.clone(), off()])]).run().said;
    let on_6_1 = said("6.1");
    assert_eq!(on_6_1.len(), 64);
    assert_eq!(on_6_1[0x0e], 0);
    assert_eq!(said("6.12"), on_6_1);
    assert_eq!(said("7.2"), on_6_1);
}

/// Whether a device tree holds these bytes.
fn has(tree: &[u8], bytes: &[u8]) -> bool {
    tree.windows(bytes.len()).any(|window| window == bytes)
}

/// A machine with this version: what its register, its device tree and its guest say.
fn shown(version: PsciVersion) -> (Option<u64>, Vec<u8>, Vec<u8>) {
    let asks = [call(PSCI_VERSION, [0; 3]), print_reg(0), off()];
    let guest = Guest::on("7.2", &[program(&asks)]).with(|spec| spec.psci = Some(version));
    let built = guest.build().unwrap();
    let register = built.machine.born().value(FwReg::PsciVersion);
    let tree = built.machine.device_tree().to_vec();
    (register, tree, built.start().end().said)
}

/// The forms that a device tree has for these versions, oldest first.
const COMPATIBLE: [&[u8]; 3] = [b"arm,psci\0", b"arm,psci-0.2\0", b"arm,psci-1.0\0"];

#[test]
fn row_45_configuration_tree_register_and_guest_agree() {
    let all = [
        (PsciVersion::V0_2, 0x2, [false, true, false], 0x02),
        (PsciVersion::V1_0, 0x1_0000, [false, true, true], 0x00),
        (PsciVersion::V1_1, 0x1_0001, [false, true, true], 0x01),
        (PsciVersion::V1_3, 0x1_0003, [false, true, true], 0x03),
    ];
    for (version, number, compatible, minor) in all {
        let (register, tree, said) = shown(version);
        assert_eq!((register, said), (Some(number), vec![minor]));
        assert_eq!(COMPATIBLE.map(|form| has(&tree, form)), compatible, "{number:#x}");
    }
}

#[test]
fn row_48_psci_0_1_is_described_with_kvms_own_ids() {
    let guest = Guest::on("7.2", &[program(&[vec![Step::Wait]])]);
    let built = guest.with(|spec| spec.psci = Some(PsciVersion::V0_1)).build().unwrap();
    let tree = built.machine.device_tree();
    assert_eq!(built.machine.born().value(FwReg::PsciVersion), Some(0x1));
    assert_eq!(COMPATIBLE.map(|form| has(tree, form)), [true, false, false]);
    assert!(has(tree, &0x95c1_ba5f_u32.to_be_bytes()));
    assert!(has(tree, &0x95c1_ba60_u32.to_be_bytes()));
}

#[test]
fn row_49_later_versions_need_no_ids() {
    for version in [PsciVersion::V0_2, PsciVersion::V1_0, PsciVersion::V1_1, PsciVersion::V1_3] {
        let (_, tree, _) = shown(version);
        assert!(has(&tree, b"arm,psci-0.2\0"));
        assert!(!has(&tree, b"cpu_on\0"));
        assert!(!has(&tree, b"cpu_off\0"));
    }
}
