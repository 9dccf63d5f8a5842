//! Profiles as documents: read, written, compared.

mod cpu_config;
mod refusals;

use std::collections::BTreeSet;

use expect_test::expect;
use kedge_hv::GicVersion;
use kedge_ids::RegId;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::hex::Hex;
use crate::host::HostAbi;
use crate::pmu::PmuEventSet;
use crate::register::{Firmware, FwReg};

const PFR0: RegId = RegId(0x6030_0000_0013_c020);

const OTHER: ImplementationIds =
    ImplementationIds { midr: Hex(0x410f_d0c0), revidr: Hex(0x1), aidr: Hex(0) };
const EVENTS: PmuEventSet = PmuEventSet { pmceid0: Hex(0x2_0001), pmceid1: Hex(0x18) };

/// A profile in which every key is there.
fn whole() -> GuestAbi {
    // No `..`: a key added must be in the form too.
    GuestAbi {
        format: 1,
        name: "fleet-2026.1".to_owned(),
        about: "Both kinds of our hosts.".to_owned(),
        firmware: [
            (Firmware::Known(FwReg::PsciVersion), 0x1_0001),
            (Firmware::Known(FwReg::VendorHypBmap2), 0x3),
            (Firmware::Unknown(RegId(0x6030_0000_0016_0009)), 0x5),
        ]
        .into_iter()
        .collect(),
        levels: Promises::of([(FwReg::Workaround1, 1)]),
        unknown_firmware: UnknownFirmware::Adopt,
        cpu: CpuAbi {
            features: Some(vec!["sve".to_owned(), "pmu".to_owned()]),
            id_registers: vec![
                IdPromise {
                    id: RegId(0x6030_0000_0013_c000),
                    name: "MIDR_EL1".to_owned(),
                    value: Hex(0x410f_d0c0),
                    mask: Hex(0xffff_ffff),
                },
                IdPromise {
                    id: PFR0,
                    name: "ID_AA64PFR0_EL1".to_owned(),
                    value: Hex(0x11),
                    mask: Hex(0xff),
                },
            ],
            varying: vec![Varying {
                id: PFR0,
                name: "ID_AA64PFR0_EL1".to_owned(),
                mask: Hex(0xf00),
                reason: "no guest uses it".to_owned(),
            }],
            sve_lengths: Some(vec![128, 256]),
            implementation: Implementation::Promised,
            implementations: vec![OTHER],
        },
        machine: MachineAbi {
            system_suspend: Some(true),
            pv_time: Some(false),
            smccc_filter: vec![FilterRange {
                base: Hex(0xc600_0040),
                count: 2,
                action: FilterAction::Forward,
            }],
            gic: Some(GicVersion::V3),
            gicd_revision: Some(3),
            gicd_typer2: Some(Hex(0x100)),
            timer_ppis: TimerPpis::default(),
            pmu_ppi: 23,
            pmu_events: Some(EVENTS),
            counter: CounterPolicy::Advance,
            ipa_bits: Some(40),
        },
    }
}

/// `whole`, after `change`, as a document.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let mut document = serde_json::to_value(whole()).unwrap();
    change(&mut document);
    serde_json::to_string_pretty(&document).unwrap()
}

#[test]
fn a_profile_is_read_as_it_was_written() {
    assert_eq!(GuestAbi::read(whole().to_json().as_bytes()), Ok(whole()));
    for abi in builtin_names().map(|name| builtin(name).unwrap()) {
        assert_eq!(GuestAbi::read(abi.to_json().as_bytes()), Ok(abi.clone()));
        assert_eq!(abi.validate(), Ok(()));
    }
}

#[test]
fn what_was_written_is_read_quickly() {
    let builtin = builtin_names().map(|name| builtin(name).unwrap());
    for abi in builtin.into_iter().chain([whole()]) {
        assert_eq!(GuestAbi::read_quickly(abi.to_json().as_bytes()), Some(abi.clone()));
        let short = serde_json::to_string(&abi).unwrap();
        assert_eq!(GuestAbi::read_quickly(short.as_bytes()), Some(abi));
    }
}

