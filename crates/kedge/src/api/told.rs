//! What goes wrong, with the words that clients look for in front of it.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use kedge_diag::{Fix, Trouble};

/// Something that goes wrong. To all but the API's clients it is what went wrong, and
/// nothing else.
#[derive(Debug)]
pub(crate) struct Told {
    prefix: Cow<'static, str>,
    trouble: Trouble,
}

impl Told {
    /// `trouble`, of which messages begin with `prefix`, behind what they are about
    /// (FIRECRACKER_API.md, 6).
    pub(crate) fn new(prefix: impl Into<Cow<'static, str>>, trouble: Trouble) -> Self {
        Self { prefix: prefix.into(), trouble }
    }

    /// What messages about it begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trouble.fmt(f)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.trouble.source()
    }
}

impl Fix for Told {
    fn fix(&self) -> Option<String> {
        self.trouble.fix()
    }
}
