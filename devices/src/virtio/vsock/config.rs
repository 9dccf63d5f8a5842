//! What a user says about the vsock device: `--vsock` and Firecracker's `vsock`.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use kedge_diag::Trouble;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Vsock;
use super::listen::Listener;
use super::packet::Kind as Carried;
use super::syscalls::SYSCALLS;
use crate::virtio::body::{self, BodyError};
use crate::virtio::catalog::{ApiWords, DeviceConfig, HostField, HostForm, Kind, Parsed};
use crate::virtio::device::VirtioDevice;
use crate::virtio::options::{OptionError, Options};

/// The row of the catalogue.
pub static KIND: Kind = Kind {
    noun: "vsock device",
    flag: "vsock",
    flag_value: "cid=NUMBER,path=SOCKET[,seqpacket]",
    flag_help: "Connect the guest's vsock with Unix sockets of the host, at this path",
    key: "vsock",
    many: false,
    from_flag,
    from_json,
    id_field: "",
    host_fields: &[HostField { option: "path", field: "uds_path", form: HostForm::Name }],
    override_value: "path=SOCKET",
    syscalls: SYSCALLS,
    change: None,
    api: ApiWords {
        noun: "Vsock",
        unopened: "Cannot create backend for vsock device: ",
        deprecated: &["vsock_id"],
    },
};

/// The options of `--vsock`, the most important first.
const OPTIONS: &[&str] = &["path", "cid", "seqpacket"];

/// Addresses that guests can have (Virtio 1.2, 5.10.4): those below and the last are
/// reserved.
pub(super) const CIDS: RangeInclusive<u32> = 3..=u32::MAX - 1;

const WANTED_CID: &str = "a number from 3 to 4294967294, the guest's own";
const WANTED_PATH: &str = "the path of a socket that does not exist yet";

/// A vsock device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's address.
    pub cid: u32,
    /// Where programs of the host ask for connections; with `_` and a port behind it, where
    /// they wait for the guest's.
    pub path: PathBuf,
    /// Whether there are messages beside streams. Programs of the host ask for such
    /// connections at the path with `_seqpacket` behind it.
    pub seqpacket: bool,
}

/// `PUT /vsock`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    guest_cid: u32,
    uds_path: String,
    /// Firecracker's deprecated name for it, which it does not use either.
    #[serde(rename = "vsock_id")]
    _vsock_id: Option<String>,
    /// kedge's own.
    #[serde(default)]
    seqpacket: bool,
}

fn from_flag(value: &str, _index: usize) -> Parsed {
    let parsed = Options::parse(KIND.flag, KIND.flag_value, OPTIONS, value);
    let parsed = parsed.and_then(|options| from_options(&options));
    Ok(Box::new(parsed.map_err(Trouble::new)?))
}

fn from_options(options: &Options) -> Result<VsockConfig, OptionError> {
    let cid = options.needed("cid")?;
    let path = options.needed("path")?;
    let checked = cid.parse().ok().filter(|cid| CIDS.contains(cid));
    let cid = checked.ok_or_else(|| options.refuse("cid", cid, WANTED_CID))?;
    Ok(VsockConfig { cid, path: path.into(), seqpacket: options.is_on("seqpacket")? })
}

fn from_json(value: Value) -> Parsed {
    let parsed = body::parse(KIND.key, value).and_then(from_body);
    Ok(Box::new(parsed.map_err(Trouble::new)?))
}

fn from_body(body: Body) -> Result<VsockConfig, BodyError> {
    let Body { guest_cid: cid, uds_path, _vsock_id, seqpacket } = body;
    let refuse = |field, value, wanted| BodyError::Value { key: KIND.key, field, value, wanted };
    if !CIDS.contains(&cid) {
        return Err(refuse("guest_cid", cid.to_string(), WANTED_CID));
    }
    if uds_path.is_empty() {
        return Err(refuse("uds_path", uds_path, WANTED_PATH));
    }
    Ok(VsockConfig { cid, path: uds_path.into(), seqpacket })
}

impl DeviceConfig for VsockConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    /// There is one at most, so Firecracker gives it no name.
    fn id(&self) -> &str {
        "vsock"
    }

    fn to_json(&self) -> Value {
        let Self { cid, path, seqpacket } = self;
        let mut json = json!({"guest_cid": cid, "uds_path": path.to_string_lossy()});
        // Without, it is as Firecracker has it.
        if *seqpacket {
            json["seqpacket"] = true.into();
        }
        json
    }

    fn leaves_behind(&self) -> bool {
        true
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        let kinds: &[Carried] = match self.seqpacket {
            true => &[Carried::Stream, Carried::Seqpacket],
            false => &[Carried::Stream],
        };
        let listener = Listener::at(&self.path, kinds).map_err(Trouble::new)?;
        Ok(Box::new(Vsock::new(self.cid, listener)))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kedge_diag::report;

    use super::*;

    fn flag_refused(value: &str, expected: &Expect) {
        expected.assert_eq(&report(&(KIND.from_flag)(value, 0).unwrap_err()));
    }

    fn body_refused(value: Value, expected: &Expect) {
        expected.assert_eq(&report(&(KIND.from_json)(value).unwrap_err()));
    }

    #[test]
    fn a_flag_says_all_there_is_to_say() {
        let config = (KIND.from_flag)("cid=3,path=/run/v.sock", 0).unwrap();
        assert_eq!(config.to_json(), json!({"guest_cid": 3, "uds_path": "/run/v.sock"}));
    }

    #[test]
    fn a_body_of_firecrackers_comes_out_without_the_name_it_does_not_use() {
        let body = json!({"guest_cid": 52, "uds_path": "v.sock", "vsock_id": "v1"});
        let config = (KIND.from_json)(body).unwrap();
        assert_eq!(config.to_json(), json!({"guest_cid": 52, "uds_path": "v.sock"}));
    }

    #[test]
    fn messages_are_there_when_they_are_asked_for() {
        let config = (KIND.from_flag)("cid=3,path=v.sock,seqpacket", 0).unwrap().to_json();
        assert_eq!(config, json!({"guest_cid": 3, "uds_path": "v.sock", "seqpacket": true}));
        assert_eq!((KIND.from_json)(config.clone()).unwrap().to_json(), config);
    }

    #[test]
    fn a_guest_has_no_reserved_address() {
        flag_refused(
            "cid=2,path=v.sock",
            &expect![[r#"
                error: --vsock cannot have `cid=2`
                  fix: give a number from 3 to 4294967294, the guest's own"#]],
        );
        body_refused(
            json!({"guest_cid": u32::MAX, "uds_path": "v.sock"}),
            &expect![[r#"
                error: `guest_cid` of `vsock` cannot be `4294967295`
                  fix: give a number from 3 to 4294967294, the guest's own"#]],
        );
    }

    #[test]
    fn both_options_are_needed() {
        flag_refused(
            "path=v.sock",
            &expect![[r#"
                error: --vsock needs `cid=`
                  fix: write --vsock cid=NUMBER,path=SOCKET[,seqpacket]"#]],
        );
        body_refused(
            json!({"guest_cid": 3, "uds_path": ""}),
            &expect![[r#"
                error: `uds_path` of `vsock` cannot be ``
                  fix: give the path of a socket that does not exist yet"#]],
        );
    }
}