#[test]
fn nothing_is_read_quickly_that_is_not_right() {
    for (from, to) in [
        ("\"format\": 1", "\"format\": 2"),
        ("\"format\": 1", "\"format\": 01"),
        ("\"format\": 1", "\"format\": 1.0"),
        ("\"format\": 1", "\"format\": \"1\""),
        ("\"format\": 1,", ""),
        ("\"format\": 1,", "\"format\": 1, \"format\": 1,"),
        ("\"format\": 1,", "\"format\": 1,,"),
        ("\"format\": 1,", "\"format\": 1, \"\": 1,"),
        ("\"psci_version\": \"1.1\"", "\"psci_version\": \"1.7\""),
        ("\"psci_version\": \"1.1\"", "\"0x6030000000140000\": \"1.1\", \"psci_version\": \"1.1\""),
        ("\"psci_version\": \"1.1\"", "\"smccc_arch_workaround_1\": \"1\""),
        ("\"system_suspend\": true", "\"system_suspend\": tru"),
        ("\"system_suspend\": true", "\"system_suspend\": null"),
        ("\"pmu_ppi\": 23", "\"pmu_ppi\": 32"),
        ("\"pmu_ppi\": 23", "\"pmu_ppi\": 27"),
        ("\"v3\"", "\"v4\""),
        ("\"0xff\"", "\"ff\""),
        ("\"fleet-2026.1\"", "\"-\""),
    ] {
        let text = whole().to_json();
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1);
        assert_eq!(GuestAbi::read_quickly(text.as_bytes()), None, "{from} -> {to}");
    }
    assert_eq!(GuestAbi::read_quickly((whole().to_json() + "}").as_bytes()), None);
    assert_eq!(GuestAbi::read_quickly("[".repeat(100_000).as_bytes()), None);
}

#[test]
fn the_least_profile_is_a_format_and_a_name() {
    let abi = GuestAbi::read(b"{ \"format\": 1, \"name\": \"mine\" }").unwrap();
    assert_eq!((abi.cpu, abi.machine), (CpuAbi::default(), MachineAbi::default()));
}

#[test]
fn a_remark_does_not_make_another_profile() {
    let abi = GuestAbi { about: "Ours.".to_owned(), ..builtin(ARM64_V1).unwrap() };
    assert_eq!(abi.validate(), Ok(()));
}

fn line(Difference { subject, part, one, other }: &Difference) -> String {
    let said = |side: &Option<String>| side.clone().unwrap_or_else(|| "-".to_owned());
    format!("{subject} {part}: {} | {}\n", said(one), said(other))
}

#[test]
fn differences_are_by_register_and_by_field() {
    let mut other = builtin(ARM64_V0).unwrap();
    other.cpu = whole().cpu;
    let mut one = builtin(ARM64_V1).unwrap();
    one.cpu.id_registers = whole().cpu.id_registers.split_off(1);
    one.cpu.id_registers[0].value = Hex(0x21);
    one.cpu.id_registers[0].mask = Hex(0x1ff);
    let differences = one.diff(&other);
    let text: String = differences.iter().map(line).collect();
    expect![[r#"
        psci_version : 1.1 | 1.0
        std_bmap : trng | none
        vendor_hyp_bmap : func-feat,ptp | none
        MIDR_EL1 : - | 0x410fd0c0 of 0xffffffff
        ID_AA64PFR0_EL1 EL1 7:4: 0x2 | 0x1
        ID_AA64PFR0_EL1 EL2 11:8: 0x0 of 0x1 | -
        ID_AA64PFR0_EL1 may vary in: - | 0xf00
        cpu.features : - | sve, pmu
        cpu.implementation : host | promised
        cpu.implementations[0].aidr : - | 0x0
        cpu.implementations[0].midr : - | 0x410fd0c0
        cpu.implementations[0].revidr : - | 0x1
        cpu.sve_lengths : - | 128, 256
        machine.gicd_revision : 3 | 2
        machine.system_suspend : true | false
    "#]]
    .assert_eq(&text);
    assert_eq!(other.diff(&other), []);
}

/// Paths of all keys in a document.
fn keys(value: &Value, path: &str, keys_of: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let path = format!("{path}/{key}");
                keys(value, &path, keys_of);
                keys_of.insert(path);
            }
        }
        Value::Array(entries) => entries.iter().for_each(|entry| keys(entry, path, keys_of)),
        _ => {}
    }
}

/// Paths of all keys in a schema.
fn schema_keys(schema: &Value, path: &str, keys_of: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (key, schema) in properties {
            let path = format!("{path}/{key}");
            schema_keys(schema, &path, keys_of);
            keys_of.insert(path);
        }
    }
    if schema["items"].is_object() {
        schema_keys(&schema["items"], path, keys_of);
    }
}

