//! The reference page of the firmware registers, written from the table.

use std::fmt::Write as _;

use crate::register::{Absent, ByPtp, Domain, Freeze, FwSpec, Scope, Symbol};
use crate::table::TABLE;

const HEAD: &str = "\
# Firmware registers

What KVM/arm64 shows a guest of its firmware is set by these pseudo-registers. Each is read and written through a vCPU;
whose value it is stands below. This page is written from `firmware/src/table.rs` by a test of that crate: to change it,
change the table and run `UPDATE_GOLDEN=1 cargo test -p kedge-firmware`.

| name | id | kind | scope | frozen | first in Linux |
|---|---|---|---|---|---|
";

/// The whole page, in Markdown.
pub fn markdown() -> String {
    let mut text = HEAD.to_owned();
    for row in TABLE {
        line(&mut text, row);
    }
    for row in TABLE {
        section(&mut text, row);
    }
    text
}

fn line(text: &mut String, row: &FwSpec) {
    let FwSpec { id, name, scope, domain, freeze, since, .. } = row;
    let (kind, scope, freeze) = (domain.kind(), scope.words(), freeze_words(*freeze));
    writeln!(text, "| `{name}` | `{id}` | {kind} | {scope} | {freeze} | {since} |")
        .expect(NEVER_FAILS);
}

fn section(text: &mut String, row: &FwSpec) {
    // No `..`: a fact added to the row must be shown or left out on purpose.
    let FwSpec {
        reg: _,
        id: _,
        name,
        about,
        scope,
        domain,
        freeze: _,
        absent,
        neutral,
        opt_in,
        since: _,
        source,
    } = row;
    let neutral = neutral.map_or("there is none".to_owned(), |value| format!("{value:#x}"));
    let absent = absent.map_or_else(|| "kedge runs on none".to_owned(), shown);
    let sets = match scope {
        Scope::WholeVm => "Sets",
        Scope::Host => "Tells",
    };
    let which = match domain {
        Domain::Bits(_) => "bit",
        Domain::Version(_) | Domain::Level(_) => "value",
    };
    let limit = if *opt_in { "- A new machine shows less than it takes.\n" } else { "" };
    write!(
        text,
        "\n## `{name}`\n\n{sets} {about}.\n\n{limit}\
         - What a guest sees on a kernel without it: {absent}.\n\
         - The value that offers a guest nothing: {neutral}.\n\
         - Source: {source}.\n\n\
         | name | {which} | opens |\n|---|---|---|\n"
    )
    .expect(NEVER_FAILS);
    for symbol in domain.symbols() {
        let Symbol { name, value, opens } = symbol;
        let opens: Vec<_> = opens.iter().map(|function| format!("`{function:#010x}`")).collect();
        let opens = if opens.is_empty() { "-".to_owned() } else { opens.join(", ") };
        writeln!(text, "| `{name}` | {value:#x} | {opens} |").expect(NEVER_FAILS);
    }
}

fn shown(absent: Absent) -> String {
    let Absent { shown, same_as, by_ptp } = absent;
    match (same_as, by_ptp) {
        (_, Some(ByPtp { with, without })) => format!(
            "{shown}; as with {with:#x} where the kernel has `KVM_CAP_PTP_KVM`, as with \
             {without:#x} where not"
        ),
        (Some(value), None) => format!("{shown}, as with {value:#x}"),
        (None, None) => shown.to_owned(),
    }
}

const NEVER_FAILS: &str = "writing to a string cannot fail";

fn freeze_words(freeze: Freeze) -> &'static str {
    match freeze {
        Freeze::FirstRun => "by the first run",
        Freeze::Never => "by kedge, not by KVM",
        Freeze::NothingStored => "nothing is stored",
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs};

    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/firmware-registers.md");

    #[test]
    fn the_page_in_the_docs_is_the_tables() {
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(PAGE, markdown()).unwrap();
        }
        let page = fs::read_to_string(PAGE).unwrap();
        assert_eq!(page, markdown(), "run: UPDATE_GOLDEN=1 cargo test -p kedge-firmware");
    }
}
