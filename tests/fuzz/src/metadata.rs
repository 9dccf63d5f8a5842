//! A guest that talks to the metadata service over frames: by a network stack of its own,
//! whose frames get lost, come twice or changed, and by frames that no stack sends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use kedge_metadata::{Config, MAC, Service, Stack};
use kedge_metrics::Counters;
use serde_json::json;
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant as WireInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use crate::log;

const GUEST_MAC: [u8; 6] = [6, 0, 0, 0, 0, 2];
const ADDRESS: [u8; 4] = [169, 254, 169, 254];
/// How much a guest does with one input, and the connections that it opens.
const MOST_STEPS: usize = 100;
const MOST_CONNECTIONS: u16 = 40;

/// What guests say, in pieces that the fuzzer puts together.
const WORDS: &[&str] = &[
    "GET /a HTTP/1.1\r\n\r\n",
    "GET /long HTTP/1.1\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nAccept: application/json\r\n\r\n",
    "GET /list/1/deep HTTP/1.0\r\n\r\n",
    "GET /%61//b/../c?x=1 HTTP/1.1\r\n\r\n",
    "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\n\r\n",
    "PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 99999\r\n\r\n",
    "PUT /latest/api/token HTTP/1.1\r\nX-Forwarded-For: a\r\nX-metadata-token-ttl-seconds: 1\r\n\r\n",
    "GET ",
    "/",
    "http://169.254.169.254/a",
    " HTTP/1.1\r\n",
    "X-metadata-token: TOKEN\r\n",
    "X-aws-ec2-metadata-token: x\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: x\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Expect: 100-continue\r\n",
    "\r\n",
    "DELETE / HTTP/1.1\r\n\r\n",
];

/// A guest.
pub fn metadata(data: &[u8]) {
    log::begin();
    let from = &mut Unstructured::new(data);
    let Ok(mut guest) = Guest::new(from) else { return };
    for _ in 0..MOST_STEPS {
        if from.is_empty() || guest.step(from).is_err() {
            break;
        }
    }
    guest.service.each(&mut |_, _| {});
}

struct Guest {
    service: Arc<Service>,
    stack: Stack,
    now: Instant,
    began: Instant,
    cable: Cable,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<SocketHandle>,
    opened: u16,
    /// The last token it was given.
    token: String,
}

