//! What a user says about the service: `mmds-config`.

use std::net::Ipv4Addr;

use kedge_diag::Fix;
use serde::{Deserialize, Serialize};

/// How a guest is to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// As it likes.
    #[default]
    V1,
    /// With a token that it has asked for before.
    V2,
}

/// `PUT /mmds/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network interfaces behind which the guest finds the service.
    pub network_interfaces: Vec<String>,
    /// How it is to ask.
    #[serde(default)]
    pub version: Version,
    /// The service's address, which is link-local.
    #[serde(default = "usual_address")]
    pub ipv4_address: Ipv4Addr,
    /// Whether answers are the text that the metadata services of clouds give, whatever the
    /// guest accepts.
    #[serde(default)]
    pub imds_compat: bool,
}

/// Where guests look for metadata.
const fn usual_address() -> Ipv4Addr {
    Ipv4Addr::new(169, 254, 169, 254)
}

/// A configuration that no machine can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConfig {
    /// No guest could ask.
    #[error("the metadata service has no network interface")]
    NoInterface,
    /// No such interface.
    #[error("there is no network interface `{0}` for the metadata service")]
    NoSuchInterface(String),
    /// An address of somebody else's.
    #[error("the metadata service cannot have the address {0}")]
    Address(Ipv4Addr),
}

impl BadConfig {
    /// The words by which clients of Firecracker know it (FIRECRACKER_API.md, 6).
    pub const fn known_as(&self) -> &'static str {
        match self {
            Self::NoInterface => {
                "The list of network interface IDs that allow forwarding MMDS requests is empty."
            }
            Self::NoSuchInterface(_) => {
                "The list of network interface IDs provided contains at least one ID that does \
                 not correspond to any existing network interface."
            }
            Self::Address(_) => "The MMDS IPv4 address is not link local.",
        }
    }
}

impl Fix for BadConfig {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::NoInterface => {
                "name the guest's network interface: \"network_interfaces\": [\"eth0\"]".to_owned()
            }
            Self::NoSuchInterface(_) => {
                "name network interfaces that the machine has by then".to_owned()
            }
            Self::Address(_) => {
                "choose one from 169.254.1.0 to 169.254.254.255, or leave it out".to_owned()
            }
        })
    }
}

impl Config {
    /// Checks it against the machine's network `interfaces`.
    ///
    /// # Errors
    /// The machine cannot have it.
    pub fn check(&self, interfaces: &[&str]) -> Result<(), BadConfig> {
        if self.network_interfaces.is_empty() {
            return Err(BadConfig::NoInterface);
        }
        let unknown = |id: &&String| !interfaces.contains(&id.as_str());
        if let Some(id) = self.network_interfaces.iter().find(unknown) {
            return Err(BadConfig::NoSuchInterface(id.clone()));
        }
        match self.ipv4_address.octets() {
            // RFC 3927, 2.1: the first and the last 256 are reserved.
            [169, 254, 1..=254, _] => Ok(()),
            _ => Err(BadConfig::Address(self.ipv4_address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;
    use serde_json::json;

    use super::*;

    fn config(text: serde_json::Value) -> Config {
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn the_interfaces_are_all_that_has_to_be_said() {
        let usual = config(json!({"network_interfaces": ["eth0"]}));
        assert_eq!(
            serde_json::to_value(&usual).unwrap(),
            json!({
                "network_interfaces": ["eth0"], "version": "V1",
                "ipv4_address": "169.254.169.254", "imds_compat": false,
            })
        );
        assert_eq!(usual.check(&["eth0"]), Ok(()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_cure() {
        let wrong = |text| report(&config(text).check(&["eth0"]).unwrap_err());
        expect![[r#"
            error: the metadata service has no network interface
              fix: name the guest's network interface: "network_interfaces": ["eth0"]"#]]
        .assert_eq(&wrong(json!({"network_interfaces": []})));
        expect![[r#"
            error: there is no network interface `eth1` for the metadata service
              fix: name network interfaces that the machine has by then"#]]
        .assert_eq(&wrong(json!({"network_interfaces": ["eth0", "eth1"]})));
        expect![[r#"
            error: the metadata service cannot have the address 169.254.255.1
              fix: choose one from 169.254.1.0 to 169.254.254.255, or leave it out"#]]
        .assert_eq(&wrong(
            json!({"network_interfaces": ["eth0"], "ipv4_address": "169.254.255.1"}),
        ));
    }

    #[test]
    fn a_third_version_is_refused_with_the_two_there_are() {
        let error = serde_json::from_value::<Config>(
            json!({"network_interfaces": ["eth0"], "version": "foo"}),
        );
        expect!["unknown variant `foo`, expected `V1` or `V2`"]
            .assert_eq(&error.unwrap_err().to_string());
    }
}
