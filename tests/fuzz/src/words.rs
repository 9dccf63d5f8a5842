//! What a user says of a device, right or nearly so: put together from words that are known.

use arbitrary::{Result, Unstructured};
use kedge_devices::virtio::catalog::{DeviceConfig, Kind};
use serde_json::{Map, Value};

/// What can be said of a kind of device: options of its flag with values for them, and
/// fields of its object with values of JSON.
pub(crate) struct Words {
    pub(crate) kind: &'static Kind,
    pub(crate) options: &'static [(&'static str, &'static [&'static str])],
    pub(crate) fields: &'static [(&'static str, &'static [&'static str])],
}

/// Stands in words for where the device is on the host.
const PATH: &str = "PATH";

impl Words {
    /// What the user says of a device at `path`, where that makes sense. What does not is
    /// reported as a user would read it.
    pub(crate) fn say(
        &self,
        path: &str,
        from: &mut Unstructured<'_>,
    ) -> Result<Option<Box<dyn DeviceConfig>>> {
        let parsed = match from.int_in_range(0..=2)? {
            0 => return Ok(None),
            1 => (self.kind.from_flag)(&flag(self.options, path, from)?, 0),
            _ => (self.kind.from_json)(body(self.fields, path, from)?),
        };
        match parsed {
            Ok(config) => {
                let said = config.to_json();
                let again = (self.kind.from_json)(said.clone()).expect("it was well-formed");
                assert_eq!(again.to_json(), said);
                let _ = (config.id(), config.cmdline(0), config.leads(), config.leaves_behind());
                assert_eq!(config.kind().key, self.kind.key);
                drop(format!("{config:?}"));
                Ok(Some(config))
            }
            Err(error) => {
                drop(kedge_diag::report(&error));
                Ok(None)
            }
        }
    }
}

/// Some of `options`, with commas between.
fn flag(options: &[(&str, &[&str])], path: &str, from: &mut Unstructured<'_>) -> Result<String> {
    let mut parts = Vec::new();
    for (name, values) in options {
        let Some(value) = one_of(values, from)? else { continue };
        let value = value.replace(PATH, path);
        parts.push(match value.is_empty() {
            true => (*name).to_owned(),
            false => format!("{name}={value}"),
        });
    }
    Ok(parts.join(","))
}

/// An object with some of `fields`.
pub(crate) fn body(
    fields: &[(&str, &[&str])],
    path: &str,
    from: &mut Unstructured<'_>,
) -> Result<Value> {
    let mut object = Map::new();
    for (name, values) in fields {
        let Some(value) = one_of(values, from)? else { continue };
        let value = value.replace(PATH, path);
        object.insert((*name).to_owned(), serde_json::from_str(&value).expect("it is JSON"));
    }
    Ok(Value::Object(object))
}

/// One of `values`, or none: the first one most often.
fn one_of<'v>(values: &[&'v str], from: &mut Unstructured<'_>) -> Result<Option<&'v str>> {
    let which = usize::from(from.arbitrary::<u8>()?);
    Ok(match which % (2 * values.len() + 1) {
        0 => None,
        which => Some(values.get(which).copied().unwrap_or(values[0])),
    })
}
