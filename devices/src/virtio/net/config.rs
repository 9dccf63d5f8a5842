//! What a user says about a network card: `--net` and Firecracker's
//! `network-interfaces`.

use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::RawFd;

use kedge_diag::Trouble;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Net;
use super::mac::{MacAddress, NotAMacAddress};
use crate::tap::{OpenTapError, Tap};
use crate::virtio::body::{self, BodyError, object_or_null};
use crate::virtio::catalog::{ApiWords, DeviceConfig, HostField, Kind, Parsed};
use crate::virtio::change::{Changeable, is_a};
use crate::virtio::device::VirtioDevice;
use crate::virtio::limits::RateLimiter;
use crate::virtio::options::{OptionError, Options};

const USAGE: &str = "tap=NAME[,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,id=NAME][,rx_bandwidth=RATE]\
                     [,rx_ops=RATE][,tx_bandwidth=RATE][,tx_ops=RATE]";

/// The row of the catalogue.
pub static KIND: Kind = Kind {
    noun: "network interface",
    flag: "net",
    flag_value: USAGE,
    flag_help: "Give the guest a network card on a tap interface of the host; fd=N in place of tap= for one that is open",
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
    change: Some(Changeable { check: is_a::<Patch>, fault: "Network config error: " }),
    api: ApiWords {
        noun: "Network",
        unopened: "Could not create the network device: Open tap device failed: ",
        deprecated: &[],
    },
};

/// The options of `--net`, the most important first.
const OPTIONS: &[&str] = &[
    "tap",
    "fd",
    "mac",
    "mtu",
    "queues",
    "id",
    "rx_bandwidth",
    "rx_ops",
    "tx_bandwidth",
    "tx_ops",
];

/// The packet sizes in bytes that IPv4 allows, less the one that no header has
/// room for.
pub(super) const MTUS: RangeInclusive<u16> = 68..=65535;

const WANTED_MAC: &str = "six pairs of hex digits, such as 06:00:ac:10:00:02, of which the first is even and not all are 0";
const WANTED_MTU: &str = "a number of bytes from 68 to 65535";
const WANTED_FD: &str = "the number of an open descriptor, or several with colons between, up to 8";
const WANTED_TAP: &str =
    "the name of a tap interface, or `fd:` and the number of an open descriptor";
const WANTED_PAIRS: &str =
    "a number of pairs from 1 to 8, as many as descriptors where these are given";
const WANTED_ID: &str = "letters, digits and underscores";

/// The most pairs of queues of a card.
const MOST_PAIRS: u16 = 8;

/// What stands before descriptors where an interface's name could be. No name has
/// a colon.
const DESCRIPTORS: &str = "fd:";

/// The tap that a card is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapSource {
    /// An interface of the host, which must exist.
    Interface(String),
    /// Descriptors that kedge has from the program that started it: one for each
    /// pair of queues.
    Descriptors(Vec<RawFd>),
}

impl TapSource {
    /// An interface's name, or `fd:3`, or `fd:3:4`.
    fn parse(name: &str) -> Option<Self> {
        match name.strip_prefix(DESCRIPTORS) {
            None => Some(Self::Interface(name.to_owned())),
            Some(numbers) => Self::descriptors(numbers),
        }
    }

    /// `3`, or `3:4`.
    fn descriptors(numbers: &str) -> Option<Self> {
        let numbers = numbers.split(':').map(|number| number.parse().ok());
        let fds = numbers.collect::<Option<Vec<RawFd>>>()?;
        let right = fds.len() <= usize::from(MOST_PAIRS) && fds.iter().all(|&fd| fd >= 0);
        right.then_some(Self::Descriptors(fds))
    }

    /// How many pairs of queues a card on it has, where that many are asked for.
    fn pairs(&self, asked: Option<u64>) -> Option<u16> {
        let given = match self {
            Self::Interface(_) => None,
            Self::Descriptors(fds) => u64::try_from(fds.len()).ok(),
        };
        let pairs = match (given, asked) {
            (Some(given), Some(asked)) if given != asked => return None,
            (given, asked) => given.or(asked).unwrap_or(1),
        };
        u16::try_from(pairs).ok().filter(|pairs| (1..=MOST_PAIRS).contains(pairs))
    }

    fn open(&self, pairs: u16) -> Result<Vec<Tap>, OpenTapError> {
        match self {
            Self::Interface(name) => Tap::open_queues(name, pairs),
            Self::Descriptors(fds) => Tap::from_descriptors(fds),
        }
    }
}

