//! What a user says about a network card: `--net` and Firecracker's
//! `network-interfaces`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use kedge_diag::Trouble;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Net;
use crate::tap::Tap;
use crate::virtio::body::{self, BodyError};
use crate::virtio::catalog::{DeviceConfig, HostField, Kind, Parsed};
use crate::virtio::device::VirtioDevice;
use crate::virtio::limits::RateLimiter;
use crate::virtio::options::{OptionError, Options};

/// The row of the catalogue.
pub static KIND: Kind = Kind {
    noun: "network interface",
    flag: "net",
    flag_value: "tap=NAME[,mac=ADDRESS][,mtu=BYTES][,id=NAME]",
    flag_help: "Give the guest a network card on a tap interface of the host",
    key: "network-interfaces",
    many: true,
    from_flag,
    from_json,
    id_field: "iface_id",
    host_fields: &[
        HostField { option: "tap", field: "host_dev_name" },
        HostField { option: "mac", field: "guest_mac" },
    ],
    override_value: "[id=NAME,]tap=NAME[,mac=ADDRESS]",
    change: None,
};

/// The options of `--net`, the most important first.
const OPTIONS: &[&str] = &["tap", "mac", "mtu", "id"];

/// The packet sizes in bytes that IPv4 allows, less the one that no header has
/// room for.
pub(super) const MTUS: RangeInclusive<u16> = 68..=65535;

const WANTED_MAC: &str = "six pairs of hex digits, such as 06:00:ac:10:00:02, of which the first is even and not all are 0";
const WANTED_MTU: &str = "a number of bytes from 68 to 65535";
const WANTED_ID: &str = "letters, digits and underscores";

/// The Ethernet address of one card: neither a group's nor nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress([u8; 6]);

/// Something that is not the Ethernet address of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the Ethernet address of a card")]
pub struct NotAMacAddress;

impl MacAddress {
    /// The bytes as they are sent.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for MacAddress {
    type Err = NotAMacAddress;

    fn from_str(text: &str) -> Result<Self, NotAMacAddress> {
        let mut octets = [0; 6];
        let mut pairs = text.split(':');
        for octet in &mut octets {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or(NotAMacAddress)?;
            if !pair.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(NotAMacAddress);
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| NotAMacAddress)?;
        }
        if pairs.next().is_some() {
            return Err(NotAMacAddress);
        }
        octets.try_into()
    }
}

impl TryFrom<[u8; 6]> for MacAddress {
    type Error = NotAMacAddress;

    fn try_from(octets: [u8; 6]) -> Result<Self, NotAMacAddress> {
        const GROUP: u8 = 1;
        if octets[0] & GROUP != 0 || octets == [0; 6] {
            return Err(NotAMacAddress);
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Its name among the network cards.
    pub id: String,
    /// The host's tap interface, which must exist.
    pub tap: String,
    /// The card's address; the driver picks one where none is given.
    pub mac: Option<MacAddress>,
    /// The largest packet in bytes, from 68; the driver takes 1500 where none is
    /// given.
    pub mtu: Option<u16>,
}

/// `PUT /network-interfaces/{iface_id}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    iface_id: String,
    host_dev_name: String,
    guest_mac: Option<String>,
    mtu: Option<u64>,
    rx_rate_limiter: Option<RateLimiter>,
    tx_rate_limiter: Option<RateLimiter>,
}

fn from_flag(value: &str, index: usize) -> Parsed {
    let parsed = Options::parse(KIND.flag, KIND.flag_value, OPTIONS, value)
        .and_then(|options| from_options(&options, index));
    Ok(Box::new(parsed.map_err(Trouble::new)?))
}

fn from_options(options: &Options, index: usize) -> Result<NetConfig, OptionError> {
    let tap = options.needed("tap")?.to_owned();
    let mac = options
        .value("mac")
        .map(|text| text.parse().map_err(|NotAMacAddress| options.refuse("mac", text, WANTED_MAC)));
    let mtu = options.value("mtu").map(|text| {
        let mtu = text.parse().ok().and_then(checked_mtu);
        mtu.ok_or_else(|| options.refuse("mtu", text, WANTED_MTU))
    });
    let id = match options.value("id") {
        Some(id) => body::check_id(KIND.key, "iface_id", id)
            .map(|()| id.to_owned())
            .map_err(|_| options.refuse("id", id, WANTED_ID))?,
        None => format!("eth{index}"),
    };
    Ok(NetConfig { id, tap, mac: mac.transpose()?, mtu: mtu.transpose()? })
}

fn from_json(value: Value) -> Parsed {
    let parsed = body::parse(KIND.key, value).and_then(from_body);
    Ok(Box::new(parsed.map_err(Trouble::new)?))
}

fn from_body(body: Body) -> Result<NetConfig, BodyError> {
    let Body { iface_id, host_dev_name, guest_mac, mtu, rx_rate_limiter, tx_rate_limiter } = body;
    body::check_id(KIND.key, "iface_id", &iface_id)?;
    RateLimiter::refuse(rx_rate_limiter, KIND.key, "rx_rate_limiter")?;
    RateLimiter::refuse(tx_rate_limiter, KIND.key, "tx_rate_limiter")?;
    let refuse = |field, value, wanted| BodyError::Value { key: KIND.key, field, value, wanted };
    let mac = guest_mac
        .map(|text| text.parse().map_err(|NotAMacAddress| refuse("guest_mac", text, WANTED_MAC)));
    let mtu =
        mtu.map(|mtu| checked_mtu(mtu).ok_or_else(|| refuse("mtu", mtu.to_string(), WANTED_MTU)));
    Ok(NetConfig { id: iface_id, tap: host_dev_name, mac: mac.transpose()?, mtu: mtu.transpose()? })
}

fn checked_mtu(mtu: u64) -> Option<u16> {
    u16::try_from(mtu).ok().filter(|mtu| MTUS.contains(mtu))
}

impl DeviceConfig for NetConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn to_json(&self) -> Value {
        let Self { id, tap, mac, mtu } = self;
        let mut body = Map::new();
        body.insert("iface_id".to_owned(), Value::from(id.as_str()));
        body.insert("host_dev_name".to_owned(), Value::from(tap.as_str()));
        if let Some(mac) = mac {
            body.insert("guest_mac".to_owned(), Value::from(mac.to_string()));
        }
        if let Some(mtu) = mtu {
            body.insert("mtu".to_owned(), Value::from(*mtu));
        }
        Value::Object(body)
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        let tap = Tap::open(&self.tap).map_err(Trouble::new)?;
        Ok(Box::new(Net::new(&self.id, tap, self.mac, self.mtu)))
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kedge_diag::report;
    use serde_json::json;

