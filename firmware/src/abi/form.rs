//! The form of a profile as a document: its keys, what they say, what they can hold.
//! Reading, messages and the schema (`resources/guest-abi.schema.json`) follow from it.

use serde_json::Value;

use super::GuestAbi;
use super::document::{Key, Presence, Shape, Text, Which, schema};
use crate::hex::Hex;

/// The vCPU features that a profile can promise.
pub(super) const FEATURES: &[&str] = &["pmu", "sve", "ptrauth"];

/// The most characters that a name can have.
pub(super) const LONGEST_NAME: usize = 128;

const NAME: Text = Text {
    wanted: "1 to 128 letters, digits, `.`, `_`, `-`, `+`, `=`, a letter or digit first",
    pattern: "^[A-Za-z0-9][A-Za-z0-9._+=-]{0,127}$",
    legal: is_name,
};

const HEX: Text = Text {
    wanted: "a number such as \"0x1f\"",
    pattern: "^0x[0-9A-Fa-f]{1,16}$",
    legal: |text| Hex::parse(text).is_some(),
};

const WORD32: Text = Text {
    wanted: "a number of 32 bits, such as \"0xc6000040\"",
    pattern: "^0x0{0,8}[0-9A-Fa-f]{1,8}$",
    legal: |text| Hex::parse(text).is_some_and(|hex| u32::try_from(hex.0).is_ok()),
};

const ID: Text = Text {
    wanted: "a register's id, such as \"0x603000000013c020\"",
    pattern: "^0x[0-9A-Fa-f]{1,16}$",
    legal: |text| Hex::parse(text).is_some(),
};

const SENTENCE: Text = Text { wanted: "a text", pattern: "", legal: |_| true };

const REASON: Text =
    Text { wanted: "the reason, as a text", pattern: "\\S", legal: |text| !text.trim().is_empty() };

/// Whether a profile can be called so.
pub(super) fn is_name(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._+=-".contains(&byte);
    text.len() <= LONGEST_NAME
        && text.bytes().all(legal)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}

const fn needed(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, about, presence: Presence::Needed, shape }
}

const fn key(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key { name, about, presence: Presence::Optional, shape }
}

const fn number(from: u64, to: u64) -> Shape {
    Shape::Number { from, to, step: 1 }
}

const PPI: Shape = number(16, 31);

/// The whole document.
#[rustfmt::skip]
pub(super) const PROFILE: Shape = Shape::Object(&[
    needed("format", number(1, 1),
        "the version of this document's format"),
    needed("name", Shape::Text(&NAME),
        "its name; a profile never changes, a different promise has another name"),
    key("about", Shape::Text(&SENTENCE),
        "what it is for, as a sentence"),
    key("firmware", Shape::Promises(Which::Values),
        "the firmware registers whose value is promised: versions and bitmaps"),
    key("levels", Shape::Promises(Which::Levels),
        "the lowest level that the host's mitigations must have; they ask and set nothing"),
    key("unknown_firmware", Shape::Choice(&["neutralise", "adopt"]),
        "what becomes of firmware registers that are named nowhere: bitmaps are emptied, or all stay as \
         the host has them; neutralise if absent"),
    key("cpu", CPU,
        "the vCPUs"),
    key("machine", MACHINE,
        "what no register shows"),
]);

#[rustfmt::skip]
const CPU: Shape = Shape::Object(&[
    key("features", Shape::List(&Shape::Choice(FEATURES)),
        "the optional features that the vCPUs have, no others; whatever the machine asks for if absent"),
    key("id_registers", Shape::List(&ID_PROMISE),
        "values of ID registers"),
    key("varying", Shape::List(&VARYING),
        "fields that may read differently from host to host; nothing is promised of them"),
    key("sve_lengths", Shape::List(&Shape::Number { from: 128, to: 2048, step: 128 }),
        "the SVE vector lengths in bits, ascending, of vCPUs with sve; the host's if absent"),
    key("implementation", Shape::Choice(&["host", "promised"]),
        "MIDR_EL1, REVIDR_EL1 and AIDR_EL1: the host's own, or those among id_registers whatever the \
         host's CPU (Linux 6.15); host if absent"),
    key("implementations", Shape::List(&IMPLEMENTATION_IDS),
        "the processors that a guest is told it may find itself on, where vendor_hyp_bmap_2 offers to tell; \
         the one that its vCPUs show if absent"),
]);

