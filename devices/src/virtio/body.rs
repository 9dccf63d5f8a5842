//! An object of Firecracker's configuration file (its PUT body) on its way to a
//! device's configuration.

use std::fmt;
use std::marker::PhantomData;

use kedge_diag::Fix;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is wrong with an object of the configuration file.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// A field is missing, unknown, or of the wrong type.
    #[error("`{key}` in the configuration file is not right")]
    Shape {
        /// The key of the kind of device.
        key: &'static str,
        /// What serde says, naming the field.
        source: serde_json::Error,
    },
    /// A necessary field is not there.
    #[error("`{key}` needs `{field}`")]
    Missing {
        /// The key of the kind of device.
        key: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field has a value it cannot have.
    #[error("`{field}` of `{key}` cannot be `{value}`")]
    Value {
        /// The key of the kind of device.
        key: &'static str,
        /// The field.
        field: &'static str,
        /// What was given.
        value: String,
        /// What it can be: follows `give`.
        wanted: &'static str,
    },
    /// A field for something this release cannot do.
    #[error("`{field}` of `{key}` is not supported")]
    Unsupported {
        /// The key of the kind of device.
        key: &'static str,
        /// The field.
        field: &'static str,
    },
    /// Two fields of which there can be one.
    #[error("`{field}` of `{key}` does not go with `{other}`")]
    Beside {
        /// The key of the kind of device.
        key: &'static str,
        /// The field.
        field: &'static str,
        /// The field beside it.
        other: &'static str,
    },
}

impl Fix for BodyError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Shape { .. } => {
                "correct the field named above: they are those of Firecracker's API".to_owned()
            }
            Self::Missing { field, .. } => format!("add `{field}`"),
            Self::Value { wanted, .. } => format!("give {wanted}"),
            Self::Unsupported { field, .. } => format!("leave `{field}` out"),
            Self::Beside { field, other, .. } => format!("leave `{field}` or `{other}` out"),
        })
    }
}

/// Parses the object under `key`.
///
/// # Errors
/// Its fields are not those of `T`.
pub fn parse<T: DeserializeOwned>(key: &'static str, value: Value) -> Result<T, BodyError> {
    serde_json::from_value(value).map_err(|source| BodyError::Shape { key, source })
}

/// What a device's name is made of.
pub const ID: &str = "letters, digits and underscores";

/// Whether `id` can be a device's name: [`ID`], as Firecracker has it.
pub fn is_id(id: &str) -> bool {
    !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Checks a device's name.
///
/// # Errors
/// `id`, in `field` of `key`, is not made of [`ID`].
pub fn check_id(key: &'static str, field: &'static str, id: &str) -> Result<(), BodyError> {
    if is_id(id) {
        return Ok(());
    }
    Err(BodyError::Value { key, field, value: id.to_owned(), wanted: ID })
}

/// Reads an object's field that may be left out, and is not null.
pub(crate) fn given<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(from).map(Some)
}

/// Reads an object's field that is an object, or null. Of an array, serde would take the
/// elements for the object's fields.
pub(crate) fn object_or_null<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<Object<T>>::deserialize(from).map(|object| object.map(|Object(read)| read))
}

/// What is read from an object only.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(OfMap(PhantomData)).map(Self)
    }
}

struct OfMap<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
    type Value = T;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}
