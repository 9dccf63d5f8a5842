//! Reading a body, and what is wrong with one.

use kedge_devices::virtio::change::ChangeError;
use kedge_diag::{Fix, nearest, one_line};
use serde::de::DeserializeOwned;

use super::BadClones;
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
    },
    /// A body where there is none.
    #[error("a {0} request has no body")]
    Surplus(Method),
    /// No body where there is one.
    #[error("a {0} request needs a body")]
    Empty(Method),
    /// A body that is not right.
    #[error("{0}")]
    Json(serde_json::Error),
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
}

impl Fault {
    /// What the client is told: it begins as Firecracker's clients expect
    /// (FIRECRACKER_API.md, 2).
    pub fn message(&self) -> String {
        match self {
            Self::NoRoute { method, path } => {
                format!("Invalid request method and/or path: {method} {path}.")
            }
            Self::Surplus(method) => format!("{method} request cannot have a body."),
            Self::Empty(method) => format!("Empty {method} request."),
            Self::Json(_) => {
                const BEGIN: &str =
                    "An error occurred when deserializing the json body of a request";
                format!("{BEGIN}: {}", one_line(self))
            }
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
            Self::Fields { cure, .. } => Some((*cure).to_owned()),
            Self::Change(source) => source.fix(),
            Self::Clones(source) => source.fix(),
            Self::NoRoute { .. } | Self::Surplus(_) | Self::Empty(_) => None,
        }
    }
}

/// Reads a body.
///
/// # Errors
/// It is no JSON, or of another form.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
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