#[rustfmt::skip]
const IMPLEMENTATION_IDS: Shape = Shape::Object(&[
    needed("midr", Shape::Hex(&HEX), "MIDR_EL1"),
    key("revidr", Shape::Hex(&HEX), "REVIDR_EL1; 0 if absent"),
    key("aidr", Shape::Hex(&HEX), "AIDR_EL1; 0 if absent"),
]);

#[rustfmt::skip]
const ID_PROMISE: Shape = Shape::Row(&[
    needed("id", Shape::Hex(&ID), "the register's id in KVM_GET_ONE_REG"),
    key("name", Shape::Text(&SENTENCE), "its name, for readers"),
    needed("value", Shape::Hex(&HEX), "what the bits of mask read"),
    needed("mask", Shape::Hex(&HEX), "the bits that are promised"),
]);

#[rustfmt::skip]
const VARYING: Shape = Shape::Object(&[
    needed("id", Shape::Hex(&ID), "the register's id in KVM_GET_ONE_REG"),
    key("name", Shape::Text(&SENTENCE), "its name, for readers"),
    needed("mask", Shape::Hex(&HEX), "the bits that are not promised"),
    needed("reason", Shape::Text(&REASON), "why a guest can live with it"),
]);

#[rustfmt::skip]
const MACHINE: Shape = Shape::Object(&[
    key("system_suspend", Shape::Flag,
        "whether PSCI offers SYSTEM_SUSPEND; if the host can if absent"),
    key("pv_time", Shape::Flag,
        "whether there is memory for stolen time; if the host can if absent"),
    key("smccc_filter", Shape::List(&FILTER_RANGE),
        "ranges of SMCCC functions that KVM does not answer by itself"),
    key("gic", Shape::Choice(&["v2", "v3"]),
        "the interrupt controller; as the machine asks if absent"),
    key("gicd_revision", number(2, 3),
        "the revision in GICD_IIDR, bits 15:12; the host's if absent"),
    key("gicd_typer2", Shape::Text(&WORD32),
        "GICD_TYPER2; the host's if absent"),
    key("timer_ppis", TIMER_PPIS,
        "the timers' interrupts; 27 and 30 if absent"),
    key("pmu_ppi", PPI,
        "the INTID of the performance monitors' interrupt; 23 if absent"),
    key("pmu_events", PMU_EVENTS,
        "the events that the performance monitors of vCPUs with pmu count, others are hidden; the host's if \
         absent"),
    key("counter", Shape::Choice(&["stop", "advance"]),
        "what the guest's counters do while it is paused or saved; stop if absent"),
    key("ipa_bits", number(32, 52),
        "the bits of a guest physical address that every host must have; as many as the machine needs if \
         absent"),
]);

#[rustfmt::skip]
const FILTER_RANGE: Shape = Shape::Object(&[
    needed("base", Shape::Text(&WORD32), "the first function's id"),
    needed("count", number(1, 0xffff_ffff), "how many functions"),
    needed("action", Shape::Choice(&["deny", "forward"]),
        "who answers: nobody (NOT_SUPPORTED), or kedge or the program that embeds it"),
]);

#[rustfmt::skip]
const PMU_EVENTS: Shape = Shape::Object(&[
    needed("pmceid0", Shape::Hex(&HEX), "PMCEID0_EL0"),
    needed("pmceid1", Shape::Hex(&HEX), "PMCEID1_EL0"),
]);

#[rustfmt::skip]
const TIMER_PPIS: Shape = Shape::Object(&[
    needed("virtual_timer", PPI, "the INTID of the virtual timer's"),
    needed("physical_timer", PPI, "the INTID of the physical timer's"),
]);

impl GuestAbi {
    /// The JSON schema (draft 2020-12) of profiles. What a schema cannot tell, such as
    /// that ranges do not overlap, [`GuestAbi::read`] does.
    pub fn schema() -> Value {
        schema(
            "urn:kedge:guest-abi:1",
            "A guest ABI profile: what a guest is promised for life",
            &PROFILE,
        )
    }
}
