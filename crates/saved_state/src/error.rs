//! Why a part of a saved machine cannot be taken.

use kedge_diag::Fix;

/// Why a part of a saved machine cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The part is somebody else's.
    #[error("a saved `{found}` stands where a `{wanted}` belongs")]
    Kind {
        /// The part's kind.
        found: String,
        /// The kind that was asked for.
        wanted: &'static str,
    },
    /// The part has a version that this release has no struct for.
    #[error("the saved `{kind}` has version {found}, which is not version {known}")]
    Version {
        /// The part's kind.
        kind: String,
        /// The part's version.
        found: u16,
        /// The version that was asked for.
        known: u16,
    },
    /// The part's body is not what its version says.
    #[error("the saved `{kind}` cannot be decoded: {problem}")]
    Body {
        /// The part's kind.
        kind: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value can be decoded but cannot be.
    #[error("the saved `{kind}` is not plausible: `{field}` {problem}")]
    Field {
        /// The part's kind.
        kind: String,
        /// The field, as the saved struct names it, with its index in a list.
        field: String,
        /// What is wrong with it: "is 9, past the ring's 8 entries".
        problem: String,
    },
}

impl StateError {
    /// The error for a value of `T` that cannot be: `field` as the struct names it,
    /// `problem` as the rest of the sentence, "is 9, past the ring's 8 entries".
    pub fn field<T: crate::Versioned>(
        field: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Field { kind: T::KIND.to_owned(), field: field.into(), problem: problem.into() }
    }
}

impl Fix for StateError {
    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::Version { found, known, .. } if found > known => {
                "load it with the release of kedge that saved it, or a later one"
            }
            Self::Version { .. } => return None,
            Self::Kind { .. } | Self::Body { .. } | Self::Field { .. } => {
                "take another snapshot: this one is damaged"
            }
        };
        Some(text.to_owned())
    }
}
