//! `PUT /{key}` and `PUT /{key}/{id}` for every kind of device in the catalogue
//! (FIRECRACKER_API.md, 3.3 and 3.4).

use std::error::Error;

use kedge_devices::virtio::body::is_id;
use kedge_devices::virtio::catalog::{DeviceConfig, Kind};
use kedge_diag::Trouble;
use serde_json::Value;

use super::{Call, Fault, Parsed, Setting, body, place};

/// A device that a client describes; with another of its kind and name, that one's place is
/// its.
pub type Device = Box<dyn DeviceConfig>;

/// Reads the body that describes the device `id` of `kind`; of a kind of which a machine
/// has one, there is no name.
pub(super) fn read(kind: &'static Kind, id: Option<&str>, bytes: &[u8]) -> Result<Parsed, Fault> {
    let Value::Object(fields) = body::read(bytes)? else { return Err(Fault::NoObject) };
    let deprecated = kind.api.deprecated.iter().any(|field| fields.contains_key(*field));
    let read = |fields| (kind.from_json)(Value::Object(fields));
    let device = read(fields.clone()).map_err(|source| {
        let wrong = |fields| read(fields).err().and_then(|error| of_serde(&error));
        let place = place::of(bytes, &fields, wrong);
        match of_serde(&source) {
            Some(wrong) => Fault::Form { wrong, place },
            None => Fault::Device { kind, source },
        }
    })?;
    id.map_or(Ok(()), |id| check_same(id, device.id()))?;
    Ok(Parsed { call: Call::Set(Setting::Device(device)), deprecated })
}

/// Checks that a path and its body name the same device.
///
/// # Errors
/// They do not.
pub(super) fn check_same(path: &str, body: &str) -> Result<(), Fault> {
    match path == body {
        true => Ok(()),
        false => Err(Fault::TwoNames { path: path.to_owned(), body: body.to_owned() }),
    }
}

/// What serde says where a body has another form than it should.
fn of_serde(error: &Trouble) -> Option<String> {
    error.source()?.downcast_ref::<serde_json::Error>().map(ToString::to_string)
}

/// A device's name in a path.
///
/// # Errors
/// It cannot be one.
pub(super) fn check_name(id: &str) -> Result<(), Fault> {
    match id {
        "" => Err(Fault::NoName),
        id if is_id(id) => Ok(()),
        id => Err(Fault::Name(id.to_owned())),
    }
}
