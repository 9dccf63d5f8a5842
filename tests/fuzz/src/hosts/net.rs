//! A network card: its cable is full, cut, or brings frames of any kind; beside it there is
//! somebody who sends every frame back.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use kedge_devices::tap::Tap;
use kedge_devices::virtio::change::Change;
use kedge_devices::virtio::detour::Detour;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::limits::RateLimiter;
use kedge_devices::virtio::net::{KIND, Net};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use serde_json::Value;

use crate::driver::{Request, Subject};
use crate::words::{Words, body};

/// The bytes before a frame (Virtio 1.2, 5.1.6).
const HEADER: usize = 12;

#[rustfmt::skip]
const WORDS: Words = Words {
    kind: &KIND,
    options: &[
        ("tap", &["nowhere0", "nowhere0", "a/b", "fd:9999:9998", "fd:x", "fd:0", ""]),
        ("fd", &["9999", "9999:9998:9997", "0", "-1", "x"]),
        ("mac", &["06:00:ac:10:00:02", "07:00:ac:10:00:02", "00:00:00:00:00:00", "6:0"]),
        ("mtu", &["1500", "68", "67", "65536"]),
        ("queues", &["1", "3", "4", "9", "x"]),
        ("id", &["eth1", "eth1", "a-b"]),
        ("rx_bandwidth", &["1G", "4K", "x"]),
        ("rx_ops", &["100000", "2/1ms"]),
        ("tx_bandwidth", &["1G", "4K/10ms+2K"]),
        ("tx_ops", &["100000", "2/1ms", "0"]),
    ],
    fields: &[
        ("iface_id", &["\"eth0\"", "\"eth0\"", "\"eth0\"", "\"a-b\""]),
        ("host_dev_name", &["\"nowhere0\"", "\"nowhere0\"", "\"fd:9999\"", "\"fd:0:0\"", "\"fd:x\""]),
        ("guest_mac", &["\"06:00:ac:10:00:02\"", "null", "\"x\""]),
        ("mtu", &["1500", "65535", "67"]),
        ("queues", &["1", "3", "4", "9"]),
        ("rx_rate_limiter", LIMITS),
        ("tx_rate_limiter", LIMITS),
    ],
};

const LIMITS: &[&str] = &[
    "null",
    "{\"ops\": {\"size\": 2, \"refill_time\": 1}}",
    "{\"bandwidth\": {\"size\": 2048, \"refill_time\": 1, \"one_time_burst\": 512}}",
];

/// What a change says.
const PATCH: &[(&str, &[&str])] = &[
    ("iface_id", &["\"eth0\"", "\"eth0\"", "\"eth0\"", "3"]),
    ("rx_rate_limiter", LIMITS),
    ("tx_rate_limiter", LIMITS),
];

pub(super) struct Card {
    pairs: usize,
    /// What the user said of it.
    said: Value,
    /// The other ends of its tap's queues.
    cables: Vec<Option<OwnedFd>>,
}

impl Card {
    pub(super) fn new(from: &mut Unstructured<'_>) -> Result<Self> {
        let config = WORDS.say("", from)?;
        if let Some(Err(error)) = config.as_ref().map(|config| config.open()) {
            drop(kedge_diag::report(&error));
        }
        let said = config.map_or(Value::Null, |config| config.to_json());
        let pairs = said["queues"].as_u64().unwrap_or(1);
        let pairs = usize::try_from(pairs).expect("there are few").min(4);
        Ok(Self { pairs, said, cables: Vec::new() })
    }

    fn limits(&self, field: &str) -> RateLimiter {
        serde_json::from_value(self.said[field].clone()).unwrap_or_default()
    }
}

