//! The flags of `kedge clone`, and what they ask for.

use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use kedge_api::call::CloneMachine;
use kedge_diag::Fix;

use super::numbered::{PLACE, numbered};
use crate::flags::{file, help, option, text};
use crate::machines::{self, BadId};
use crate::snapshot::load_flags;

/// What stands for `{n}` in the help: clap takes that for the end of a line.
pub(super) const STANDS_IN: &str = "%n%";

const AFTER: &str = "\
In every value, %n% stands for the clone's number, from --first on. Each clone is a process
of its own, which kedge's other commands find by its name, with random numbers and a
generation of its own; the memory that none of them has changed, they share. For each, a
line of JSON says its id, pid and api_socket, or its error. A clone that cannot be started
leaves nothing behind and does not keep the others from starting.

A machine is saved by its own process for it, into files in $TMPDIR that nobody else sees;
one that runs goes on once it is saved.

Examples:
  kedge clone web.state --memory web.mem --count 3 --name 'web-%n%' \\
      --disk 'id=root,path=root-%n%.ext4' --net 'tap=tap%n%'
  kedge clone web --count 2 --name 'copy-%n%' --log 'copy-%n%.log'

Exit status: 0 when all clones were started, 1 when one was not or after an error, 2 when
the command line makes no sense.";

/// What the command is for.
pub(crate) const ABOUT: &str = "Start many machines from one snapshot, or from one machine";

/// `kedge clone`.
pub(crate) fn command() -> Command {
    Command::new("clone")
        .bin_name("kedge clone")
        .about(ABOUT)
        .disable_help_flag(true)
        .override_usage(
            "kedge clone (STATE --memory FILE | ID) --count N --name 'NAME-{n}' [OPTIONS]",
        )
        .after_help(AFTER)
        .args([
            Arg::new("machine")
                .value_name("STATE|ID")
                .required_unless_present("api-sock")
                .conflicts_with("api-sock")
                .help("A snapshot's state file, or a machine's name"),
            file("memory").conflicts_with("api-sock").help("The snapshot's memory file"),
            file("api-sock").help("The machine's API socket, instead of its name"),
            option("count", "N")
                .required(true)
                .value_parser(value_parser!(u32).range(1..=CloneMachine::MOST.into()))
                .help("How many clones"),
            option("name", "NAME-{n}").required(true).help("Their names"),
            option("first", "N")
                .default_value("1")
                .value_parser(value_parser!(u32).range(0..=CloneMachine::LAST.into()))
                .help("The number of the first"),
            option("log", "FILE").help(
                "Where each writes its log, and what its guest writes to a serial\n\
                 port on standard output [default: nowhere]",
            ),
        ])
        .args(load_flags())
        .arg(help())
}

/// What the flags ask for.
#[derive(Debug)]
pub(super) struct Wanted {
    /// How many clones.
    pub(super) count: u32,
    first: u32,
    name: String,
    /// More words for `kedge snapshot load`.
    words: Vec<OsString>,
}

/// Names that clones cannot have.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadNames {
    /// All would have the same.
    #[error("{count} clones cannot all have the name `{name}`")]
    Same {
        /// How many.
        count: u32,
        /// The name.
        name: String,
    },
    /// One that no machine has.
    #[error("`--name` leads to a name that no machine can have")]
    Bad(#[from] BadId),
}

impl Fix for BadNames {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Same { name, .. } => Some(format!("write --name '{name}-{PLACE}'")),
            Self::Bad(source) => source.fix(),
        }
    }
}

impl Wanted {
    /// What `flags` ask for.
    ///
    /// # Errors
    /// The clones cannot be called so.
    pub(super) fn from_flags(flags: &ArgMatches) -> Result<Self, BadNames> {
        let number = |name| flags.get_one(name).copied().unwrap_or(1);
        let name = text(flags, "name").to_owned();
        let (first, count) = (number("first"), number("count"));
        if count > 1 && !name.contains(PLACE) {
            return Err(BadNames::Same { count, name });
        }
        Ok(Self::new((first, count), name, words(flags))?)
    }

