//! Changes to the devices of a running machine: what Firecracker's PATCH requests ask
//! for, on its way from a client to the device.

use std::fmt;
use std::time::Instant;

use kedge_diag::{Fix, Trouble};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::catalog::{DeviceConfig, Kind};
use super::overrides::{self, OverrideError};

/// How devices of a kind can be changed.
#[derive(Clone, Copy, Debug)]
pub struct Changeable {
    /// Whether an object has the form of a change: a function made by [`is_a`].
    pub check: fn(&Value) -> serde_json::Result<()>,
    /// What Firecracker says first where it cannot make a change.
    pub fault: &'static str,
}

/// Whether `body` is a `T`, which refuses fields that it does not have.
///
/// # Errors
/// It is none.
pub fn is_a<T: DeserializeOwned>(body: &Value) -> serde_json::Result<()> {
    T::deserialize(body).map(drop)
}

/// A change to one device: fields of its object in the configuration file.
#[derive(Clone)]
pub struct Change {
    kind: &'static Kind,
    id: String,
    body: Value,
}

/// Whether the driver can see a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It cannot.
    Unseen,
    /// The configuration space has changed: it is told so.
    Config,
}

/// Why a device is not changed. It works on as it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Not even a limit of it can change.
    #[error("no {noun} can be changed while its machine runs")]
    Fixed {
        /// What it is.
        noun: &'static str,
    },
    /// The body has another form.
    #[error("{0}")]
    Body(serde_json::Error),
    /// The machine has no such device.
    #[error("the machine has no {noun} `{id}`")]
    NoSuch {
        /// What it would be.
        noun: &'static str,
        /// The name given.
        id: String,
        /// The names there are, behind commas.
        known: String,
    },
    /// The device cannot be so.
    #[error("the {noun} `{id}` cannot be changed so")]
    Refused {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
        /// Why.
        source: Trouble,
    },
    /// It is not done with what it is at.
    #[error("the {noun} `{id}` has not finished its requests in time")]
    Late {
        /// What it is.
        noun: &'static str,
        /// Its name.
        id: String,
    },
}

impl Fix for ChangeError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::NoSuch { known, .. } if !known.is_empty() => {
                Some(format!("name one of: {known}"))
            }
            Self::Late { .. } => Some(
                "look for what on the host keeps it waiting (a disk on a slow network?) and try \
                 again"
                    .to_owned(),
            ),
            Self::Refused { source, .. } => source.fix(),
            Self::Fixed { .. } | Self::Body(_) | Self::NoSuch { .. } => None,
        }
    }
}

impl Change {
    /// The change that `body` asks for, to a device of `kind`: Firecracker's PATCH body.
    ///
    /// # Errors
    /// It has another form, or such devices cannot change.
    pub fn from_json(kind: &'static Kind, body: Value) -> Result<Self, ChangeError> {
        let changeable = kind.change.ok_or(ChangeError::Fixed { noun: kind.noun })?;
        (changeable.check)(&body).map_err(ChangeError::Body)?;
        let id = body.get(kind.id_field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { kind, id, body })
    }

    /// The kind of the device.
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    /// The name of the device.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is to change, for the device to take.
    ///
    /// # Errors
    /// It is no `T`: the kind checked it against something else.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Trouble> {
        T::deserialize(&self.body).map_err(|error| Trouble::new(ChangeError::Body(error)))
    }

    /// Which of `devices` is meant.
    ///
    /// # Errors
    /// None is.
    pub fn find(&self, devices: &[Box<dyn DeviceConfig>]) -> Result<usize, ChangeError> {
        let Self { kind, id, .. } = self;
        let of_kind = |device: &dyn DeviceConfig| device.kind().key == kind.key;
        let meant = |device: &dyn DeviceConfig| of_kind(device) && device.id() == id;
        devices.iter().position(|device| meant(device.as_ref())).ok_or_else(|| {
            let known = devices.iter().map(AsRef::as_ref).filter(|device| of_kind(*device));
            let known = known.map(DeviceConfig::id).collect::<Vec<_>>().join(", ");
            ChangeError::NoSuch { noun: kind.noun, id: id.clone(), known }
        })
    }

    /// `device` as it is configured after the change.
    ///
    /// # Errors
    /// It cannot be so.
    pub fn applied(&self, device: &dyn DeviceConfig) -> Result<Box<dyn DeviceConfig>, ChangeError> {
        let mut fields = Map::new();
        if let (Value::Object(change), Value::Object(mut now)) = (&self.body, device.to_json()) {
            for (name, value) in change {
                let before = now.remove(name).unwrap_or_default();
                fields.insert(name.clone(), merged(before, value));
            }
        }
        overrides::with(device, &fields).map_err(|error| match error {
            OverrideError::Refused { source, .. } => self.refused(source),
            other => self.refused(Trouble::new(other)),
        })
    }

    /// The device cannot be so, because of `source`.
    pub(super) fn refused(&self, source: Trouble) -> ChangeError {
        ChangeError::Refused { noun: self.kind.noun, id: self.id.clone(), source }
    }

    /// The device is at something else.
    pub(super) fn late(&self) -> ChangeError {
        ChangeError::Late { noun: self.kind.noun, id: self.id.clone() }
    }
}

