//! What two profiles, or two hosts, do not have in common.

use std::collections::BTreeMap;

use kedge_ids::RegId;
use serde::Serialize;
use serde_json::{Value, json};

use super::{CpuAbi, GuestAbi, IdPromise};
use crate::fields::{self, Field};
use crate::hex::Hex;
use crate::host::{FoundFirmware, FoundIdReg, HostAbi};
use crate::probe::identity;

/// Something that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What: a register, or a named part such as `machine.gic`.
    pub subject: String,
    /// Which part of it: bits such as `11:8`; empty for the whole.
    pub part: String,
    /// What it is on one side, if it is there.
    pub one: Option<String>,
    /// What it is on the other, if it is there.
    pub other: Option<String>,
}

impl GuestAbi {
    /// What is promised otherwise by `other`, by register and field, then the rest by
    /// its key. Names and remarks promise nothing.
    pub fn diff(&self, other: &Self) -> Vec<Difference> {
        profiles(self, other)
    }
}

impl GuestAbi {
    /// What is promised besides registers, by its key in the document, in its words.
    pub fn terms(&self) -> BTreeMap<String, String> {
        rest(self)
    }
}

impl HostAbi {
    /// What `other` has otherwise, by register and field, then the rest by its key.
    pub fn diff(&self, other: &Self) -> Vec<Difference> {
        hosts(self, other)
    }
}

pub(super) fn profiles(one: &GuestAbi, other: &GuestAbi) -> Vec<Difference> {
    let firmware = |abi: &GuestAbi| -> BTreeMap<_, _> {
        let all = abi.firmware.iter().chain(abi.levels.iter());
        all.map(|(firmware, value)| (*firmware, firmware.format(*value))).collect()
    };
    let mut found = Vec::new();
    for (firmware, [one, other]) in paired(firmware(one), firmware(other)) {
        push(&mut found, &firmware.to_string(), "", one, other);
    }
    for (id, [one, other]) in paired(promised(one), promised(other)) {
        promises(&mut found, id, one, other);
    }
    let varying = |abi: &GuestAbi| {
        let mut all = BTreeMap::new();
        for varying in &abi.cpu.varying {
            *all.entry(varying.id).or_insert(0) |= varying.mask.0;
        }
        all
    };
    for (id, [one, other]) in paired(varying(one), varying(other)) {
        let text = |mask: Option<u64>| mask.map(|mask| Hex(mask).to_string());
        push(&mut found, &identity::name(id), "may vary in", text(one), text(other));
    }
    for (path, [one, other]) in paired(rest(one), rest(other)) {
        push(&mut found, &path, "", one, other);
    }
    found
}

/// The value and the mask of each ID register.
fn promised(abi: &GuestAbi) -> BTreeMap<RegId, (u64, u64)> {
    let of = |promise: &IdPromise| (promise.id, (promise.value.0, promise.mask.0));
    abi.cpu.id_registers.iter().map(of).collect()
}

/// What is no register, by its path, in the words of the document. Names and remarks
/// are left out.
fn rest(abi: &GuestAbi) -> BTreeMap<String, String> {
    // No `..`: a key added must be a register's, a remark's, or be left to the rest.
    let GuestAbi {
        format,
        name: _,
        about: _,
        firmware: _,
        levels: _,
        unknown_firmware,
        cpu,
        machine,
    } = abi;
    let CpuAbi {
        features,
        id_registers: _,
        varying: _,
        sve_lengths,
        implementation,
        implementations,
    } = cpu;
    let mut rest = BTreeMap::new();
    flatten("format", &json!(format), &mut rest);
    flatten("unknown_firmware", &json!(unknown_firmware), &mut rest);
    flatten("cpu.features", &json!(features), &mut rest);
    flatten("cpu.sve_lengths", &json!(sve_lengths), &mut rest);
    flatten("cpu.implementation", &json!(implementation), &mut rest);
    if !implementations.is_empty() {
        flatten("cpu.implementations", &json!(implementations), &mut rest);
    }
    flatten("machine", &json!(machine), &mut rest);
    rest
}

fn hosts(one: &HostAbi, other: &HostAbi) -> Vec<Difference> {
    let mut found = Vec::new();
    let firmware = |host: &HostAbi| -> BTreeMap<_, _> {
        host.firmware.iter().map(|found| (found.id, found.clone())).collect()
    };
    for (_, [one, other]) in paired(firmware(one), firmware(other)) {
        let Some(register) = one.as_ref().or(other.as_ref()).map(FoundFirmware::firmware) else {
            continue;
        };
        let subject = register.to_string();
        let default = |found: &FoundFirmware| {
            found
                .default
                .as_u64()
                .map_or_else(|| found.default.to_string(), |value| register.format(value))
        };
        push(
            &mut found,
            &subject,
            "default",
            one.as_ref().map(default),
            other.as_ref().map(default),
        );
        let scope = |found: &FoundFirmware| found.scope.words().to_owned();
        push(&mut found, &subject, "scope", one.as_ref().map(scope), other.as_ref().map(scope));
        let takes = |found: &FoundFirmware| found.takes.words(register);
        push(&mut found, &subject, "takes", one.as_ref().map(takes), other.as_ref().map(takes));
    }
    for ((_, subject), [one, other]) in paired(registers(one), registers(other)) {
        id_register(&mut found, &subject, one.as_ref(), other.as_ref());
    }
    let rest = |host: &HostAbi| {
        // No `..`: a key added must be compared.
        let HostAbi { format, limits, abilities, firmware: _, cpus: _ } = host;
        let mut rest = BTreeMap::new();
        flatten("format", &json!(format), &mut rest);
        flatten("limits", &json!(limits), &mut rest);
        flatten("abilities", &json!(abilities), &mut rest);
        rest
    };
    for (path, [one, other]) in paired(rest(one), rest(other)) {
        push(&mut found, &path, "", one, other);
    }
    found
}

