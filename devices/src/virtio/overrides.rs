//! Other names for what saved devices use of the host, given when a machine is
//! loaded: the disk of this clone, the tap of that one. What the guest knows of a
//! device cannot change this way.

use kedge_diag::{Fix, Trouble};
use serde_json::{Map, Value};

use super::catalog::{DeviceConfig, HostField, HostForm, Kind};
use super::options::Options;

/// What changes of one device.
#[derive(Clone, Debug)]
pub struct Override {
    kind: &'static Kind,
    /// Which device; where there is one of its kind, it needs no name.
    id: Option<String>,
    /// Fields of its object in the configuration file.
    fields: Map<String, Value>,
}

/// Why devices cannot be changed so.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
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
    /// No name was given, and there is none or more than one.
    #[error("the machine has {count} {noun}s: which one shall change?")]
    Which {
        /// What they are.
        noun: &'static str,
        /// How many there are.
        count: usize,
        /// The names there are, behind commas.
        known: String,
    },
    /// Something that the guest may know.
    #[error("`{field}` of {noun}s cannot change when a machine is loaded")]
    Fixed {
        /// What it is.
        noun: &'static str,
        /// The field.
        field: String,
        /// What can change, behind commas.
        changeable: String,
    },
    /// Not an object, or its name is no text.
    #[error("a change to one of the {noun}s is an object that names it in `{id_field}`")]
    Shape {
        /// What it is.
        noun: &'static str,
        /// The field for its name.
        id_field: &'static str,
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
}

impl Fix for OverrideError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::NoSuch { known, .. } | Self::Which { known, .. } if known.is_empty() => {
                Some("leave it out".to_owned())
            }
            Self::NoSuch { known, .. } | Self::Which { known, .. } => {
                Some(format!("name one of: {known}"))
            }
            Self::Fixed { changeable, .. } if changeable.is_empty() => {
                Some("leave it out: it uses nothing of the host's by name".to_owned())
            }
            Self::Fixed { changeable, .. } => Some(format!("change any of: {changeable}")),
            Self::Shape { .. } => None,
            Self::Refused { source, .. } => source.fix(),
        }
    }
}

impl Override {
    /// Parses the value of the flag of `kind`: `id=root,path=b.img`.
    ///
    /// # Errors
    /// It has another form than [`Kind::override_value`].
    pub fn from_flag(kind: &'static Kind, value: &str) -> Result<Self, Trouble> {
        let host = kind.host_fields.iter();
        let known: Vec<_> = host.map(|host| host.option).chain(["id"]).collect();
        let options = Options::parse(kind.flag, kind.override_value, &known, value);
        let options = options.map_err(Trouble::new)?;
        let mut fields = Map::new();
        for &HostField { option, field, form } in kind.host_fields {
            if options.value(option).is_some() {
                let value = match form {
                    HostForm::Name => options.needed(option).map(Value::from),
                    HostForm::Switch => options.is_on(option).map(Value::from),
                };
                fields.insert(field.to_owned(), value.map_err(Trouble::new)?);
            }
        }
        let id = options.value("id").map(str::to_owned);
        if let (true, Some(main)) = (fields.is_empty(), kind.host_fields.first()) {
            options.needed(main.option).map_err(Trouble::new)?;
        }
        Ok(Self { kind, id, fields })
    }

    /// Takes an object of the form of the configuration file's, with nothing in it
    /// but the name and what changes.
    ///
    /// # Errors
    /// It is none, or changes what the guest may know.
    pub fn from_json(kind: &'static Kind, value: Value) -> Result<Self, OverrideError> {
        let &Kind { noun, id_field, .. } = kind;
        let Value::Object(mut fields) = value else {
            return Err(OverrideError::Shape { noun, id_field });
        };
        let id = match fields.remove(id_field) {
            None => None,
            Some(Value::String(id)) => Some(id),
            Some(_) => return Err(OverrideError::Shape { noun, id_field }),
        };
        let changeable = || kind.host_fields.iter().map(|host| host.field);
        if let Some(field) = fields.keys().find(|field| !changeable().any(|may| may == *field)) {
            let changeable: Vec<_> = changeable().collect();
            let (field, changeable) = (field.clone(), changeable.join(", "));
            return Err(OverrideError::Fixed { noun, field, changeable });
        }
        Ok(Self { kind, id, fields })
    }

