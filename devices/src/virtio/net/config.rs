//! What a user says about a network card: `--net` and Firecracker's
//! `network-interfaces`.

use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::PathBuf;

use kedge_diag::Trouble;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::cable::{self, Cable, TapSource};
use super::mac::{MacAddress, NotAMacAddress};
use super::syscalls::SYSCALLS;
use super::user::{NoBackEnd, UserNet};
use super::{Identity, Net};
use crate::tap::Tap;
use crate::virtio::body::{self, BodyError, object_or_null};
use crate::virtio::catalog::{ApiWords, DeviceConfig, HostField, HostForm, Kind, Parsed};
use crate::virtio::change::{Changeable, is_a};
use crate::virtio::device::VirtioDevice;
use crate::virtio::limits::RateLimiter;
use crate::virtio::options::{OptionError, Options};
use crate::virtio::vhost::{BackEndError, KernelNet};

const USAGE: &str = "tap=NAME[,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,vhost=on|off][,id=NAME]\
                     [,rx_bandwidth=RATE][,rx_ops=RATE][,tx_bandwidth=RATE][,tx_ops=RATE] \
                     or socket=PATH[,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,id=NAME]";

/// The row of the catalogue.
pub static KIND: Kind = Kind {
    noun: "network interface",
    flag: "net",
    flag_value: USAGE,
    flag_help: "Give the guest a network card on a tap interface of the host; fd=N in place of tap= for one that is open, socket=PATH for another process",
    key: "network-interfaces",
    many: true,
    from_flag,
    from_json,
    id_field: "iface_id",
    host_fields: &[
        HostField { option: "tap", field: "host_dev_name", form: HostForm::Name },
        HostField { option: "socket", field: "socket", form: HostForm::Name },
        HostField { option: "mac", field: "guest_mac", form: HostForm::Name },
        HostField { option: "vhost", field: "vhost", form: HostForm::Switch },
    ],
    override_value: "[id=NAME,]tap=NAME|socket=PATH[,mac=ADDRESS][,vhost=on|off]",
    syscalls: SYSCALLS,
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
    "socket",
    "mac",
    "mtu",
    "queues",
    "vhost",
    "id",
    "rx_bandwidth",
    "rx_ops",
    "tx_bandwidth",
    "tx_ops",
];

/// Those of them that limit the card.
const LIMITS: [&str; 4] = ["rx_bandwidth", "rx_ops", "tx_bandwidth", "tx_ops"];

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
const WANTED_UNLIMITED: &str =
    "no limit beside `vhost`: it is the host's kernel that carries the frames then";
const WANTED_BESIDE_SOCKET: &str =
    "it to the back end: such a card has `socket`, `mac`, `mtu`, `queues` and `id`";
const WANTED_ID: &str = "letters, digits and underscores";

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Its name among the network cards.
    pub id: String,
    /// What it is on.
    pub cable: Cable,
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

/// `PUT /network-interfaces/{iface_id}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    iface_id: String,
    #[serde(default, deserialize_with = "body::given")]
    host_dev_name: Option<String>,
    /// kedge's own.
    socket: Option<PathBuf>,
    guest_mac: Option<String>,
    mtu: Option<u64>,
    /// kedge's own.
    queues: Option<u64>,
    /// kedge's own.
    #[serde(default)]
    vhost: bool,
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
    let (cable, queues) = cable_from(options)?;
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
    let limits = LIMITS.iter().find_map(|&name| Some((name, options.value(name)?)));
    if let (Some((name, limit)), false) = (limits, cable.is_ours()) {
        return Err(options.refuse(name, limit, WANTED_UNLIMITED));
    }
    let rx_limits = RateLimiter::from_options(options, "rx_bandwidth", "rx_ops")?;
    let tx_limits = RateLimiter::from_options(options, "tx_bandwidth", "tx_ops")?;
    Ok(NetConfig { id, cable, mac, mtu, queues, rx_limits, tx_limits })
}

/// What the card is on, and the number of pairs of queues.
fn cable_from(options: &Options) -> Result<(Cable, u16), OptionError> {
    let asked = options.value("queues").map(|text| {
        let asked = text.parse();
        asked.map_err(|_| options.refuse("queues", text, WANTED_PAIRS))
    });
    let asked = asked.transpose()?;
    let refuse_pairs =
        || options.refuse("queues", options.value("queues").unwrap_or_default(), WANTED_PAIRS);
    if options.value("socket").is_some() {
        let socket = socket_from(options)?;
        return Ok((socket, cable::pairs(asked).ok_or_else(refuse_pairs)?));
    }
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
    let queues = tap.pairs(asked).ok_or_else(refuse_pairs)?;
    Ok((Cable::on_tap(tap, options.is_on("vhost")?), queues))
}

/// The socket of a back end.
fn socket_from(options: &Options) -> Result<Cable, OptionError> {
    for name in ["tap", "fd", "vhost"].iter().chain(&LIMITS) {
        if let Some(value) = options.value(name) {
            return Err(options.refuse(name, value, WANTED_BESIDE_SOCKET));
        }
    }
    Ok(Cable::Socket(options.needed("socket")?.into()))
}

fn from_json(value: Value) -> Parsed {
    let parsed = body::parse(KIND.key, value).and_then(from_body);
    Ok(Box::new(parsed.map_err(Trouble::new)?))
}