/// `before` with what `change` has: what it leaves out or null stays as it was.
fn merged(before: Value, change: &Value) -> Value {
    match (before, change) {
        (before, Value::Null) => before,
        (Value::Object(mut before), Value::Object(change)) => {
            for (name, value) in change.iter().filter(|(_, value)| !value.is_null()) {
                before.insert(name.clone(), value.clone());
            }
            Value::Object(before)
        }
        (_, change) => change.clone(),
    }
}

impl PartialEq for Change {
    fn eq(&self, other: &Self) -> bool {
        let Self { kind, id, body } = self;
        (kind.key, id, body) == (other.kind.key, &other.id, &other.body)
    }
}

impl Eq for Change {}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Change({} {} {})", self.kind.key, self.id, self.body)
    }
}

/// A device behind its transport, which can be changed while it works and while it
/// rests.
pub trait Target: Send + Sync {
    /// Changes the device, after it has finished what it is at, and tells its driver
    /// where that can see it.
    ///
    /// # Errors
    /// The device cannot be so, or was not done by `deadline`.
    fn change(&self, change: &Change, deadline: Instant) -> Result<(), ChangeError>;
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kedge_diag::report;
    use serde_json::json;

    use super::*;
    use crate::virtio::{block, rng};

    fn devices() -> Vec<Box<dyn DeviceConfig>> {
        vec![
            (block::KIND.from_flag)("path=a.img,id=root,ops=5", 0).unwrap(),
            (block::KIND.from_flag)("path=b.img,id=data", 1).unwrap(),
            (rng::KIND.from_flag)("", 0).unwrap(),
        ]
    }

    fn change(body: Value) -> Result<Box<dyn DeviceConfig>, ChangeError> {
        let change = Change::from_json(&block::KIND, body)?;
        let devices = devices();
        change.applied(devices[change.find(&devices)?].as_ref())
    }

    fn refused(body: Value, expected: &Expect) {
        expected.assert_eq(&report(&change(body).unwrap_err()));
    }

    #[test]
    fn fields_that_are_given_take_the_place_of_those_there() {
        let ops = json!({"size": 7, "refill_time": 100, "one_time_burst": null});
        let changed = change(json!({"drive_id": "data", "path_on_host": "c.img"})).unwrap();
        assert_eq!(changed.to_json()["path_on_host"], "c.img");
        let limit = json!({"drive_id": "root", "rate_limiter": {"bandwidth": ops}});
        let changed = change(limit).unwrap().to_json();
        assert_eq!(changed["path_on_host"], "a.img");
        assert_eq!(changed["rate_limiter"]["bandwidth"], ops);
        assert_eq!(changed["rate_limiter"]["ops"]["size"], 5);
    }

    #[test]
    fn a_bucket_of_nothing_lifts_a_limit_and_null_leaves_it() {
        let ops = |ops: Value| json!({"drive_id": "root", "rate_limiter": {"ops": ops}});
        let lifted = change(ops(json!({"size": 0, "refill_time": 0}))).unwrap();
        assert_eq!(lifted.to_json()["rate_limiter"], Value::Null);
        let same = change(ops(Value::Null)).unwrap();
        assert_eq!(same.to_json(), devices()[0].to_json());
        let same = change(json!({"drive_id": "root", "rate_limiter": null})).unwrap();
        assert_eq!(same.to_json(), devices()[0].to_json());
    }

    #[test]
    fn what_is_no_change_is_refused_by_name() {
        refused(
            json!({"drive_id": "root", "is_read_only": true}),
            &expect![
                "error: unknown field `is_read_only`, expected one of `drive_id`, `path_on_host`, `rate_limiter`"
            ],
        );
        refused(json!({"path_on_host": "c.img"}), &expect!["error: missing field `drive_id`"]);
        refused(
            json!({"drive_id": "swap"}),
            &expect![[r#"
                error: the machine has no disk `swap`
                  fix: name one of: root, data"#]],
        );
    }

    #[test]
    fn a_kind_that_cannot_change_says_so() {
        let error = Change::from_json(&rng::KIND, json!({})).unwrap_err();
        expect!["error: no entropy device can be changed while its machine runs"]
            .assert_eq(&report(&error));
    }
}