#[test]
fn the_schema_has_the_keys_of_the_types_and_no_others() {
    let (mut written, mut known) = Default::default();
    let registers = |path: &String| path.starts_with("/firmware/") || path.starts_with("/levels/");
    keys(&serde_json::to_value(whole()).unwrap(), "", &mut written);
    schema_keys(&GuestAbi::schema(), "", &mut known);
    let named: Vec<_> = known.iter().filter(|path| registers(path)).cloned().collect();
    written.retain(|path| !registers(path));
    known.retain(|path| !registers(path));
    assert_eq!(written, known);
    let table: BTreeSet<_> = named.iter().filter_map(|path| path.rsplit('/').next()).collect();
    assert_eq!(table, FwReg::all().map(|reg| reg.spec().name).collect());
}

#[test]
fn every_feature_of_the_form_is_one_of_a_vcpu() {
    let names: Vec<_> = kedge_hv::VcpuFeatures(u32::MAX).names().collect();
    assert!(form::FEATURES.iter().all(|feature| names.contains(feature)));
}

#[test]
fn the_schema_among_the_resources_is_the_forms() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../resources/guest-abi.schema.json");
    let schema = serde_json::to_string_pretty(&GuestAbi::schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(FILE, &schema).unwrap();
    }
    let file = std::fs::read_to_string(FILE).unwrap();
    assert_eq!(file, schema, "run: UPDATE_GOLDEN=1 cargo test -p kedge-firmware");
}

/// `text` with some of its characters replaced.
fn mutated(text: &str, changes: &[(prop::sample::Index, char)]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for (at, with) in changes {
        let at = at.index(chars.len());
        chars[at] = *with;
    }
    chars.into_iter().collect()
}

#[test]
fn blanks_in_a_text_are_a_part_of_it() {
    let text = whole().to_json();
    for (right, wrong) in
        [("\"0x1\"", "\"0x1 \""), ("hosts.\"", "hosts.\n\""), ("\"sve\"", "\"sve\t\"")]
    {
        let text = text.replacen(right, wrong, 1);
        assert!(text.contains(wrong), "{wrong}");
        assert_eq!(GuestAbi::read_quickly(text.as_bytes()), None, "{wrong}");
        assert!(GuestAbi::read_with_places(text.as_bytes()).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = GuestAbi::read(&bytes);
        let _ = HostAbi::read(&bytes);
    }

    #[test]
    fn no_change_of_a_document_panics_and_what_is_read_can_be_written(
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[0-9a-fx\"{}\\[\\],:é -]"), 1..4)
    ) {
        let changes: Vec<_> =
            changes.into_iter().filter_map(|(at, text)| Some((at, text.chars().next()?))).collect();
        let text = mutated(&whole().to_json(), &changes);
        if let Some(abi) = GuestAbi::read_quickly(text.as_bytes()) {
            prop_assert_eq!(GuestAbi::read_with_places(text.as_bytes()), Ok(abi));
        }
        match GuestAbi::read(text.as_bytes()) {
            Ok(abi) => prop_assert_eq!(GuestAbi::read(abi.to_json().as_bytes()), Ok(abi)),
            Err(error) => prop_assert!(error.place.is_some()),
        }
    }

    #[test]
    fn any_value_in_any_place_is_taken_or_refused_with_its_place(
        place in any::<prop::sample::Index>(),
        value in prop_oneof![
            Just(Value::Null), Just(json!([])), Just(json!({})), Just(json!(-1)), Just(json!(1e300)),
            any::<u64>().prop_map(|number| json!(number)),
            any::<u64>().prop_map(|number| json!(format!("{number:#x}"))),
            ".{0,8}".prop_map(Value::from),
        ]
    ) {
        let mut paths = BTreeSet::new();
        let mut document = serde_json::to_value(whole()).unwrap();
        keys(&document, "", &mut paths);
        let paths: Vec<_> = paths.into_iter().filter(|path| document.pointer(path).is_some()).collect();
        *document.pointer_mut(place.get(paths.as_slice()).as_str()).unwrap() = value;
        let text = document.to_string();
        if let Some(abi) = GuestAbi::read_quickly(text.as_bytes()) {
            prop_assert_eq!(GuestAbi::read_with_places(text.as_bytes()), Ok(abi));
        }
        if let Err(error) = GuestAbi::read(text.as_bytes()) {
            prop_assert!(error.place.is_some());
        }
    }
}