fn from_body(body: Body) -> Result<NetConfig, BodyError> {
    let Body { iface_id, host_dev_name, socket, vhost, guest_mac, mtu, queues: asked, .. } = body;
    let [rx_limits, tx_limits] =
        [body.rx_rate_limiter, body.tx_rate_limiter].map(Option::unwrap_or_default);
    body::check_id(KIND.key, "iface_id", &iface_id)?;
    let refuse = |field, value, wanted| BodyError::Value { key: KIND.key, field, value, wanted };
    let mac = guest_mac
        .map(|text| text.parse().map_err(|NotAMacAddress| refuse("guest_mac", text, WANTED_MAC)));
    let mtu =
        mtu.map(|mtu| checked_mtu(mtu).ok_or_else(|| refuse("mtu", mtu.to_string(), WANTED_MTU)));
    let (cable, queues) = match (host_dev_name, socket) {
        (Some(_), Some(_)) => return Err(beside("host_dev_name", "socket")),
        (None, Some(_)) if vhost => return Err(beside("vhost", "socket")),
        (None, Some(socket)) => (Cable::Socket(socket), cable::pairs(asked)),
        (None, None) => {
            let source = serde::de::Error::missing_field("host_dev_name");
            return Err(BodyError::Shape { key: KIND.key, source });
        }
        (Some(name), None) => {
            let tap =
                TapSource::parse(&name).ok_or_else(|| refuse("host_dev_name", name, WANTED_TAP))?;
            let pairs = tap.pairs(asked);
            (Cable::on_tap(tap, vhost), pairs)
        }
    };
    let queues = queues.ok_or_else(|| {
        refuse("queues", asked.map_or_else(String::new, |asked| asked.to_string()), WANTED_PAIRS)
    })?;
    let limits = [("rx_rate_limiter", rx_limits), ("tx_rate_limiter", tx_limits)];
    let limited = limits.into_iter().find(|(_, limits)| *limits != RateLimiter::default());
    if let (Some((field, _)), false) = (limited, cable.is_ours()) {
        let other = if matches!(cable, Cable::Socket(_)) { "socket" } else { "vhost" };
        return Err(beside(field, other));
    }
    let (mac, mtu) = (mac.transpose()?, mtu.transpose()?);
    Ok(NetConfig { id: iface_id, cable, mac, mtu, queues, rx_limits, tx_limits })
}

fn beside(field: &'static str, other: &'static str) -> BodyError {
    BodyError::Beside { key: KIND.key, field, other }
}

fn checked_mtu(mtu: u64) -> Option<u16> {
    u16::try_from(mtu).ok().filter(|mtu| MTUS.contains(mtu))
}

/// The host's kernel between a card and `taps`.
fn by_kernel(taps: &[Tap]) -> Result<KernelNet, BackEndError> {
    let ends = taps.iter().map(|tap| tap.as_fd().try_clone_to_owned());
    let ends = ends.collect::<Result<_, _>>();
    let out = |source| BackEndError::Host { what: "file descriptor", source };
    KernelNet::open(ends.map_err(out)?)
}

impl DeviceConfig for NetConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn to_json(&self) -> Value {
        let Self { id, cable, mac, mtu, queues, rx_limits, tx_limits } = self;
        let mut body = Map::new();
        body.insert("iface_id".to_owned(), Value::from(id.as_str()));
        let (field, name) = match cable {
            Cable::Tap(tap) | Cable::TapByKernel(tap) => ("host_dev_name", tap.to_string()),
            Cable::Socket(socket) => ("socket", socket.to_string_lossy().into_owned()),
        };
        body.insert(field.to_owned(), Value::from(name));
        if let Some(mac) = mac {
            body.insert("guest_mac".to_owned(), Value::from(mac.to_string()));
        }
        if let Some(mtu) = mtu {
            body.insert("mtu".to_owned(), Value::from(*mtu));
        }
        if *queues > 1 {
            body.insert("queues".to_owned(), Value::from(*queues));
        }
        if self.is_in_kernel() {
            body.insert("vhost".to_owned(), Value::from(true));
        }
        for (field, limits) in [("rx_rate_limiter", rx_limits), ("tx_rate_limiter", tx_limits)] {
            let limits = limits.to_json();
            if !limits.is_null() {
                body.insert(field.to_owned(), limits);
            }
        }
        Value::Object(body)
    }

    fn is_in_kernel(&self) -> bool {
        matches!(self.cable, Cable::TapByKernel(_))
    }

    fn shares_memory(&self) -> bool {
        matches!(self.cable, Cable::Socket(_))
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        let Self { id, mac, mtu, queues, .. } = self;
        let card = |tap: &TapSource| {
            let taps = tap.open(*queues).map_err(Trouble::new)?;
            let kernel = self.is_in_kernel().then(|| by_kernel(&taps));
            let kernel = kernel.transpose().map_err(Trouble::new)?;
            Ok((Net::new(id, taps, *mac, *mtu), kernel))
        };
        match &self.cable {
            Cable::Tap(tap) | Cable::TapByKernel(tap) => Ok(Box::new(match card(tap)? {
                (card, None) => card.limited(self.rx_limits, self.tx_limits),
                (card, Some(kernel)) => card.carried_by(Box::new(kernel)),
            })),
            Cable::Socket(socket) => {
                let opened = UserNet::open(id, socket, *queues, Identity { mac: *mac, mtu: *mtu });
                let unopened = |source| Trouble::new(NoBackEnd { id: id.clone(), source });
                Ok(Box::new(opened.map_err(unopened)?))
            }
        }
    }
}

#[cfg(test)]
mod tests;
