//! Profiles and host probes as documents.

use super::document::{At, BadDocument, Fault, Json, Node, Trail, quick, tree};
use super::{GuestAbi, contradiction, form};
use crate::host::HostAbi;

impl GuestAbi {
    /// Reads a profile.
    ///
    /// # Errors
    /// It is no profile of this release's format, or contradicts itself.
    pub fn read(bytes: &[u8]) -> Result<Self, BadDocument> {
        // Every machine begins with one that is right.
        Self::read_quickly(bytes).map_or_else(|| Self::read_with_places(bytes), Ok)
    }

    /// The profile in `bytes`, if it is one: at a fraction of what it costs to tell what
    /// is wrong with it. Nothing is said of a few that are right, either.
    pub fn read_quickly(bytes: &[u8]) -> Option<Self> {
        let abi = quick(std::str::from_utf8(bytes).ok()?, &form::PROFILE)?;
        contradiction::find(&abi).ok()?;
        Some(abi)
    }

    /// The profile that a guest was born with, as it was saved: whether it contradicts
    /// itself was asked at its birth.
    pub(crate) fn read_born(bytes: &[u8]) -> Option<Self> {
        quick(std::str::from_utf8(bytes).ok()?, &form::PROFILE)
    }

    /// The same for a document of which it is not known that it is right.
    pub(super) fn read_with_places(bytes: &[u8]) -> Result<Self, BadDocument> {
        let (text, tree) = tree(bytes)?;
        let place = |at: At| at.place(text);
        check_format(&tree, Self::FORMAT).map_err(place)?;
        form::PROFILE.check(&tree, &Trail::Whole).map_err(place)?;
        let abi: Self = from_text(text)?;
        contradiction::find(&abi).map_err(|(path, contradiction)| {
            let offset = tree.find(&path).offset;
            place(At { offset, fault: contradiction.into() })
        })?;
        Ok(abi)
    }

    /// Whether the profile is one that [`Self::read`] would take.
    ///
    /// # Errors
    /// It is not.
    pub fn validate(&self) -> Result<(), BadDocument> {
        match Self::read(self.to_json().as_bytes()) {
            Ok(_) => Ok(()),
            // The text is none of the caller's.
            Err(BadDocument { fault, place: _ }) => Err(BadDocument { fault, place: None }),
        }
    }

    /// The profile as a document: the same text for the same profile, a key to a line.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers are always JSON") + "\n"
    }
}

impl HostAbi {
    /// Reads what a probe has written. Keys that this release does not know are those of
    /// a later one, and say nothing that it could use.
    ///
    /// # Errors
    /// It is no such document of this release's format.
    pub fn read(bytes: &[u8]) -> Result<Self, BadDocument> {
        let (text, tree) = tree(bytes)?;
        check_format(&tree, Self::FORMAT).map_err(|at| at.place(text))?;
        from_text(text)
    }

    /// The document that [`Self::read`] reads.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers are always JSON") + "\n"
    }
}

/// The format comes first: a document of another one is not held against this one's keys.
fn check_format(tree: &Node, known: u32) -> Result<(), At> {
    let fault = |offset, fault| Err(At { offset, fault });
    if !matches!(tree.json, Json::Object(_)) {
        let (path, wanted) = (String::new(), "an object, `{ ... }`".to_owned());
        return fault(tree.offset, Fault::Value { path, found: tree.shown(), wanted });
    }
    let Some(format) = tree.get("format") else {
        let about = "the version of this document's format";
        return fault(tree.offset, Fault::Missing { path: "format".to_owned(), about });
    };
    match &format.json {
        Json::Number(number) if number.as_u64() == Some(u64::from(known)) => Ok(()),
        _ => fault(format.offset, Fault::Format { found: format.shown(), known }),
    }
}

/// What serde makes of the text of a document whose form is right.
pub(super) fn from_text<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, BadDocument> {
    serde_json::from_str(text).map_err(|error| BadDocument::of_serde(text, &error))
}