impl Subject for Card {
    fn device(&mut self) -> Box<dyn VirtioDevice> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let queue = || {
            let kind = SocketType::SEQPACKET;
            let pair = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None);
            let (tap, cable) = pair.expect("a pair of sockets");
            (Tap::from(tap), Some(cable))
        };
        let (taps, cables) = (0..self.pairs).map(|_| queue()).unzip();
        self.cables = cables;
        let mac = self.said["guest_mac"].as_str().and_then(|mac| mac.parse().ok());
        let mtu = self.said["mtu"].as_u64().and_then(|mtu| u16::try_from(mtu).ok());
        let (rx, tx) = (self.limits("rx_rate_limiter"), self.limits("tx_rate_limiter"));
        let mut card = Net::new("eth0", taps, mac, mtu).limited(rx, tx);
        let _ = card.set_detour(Box::new(Echo::default()));
        drop(format!("{card:?}"));
        Box::new(card)
    }

    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let which = usize::from(from.arbitrary::<u8>()?) % self.cables.len();
        let Some(cable) = &self.cables[which] else { return Ok(()) };
        match from.int_in_range(0..=19)? {
            0 => self.cables[which] = None,
            1..=4 => {
                while rustix::net::recv(cable, &mut [0; 100][..], RecvFlags::empty()).is_ok() {}
            }
            _ => {
                let length = match from.ratio(7, 8)? {
                    true => from.int_in_range(0..=1600_usize)?,
                    false => from.arbitrary::<u16>()?.into(),
                };
                let frame = vec![from.arbitrary()?; length];
                // A cable that is full loses it.
                let _ = rustix::net::send(cable, &frame, SendFlags::NOSIGNAL);
            }
        }
        Ok(())
    }

    fn request(
        &mut self,
        queue: usize,
        queues: usize,
        from: &mut Unstructured<'_>,
    ) -> Result<Request> {
        // The last of several pairs' queues is for commands, and the one behind the first
        // where the driver does not know of several.
        let is_control = queues > 2 && (queue + 1 == queues || queue == 2 && from.ratio(1, 8)?);
        if is_control && from.ratio(15, 16)? {
            let command = [4, 0, from.arbitrary::<u8>()? % 6, 0];
            let length = 4 - from.int_in_range(0..=20_usize)?.saturating_sub(17);
            let writable = u32::from(!from.ratio(1, 16)?);
            return Ok(Request { readable: command[..length].to_vec(), writable });
        }
        if queue % 2 == 0 {
            let writable = match from.ratio(7, 8)? {
                true => from.int_in_range(0..=2000)?,
                false => from.arbitrary::<u16>()?.into(),
            };
            return Ok(Request { readable: Vec::new(), writable });
        }
        let readable = frame(from)?;
        let writable = u32::from(from.ratio(1, 32)?);
        Ok(Request { readable, writable })
    }

    fn change(&mut self, from: &mut Unstructured<'_>) -> Result<Option<Change>> {
        Ok(Change::from_json(&KIND, body(PATCH, "", from)?).ok())
    }
}

/// A frame with its header: a datagram to be cut, one for [`Echo`], or bytes.
fn frame(from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let size = match from.ratio(7, 8)? {
        true => from.int_in_range(0..=1500_usize)?,
        false => from.arbitrary::<u16>()?.into(),
    };
    let mut frame = match from.int_in_range(0..=7)? {
        0..=3 => datagram(from)?,
        4..=5 => [&[0; HEADER][..], &Echo::MAC, &[6, 0, 0xac, 0x10, 0, 2]].concat(),
        6 => [&[0; HEADER][..], &[0xff; 6], &[6, 0, 0xac, 0x10, 0, 2]].concat(),
        _ => {
            let length = from.int_in_range(0..=20_usize)?.min(from.len());
            return from.bytes(length).map(<[u8]>::to_vec);
        }
    };
    frame.resize(frame.len() + size, 7);
    // Nearly right, often enough.
    if from.ratio(1, 4)? {
        let at = usize::from(from.arbitrary::<u8>()?) % frame.len();
        frame[at] = from.arbitrary()?;
    }
    Ok(frame)
}

/// The headers of a datagram of UDP that the card is to cut.
fn datagram(from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let tags = from.int_in_range(0..=2_usize)?;
    let six: bool = from.arbitrary()?;
    let options = if six { 0 } else { from.int_in_range(0..=2_usize)? };
    let ip = 14 + 4 * tags;
    let udp = ip + if six { 40 } else { 20 + 4 * options };
    let size = from.int_in_range(0..=600_u16)?;
    // `VIRTIO_NET_HDR_F_NEEDS_CSUM` and `VIRTIO_NET_HDR_GSO_UDP_L4` (5.1.6).
    let mut frame = vec![1, 5, 0, 0];
    frame.extend(size.to_le_bytes());
    frame.extend((udp as u16).to_le_bytes());
    frame.extend(6_u16.to_le_bytes());
    frame.extend([0; 2]);
    frame.extend([6, 0, 0, 0, 0, 9, 6, 0, 0xac, 0x10, 0, 2]);
    for _ in 0..tags {
        frame.extend([0x81, 0x00, 0, 5]);
    }
    frame.extend(if six { [0x86, 0xdd] } else { [0x08, 0x00] });
    let mut header = vec![0; udp - ip];
    header[0] = if six { 6 << 4 } else { 4 << 4 | (5 + options as u8) };
    header[if six { 6 } else { 9 }] = 17;
    frame.extend(header);
    frame.extend([0; 8]);
    Ok(frame)
}

/// Sends back every frame that is for it.
#[derive(Default)]
struct Echo(VecDeque<Vec<u8>>);

impl Echo {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xec];
}

impl Detour for Echo {
    fn claims(&self, head: &[u8]) -> bool {
        head.starts_with(&Self::MAC)
    }

    fn take(&mut self, frame: &[u8], _now: Instant) {
        if self.0.len() < 4 {
            self.0.push_back(frame.to_vec());
        }
    }

    fn give(&mut self, to: &mut [u8], _now: Instant) -> Option<usize> {
        let frame = self.0.pop_front()?;
        let room = to.get_mut(..frame.len())?;
        room.copy_from_slice(&frame);
        Some(frame.len())
    }

    fn due(&mut self, now: Instant) -> Option<Instant> {
        (!self.0.is_empty()).then(|| now + Duration::from_millis(1))
    }
}