    use super::*;

    fn flag_refused(value: &str, expected: &Expect) {
        expected.assert_eq(&report(&(KIND.from_flag)(value, 0).unwrap_err()));
    }

    fn body_refused(value: Value, expected: &Expect) {
        expected.assert_eq(&report(&(KIND.from_json)(value).unwrap_err()));
    }

    #[test]
    fn a_flag_says_all_there_is_to_say() {
        let config = (KIND.from_flag)("tap=tap0,mac=06:00:AC:10:00:02,mtu=9000,id=wan", 3).unwrap();
        assert_eq!(
            config.to_json(),
            json!({
                "iface_id": "wan", "host_dev_name": "tap0",
                "guest_mac": "06:00:ac:10:00:02", "mtu": 9000,
            })
        );
    }

    #[test]
    fn a_flag_needs_only_the_tap_and_cards_are_counted() {
        let config = (KIND.from_flag)("tap=tap7", 3).unwrap();
        assert_eq!(config.to_json(), json!({"iface_id": "eth3", "host_dev_name": "tap7"}));
        assert_eq!(config.id(), "eth3");
    }

    #[test]
    fn a_body_of_firecrackers_comes_out_as_it_went_in() {
        let body = json!({
            "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:ac:10:00:02",
            "mtu": 1400,
        });
        assert_eq!((KIND.from_json)(body.clone()).unwrap().to_json(), body);
    }

    #[test]
    fn a_flag_without_a_tap_shows_its_usage() {
        flag_refused(
            "mtu=1500",
            &expect![[r#"
                error: --net needs `tap=`
                  fix: write --net tap=NAME[,mac=ADDRESS][,mtu=BYTES][,id=NAME]"#]],
        );
    }

    #[test]
    fn an_address_that_is_none_or_a_groups_is_refused() {
        flag_refused(
            "tap=tap0,mac=01:00:5e:00:00:01",
            &expect![[r#"
                error: --net cannot have `mac=01:00:5e:00:00:01`
                  fix: give six pairs of hex digits, such as 06:00:ac:10:00:02, of which the first is even and not all are 0"#]],
        );
        for text in
            ["", "06:00:ac:10:00", "06:00:ac:10:00:02:03", "6:0:ac:10:0:2", "+6:00:ac:10:00:02"]
        {
            assert_eq!(text.parse::<MacAddress>(), Err(NotAMacAddress), "{text}");
        }
    }

    #[test]
    fn an_mtu_out_of_range_is_refused() {
        flag_refused(
            "tap=tap0,mtu=67",
            &expect![[r#"
                error: --net cannot have `mtu=67`
                  fix: give a number of bytes from 68 to 65535"#]],
        );
        body_refused(
            json!({"iface_id": "eth0", "host_dev_name": "tap0", "mtu": 65536}),
            &expect![[r#"
                error: `mtu` of `network-interfaces` cannot be `65536`
                  fix: give a number of bytes from 68 to 65535"#]],
        );
    }

    #[test]
    fn a_name_with_other_signs_is_refused() {
        flag_refused(
            "tap=tap0,id=my-net",
            &expect![[r#"
                error: --net cannot have `id=my-net`
                  fix: give letters, digits and underscores"#]],
        );
    }

    #[test]
    fn a_rate_limit_is_refused_by_name() {
        body_refused(
            json!({
                "iface_id": "eth0", "host_dev_name": "tap0",
                "tx_rate_limiter": {"ops": {"size": 1, "refill_time": 1}},
            }),
            &expect![[r#"
                error: `tx_rate_limiter` of `network-interfaces` is not supported
                  fix: leave `tx_rate_limiter` out"#]],
        );
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        body_refused(
            json!({"iface_id": "eth0", "host_dev_name": "tap0", "queues": 2}),
            &expect![[r#"
                error: `network-interfaces` in the configuration file is not right
                  because: unknown field `queues`, expected one of `iface_id`, `host_dev_name`, `guest_mac`, `mtu`, `rx_rate_limiter`, `tx_rate_limiter`
                  fix: correct the field named above: they are those of Firecracker's API"#]],
        );
    }

    #[test]
    fn a_tap_that_does_not_exist_is_an_error_of_opening() {
        let config = (KIND.from_flag)("tap=a/b", 0).unwrap();
        let error = config.open().map(|_| ()).unwrap_err();
        expect!["`a/b` cannot be the name of a network interface"].assert_eq(&error.to_string());
    }
}
