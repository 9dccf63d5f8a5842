//! One piece of saved state, with its kind and version: a device's, the GIC's.

use ciborium::de::Error;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Bytes, StateError};

/// A saved struct: frozen once released.
pub trait Versioned: Serialize + DeserializeOwned {
    /// Whose state it is, the same in every version: "virtio-block".
    const KIND: &'static str;
    /// The version of the struct, from 1.
    const VERSION: u16;
}

/// Lists in lists: more than any saved struct has, less than a thread's stack takes.
const DEPTH: usize = 64;

/// One piece of saved state on its own. It can stand inside another: a transport's
/// struct holds its device's part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// [`Versioned::KIND`] of the struct.
    pub kind: String,
    /// [`Versioned::VERSION`] of the struct.
    pub version: u16,
    /// The struct as CBOR (RFC 8949).
    #[serde(with = "body")]
    pub body: Vec<u8>,
}

impl Part {
    /// `state` as a part.
    pub fn of<T: Versioned>(state: &T) -> Self {
        let mut body = Vec::new();
        ciborium::into_writer(state, &mut body)
            .expect("saved structs are plain data, and a vector takes all that is written");
        Self { kind: T::KIND.to_owned(), version: T::VERSION, body }
    }

    /// The part as a `T`. Where a kind has several versions, the reader asks
    /// [`Part::version`] which struct to read.
    ///
    /// # Errors
    /// The part is of another kind or version, or its body is no `T`.
    pub fn read<T: Versioned>(&self) -> Result<T, StateError> {
        if self.kind != T::KIND {
            return Err(StateError::Kind { found: self.kind.clone(), wanted: T::KIND });
        }
        if self.version != T::VERSION {
            let kind = self.kind.clone();
            return Err(StateError::Version { kind, found: self.version, known: T::VERSION });
        }
        let bad = |problem| StateError::Body { kind: self.kind.clone(), problem };
        decode(&self.body).map_err(bad)
    }
}

/// The one CBOR item that `bytes` are, or what is wrong with them.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut rest = bytes;
    let read = ciborium::de::from_reader_with_recursion_limit(&mut rest, DEPTH);
    let value = read.map_err(|error| match error {
        Error::Io(_) => format!("it ends after {} bytes, before its end", bytes.len()),
        Error::Syntax(at) => format!("byte {at} begins no CBOR item"),
        Error::Semantic(_, problem) => problem,
        Error::RecursionLimitExceeded => format!("its items nest deeper than {DEPTH}"),
    })?;
    match rest.len() {
        0 => Ok(value),
        left => Err(format!("{left} bytes follow its end")),
    }
}

/// A body as CBOR bytes rather than a list of numbers.
mod body {
    use serde::{Deserializer, Serializer};

    use super::{Bytes, Deserialize};

    pub(super) fn serialize<S: Serializer>(body: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(body)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        Bytes::deserialize(from).map(|bytes| bytes.0)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct LampV1 {
        lit: bool,
    }

    impl Versioned for LampV1 {
        const KIND: &'static str = "lamp";
        const VERSION: u16 = 1;
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct LampV2 {
        brightness: u8,
        bulb: Part,
    }

    impl Versioned for LampV2 {
        const KIND: &'static str = "lamp";
        const VERSION: u16 = 2;
    }

    fn lamp() -> LampV2 {
        LampV2 { brightness: 7, bulb: Part::of(&LampV1 { lit: true }) }
    }

    #[test]
    fn a_part_gives_back_what_it_was_made_of() {
        let part = Part::of(&lamp());
        assert_eq!(part.read::<LampV2>().unwrap(), lamp());
    }

    #[test]
    fn a_part_inside_a_part_is_bytes() {
        let inner = Part::of(&LampV1 { lit: true });
        let outer = Part::of(&lamp());
        assert!(outer.body.windows(inner.body.len()).any(|window| window == inner.body));
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let error = Part::of(&lamp()).read::<LampV1>().unwrap_err();
        expect![[r#"
            error: the saved `lamp` has version 2, which is not version 1
              fix: load it with the release of kedge that saved it, or a later one"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn a_part_of_another_kind_is_refused_by_name() {
        let part = Part { kind: "door".to_owned(), ..Part::of(&lamp()) };
        expect!["a saved `door` stands where a `lamp` belongs"]
            .assert_eq(&part.read::<LampV2>().unwrap_err().to_string());
    }

    #[test]
    fn an_unknown_field_is_named() {
        let part = Part { version: 1, ..Part::of(&lamp()) };
        expect!["the saved `lamp` cannot be decoded: unknown field `brightness`, expected `lit`"]
            .assert_eq(&part.read::<LampV1>().unwrap_err().to_string());
    }

    #[test]
    fn no_end_of_a_body_can_be_missing() {
        let whole = Part::of(&lamp());
        for length in 0..whole.body.len() {
            let part = Part { body: whole.body[..length].to_vec(), ..whole.clone() };
            assert!(matches!(part.read::<LampV2>(), Err(StateError::Body { .. })));
        }
    }

    #[test]
    fn nothing_may_follow_a_body() {
        let mut part = Part::of(&LampV1 { lit: true });
        part.body.push(0);
        expect!["the saved `lamp` cannot be decoded: 1 bytes follow its end"]
            .assert_eq(&part.read::<LampV1>().unwrap_err().to_string());
    }

    #[test]
    fn lists_in_lists_without_end_are_refused() {
        let body = vec![0x81; 100_000];
        let part = Part { body, ..Part::of(&LampV1 { lit: true }) };
        assert!(matches!(part.read::<LampV1>(), Err(StateError::Body { .. })));
    }

    #[test]
    fn an_implausible_value_names_its_field() {
        let error = StateError::field::<LampV2>("brightness", "is 300, past 255");
        expect!["the saved `lamp` is not plausible: `brightness` is 300, past 255"]
            .assert_eq(&error.to_string());
    }
}