impl Guest {
    fn new(from: &mut Unstructured<'_>) -> Result<Self> {
        let random = |buffer: &mut [u8]| {
            buffer.fill(7);
            Ok(())
        };
        let service = Service::new("web", 51_200, random);
        let document = json!({"a": "b", "long": "x".repeat(40_000), "list": [1, {"deep": null}]});
        if from.ratio(15, 16)? {
            service.put(document).expect("there is room");
        }
        let version = if from.arbitrary()? { "V1" } else { "V2" };
        let compat: bool = from.ratio(1, 4)?;
        let config = json!({"network_interfaces": ["eth0"], "version": version,
            "imds_compat": compat});
        let config: Config = serde_json::from_value(config).expect("it is well-formed");
        for interfaces in [&["eth0"][..], &["eth1"]] {
            let checked = config.check(interfaces);
            checked.err().iter().for_each(|error| drop(kedge_diag::report(error)));
        }
        let service = Arc::new(service);
        let stack = Stack::new(Arc::clone(&service), &config, 7);
        let mut cable = Cable::default();
        let mut config =
            InterfaceConfig::new(HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC)));
        config.random_seed = 1;
        let mut interface = Interface::new(config, &mut cable, WireInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // The route to the service.
            addresses.push(IpCidr::new(IpAddress::v4(172, 16, 0, 2), 0)).expect("there is room");
        });
        let (now, sockets) = (Instant::now(), SocketSet::new(Vec::new()));
        let (connections, token) = (Vec::new(), String::new());
        let (began, opened) = (now, 0);
        Ok(Self {
            service,
            stack,
            now,
            began,
            cable,
            interface,
            sockets,
            connections,
            opened,
            token,
        })
    }

    fn step(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let which = usize::from(from.arbitrary::<u8>()?);
        let handle = self.connections.get(which % self.connections.len().max(1)).copied();
        match (from.int_in_range(0..=15)?, handle) {
            (0..=1, _) => self.connect(),
            (2, _) => self.now += Duration::from_millis(from.arbitrary::<u16>()?.into()),
            (3, _) => self.take(&raw(from)?),
            (4, Some(handle)) => self.sockets.get_mut::<Socket<'_>>(handle).close(),
            (5, Some(handle)) => self.sockets.get_mut::<Socket<'_>>(handle).abort(),
            (6..=7, Some(handle)) => self.read(handle),
            (8, _) => self.write(from)?,
            (_, Some(handle)) => self.say(handle, from)?,
            (_, None) => self.connect(),
        }
        self.carry(from)
    }

    fn connect(&mut self) {
        if self.opened >= MOST_CONNECTIONS {
            return;
        }
        self.opened += 1;
        let buffer = || SocketBuffer::new(vec![0; 8 << 10]);
        let mut socket = Socket::new(buffer(), buffer());
        let service = (IpAddress::v4(169, 254, 169, 254), 80);
        let port = 40_000 + self.opened;
        socket.connect(self.interface.context(), service, port).expect("the port is free");
        self.connections.push(self.sockets.add(socket));
    }

    /// Whoever runs the machine writes to the document.
    fn write(&self, from: &mut Unstructured<'_>) -> Result<()> {
        let texts = [
            "{\"a\": {\"b\": null}}",
            "{\"a\": null, \"list\": [2]}",
            "[]",
            "{\"odd/name\": \"x\", \"\": {\"c\": 0.5}}",
        ];
        let text = texts[from.int_in_range(0..=3_usize)?];
        let mut document = serde_json::from_str(text).expect("it is JSON");
        if from.ratio(1, 8)? {
            document = json!({"a": "x".repeat(60_000)});
        }
        let written = match from.arbitrary()? {
            true => self.service.put(document),
            false => self.service.patch(document),
        };
        written.err().iter().for_each(|error| drop(kedge_diag::report(error)));
        drop(self.service.document());
        Ok(())
    }

    fn read(&mut self, handle: SocketHandle) {
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        while socket.can_recv() {
            let taken = socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap_or_default();
            let text = String::from_utf8_lossy(&taken).into_owned();
            self.token = text.rsplit('\n').next().unwrap_or_default().to_owned();
        }
    }

    fn say(&mut self, handle: SocketHandle, from: &mut Unstructured<'_>) -> Result<()> {
        let words = WORDS[usize::from(from.arbitrary::<u8>()?) % WORDS.len()];
        let mut text = words.replace("TOKEN", &self.token).into_bytes();
        match from.int_in_range(0..=7)? {
            0 => text.resize(text.len() + from.int_in_range(0..=3000_usize)?, b'x'),
            1 => {
                let more = from.int_in_range(0..=30_usize)?.min(from.len());
                text.extend(from.bytes(more)?);
            }
            _ => {}
        }
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        // What is not connected, or full, loses it.
        let _ = socket.send_slice(&text);
        Ok(())
    }

    /// A frame of the guest's arrives.
    fn take(&mut self, frame: &[u8]) {
        let head = &frame[..frame.len().min(42)];
        if self.stack.claims(head) {
            self.stack.take(frame, self.now);
        }
    }

    /// Carries frames to and fro until there are none: some get lost, come twice or changed.
    fn carry(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let mishap: u8 = from.arbitrary()?;
        let mut left = 64_usize;
        loop {
            let time = self.now.duration_since(self.began).as_micros();
            let time = WireInstant::from_micros(i64::try_from(time).expect("it is short"));
            self.interface.poll(time, &mut self.cable, &mut self.sockets);
            let sent = std::mem::take(&mut self.cable.outgoing);
            let quiet = sent.is_empty();
            for mut frame in sent {
                match mishap {
                    0..8 => continue,
                    8..16 => self.take(&frame.clone()),
                    16..24 => {
                        let at = usize::from(from.arbitrary::<u8>()?) % frame.len();
                        frame[at] = from.arbitrary()?;
                    }
                    _ => {}
                }
                self.take(&frame);
            }
            let mut room = [0; 2048];
            let room = if mishap == 255 { &mut room[..60] } else { &mut room[..] };
            let _ = self.stack.due();
            match self.stack.give(room, self.now) {
                Some(_) if (24..32).contains(&mishap) => {}
                Some(length) => self.cable.incoming = Some(room[..length].to_vec()),
                None if quiet => break,
                None => {}
            }
            left -= 1;
            if left == 0 {
                break;
            }
        }
        drop(format!("{:?}", self.stack));
        Ok(())
    }
}

/// A frame that no stack sends, mostly for the service.
fn raw(from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let kind = from.int_in_range(0..=3)?;
    let length = from.int_in_range(14..=200_usize)?.min(from.len());
    let mut frame = from.bytes(length)?.to_vec();
    if kind > 0 {
        frame.resize(frame.len().max(60), 0);
        frame[..6].copy_from_slice(&MAC);
    }
    if kind == 1 {
        frame[12..14].copy_from_slice(&[8, 6]);
        frame[38..42].copy_from_slice(&ADDRESS);
    }
    if kind >= 2 {
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[30..34].copy_from_slice(&ADDRESS);
        let length = u16::try_from(frame.len() - 14).expect("it is short");
        frame[16..18].copy_from_slice(&length.to_be_bytes());
    }
    if kind == 3 {
        frame[14] = 0x45;
        frame[23] = 6;
        frame[36..38].copy_from_slice(&80_u16.to_be_bytes());
        frame[46] = 0x50;
    }
    Ok(frame)
}

/// The guest's end of the cable.
#[derive(Default)]
struct Cable {
    incoming: Option<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Device for Cable {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: WireInstant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.incoming.take()?;
        Some((Arrived(frame), Leaving(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: WireInstant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

struct Arrived(Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