    /// From `first` on, so many clones that are called so, with more words for
    /// `kedge snapshot load`.
    ///
    /// # Errors
    /// No machine can be called so.
    pub(super) fn new(
        (first, count): (u32, u32),
        name: String,
        words: Vec<OsString>,
    ) -> Result<Self, BadId> {
        let wanted = Self { count, first, name, words };
        // The longest is the last.
        machines::check_id(&wanted.id(wanted.first + wanted.count - 1))?;
        Ok(wanted)
    }

    /// The flags of `kedge clone` that ask for the same.
    pub(super) fn line(&self) -> impl Iterator<Item = OsString> {
        let Self { count, first, name, words } = self;
        let own =
            [format!("--count={count}"), format!("--first={first}"), format!("--name={name}")];
        own.map(OsString::from).into_iter().chain(words.iter().cloned())
    }

    /// The clones' numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.first..self.first + self.count
    }

    /// The name of the clone with this number.
    pub(super) fn id(&self, number: u32) -> String {
        numbered(OsStr::new(&self.name), number).to_string_lossy().into_owned()
    }

    /// The words of the clone with this number for `kedge snapshot load`.
    pub(super) fn words(&self, number: u32) -> impl Iterator<Item = OsString> {
        self.words.iter().map(move |word| numbered(word, number))
    }

    /// Whether each clone gets something of its own for the device with this name, one of
    /// so many that `flag` is about: where there is one, the flag need not name it.
    pub(super) fn gives_each(&self, flag: &str, id: &str, of: usize) -> bool {
        let begin = format!("--{flag}=");
        let values = self.words.iter().filter_map(|word| word.to_str()?.strip_prefix(&begin));
        values.filter(|value| value.contains(PLACE)).any(|value| {
            let named = value.split(',').find_map(|option| option.strip_prefix("id="));
            named.map_or(of == 1, |named| named == id)
        })
    }
}

/// The flags that are handed on as they are.
fn words(flags: &ArgMatches) -> Vec<OsString> {
    let mut words = Vec::new();
    let handed_on = load_flags().chain([option("log", "FILE")]);
    for flag in handed_on {
        let name = flag.get_id().as_str();
        if flags.value_source(name) != Some(ValueSource::CommandLine) {
            continue;
        }
        if matches!(flag.get_action(), ArgAction::SetTrue) {
            words.push(format!("--{name}").into());
            continue;
        }
        for value in flags.get_raw(name).unwrap_or_default() {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(words: &str) -> Result<Wanted, BadNames> {
        let words = ["clone", "s", "--memory", "m"].into_iter().chain(words.split(' '));
        Wanted::from_flags(&command().try_get_matches_from(words).unwrap())
    }

    #[test]
    fn every_value_is_handed_on_with_the_clones_number() {
        let flags = "--count 2 --first 7 --name web-{n} --disk id=a,path={n}.img --net tap=t{n} \
                     --paused --allow x,y --log {n}.log";
        let wanted = wanted(flags).unwrap();
        let words: Vec<_> = wanted.words(8).collect();
        let expected = [
            "--paused",
            "--allow=x",
            "--allow=y",
            "--disk=id=a,path=8.img",
            "--net=tap=t8",
            "--log=8.log",
        ];
        assert_eq!(words, expected);
        assert_eq!(
            wanted.numbers().map(|number| wanted.id(number)).collect::<Vec<_>>(),
            ["web-7", "web-8"]
        );
    }

    #[test]
    fn names_are_names_of_machines_and_differ() {
        let text = |words| kedge_diag::one_line(&wanted(words).unwrap_err());
        assert_eq!(
            text("--count 2 --name web"),
            "2 clones cannot all have the name `web`; fix: write --name 'web-{n}'"
        );
        assert!(text("--count 2 --name web_{n}").contains("`--id` cannot be `web_2`"));
        assert!(wanted("--count 1 --name web").is_ok());
    }

    #[test]
    fn a_disk_is_each_clones_own_where_its_flag_has_the_number() {
        let two = wanted("--count 2 --name w{n} --disk id=a,path={n} --disk path=x").unwrap();
        assert!(two.gives_each("disk", "a", 2) && !two.gives_each("disk", "b", 2));
        let one = wanted("--count 2 --name w{n} --disk path={n}").unwrap();
        assert!(one.gives_each("disk", "b", 1) && !one.gives_each("disk", "b", 2));
    }
}