impl fmt::Display for TapSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => f.write_str(name),
            Self::Descriptors(fds) => {
                let numbers: Vec<_> = fds.iter().map(ToString::to_string).collect();
                write!(f, "{DESCRIPTORS}{}", numbers.join(":"))
            }
        }
    }
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Its name among the network cards.
    pub id: String,
    /// The host's end of its cable.
    pub tap: TapSource,
    /// The card's address; the driver picks one where none is given.
    pub mac: Option<MacAddress>,
    /// The largest packet in bytes, from 68; the driver takes 1500 where none is
    /// given.
    pub mtu: Option<u16>,
    /// Its pairs of queues, 1 to 8: the guest can use as many CPUs for it.
    pub queues: u16,
    /// How fast the guest may receive.
    pub rx_limits: RateLimiter,
    /// How fast it may send.
    pub tx_limits: RateLimiter,
}

/// `PATCH /network-interfaces/{iface_id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    #[serde(rename = "iface_id")]
    _id: String,
    /// How fast the guest may receive from now on.
    #[serde(default, deserialize_with = "object_or_null")]
    pub(super) rx_rate_limiter: Option<RateLimiter>,
    /// How fast it may send from now on.
    #[serde(default, deserialize_with = "object_or_null")]
    pub(super) tx_rate_limiter: Option<RateLimiter>,
}

/// `PUT /network-interfaces/{iface_id}`, and `queues`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    iface_id: String,
    host_dev_name: String,
    guest_mac: Option<String>,
    mtu: Option<u64>,
    queues: Option<u64>,
    #[serde(default, deserialize_with = "object_or_null")]
    rx_rate_limiter: Option<RateLimiter>,
    #[serde(default, deserialize_with = "object_or_null")]
    tx_rate_limiter: Option<RateLimiter>,
}

fn from_flag(value: &str, index: usize) -> Parsed {
    let parsed = Options::parse(KIND.flag, KIND.flag_value, OPTIONS, value)
        .and_then(|options| from_options(&options, index));
    Ok(Box::new(parsed.map_err(Trouble::new)?))
}

fn from_options(options: &Options, index: usize) -> Result<NetConfig, OptionError> {
    let (tap, queues) = tap_from(options)?;
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
    let (mac, mtu) = (mac.transpose()?, mtu.transpose()?);
    let rx_limits = RateLimiter::from_options(options, "rx_bandwidth", "rx_ops")?;
    let tx_limits = RateLimiter::from_options(options, "tx_bandwidth", "tx_ops")?;
    Ok(NetConfig { id, tap, mac, mtu, queues, rx_limits, tx_limits })
}

/// The tap, and the number of pairs of queues.
fn tap_from(options: &Options) -> Result<(TapSource, u16), OptionError> {
    let tap = match (options.value("tap"), options.value("fd")) {
        (Some(_), Some(fd)) => return Err(options.refuse("fd", fd, "either `tap` or `fd`")),
        (None, Some(fd)) => {
            TapSource::descriptors(fd).ok_or_else(|| options.refuse("fd", fd, WANTED_FD))?
        }
        (_, None) => {
            let name = options.needed("tap")?;
            TapSource::parse(name).ok_or_else(|| options.refuse("tap", name, WANTED_TAP))?
        }
    };
    let asked = options.value("queues").map(|text| {
        let asked = text.parse();
        asked.map_err(|_| options.refuse("queues", text, WANTED_PAIRS))
    });
    let queues = tap.pairs(asked.transpose()?).ok_or_else(|| {
        options.refuse("queues", options.value("queues").unwrap_or_default(), WANTED_PAIRS)
    })?;
    Ok((tap, queues))
}

fn from_json(value: Value) -> Parsed {
    let parsed = body::parse(KIND.key, value).and_then(from_body);
    Ok(Box::new(parsed.map_err(Trouble::new)?))
}

