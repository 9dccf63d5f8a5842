//! The document that guests read: a JSON object of limited size.

use kedge_diag::Fix;
use serde_json::{Map, Value};

use crate::merge::merge;

/// Why a document is not as somebody wants it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is nothing to change, or to read.
    #[error("there is no metadata yet")]
    NotInitialized,
    /// It would be too large.
    #[error("the metadata would take {size} bytes, and may take {limit}")]
    TooLarge {
        /// Its size in bytes, as JSON without spaces.
        size: usize,
        /// The most there may be (`--mmds-size-limit`).
        limit: usize,
    },
    /// It is no object.
    #[error("metadata cannot be {0}")]
    NotAnObject(&'static str),
}

impl StoreError {
    /// The words by which clients of Firecracker know it (FIRECRACKER_API.md, 2 and 3.4).
    pub const fn known_as(&self) -> Option<&'static str> {
        match self {
            Self::NotInitialized => Some("The MMDS data store is not initialized."),
            Self::TooLarge { .. } => Some("The MMDS patch request doesn't fit."),
            Self::NotAnObject(_) => None,
        }
    }
}

impl Fix for StoreError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::NotInitialized => {
                "give the guest something to read first: PUT /mmds with a JSON object".to_owned()
            }
            Self::TooLarge { .. } => {
                "store less, or start kedge with a larger --mmds-size-limit".to_owned()
            }
            Self::NotAnObject(_) => "put it into an object: {\"latest\": ...}".to_owned(),
        })
    }
}

/// A document.
#[derive(Debug)]
pub(crate) struct Store {
    /// None until somebody has put one there.
    document: Option<Value>,
    limit: usize,
}

impl Store {
    /// None yet, and at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { document: None, limit }
    }

    /// What is there, if anything is.
    pub(crate) fn document(&self) -> Option<&Value> {
        self.document.as_ref()
    }

    /// Puts `document` in its place.
    ///
    /// # Errors
    /// It is none, or too large; what was there is there still.
    pub(crate) fn put(&mut self, document: Value) -> Result<(), StoreError> {
        self.document = Some(self.checked(document)?);
        Ok(())
    }

    /// Merges `patch` into it.
    ///
    /// # Errors
    /// There is none yet, or it would be none any more, or too large; it stays as it was.
    pub(crate) fn patch(&mut self, patch: Value) -> Result<(), StoreError> {
        let mut document = self.document.clone().ok_or(StoreError::NotInitialized)?;
        merge(&mut document, patch);
        self.document = Some(self.checked(document)?);
        Ok(())
    }

    fn checked(&self, document: Value) -> Result<Value, StoreError> {
        let limit = self.limit;
        match &document {
            Value::Object(members) => match size(members) {
                size if size > limit => Err(StoreError::TooLarge { size, limit }),
                _ => Ok(document),
            },
            Value::Null => Err(StoreError::NotAnObject("null")),
            Value::Bool(_) => Err(StoreError::NotAnObject("a boolean")),
            Value::Number(_) => Err(StoreError::NotAnObject("a number")),
            Value::String(_) => Err(StoreError::NotAnObject("a string")),
            Value::Array(_) => Err(StoreError::NotAnObject("an array")),
        }
    }
}

/// Bytes of an object as JSON.
fn size(members: &Map<String, Value>) -> usize {
    let mut counter = Counter(0);
    // Writing there cannot fail, and all that JSON holds can be written.
    let _ = serde_json::to_writer(&mut counter, members);
    counter.0
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;
    use serde_json::json;

    use super::*;

    #[test]
    fn there_is_nothing_to_patch_before_something_was_put() {
        let mut store = Store::new(100);
        assert_eq!(store.patch(json!({"a": 1})), Err(StoreError::NotInitialized));
        store.put(json!({})).unwrap();
        store.patch(json!({"a": 1})).unwrap();
        assert_eq!(store.document(), Some(&json!({"a": 1})));
    }

    #[test]
    fn the_limit_holds_for_the_document_and_keeps_what_was_there() {
        let mut store = Store::new(r#"{"a":"12345"}"#.len());
        store.put(json!({"a": "12345"})).unwrap();
        let error = store.put(json!({"a": "123456"})).unwrap_err();
        expect![[r#"
            error: the metadata would take 14 bytes, and may take 13
              fix: store less, or start kedge with a larger --mmds-size-limit"#]]
        .assert_eq(&report(&error));
        assert!(matches!(store.patch(json!({"b": 1})), Err(StoreError::TooLarge { .. })));
        assert_eq!(store.document(), Some(&json!({"a": "12345"})));
        store.patch(json!({"a": null, "b": "12345"})).unwrap();
    }

    #[test]
    fn what_is_no_object_is_no_document() {
        let mut store = Store::new(100);
        assert_eq!(store.put(json!([1])), Err(StoreError::NotAnObject("an array")));
        store.put(json!({})).unwrap();
        assert_eq!(store.patch(json!("a")), Err(StoreError::NotAnObject("a string")));
    }
}
