//! Commands and flags that the text of a page mentions between backticks.

use std::{
    collections::{BTreeSet, VecDeque},
    env,
    path::{Path, PathBuf},
    process::Command,
};

use super::page::Page;
use crate::process;

/// Flags of others: of Firecracker, of curl, and of cargo.
const OF_OTHERS: [&str; 3] = ["--seccomp-filter", "--no-buffer", "--features"];

/// What there is.
pub(super) struct Known {
    kedge: PathBuf,
    flags: BTreeSet<String>,
}

impl Known {
    /// What the program says of itself, and the developer commands of theirs.
    ///
    /// # Errors
    /// One of them does not answer.
    pub(super) fn of(kedge: &Path) -> anyhow::Result<Self> {
        let mut flags: BTreeSet<_> = OF_OTHERS.map(str::to_owned).into();
        for program in [kedge, &env::current_exe()?] {
            let mut commands = VecDeque::from([Vec::new()]);
            while let Some(words) = commands.pop_front() {
                let help = process::output(Command::new(program).args(&words).arg("--help"))?;
                flags.extend(flags_of(&help));
                let below = |name| words.iter().cloned().chain([name]).collect();
                commands.extend(commands_of(&help).map(below));
            }
        }
        Ok(Self { kedge: kedge.to_owned(), flags })
    }

    /// What a page mentions and there is not.
    pub(super) fn missing(&self, page: &Page) -> Vec<String> {
        let wrong = |(line, span): &(usize, String)| {
            let why = self.wrong(span)?;
            Some(format!("{}:{line}: `{span}`: {why}", page.name))
        };
        page.spans.iter().filter_map(wrong).collect()
    }

    fn wrong(&self, span: &str) -> Option<String> {
        let words: Vec<_> = span.split_whitespace().map(|word| word.trim_matches('\'')).collect();
        match words[..] {
            // Any command, or one of several.
            ["kedge", "COMMAND", ..] => None,
            _ if span.contains(['[', '|']) => None,
            ["kedge" | "firecracker", ..] => asks(&self.kedge, &words[1..]),
            ["cargo", "xtask", ..] => asks(&env::current_exe().ok()?, &words[2..]),
            [flag, ..] if flag.starts_with("--") => self.wrong_flag(flag.split('=').next()?),
            _ => None,
        }
    }

    fn wrong_flag(&self, flag: &str) -> Option<String> {
        let is_there = self.flags.contains(flag)
            // There are some that help does not list.
            || process::quiet(Command::new(&self.kedge).args([flag, "1", "--help"])).is_ok();
        (!is_there).then(|| "no program here has this flag".to_owned())
    }
}

/// What a program has against its words, which it is not to follow.
fn asks(program: &Path, words: &[&str]) -> Option<String> {
    let own = words.iter().take_while(|word| **word != "--");
    // What stands for a number.
    let values = own.map(|word| if *word == "N" { "1" } else { word });
    let mut command = Command::new(program);
    process::quiet(command.args(values).arg("--help")).err().map(|error| format!("{error:#}"))
}

/// The flags that a help text has, with their dashes.
fn flags_of(help: &str) -> impl Iterator<Item = String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let words = help.split(move |letter| !is_part(letter));
    words.filter(|word| word.starts_with("--")).map(str::to_owned)
}

/// The commands that it lists.
fn commands_of(help: &str) -> impl Iterator<Item = String> {
    let list = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
    let entries = list.lines().take_while(|line| !line.is_empty());
    let names = entries.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "help").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELP: &str = "About\n\nCommands:\n  run   Run\n  stop  End\n        it\n  help  Help\n\nOptions:\n  \
                        --id <ID>, or --api-sock\n";

    #[test]
    fn a_help_text_has_commands_and_flags() {
        assert_eq!(commands_of(HELP).collect::<Vec<_>>(), ["run", "stop"]);
        assert_eq!(flags_of(HELP).collect::<Vec<_>>(), ["--id", "--api-sock"]);
    }

    #[test]
    fn flags_that_there_are_not_are_named() {
        let known = Known { kedge: PathBuf::new(), flags: BTreeSet::from(["--id".to_owned()]) };
        let page = Page::read("a.md", "`--id web`\n\n`--name=web`\n").unwrap();
        assert_eq!(known.missing(&page), ["a.md:3: `--name=web`: no program here has this flag"]);
    }
}
