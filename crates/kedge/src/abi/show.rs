//! `kedge abi show`: a profile, or what a probe found.

use clap::{Arg, ArgMatches, Command};
use kedge_firmware::{GuestAbi, IdPromise, UnknownFirmware, Varying, builtin, builtin_names};

use super::load::{self, BadFile, Document};
use super::{document, found};
use crate::columns::{aligned, row};
use crate::flags::{help, switch};

/// The command.
pub(super) fn command() -> Command {
    Command::new("show")
        .about("Show a profile, or what a probe found; without a name, which profiles there are")
        .disable_help_flag(true)
        .arg(Arg::new("name").value_name("NAME|FILE").help("A profile's name, or a file"))
        .arg(switch("json").help("Print JSON instead of tables"))
        .arg(help())
}

/// What it prints.
///
/// # Errors
/// There is no such document.
pub(super) fn text(flags: &ArgMatches) -> Result<String, BadFile> {
    let json = flags.get_flag("json");
    let Some(name) = flags.get_one::<String>("name") else {
        let all: Vec<_> = builtin_names().into_iter().filter_map(builtin).collect();
        return Ok(if json { document(&all) } else { names(&all) });
    };
    Ok(match (load::document(name)?, json) {
        (Document::Profile(abi), true) => abi.to_json(),
        (Document::Profile(abi), false) => profile(&abi),
        (Document::Host(host), true) => host.to_json(),
        (Document::Host(host), false) => found::tables(&host),
    })
}

fn names(all: &[GuestAbi]) -> String {
    let mut rows = vec![row(["PROFILE", "ABOUT"])];
    rows.extend(all.iter().map(|abi| [abi.name.clone(), abi.about.clone()]));
    aligned(&rows)
}

pub(super) fn profile(abi: &GuestAbi) -> String {
    let mut text = format!("{}\n", abi.name);
    if !abi.about.is_empty() {
        text += &format!("{}\n", abi.about);
    }
    let tables = [
        aligned(&firmware(abi)),
        aligned(&identity(abi)),
        aligned(&varying(abi)),
        aligned(&terms(abi)),
    ];
    for table in tables.iter().filter(|table| !table.is_empty()) {
        text += &format!("\n{table}");
    }
    text
}

fn firmware(abi: &GuestAbi) -> Vec<[String; 2]> {
    let mut rows = vec![row(["FIRMWARE REGISTER", "PROMISED"])];
    let promised = abi.firmware.iter();
    rows.extend(promised.map(|(reg, value)| [reg.to_string(), reg.format(*value)]));
    let asked = abi.levels.iter();
    rows.extend(
        asked.map(|(reg, value)| [reg.to_string(), format!("at least {}", reg.format(*value))]),
    );
    let others = match abi.unknown_firmware {
        UnknownFirmware::Neutralise => "bitmaps are emptied",
        UnknownFirmware::Adopt => "as the host has them",
    };
    rows.push(row(["all others", others]));
    rows
}

fn identity(abi: &GuestAbi) -> Vec<[String; 3]> {
    let rows = abi.cpu.id_registers.iter().map(|IdPromise { id, name, value, mask }| {
        [register(name, id), value.to_string(), mask.to_string()]
    });
    with_head(row(["ID REGISTER", "VALUE", "OF THE BITS"]), rows)
}

fn varying(abi: &GuestAbi) -> Vec<[String; 3]> {
    let rows = abi.cpu.varying.iter().map(|Varying { id, name, mask, reason }| {
        [register(name, id), mask.to_string(), reason.clone()]
    });
    with_head(row(["MAY VARY", "IN THE BITS", "SINCE"]), rows)
}

fn register(name: &str, id: &impl ToString) -> String {
    if name.is_empty() { id.to_string() } else { name.to_owned() }
}

fn terms(abi: &GuestAbi) -> Vec<[String; 2]> {
    // The format is this release's, and the firmware table has the rest.
    let shown =
        |(name, _): &(String, String)| !["format", "unknown_firmware"].contains(&name.as_str());
    let rows = abi.terms().into_iter().filter(shown).map(<[String; 2]>::from);
    with_head(row(["BESIDES", "PROMISED"]), rows)
}

/// Nothing but a head is no table.
fn with_head<const N: usize>(
    head: [String; N],
    rows: impl Iterator<Item = [String; N]>,
) -> Vec<[String; N]> {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() { rows } else { std::iter::once(head).chain(rows).collect() }
}
