//! Reading a body, and what is wrong with one.

use kedge_devices::virtio::catalog::Kind;
use kedge_devices::virtio::change::ChangeError;
use kedge_diag::{Fix, Trouble, nearest, one_line};
use kedge_firmware::BadDocument;
use serde::de::DeserializeOwned;

use super::place::Place;
use super::{BadClones, device_prefix};
use crate::http::Method;

/// What is wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// There is no such resource, or this cannot be done with it.
    #[error("there is no `{method} {path}`")]
    NoRoute {
        /// The request's method.
        method: Method,
        /// The request's path.
        path: String,
        /// What can be done with it, if anything.
        methods: String,
    },
    /// A body where there is none.
    #[error("a {0} request has no body")]
    Surplus(Method),
    /// No body where there is one.
    #[error("a {0} request needs a body")]
    Empty(Method),
    /// A path ends where a name should be.
    #[error("there is no name in the path")]
    NoName,
    /// A name that is none.
    #[error("`{0}` is no name of a device")]
    Name(String),
    /// A path and its body name different devices.
    #[error("the path names `{path}`, and the body `{body}`")]
    TwoNames {
        /// The name in the path.
        path: String,
        /// The name in the body.
        body: String,
    },
    /// A body that is not right.
    #[error("{0}")]
    Json(serde_json::Error),
    /// A body that is JSON, and no object.
    #[error("it is no object")]
    NoObject,
    /// A body that describes no device.
    #[error("it describes no {}", kind.noun)]
    Device {
        /// What it should describe.
        kind: &'static Kind,
        /// What is wrong.
        source: Trouble,
    },
    /// A body of another form.
    #[error("{wrong}")]
    Form {
        /// What serde says is wrong with it.
        wrong: String,
        /// Where.
        place: Option<Place>,
    },
    /// A body that is no such document.
    #[error(transparent)]
    Document(Box<BadDocument>),
    /// Fields that are not right together.
    #[error("{wrong}")]
    Fields {
        /// What is wrong with them.
        wrong: &'static str,
        /// What to do about it.
        cure: &'static str,
    },
    /// A change that there cannot be.
    #[error(transparent)]
    Change(ChangeError),
    /// Clones that there cannot be.
    #[error(transparent)]
    Clones(BadClones),
    /// Something that kedge has not.
    #[error("kedge has no {what} yet")]
    Absent {
        /// What it is.
        what: &'static str,
        /// What clients' messages about it begin with.
        begin: &'static str,
    },
}

/// What messages about malformed bodies begin with.
const BODY: &str = "An error occurred when deserializing the json body of a request: ";

impl Fault {
    /// A document that is none.
    pub(super) fn document(source: BadDocument) -> Self {
        Self::Document(Box::new(source))
    }

    /// What the client is told: it begins as Firecracker's clients expect
    /// (FIRECRACKER_API.md, 2).
    pub fn message(&self) -> String {
        match self {
            Self::NoRoute { method, path, methods } => {
                let begin = format!("Invalid request method and/or path: {method} {path}.");
                match methods.as_str() {
                    "" => begin,
                    methods => format!("{begin} There is: {methods}"),
                }
            }
            Self::Surplus(Method::Delete) => "Empty Delete request.".to_owned(),
            Self::Surplus(method) => format!("{method} request cannot have a body."),
            Self::Empty(method) => format!("Empty {method} request."),
            Self::NoName => "The ID cannot be empty.".to_owned(),
            Self::Name(_) => {
                const BEGIN: &str =
                    "API Resource IDs can only contain alphanumeric characters and underscores.";
                format!("{BEGIN} {}", one_line(self))
            }
            Self::TwoNames { path, body } => {
                format!(
                    "The id from the path [{path}] does not match the id from the body [{body}]!"
                )
            }
            Self::Device { kind, source } => {
                format!("{}{}", device_prefix(kind), one_line(source))
            }
            Self::Form { wrong, place } => {
                let place = place.map_or_else(String::new, |place| format!(" at {place}"));
                let cure = self.fix().map_or_else(String::new, |cure| format!("; fix: {cure}"));
                format!("{BODY}{wrong}{place}{cure}")
            }
            Self::Json(_) | Self::NoObject | Self::Document(_) => {
                format!("{BODY}{}", one_line(self))
            }
            Self::Absent { begin, .. } => format!("{begin}{}", one_line(self)),
            Self::Fields { .. } | Self::Change(_) | Self::Clones(_) => one_line(self),
        }
    }
}

impl PartialEq for Fault {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Fix for Fault {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Json(error) => meant(&error.to_string()).map(|word| format!("write `{word}`")),
            Self::Form { wrong, .. } => meant(wrong).map(|word| format!("write `{word}`")),
            Self::NoObject => Some("put it in braces: { ... }".to_owned()),
            Self::Device { source, .. } => source.fix(),
            Self::Document(source) => source.fix(),
            Self::Fields { cure, .. } => Some((*cure).to_owned()),
            Self::Change(source) => source.fix(),
            Self::Clones(source) => source.fix(),
            Self::Absent { .. } => Some("leave it out".to_owned()),
            Self::Name(_) => Some("write letters, digits and underscores".to_owned()),
            Self::NoRoute { .. }
            | Self::Surplus(_)
            | Self::Empty(_)
            | Self::NoName
            | Self::TwoNames { .. } => None,
        }
    }
}

/// Reads a body. None is an array, whose elements serde would take for an object's fields.
///
/// # Errors
/// It is no JSON, or of another form.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(Fault::NoObject);
    }
    any(body)
}

/// Reads a body that may be anything.
///
/// # Errors
/// It is no JSON, or of another form.
pub(super) fn any<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(Fault::Json)
}

/// The word that was meant, where serde names the one that it found and those that there
/// are: unknown field `a`, expected one of `b`, `c`.
fn meant(message: &str) -> Option<&str> {
    let rest = message.strip_prefix("unknown ")?;
    // Between two backquotes: every second piece.
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let found = quoted.next()?;
    nearest(found, quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_was_meant_is_one_of_those_that_there_are() {
        let message = "unknown field `mem_path`, expected one of `snapshot_path`, `mem_file_path`";
        assert_eq!(meant(message), Some("mem_file_path"));
        assert_eq!(meant("unknown field `zzz`, expected `state`"), None);
        assert_eq!(meant("missing field `state`"), None);
    }
}
