//! What is wrong in a document, and where.

use std::fmt;

use kedge_diag::Fix;

use crate::abi::contradiction::Contradiction;
use crate::register::NoFirmwareRegister;
use crate::symbols::BadFwValue;

/// A place in a text, as editors count: both from 1, a column being a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Place {
    /// The place of the byte at `offset`.
    fn of(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or(before);
        Self { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }

    /// The byte of `text` at this place, as serde counts: columns are bytes.
    pub(super) fn offset_in(self, text: &str) -> usize {
        let before: usize =
            text.split_inclusive('\n').take(self.line.saturating_sub(1)).map(str::len).sum();
        let offset = (before + self.column.saturating_sub(1)).min(text.len());
        (0..=offset).rev().find(|offset| text.is_char_boundary(*offset)).unwrap_or(0)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A fault and the byte at which it stands.
#[derive(Debug)]
pub(crate) struct At {
    pub(crate) offset: usize,
    pub(crate) fault: Fault,
}

impl At {
    /// The fault with its place in `text`.
    pub(crate) fn place(self, text: &str) -> BadDocument {
        BadDocument::at(text, self.offset, self.fault)
    }
}

/// A document that is not as those of its kind are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{fault}", placed(*place))]
pub struct BadDocument {
    /// Where; nothing for a document that was never a text.
    pub place: Option<Place>,
    /// What is wrong there.
    pub fault: Fault,
}

impl BadDocument {
    /// What serde says of `text`.
    pub(crate) fn of_serde(text: &str, error: &serde_json::Error) -> Self {
        super::node::json(0, text, error).place(text)
    }

    pub(super) fn at(text: &str, offset: usize, fault: Fault) -> Self {
        Self { place: Some(Place::of(text, offset)), fault }
    }
}

fn placed(place: Option<Place>) -> String {
    place.map_or_else(String::new, |place| format!("{place}: "))
}

impl Fix for BadDocument {
    fn fix(&self) -> Option<String> {
        self.fault.fix()
    }
}

/// What can be wrong at a place of a document. Parts are named by their path,
/// `cpu.id_registers[2].value`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Bytes that are no text.
    #[error("it is not UTF-8")]
    NoText,
    /// A text that is no JSON.
    #[error("{0}")]
    Json(String),
    /// Lists in lists in lists.
    #[error("it is nested deeper than any such document")]
    TooDeep,
    /// A format of another release.
    #[error("format {found} is not one that this release reads")]
    Format {
        /// The format.
        found: String,
        /// The one that this release reads.
        known: u32,
    },
    /// A key that nobody knows.
    #[error("there is no key `{path}`")]
    NoKey {
        /// The key.
        path: String,
        /// The one that is probably meant.
        near: Option<String>,
        /// Those there are.
        known: String,
    },
    /// A key that has to be there.
    #[error("`{path}` is missing")]
    Missing {
        /// The key.
        path: String,
        /// What it says.
        about: &'static str,
    },
    /// A key that is there twice.
    #[error("`{key}` is there twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A firmware register that is there twice, by its name and by its id.
    #[error("`{key}` and `{before}` are one register")]
    Again {
        /// The key.
        key: String,
        /// The one before it.
        before: String,
    },
    /// A value that its key cannot have.
    #[error("{} cannot be {found}", part(path))]
    Value {
        /// The key; empty for the whole document.
        path: String,
        /// The value.
        found: String,
        /// What it can have.
        wanted: String,
    },
    /// A key among firmware registers that names none.
    #[error(transparent)]
    NoRegister(#[from] NoFirmwareRegister),
    /// A value that a firmware register cannot have.
    #[error(transparent)]
    Firmware(#[from] BadFwValue),
    /// Parts that do not go together.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

fn part(path: &str) -> String {
    if path.is_empty() { "the document".to_owned() } else { format!("`{path}`") }
}

impl Fix for Fault {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::NoText => "save it as UTF-8".to_owned(),
            Self::Json(_) => "mend the JSON there".to_owned(),
            Self::TooDeep => "write it as its schema says".to_owned(),
            Self::Format { known, .. } => {
                format!("use the release it was written for, or write format {known}")
            }
            Self::NoKey { near: Some(near), .. } => format!("write `{near}`"),
            Self::NoKey { known, .. } => format!("write one of: {known}"),
            Self::Missing { about, .. } => format!("add it: {about}"),
            Self::Twice { .. } | Self::Again { .. } => "leave one of them out".to_owned(),
            Self::Value { wanted, .. } => format!("write {wanted}"),
            Self::NoRegister(source) => return source.fix(),
            Self::Firmware(source) => return source.fix(),
            Self::Contradiction(source) => return source.fix(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let text = "a\näöx";
        assert_eq!(Place::of(text, 0), Place { line: 1, column: 1 });
        assert_eq!(Place::of(text, 6), Place { line: 2, column: 3 });
        assert_eq!(Place::of(text, 99), Place { line: 2, column: 4 });
    }

    #[test]
    fn a_place_that_serde_reports_is_found_again() {
        assert_eq!(Place { line: 2, column: 5 }.offset_in("a\nbcdefg"), 6);
        assert_eq!(Place { line: 3, column: 0 }.offset_in("a\nb\n"), 4);
        assert_eq!(Place { line: 1, column: 2 }.offset_in("ä"), 0);
    }
}
