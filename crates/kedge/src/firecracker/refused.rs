//! What Firecracker's command line has and kedge has not yet: refused by name,
//! with what to do instead.

use clap::{Arg, ArgAction, ArgMatches};
use kedge_diag::Fix;

use crate::flags::{option, switch};

/// A flag that kedge does not have yet.
struct Row {
    /// The flag, without dashes.
    flag: &'static str,
    /// Its value's name; empty where it takes none.
    value: &'static str,
    /// What to do instead.
    instead: &'static str,
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { flag: "seccomp-filter", value: "FILE", instead: "write `--no-seccomp` instead" },
];

/// For the end of the help.
pub(super) const NOTE: &str = "\
Firecracker's other flags are refused by name until kedge has what they are for.

Examples:
  kedge run --kernel Image --initrd initrd.gz --cmdline console=ttyS0
  kedge --config-file vm.json --api-sock vm.sock
  kedge --api-sock vm.sock            (the API says what to run)
  kedge run --help

Exit status: 0 when the guest powered off or reset, 1 after an error, 152 when the
machine cannot be configured so, 153 when the command line makes no sense.";

/// Something that kedge does not have yet.
#[derive(Debug, thiserror::Error)]
#[error("kedge does not have {what} yet")]
pub(super) struct NotYet {
    what: String,
    instead: &'static str,
}

impl Fix for NotYet {
    fn fix(&self) -> Option<String> {
        Some(self.instead.to_owned())
    }
}

/// The flags, so that the command line is understood; the help does not list them.
pub(super) fn flags() -> impl Iterator<Item = Arg> {
    ROWS.iter().map(|row| {
        let flag = match row.value {
            "" => switch(row.flag),
            value => option(row.flag, value).action(ArgAction::Set),
        };
        flag.hide(true)
    })
}

/// Refuses what cannot be had.
///
/// # Errors
/// One of the flags is there.
pub(super) fn check(flags: &ArgMatches) -> Result<(), NotYet> {
    let given = |row: &&Row| match row.value {
        "" => flags.get_flag(row.flag),
        _ => flags.contains_id(row.flag),
    };
    if let Some(row) = ROWS.iter().find(given) {
        return Err(NotYet { what: format!("`--{}`", row.flag), instead: row.instead });
    }
    Ok(())
}
