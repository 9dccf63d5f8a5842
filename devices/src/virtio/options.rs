//! The value of a device's flag on the command line: `path=disk.img,readonly`.
//! A comma within a value is written twice.

use kedge_diag::Fix;

/// What is wrong with the value of a device's flag.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// An option the device does not have.
    #[error("--{flag} has no option `{name}`")]
    Unknown {
        /// The flag, without dashes.
        flag: &'static str,
        /// What was given.
        name: String,
        /// What was probably meant.
        meant: Option<String>,
        /// What there is.
        known: String,
    },
    /// An option given twice.
    #[error("--{flag} has `{name}` twice")]
    Twice {
        /// The flag, without dashes.
        flag: &'static str,
        /// The option.
        name: &'static str,
    },
    /// A necessary option is not there.
    #[error("--{flag} needs `{name}=`")]
    Missing {
        /// The flag, without dashes.
        flag: &'static str,
        /// The option.
        name: &'static str,
        /// What the flag's value looks like.
        usage: &'static str,
    },
    /// An option has a value it cannot have.
    #[error("--{flag} cannot have `{name}={value}`")]
    Value {
        /// The flag, without dashes.
        flag: &'static str,
        /// The option.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it can be: follows `give`.
        wanted: &'static str,
    },
}

impl Fix for OptionError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Unknown { meant: Some(meant), .. } => format!("write `{meant}`"),
            Self::Unknown { known, .. } => format!("use any of: {known}"),
            Self::Twice { name, .. } => format!("give `{name}` once"),
            Self::Missing { flag, usage, .. } => format!("write --{flag} {usage}"),
            Self::Value { wanted, .. } => format!("give {wanted}"),
        })
    }
}

/// The options of one flag.
#[derive(Debug)]
pub struct Options {
    flag: &'static str,
    usage: &'static str,
    given: Vec<(&'static str, Option<String>)>,
}

impl Options {
    /// Parses `text`, the value of `--flag`, whose help shows `usage` and whose
    /// options are `known`, the most important first.
    ///
    /// # Errors
    /// An option that is unknown or there twice.
    pub fn parse(
        flag: &'static str,
        usage: &'static str,
        known: &[&'static str],
        text: &str,
    ) -> Result<Self, OptionError> {
        let mut given: Vec<(&'static str, Option<String>)> = Vec::new();
        for part in split(text) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (part.as_str(), None),
            };
            let Some(&name) = known.iter().find(|&&known| known == name) else {
                return Err(unknown(flag, known, name, value.as_deref()));
            };
            if given.iter().any(|&(other, _)| other == name) {
                return Err(OptionError::Twice { flag, name });
            }
            given.push((name, value));
        }
        Ok(Self { flag, usage, given })
    }

    /// The value of option `name`.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.find(name).map(|value| value.unwrap_or_default())
    }

    /// The value of option `name`, which must be there and not be empty.
    ///
    /// # Errors
    /// It is not.
    pub fn needed(&self, name: &'static str) -> Result<&str, OptionError> {
        self.value(name).filter(|value| !value.is_empty()).ok_or(OptionError::Missing {
            flag: self.flag,
            name,
            usage: self.usage,
        })
    }

    /// Whether the switch `name` is on: given, or given as `on`.
    ///
    /// # Errors
    /// It is neither `on` nor `off`.
    pub fn is_on(&self, name: &'static str) -> Result<bool, OptionError> {
        match self.find(name) {
            None | Some(Some("off")) => Ok(false),
            Some(None | Some("on")) => Ok(true),
            Some(Some(value)) => Err(self.refuse(name, value, "`on` or `off`")),
        }
    }

    /// The error that option `name` cannot be `value` but only what is `wanted`.
    pub fn refuse(&self, name: &'static str, value: &str, wanted: &'static str) -> OptionError {
        OptionError::Value { flag: self.flag, name, value: value.to_owned(), wanted }
    }

    fn find(&self, name: &str) -> Option<Option<&str>> {
        let mut given = self.given.iter();
        given.find(|(known, _)| *known == name).map(|(_, value)| value.as_deref())
    }
}

/// The parts between single commas; two commas are one within a part.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        if next == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(next);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn unknown(
    flag: &'static str,
    known: &[&'static str],
    name: &str,
    value: Option<&str>,
) -> OptionError {
    let likeness = |known: &str| strsim::jaro_winkler(known, name);
    let nearest = known.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let meant = match (nearest.filter(|nearest| likeness(nearest) > 0.7), value) {
        (Some(nearest), Some(value)) => Some(format!("{nearest}={value}")),
        (Some(nearest), None) => Some(nearest.to_owned()),
        // A value on its own is most likely that of the main option.
        (None, None) => known.first().map(|main| format!("{main}={name}")),
        (None, Some(_)) => None,
    };
    OptionError::Unknown { flag, name: name.to_owned(), meant, known: known.join(", ") }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kedge_diag::report;

    use super::*;

    const KNOWN: &[&str] = &["path", "readonly", "id"];

    fn parse(text: &str) -> Result<Options, OptionError> {
        Options::parse("disk", "path=FILE[,readonly][,id=NAME]", KNOWN, text)
    }

    fn refused(text: &str, expected: &Expect) {
        expected.assert_eq(&report(&parse(text).unwrap_err()));
    }

    #[test]
    fn options_have_values_or_are_switches() {
        let options = parse("path=a=b.img,readonly").unwrap();
        assert_eq!(options.value("path"), Some("a=b.img"));
        assert_eq!(options.is_on("readonly"), Ok(true));
        assert_eq!(options.value("id"), None);
    }

    #[test]
    fn a_comma_in_a_value_is_written_twice() {
        assert_eq!(parse("path=a,,b,id=x").unwrap().value("path"), Some("a,b"));
    }

    #[test]
    fn a_switch_can_be_off() {
        assert_eq!(parse("readonly=off").unwrap().is_on("readonly"), Ok(false));
    }

    #[test]
    fn a_misspelt_option_names_the_nearest() {
        refused(
            "path=x,read-only",
            &expect![[r#"
                error: --disk has no option `read-only`
                  fix: write `readonly`"#]],
        );
    }

    #[test]
    fn a_value_without_a_name_is_taken_for_the_main_one() {
        refused(
            "root.ext4",
            &expect![[r#"
                error: --disk has no option `root.ext4`
                  fix: write `path=root.ext4`"#]],
        );
    }

    #[test]
    fn an_unknown_option_lists_the_known_ones() {
        refused(
            "colour=red",
            &expect![[r#"
                error: --disk has no option `colour`
                  fix: use any of: path, readonly, id"#]],
        );
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        refused(
            "id=a,id=b",
            &expect![[r#"
                error: --disk has `id` twice
                  fix: give `id` once"#]],
        );
    }

    #[test]
    fn a_missing_option_shows_the_usage() {
        let error = parse("readonly").unwrap().needed("path").unwrap_err();
        expect![[r#"
            error: --disk needs `path=`
              fix: write --disk path=FILE[,readonly][,id=NAME]"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn a_switch_is_on_or_off_only() {
        let error = parse("readonly=perhaps").unwrap().is_on("readonly").unwrap_err();
        expect![[r#"
            error: --disk cannot have `readonly=perhaps`
              fix: give `on` or `off`"#]]
        .assert_eq(&report(&error));
    }
}