/// The ID registers of a vCPU without optional features, then those of a vCPU with one
/// that differ with it.
fn registers(host: &HostAbi) -> BTreeMap<(RegId, String), FoundIdReg> {
    let mut all = BTreeMap::new();
    let plain: &[FoundIdReg] = host.cpus.first().map_or(&[], |cpu| &cpu.id_registers);
    for cpu in &host.cpus {
        let with = if cpu.features.is_empty() {
            String::new()
        } else {
            format!(" with {}", cpu.features.join(","))
        };
        let differs = |register: &&FoundIdReg| with.is_empty() || !plain.contains(register);
        for register in cpu.id_registers.iter().filter(differs) {
            let subject = format!("{}{with}", identity::name(register.id));
            all.insert((register.id, subject), register.clone());
        }
    }
    all
}

/// All keys of both, each with what is there on either side.
fn paired<K: Ord, V>(one: BTreeMap<K, V>, other: BTreeMap<K, V>) -> BTreeMap<K, [Option<V>; 2]> {
    let mut pairs: BTreeMap<K, [Option<V>; 2]> = BTreeMap::new();
    for (key, value) in one {
        pairs.insert(key, [Some(value), None]);
    }
    for (key, value) in other {
        let [_, second] = pairs.entry(key).or_insert([None, None]);
        *second = Some(value);
    }
    pairs
}

fn push(
    found: &mut Vec<Difference>,
    subject: &str,
    part: &str,
    one: Option<String>,
    other: Option<String>,
) {
    if one != other {
        found.push(Difference { subject: subject.to_owned(), part: part.to_owned(), one, other });
    }
}

/// Compares the promises (value and mask) of a register in fields of four bits.
fn promises(
    found: &mut Vec<Difference>,
    id: RegId,
    one: Option<(u64, u64)>,
    other: Option<(u64, u64)>,
) {
    let register = identity::name(id);
    let (Some(one), Some(other)) = (one, other) else {
        let whole = |(value, mask)| match mask {
            u64::MAX => Hex(value).to_string(),
            _ => format!("{value:#x} of {mask:#x}"),
        };
        return push(found, &register, "", one.map(whole), other.map(whole));
    };
    for shift in (0..u64::BITS).step_by(4) {
        let text = |(value, mask): (u64, u64)| match (value >> shift & 0xf, mask >> shift & 0xf) {
            (_, 0) => None,
            (value, 0xf) => Some(format!("{value:#x}")),
            (value, mask) => Some(format!("{value:#x} of {mask:#x}")),
        };
        push(found, &register, &bits(id, shift), text(one), text(other));
    }
}

/// Four bits of a register: the fields that they belong to, and where they are.
fn bits(register: RegId, shift: u32) -> String {
    let within = |field: &&Field| field.shift < shift + 4 && shift < field.shift + field.width;
    let named = fields::of(register).iter().filter(within);
    let names: Vec<_> = named.map(|field| field.name).filter(|name| !name.is_empty()).collect();
    let space = if names.is_empty() { "" } else { " " };
    format!("{}{space}{}:{shift}", names.join("/"), shift + 3)
}

/// Compares what two hosts have of a register in fields of four bits.
fn id_register(
    found: &mut Vec<Difference>,
    subject: &str,
    one: Option<&FoundIdReg>,
    other: Option<&FoundIdReg>,
) {
    let (Some(one), Some(other)) = (one, other) else {
        let value = |side: Option<&FoundIdReg>| side.map(|register| register.value.to_string());
        return push(found, subject, "", value(one), value(other));
    };
    let scope = |register: &FoundIdReg| Some(register.scope.words().to_owned());
    push(found, subject, "scope", scope(one), scope(other));
    let guest = |register: &FoundIdReg| register.guest.map(|guest| guest.to_string());
    push(found, subject, "to a guest", guest(one), guest(other));
    for shift in (0..u64::BITS).step_by(4) {
        let value = |register: &FoundIdReg| Some(format!("{:#x}", register.value.0 >> shift & 0xf));
        let part = bits(one.id, shift);
        push(found, subject, &part, value(one), value(other));
        let part = format!("{part} takes");
        push(found, subject, &part, takes(one, shift), takes(other, shift));
    }
}

/// The values that a field takes, where it takes others than its own.
fn takes(register: &FoundIdReg, shift: u32) -> Option<String> {
    let field = register.fields.iter().find(|field| field.shift == shift)?;
    let values = (0..u64::from(u16::BITS)).filter(|value| field.takes.0 >> value & 1 != 0);
    let values: Vec<_> = values.map(|value| format!("{value:#x}")).collect();
    Some(values.join(", "))
}

/// The leaves of `value` by their paths; a list of plain values is a leaf.
fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (key, value) in members {
                flatten(&format!("{path}.{key}"), value, leaves);
            }
        }
        Value::Array(entries) if entries.iter().any(Value::is_object) => {
            for (nth, entry) in entries.iter().enumerate() {
                flatten(&format!("{path}[{nth}]"), entry, leaves);
            }
        }
        Value::Array(entries) => {
            let words: Vec<_> = entries.iter().map(plain).collect();
            let text = if words.is_empty() { "none".to_owned() } else { words.join(", ") };
            leaves.insert(path.to_owned(), text);
        }
        plain_value => {
            leaves.insert(path.to_owned(), plain(plain_value));
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