    /// The one of `devices` that is meant.
    fn find<'d>(
        &self,
        devices: &'d mut [Box<dyn DeviceConfig>],
    ) -> Result<&'d mut Box<dyn DeviceConfig>, OverrideError> {
        let kind = self.kind;
        let noun = kind.noun;
        let of_kind = devices.iter_mut().filter(|device| device.kind().key == kind.key);
        let mut of_kind: Vec<_> = of_kind.collect();
        let known: Vec<_> = of_kind.iter().map(|device| device.id().to_owned()).collect();
        let (count, names) = (known.len(), known.join(", "));
        let found = match &self.id {
            Some(id) => known
                .iter()
                .position(|known| known == id)
                .ok_or_else(|| OverrideError::NoSuch { noun, id: id.clone(), known: names }),
            None if count == 1 => Ok(0),
            None => Err(OverrideError::Which { noun, count, known: names }),
        };
        found.map(|index| of_kind.swap_remove(index))
    }
}

/// Makes the changes in `devices`, all or none.
///
/// # Errors
/// A device is not there, or cannot be so.
pub fn apply(
    devices: &mut [Box<dyn DeviceConfig>],
    overrides: &[Override],
) -> Result<(), OverrideError> {
    let mut changed = Vec::with_capacity(devices.len());
    for device in devices.iter() {
        changed.push(with(device.as_ref(), &Map::new())?);
    }
    for change in overrides {
        let device = change.find(&mut changed)?;
        *device = with(device.as_ref(), &change.fields)?;
    }
    for (device, changed) in devices.iter_mut().zip(changed) {
        *device = changed;
    }
    Ok(())
}