fn from_body(body: Body) -> Result<NetConfig, BodyError> {
    let Body { iface_id, host_dev_name, guest_mac, mtu, queues: asked, .. } = body;
    let [rx_limits, tx_limits] =
        [body.rx_rate_limiter, body.tx_rate_limiter].map(Option::unwrap_or_default);
    body::check_id(KIND.key, "iface_id", &iface_id)?;
    let refuse = |field, value, wanted| BodyError::Value { key: KIND.key, field, value, wanted };
    let mac = guest_mac
        .map(|text| text.parse().map_err(|NotAMacAddress| refuse("guest_mac", text, WANTED_MAC)));
    let mtu =
        mtu.map(|mtu| checked_mtu(mtu).ok_or_else(|| refuse("mtu", mtu.to_string(), WANTED_MTU)));
    let tap = TapSource::parse(&host_dev_name)
        .ok_or_else(|| refuse("host_dev_name", host_dev_name, WANTED_TAP))?;
    let queues = tap.pairs(asked).ok_or_else(|| {
        refuse("queues", asked.map_or_else(String::new, |asked| asked.to_string()), WANTED_PAIRS)
    })?;
    let (mac, mtu) = (mac.transpose()?, mtu.transpose()?);
    Ok(NetConfig { id: iface_id, tap, mac, mtu, queues, rx_limits, tx_limits })
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
        let Self { id, tap, mac, mtu, queues, rx_limits, tx_limits } = self;
        let mut body = Map::new();
        body.insert("iface_id".to_owned(), Value::from(id.as_str()));
        body.insert("host_dev_name".to_owned(), Value::from(tap.to_string()));
        if let Some(mac) = mac {
            body.insert("guest_mac".to_owned(), Value::from(mac.to_string()));
        }
        if let Some(mtu) = mtu {
            body.insert("mtu".to_owned(), Value::from(*mtu));
        }
        if *queues > 1 {
            body.insert("queues".to_owned(), Value::from(*queues));
        }
        for (field, limits) in [("rx_rate_limiter", rx_limits), ("tx_rate_limiter", tx_limits)] {
            let limits = limits.to_json();
            if !limits.is_null() {
                body.insert(field.to_owned(), limits);
            }
        }
        Value::Object(body)
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        let taps = self.tap.open(self.queues).map_err(Trouble::new)?;
        let card = Net::new(&self.id, taps, self.mac, self.mtu);
        Ok(Box::new(card.limited(self.rx_limits, self.tx_limits)))
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
                  fix: write --net tap=NAME[,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,id=NAME][,rx_bandwidth=RATE][,rx_ops=RATE][,tx_bandwidth=RATE][,tx_ops=RATE]"#]],
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
    fn a_card_has_as_many_pairs_as_asked_for() {
        let config = (KIND.from_flag)("tap=tap0,queues=8", 0).unwrap();
        let json = json!({"iface_id": "eth0", "host_dev_name": "tap0", "queues": 8});
        assert_eq!(config.to_json(), json);
        assert_eq!((KIND.from_json)(json.clone()).unwrap().to_json(), json);
        let one = (KIND.from_flag)("tap=tap0,queues=1", 0).unwrap();
        assert_eq!(one.to_json(), json!({"iface_id": "eth0", "host_dev_name": "tap0"}));
    }

    #[test]
    fn no_pairs_and_too_many_are_refused() {
        for flag in ["tap=tap0,queues=0", "tap=tap0,queues=9", "fd=3:4,queues=3", "tap=t,queues="] {
            let error = (KIND.from_flag)(flag, 0).unwrap_err();
            assert!(error.to_string().starts_with("--net cannot have `queues="), "{error}");
        }
        body_refused(
            json!({"iface_id": "eth0", "host_dev_name": "tap0", "queues": 9}),
            &expect![[r#"
                error: `queues` of `network-interfaces` cannot be `9`
                  fix: give a number of pairs from 1 to 8, as many as descriptors where these are given"#]],
        );
    }

    #[test]
    fn descriptors_stand_where_a_name_could() {
        let config = (KIND.from_flag)("fd=7:8,id=lan", 0).unwrap();
        let json = json!({"iface_id": "lan", "host_dev_name": "fd:7:8", "queues": 2});
        assert_eq!(config.to_json(), json);
        assert_eq!((KIND.from_json)(json.clone()).unwrap().to_json(), json);
        assert_eq!((KIND.from_flag)("tap=fd:7:8,id=lan", 0).unwrap().to_json(), json);
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        flag_refused(
            "fd=-1",
            &expect![[r#"
                error: --net cannot have `fd=-1`
                  fix: give the number of an open descriptor, or several with colons between, up to 8"#]],
        );
        flag_refused(
            "fd=3,tap=tap0",
            &expect![[r#"
                error: --net cannot have `fd=3`
                  fix: give either `tap` or `fd`"#]],
        );
        body_refused(
            json!({"iface_id": "eth0", "host_dev_name": "fd:"}),
            &expect![[r#"
                error: `host_dev_name` of `network-interfaces` cannot be `fd:`
                  fix: give the name of a tap interface, or `fd:` and the number of an open descriptor"#]],
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
    fn limits_are_given_by_flag_and_by_body() {
        let flag = "tap=tap0,rx_bandwidth=1M,tx_ops=500/100ms+20";
        let json = json!({
            "iface_id": "eth0", "host_dev_name": "tap0",
            "rx_rate_limiter": {
                "bandwidth": {"size": 1_048_576, "refill_time": 1000, "one_time_burst": null},
                "ops": null,
            },
            "tx_rate_limiter": {
                "bandwidth": null,
                "ops": {"size": 500, "refill_time": 100, "one_time_burst": 20},
            },
        });
        assert_eq!((KIND.from_flag)(flag, 0).unwrap().to_json(), json);
        assert_eq!((KIND.from_json)(json.clone()).unwrap().to_json(), json);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        body_refused(
            json!({"iface_id": "eth0", "host_dev_name": "tap0", "speed": 2}),
            &expect![[r#"
                error: `network-interfaces` in the configuration file is not right
                  because: unknown field `speed`, expected one of `iface_id`, `host_dev_name`, `guest_mac`, `mtu`, `queues`, `rx_rate_limiter`, `tx_rate_limiter`
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
