//! What is refused, and in which words.

use expect_test::{Expect, expect};
use kedge_diag::report;
use serde_json::{Value, json};

use super::{changed, whole};
use crate::abi::GuestAbi;
use crate::host::HostAbi;

fn refused(text: &str, expected: &Expect) {
    let error = GuestAbi::read(text.as_bytes()).unwrap_err();
    expected.assert_eq(&report(&error));
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    refused(
        "{\n  \"format\": 1,\n}",
        &expect![[r#"
            error: line 3, column 1: key must be a string
              fix: mend the JSON there"#]],
    );
    refused(
        "",
        &expect![[r#"
        error: line 1, column 1: EOF while parsing a value
          fix: mend the JSON there"#]],
    );
    refused(
        "[]",
        &expect![[r#"
            error: line 1, column 1: the document cannot be a list
              fix: write an object, `{ ... }`"#]],
    );
    let error = GuestAbi::read(b"{ \"format\": 1,\n \"name\": \"\xff\" }").unwrap_err();
    expect![[r#"
        error: line 2, column 11: it is not UTF-8
          fix: save it as UTF-8"#]]
    .assert_eq(&report(&error));
}

#[test]
fn a_format_of_another_release_is_refused_whatever_else_is_there() {
    refused(
        "{ \"format\": 2, \"moon\": \"full\" }",
        &expect![[r#"
        error: line 1, column 13: format 2 is not one that this release reads
          fix: use the release it was written for, or write format 1"#]],
    );
    refused(
        "{ \"format\": \"1\" }",
        &expect![[r#"
        error: line 1, column 13: format `1` is not one that this release reads
          fix: use the release it was written for, or write format 1"#]],
    );
    refused(
        "{ \"name\": \"mine\" }",
        &expect![[r#"
            error: line 1, column 1: `format` is missing
              fix: add it: the version of this document's format"#]],
    );
}

#[test]
fn a_misspelt_key_is_named_with_the_one_that_is_meant() {
    refused(
        "{\n  \"format\": 1,\n  \"name\": \"mine\",\n  \"fimrware\": {}\n}",
        &expect![[r#"
        error: line 4, column 3: there is no key `fimrware`
          fix: write `firmware`"#]],
    );
    refused(
        "{ \"format\": 1, \"name\": \"mine\", \"cpu\": { \"xyzzy\": 1 } }",
        &expect![[r#"
            error: line 1, column 41: there is no key `cpu.xyzzy`
              fix: write one of: features, id_registers, varying, sve_lengths, implementation, implementations"#]],
    );
    refused(
        "{ \"format\": 1, \"name\": \"mine\", \"firmware\": { \"psci_versoin\": \"1.1\" } }",
        &expect![[r#"
            error: line 1, column 46: there is no key `firmware.psci_versoin`
              fix: write `psci_version`"#]],
    );
    refused(
        "{ \"format\": 1, \"name\": \"mine\", \"firmware\": { \"0x6030000000130000\": \"0x1\" } }",
        &expect![[r#"
            error: line 1, column 46: there is no firmware register `0x6030000000130000`
              fix: name one of: psci_version, smccc_arch_workaround_1, smccc_arch_workaround_2, smccc_arch_workaround_3, std_bmap, std_hyp_bmap, vendor_hyp_bmap, vendor_hyp_bmap_2; or give an id of bank 0x14 or 0x16"#]],
    );
}

#[test]
fn a_key_is_there_once() {
    refused(
        "{ \"format\": 1, \"name\": \"mine\", \"name\": \"yours\" }",
        &expect![[r#"
        error: line 1, column 32: `name` is there twice
          fix: leave one of them out"#]],
    );
    refused(
        "{ \"format\": 1, \"name\": \"mine\",\n \"firmware\": { \"std_bmap\": \"none\", \
         \"0x6030000000160000\": \"trng\" } }",
        &expect![[r#"
            error: line 2, column 36: `0x6030000000160000` and `std_bmap` are one register
              fix: leave one of them out"#]],
    );
}

#[test]
fn a_key_that_is_needed_is_asked_for() {
    refused(
        "{ \"format\": 1 }",
        &expect![[r#"
        error: line 1, column 1: `name` is missing
          fix: add it: its name; a profile never changes, a different promise has another name"#]],
    );
    refused(
        &changed(|document| {
            document["cpu"]["varying"][0].as_object_mut().unwrap().remove("reason");
        }),
        &expect![[r#"
            error: line 35, column 7: `cpu.varying[0].reason` is missing
              fix: add it: why a guest can live with it"#]],
    );
}

/// The reports on `whole` with each of these values in the place named before it.
fn reports(changes: &[(&str, Value)]) -> String {
    let report_on = |(path, value): &(&str, Value)| {
        let text = changed(|document| *document.pointer_mut(path).unwrap() = value.clone());
        report(&GuestAbi::read(text.as_bytes()).unwrap_err()) + "\n"
    };
    changes.iter().map(report_on).collect()
}

#[test]
fn a_bad_value_is_named_with_the_legal_ones() {
    expect![[r#"
        error: line 77, column 11: `name` cannot be `no spaces`
          fix: write 1 to 128 letters, digits, `.`, `_`, `-`, `+`, `=`, a letter or digit first
        error: line 77, column 11: `name` cannot be `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...`
          fix: write 1 to 128 letters, digits, `.`, `_`, `-`, `+`, `=`, a letter or digit first
        error: line 45, column 21: `psci_version` cannot be `1.4`
          fix: set it to one of: 0.1, 0.2, 1.0, 1.1, 1.2, 1.3
        error: line 45, column 21: `firmware.psci_version` cannot be 1.1
          fix: write a text, such as "1.1", "trng" or "0x1"
        error: line 44, column 27: `firmware.0x6030000000160009` cannot be `five`
          fix: write a number such as "0x1f"
        error: line 78, column 23: `unknown_firmware` cannot be `neutralize`
          fix: write `neutralise`
        error: line 3, column 10: `cpu` cannot be null
          fix: write an object, `{ ... }`, or leave it out
        error: line 5, column 7: `cpu.features[0]` cannot be `sve2`
          fix: write `sve`
        error: line 17, column 17: `cpu.id_registers[1].mask` cannot be `0xgg`
          fix: write a number such as "0x1f"
        error: line 32, column 7: `cpu.sve_lengths[1]` cannot be 200
          fix: write a multiple of 128 from 128 to 2048
        error: line 39, column 19: `cpu.varying[0].reason` cannot be ` `
          fix: write the reason, as a text
    "#]].assert_eq(&reports(&[
        ("/name", json!("no spaces")),
        ("/name", json!("x".repeat(129))),
        ("/firmware/psci_version", json!("1.4")),
        ("/firmware/psci_version", json!(1.1)),
        ("/firmware/0x6030000000160009", json!("five")),
        ("/unknown_firmware", json!("neutralize")),
        ("/cpu", Value::Null),
        ("/cpu/features", json!(["sve2"])),
        ("/cpu/id_registers/1/mask", json!("0xgg")),
        ("/cpu/sve_lengths/1", json!(200)),
        ("/cpu/varying/0/reason", json!(" ")),
    ]));
}

#[test]
fn a_bad_value_of_the_machine_is_named_with_the_legal_ones() {
    expect![[r#"
        error: line 54, column 12: `machine.gic` cannot be `v4`
          fix: write one of: v2, v3
        error: line 55, column 22: `machine.gicd_revision` cannot be 1
          fix: write a whole number from 2 to 3
        error: line 57, column 17: `machine.ipa_bits` cannot be 53
          fix: write a whole number from 32 to 52
        error: line 74, column 24: `machine.timer_ppis.virtual_timer` cannot be 32
          fix: write a whole number from 16 to 31
        error: line 62, column 16: `machine.pmu_ppi` cannot be 7
          fix: write a whole number from 16 to 31
        error: line 63, column 16: `machine.pv_time` cannot be `yes`
          fix: write true or false
        error: line 68, column 18: `machine.smccc_filter[0].count` cannot be 0
          fix: write a whole number from 1 to 4294967295
        error: line 67, column 17: `machine.smccc_filter[0].base` cannot be `0x100000000`
          fix: write a number of 32 bits, such as "0xc6000040"
        error: line 66, column 19: `machine.smccc_filter[0].action` cannot be `allow`
          fix: write one of: deny, forward
    "#]]
    .assert_eq(&reports(&[
        ("/machine/gic", json!("v4")),
        ("/machine/gicd_revision", json!(1)),
        ("/machine/ipa_bits", json!(53)),
        ("/machine/timer_ppis/virtual_timer", json!(32)),
        ("/machine/pmu_ppi", json!(7)),
        ("/machine/pv_time", json!("yes")),
        ("/machine/smccc_filter/0/count", json!(0)),
        ("/machine/smccc_filter/0/base", json!("0x100000000")),
        ("/machine/smccc_filter/0/action", json!("allow")),
    ]));
}

#[test]
fn levels_are_asked_for_and_values_are_set() {
    refused(
        &changed(|document| document["firmware"]["smccc_arch_workaround_1"] = json!("avail")),
        &expect![[r#"
            error: line 46, column 5: `firmware.smccc_arch_workaround_1` cannot be promised there
              fix: write it among `levels`: hosts have a level, and cannot be given one"#]],
    );
    refused(
        &changed(|document| document["levels"]["std_bmap"] = json!("trng")),
        &expect![[r#"
            error: line 51, column 5: `levels.std_bmap` cannot be promised there
              fix: write it among `firmware`: it has values, not levels"#]],
    );
    refused(
        &changed(|document| document["firmware"]["0x6060000000160009"] = json!("0x1")),
        &expect![[r#"
            error: line 45, column 5: `firmware.0x6060000000160009` cannot be promised there
              fix: write the id of a 64-bit register, `0x6030000000160009`"#]],
    );
}

#[test]
fn promises_of_a_cpu_that_do_not_go_together_are_refused() {
    let again = serde_json::to_value(&whole().cpu.id_registers[1]).unwrap();
    expect![[r#"
        error: line 19, column 18: the value of ID_AA64PFR0_EL1 has bits that its mask leaves out: 0x100
          fix: clear them in `value`, or add them to `mask`
        error: line 18, column 17: 0x603000000013c020 is ID_AA64PFR0_EL1, not ID_AA64PFR1_EL1
          fix: correct the id or the name
        error: line 16, column 15: ID_AA64PFR0_EL1 is there twice
          fix: make one entry of the two
        error: line 16, column 15: 0x6030000000140000 is no ID register
          fix: promise it in `firmware`
        error: line 16, column 15: 0x6030000000100040 is no ID register
          fix: leave it out: it can be promised nowhere
        error: line 37, column 17: bits 0x10 of ID_AA64PFR0_EL1 are promised and also left to vary
          fix: leave one of them out
        error: line 9, column 23: the implementation is promised, and no value of MIDR_EL1 is
          fix: add MIDR_EL1, 0x603000000013c000, to `id_registers`; or write "implementation": "host"
        error: line 6, column 7: the feature `sve` is there twice
          fix: leave one of them out
        error: line 27, column 20: there are SVE lengths, and the features do not have `sve`
          fix: leave `sve_lengths` out, or add `sve` to `features`
        error: line 32, column 7: the SVE length 128 stands after 256
          fix: sort them, each once
        error: line 30, column 20: the SVE length 256 is missing: a CPU has every power of two below its longest
          fix: add 256
        error: line 30, column 20: the SVE length 128 is missing: a CPU has every power of two below its longest
          fix: add 128
    "#]].assert_eq(&reports(&[
        ("/cpu/id_registers/1/value", json!("0x111")),
        ("/cpu/id_registers/1/name", json!("ID_AA64PFR1_EL1")),
        ("/cpu/id_registers/0", again),
        ("/cpu/id_registers/1/id", json!("0x6030000000140000")),
        ("/cpu/id_registers/1/id", json!("0x6030000000100040")),
        ("/cpu/varying/0/mask", json!("0x10")),
        ("/cpu/id_registers", json!([])),
        ("/cpu/features", json!(["sve", "sve"])),
        ("/cpu/features", json!([])),
        ("/cpu/sve_lengths", json!([256, 128])),
        ("/cpu/sve_lengths", json!([128, 512])),
        ("/cpu/sve_lengths", json!([])),
    ]));
}

#[test]
fn promises_of_a_machine_that_do_not_go_together_are_refused() {
    let range = |base: &str, count: u32| json!({ "base": base, "count": count, "action": "deny" });
    expect![[r#"
        error: line 68, column 18: the range of 2 functions from 0xffffffff goes past 0xffffffff
          fix: count the functions again
        error: line 67, column 17: the range of 2 functions from 0x7fffffff has some of 0x80000000 to 0x8000ffff
          fix: leave those out: KVM answers them, whatever the filter says
        error: line 72, column 17: the ranges from 0xc0010008 and from 0xc0010000 overlap
          fix: let each function be in one range
        error: line 46, column 26: `vendor_hyp_bmap_2` offers `impl-version`, and nobody answers its function 0xc6000040
          fix: add to `smccc_filter`: { "base": "0xc6000040", "count": 1, "action": "forward" }
        error: line 46, column 26: `vendor_hyp_bmap_2` offers `impl-cpus`, and nobody answers its function 0xc6000041
          fix: add to `smccc_filter`: { "base": "0xc6000041", "count": 1, "action": "forward" }
        error: line 73, column 25: the virtual timer and the physical timer have the same interrupt, 27
          fix: give each an interrupt of its own, from 16 to 31
        error: line 62, column 16: the physical timer and the performance monitors have the same interrupt, 30
          fix: give each an interrupt of its own, from 16 to 31
    "#]].assert_eq(&reports(&[
        ("/machine/smccc_filter", json!([range("0xffffffff", 2)])),
        ("/machine/smccc_filter", json!([range("0x7fffffff", 2)])),
        ("/machine/smccc_filter", json!([range("0xc0010000", 9), range("0xc0010008", 1)])),
        ("/machine/smccc_filter", json!([range("0xc6000040", 2)])),
        ("/machine/smccc_filter/0/count", json!(1)),
        ("/machine/timer_ppis/physical_timer", json!(27)),
        ("/machine/pmu_ppi", json!(30)),
    ]));
}

#[test]
fn a_built_in_profile_has_its_name_for_itself() {
    expect![[r#"
        error: line 77, column 11: `arm64-v1` is built in, and this is not it: `smccc_arch_workaround_1` is avail here and not promised there
          fix: give it a name of its own, such as `arm64-v1-1`
    "#]].assert_eq(&reports(&[("/name", json!("arm64-v1"))]));
}

#[test]
fn a_profile_that_was_never_a_text_has_no_place() {
    let abi = GuestAbi { name: String::new(), ..whole() };
    expect![[r#"
        error: `name` cannot be ``
          fix: write 1 to 128 letters, digits, `.`, `_`, `-`, `+`, `=`, a letter or digit first"#]]
    .assert_eq(&report(&abi.validate().unwrap_err()));
}

#[test]
fn a_probe_of_another_release_is_refused() {
    let error = HostAbi::read(b"{ \"format\": 7 }").unwrap_err();
    expect![[r#"
        error: line 1, column 13: format 7 is not one that this release reads
          fix: use the release it was written for, or write format 3"#]]
    .assert_eq(&report(&error));
    let error = HostAbi::read(b"{ \"format\": 1, \"limits\": 3 }").unwrap_err();
    expect![[r#"
        error: line 1, column 13: format 1 is not one that this release reads
          fix: use the release it was written for, or write format 3"#]]
    .assert_eq(&report(&error));
}
