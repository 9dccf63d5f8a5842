//! `kedge completion`: scripts that make a shell complete kedge's flags.

use std::ffi::OsString;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command};
use clap_complete::Shell;

use crate::firecracker::{self, Name};
use crate::output;
use crate::status::{Failure, Status};
use crate::usage::{self, Line};

const SHELLS: [(&str, Shell); 3] =
    [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

const EXAMPLES: &str = "\
Examples:
  bash:  kedge completion bash > ~/.local/share/bash-completion/completions/kedge
  zsh:   kedge completion zsh > \"${fpath[1]}/_kedge\"
  fish:  kedge completion fish > ~/.config/fish/completions/kedge.fish";

/// `kedge completion`.
pub(crate) fn command() -> Command {
    let shells = PossibleValuesParser::new(SHELLS.map(|(name, _)| name));
    Command::new("completion")
        .bin_name("kedge completion")
        .about("Print a script that makes a shell complete kedge's flags")
        .after_help(EXAMPLES)
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(shells))
}

/// Prints the script that `words`, from `completion` on, ask for.
///
/// # Errors
/// They name no shell.
pub(crate) fn enter(words: &[OsString]) -> Result<Status, Failure> {
    let line = usage::parse(command(), words, "kedge completion --help")
        .map_err(|error| Failure::new(Status::USAGE, error))?;
    match line {
        Line::Answer(text) => output::answer(&text),
        Line::Flags(flags) => {
            let name = flags.get_one::<String>("shell").map_or("", String::as_str);
            let shell = SHELLS.into_iter().find(|row| row.0 == name).map(|row| row.1);
            output::answer(&script(shell.expect("the parser allows these names only")))
        }
    }
}

/// The whole command line.
pub(crate) fn whole() -> Command {
    let commands = [
        crate::run::command(),
        crate::abi::command(),
        crate::snapshot::command(),
        crate::clone::command(),
        command(),
        crate::man::command(),
    ];
    let whole = firecracker::command(Name::Kedge).subcommands(commands);
    whole.subcommands(crate::remote::commands())
}

fn script(shell: Shell) -> String {
    let (mut whole, mut script) = (whole(), Vec::new());
    clap_complete::generate(shell, &mut whole, "kedge", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