/// `device` with `fields` in place of its own.
pub(super) fn with(
    device: &dyn DeviceConfig,
    fields: &Map<String, Value>,
) -> Result<Box<dyn DeviceConfig>, OverrideError> {
    let mut body = device.to_json();
    if let Value::Object(body) = &mut body {
        body.extend(fields.clone());
    }
    device.with_json(body).map_err(|source| OverrideError::Refused {
        noun: device.kind().noun,
        id: device.id().to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kedge_diag::report;
    use serde_json::json;

    use super::*;
    use crate::virtio::{block, net, rng};

    fn devices() -> Vec<Box<dyn DeviceConfig>> {
        vec![
            (block::KIND.from_flag)("path=a.img,id=root,readonly", 0).unwrap(),
            (block::KIND.from_flag)("path=b.img,id=data", 1).unwrap(),
            (net::KIND.from_flag)("tap=tap0,mac=06:00:ac:10:00:02,mtu=1400", 0).unwrap(),
            (rng::KIND.from_flag)("", 0).unwrap(),
        ]
    }

    fn flag(kind: &'static Kind, value: &str) -> Override {
        Override::from_flag(kind, value).unwrap()
    }

    fn refused(change: Override, expected: &Expect) {
        expected.assert_eq(&report(&apply(&mut devices(), &[change]).unwrap_err()));
    }

    #[test]
    fn who_carries_the_frames_of_a_card_may_be_another() {
        let mut devices = vec![(net::KIND.from_flag)("tap=tap0,vhost=on", 0).unwrap()];
        let flag = |value| [Override::from_flag(&net::KIND, value).unwrap()];
        apply(&mut devices, &flag("vhost=off")).unwrap();
        let card = json!({"iface_id": "eth0", "host_dev_name": "tap0"});
        assert_eq!(devices[0].to_json(), card);
        apply(&mut devices, &flag("tap=tap7,vhost=on")).unwrap();
        let card = json!({"iface_id": "eth0", "host_dev_name": "tap7", "vhost": true});
        assert_eq!(devices[0].to_json(), card);
        let wrong = Override::from_flag(&net::KIND, "vhost=maybe").unwrap_err();
        assert_eq!(wrong.to_string(), "--net cannot have `vhost=maybe`");
    }

    #[test]
    fn a_flag_gives_disks_and_taps_other_names_and_changes_nothing_else() {
        let mut devices = devices();
        let changes = [
            flag(&block::KIND, "id=root,path=/clone,,7.img"),
            flag(&net::KIND, "tap=tap7,mac=06:00:ac:10:00:07"),
        ];
        apply(&mut devices, &changes).unwrap();
        assert_eq!(devices[0].to_json()["path_on_host"], "/clone,7.img");
        assert_eq!(devices[0].to_json()["is_read_only"], true);
        assert_eq!(devices[1].to_json()["path_on_host"], "b.img");
        assert_eq!(
            devices[2].to_json(),
            json!({
                "iface_id": "eth0", "host_dev_name": "tap7",
                "guest_mac": "06:00:ac:10:00:07", "mtu": 1400,
            })
        );
    }

    #[test]
    fn an_object_of_firecrackers_network_overrides_is_taken() {
        let mut devices = devices();
        let body = json!({"iface_id": "eth0", "host_dev_name": "tap9"});
        apply(&mut devices, &[Override::from_json(&net::KIND, body).unwrap()]).unwrap();
        assert_eq!(devices[2].to_json()["host_dev_name"], "tap9");
    }

    #[test]
    fn a_device_that_is_not_there_names_those_that_are() {
        refused(
            flag(&block::KIND, "id=swap,path=c.img"),
            &expect![[r#"
                error: the machine has no disk `swap`
                  fix: name one of: root, data"#]],
        );
    }

    #[test]
    fn one_of_several_devices_needs_a_name() {
        refused(
            flag(&block::KIND, "path=c.img"),
            &expect![[r#"
                error: the machine has 2 disks: which one shall change?
                  fix: name one of: root, data"#]],
        );
    }

    #[test]
    fn a_value_that_cannot_be_names_the_device_and_leaves_all_as_they_were() {
        let mut devices = devices();
        let changes =
            [flag(&block::KIND, "id=data,path=c.img"), flag(&net::KIND, "mac=01:00:5e:00:00:01")];
        let error = apply(&mut devices, &changes).unwrap_err();
        expect![[r#"
            error: the network interface `eth0` cannot be changed so
              because: `guest_mac` of `network-interfaces` cannot be `01:00:5e:00:00:01`
              fix: give six pairs of hex digits, such as 06:00:ac:10:00:02, of which the first is even and not all are 0"#]]
        .assert_eq(&report(&error));
        assert_eq!(devices[1].to_json()["path_on_host"], "b.img");
    }

    #[test]
    fn what_the_guest_knows_cannot_change() {
        let body = json!({"drive_id": "root", "is_read_only": false});
        let error = Override::from_json(&block::KIND, body).unwrap_err();
        expect![[r#"
            error: `is_read_only` of disks cannot change when a machine is loaded
              fix: change any of: path_on_host, socket"#]]
        .assert_eq(&report(&error));
        let error = Override::from_flag(&net::KIND, "id=eth0,mtu=9000").unwrap_err();
        expect![[r#"
            error: --net has no option `mtu`
              fix: use any of: tap, socket, mac, vhost, id"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn a_flag_that_changes_nothing_shows_its_usage() {
        let error = Override::from_flag(&block::KIND, "id=root").unwrap_err();
        expect![[r#"
            error: --disk needs `path=`
              fix: write --disk [id=NAME,]path=FILE|socket=PATH"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn an_entropy_device_has_nothing_to_change() {
        let error = Override::from_json(&rng::KIND, json!({"rate_limiter": null})).unwrap_err();
        expect![[r#"
            error: `rate_limiter` of entropy devices cannot change when a machine is loaded
              fix: leave it out: it uses nothing of the host's by name"#]]
        .assert_eq(&report(&error));
    }

    #[test]
    fn every_device_comes_out_of_its_own_words_as_it_was() {
        let mut changed = devices();
        apply(&mut changed, &[]).unwrap();
        let words = |devices: &[Box<dyn DeviceConfig>]| {
            devices.iter().map(|device| device.to_json()).collect::<Vec<_>>()
        };
        assert_eq!(words(&changed), words(&devices()));
    }
}
