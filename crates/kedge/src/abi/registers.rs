//! `kedge abi registers`: the table of firmware registers.

use clap::Command;
use kedge_firmware::{FwSpec, TABLE};

use crate::columns::{aligned, row};
use crate::flags::help;

/// The command.
pub(super) fn command() -> Command {
    Command::new("registers")
        .about("List the firmware registers that kedge knows, with their values")
        .disable_help_flag(true)
        .arg(help())
}

/// The table.
pub(super) fn table() -> String {
    let mut rows = vec![row(["REGISTER", "ID", "KIND", "SCOPE", "SINCE", "VALUES"])];
    rows.extend(TABLE.iter().map(of));
    aligned(&rows)
}

fn of(spec: &FwSpec) -> [String; 6] {
    let names: Vec<_> = spec.domain.symbols().iter().map(|symbol| symbol.name).collect();
    let since = spec.since.split(',').next().unwrap_or(spec.since);
    [
        spec.name.to_owned(),
        spec.id.to_string(),
        spec.domain.kind().to_owned(),
        spec.scope.words().to_owned(),
        format!("Linux {since}"),
        names.join(", "),
    ]
}
