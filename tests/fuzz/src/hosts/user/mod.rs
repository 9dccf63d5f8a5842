//! A disk or a network card that another process has, which means the guest's monitor no
//! good: the back end of [`back_end`] behind a socket.

mod back_end;

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_devices::virtio::change::Change;
use kedge_devices::virtio::device::VirtioDevice;
use kedge_devices::virtio::{block, net};
use kedge_guest_memory::{GuestMemory, GuestRange, dirty, map_anonymous, map_shared};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::driver::{Request, Subject};
use crate::words::{Words, body};
use back_end::{Lie, Offer, Told, serve};

/// A kind of device that another process can have.
struct Served {
    words: Words,
    /// What a change says: that the device has another size, or what is not the monitor's to
    /// say.
    patch: &'static [(&'static str, &'static [&'static str])],
    /// A body that is in order.
    body: fn(PathBuf) -> Value,
}

#[rustfmt::skip]
static DISK: Served = Served {
    words: Words {
        kind: &block::KIND,
        options: &[
            ("socket", &["PATH", "PATH", "PATH", "PATH", "/nowhere/s", ""]),
            ("id", &["d", "a-b"]),
            ("cache", &["writeback", "unsafe", "writethrough", "unsafe,path=a", "unsafe,readonly"]),
            ("queues", &["1", "2", "8", "0"]),
        ],
        fields: &[
            ("drive_id", &["\"d\"", "\"d\"", "\"a-b\""]),
            ("is_root_device", &["false", "false", "true"]),
            ("socket", &["\"PATH\"", "\"PATH\"", "\"PATH\"", "\"PATH\"", "\"/nowhere/s\""]),
            ("cache_type", &["\"Writeback\"", "\"Unsafe\"", "\"Writethrough\""]),
            ("path_on_host", &["null", "null", "null", "\"a\""]),
            ("num_queues", &["1", "2", "8", "0"]),
        ],
    },
    patch: &[
        ("drive_id", &["\"d\"", "\"d\"", "\"d\"", "\"d\"", "3"]),
        ("path_on_host", &["null", "null", "null", "null", "\"a\""]),
    ],
    body: |path| {
        json!({"drive_id": "d", "is_root_device": false, "socket": path, "num_queues": 2})
    },
};

#[rustfmt::skip]
static CARD: Served = Served {
    words: Words {
        kind: &net::KIND,
        options: &[
            ("socket", &["PATH", "PATH", "PATH", "PATH", "/nowhere/s", ""]),
            ("id", &["eth1", "a-b"]),
            ("mac", &["06:00:ac:10:00:02", "6:0"]),
            ("mtu", &["1500", "68", "67"]),
            ("queues", &["1", "2", "8", "9", "2,tap=a", "2,tx_ops=3"]),
        ],
        fields: &[
            ("iface_id", &["\"eth0\"", "\"eth0\"", "\"a-b\""]),
            ("socket", &["\"PATH\"", "\"PATH\"", "\"PATH\"", "\"PATH\"", "\"/nowhere/s\""]),
            ("guest_mac", &["\"06:00:ac:10:00:02\"", "null", "\"x\""]),
            ("mtu", &["1500", "65535", "67"]),
            ("queues", &["1", "2", "8", "9"]),
        ],
    },
    patch: &[
        ("iface_id", &["\"eth0\"", "\"eth0\"", "\"eth0\"", "3"]),
        ("rx_rate_limiter", &["null", "{\"ops\": {\"size\": 2, \"refill_time\": 1}}"]),
    ],
    body: |path| json!({"iface_id": "eth0", "socket": path, "queues": 2}),
};

/// Rings that something happens to.
const RINGS: usize = 4;

pub(super) struct Lent {
    what: &'static Served,
    folder: TempDir,
    config: Option<Box<dyn DeviceConfig>>,
    offer: Offer,
    /// What it lies to who connects next.
    lies: Vec<(u8, Lie)>,
    /// The back end of the device that there is.
    told: Option<Arc<Mutex<Told>>>,
    /// All of them.
    servers: Vec<JoinHandle<()>>,
    sharing: Sharing,
}

/// What the guest's memory is.
enum Sharing {
    /// Nobody else's.
    No,
    Yes,
    /// Others' too, and what they write is to be noted.
    Noted,
}

impl Lent {
    pub(super) fn new(from: &mut Unstructured<'_>) -> Result<Self> {
        block_sigpipe();
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("s");
        let what = if from.arbitrary()? { &DISK } else { &CARD };
        let config = what.words.say(path.to_str().expect("a plain path"), from)?;
        let config = config.filter(|config| config.shares_memory());
        let offer = Offer::some(from)?;
        let mut lies = Vec::new();
        for _ in 0..from.int_in_range(0..=3_u8)?.saturating_sub(2) {
            lies.push((from.int_in_range(0..=6)?, Lie::some(from)?));
        }
        let sharing = match from.int_in_range(0..=15)? {
            15 => Sharing::No,
            14 | 12 | 10 | 8 => Sharing::Noted,
            _ => Sharing::Yes,
        };
        Ok(Self { what, folder, config, offer, lies, told: None, servers: Vec::new(), sharing })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// The device of `config`, with a back end that is made for it.
    fn open(
        &mut self,
        config: &dyn DeviceConfig,
        (offer, lies): (Offer, Vec<(u8, Lie)>),
    ) -> Option<Box<dyn VirtioDevice>> {
        let path = self.path();
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let told = Arc::new(Mutex::new(Told::new(offer, lies)));
        self.told = Some(Arc::clone(&told));
        self.servers.push(thread::spawn(move || {
            let (socket, _) = listener.accept().expect("somebody connects");
            serve(socket, &told);
        }));
        let opened = config.open();
        // Where the socket is another, nobody has.
        drop(UnixStream::connect(&path));
        opened.map_err(|error| drop(kedge_diag::report(&error))).ok()
    }
}

impl Subject for Lent {
    /// A back end that lies is of no more use.
    const WORKS: bool = false;
    /// Nor does it finish what it took.
    const PATIENCE: Duration = Duration::from_millis(10);
    const RESTS: bool = false;

    fn memory(&self, ranges: &[GuestRange]) -> GuestMemory {
        let memory = match self.sharing {
            Sharing::No => map_anonymous(ranges),
            Sharing::Yes | Sharing::Noted => map_shared(ranges),
        };
        let memory = memory.expect("memory");
        if let Sharing::Noted = self.sharing {
            dirty::track(&memory);
        }
        memory
    }

    fn device(&mut self) -> Box<dyn VirtioDevice> {
        if let Some(config) = self.config.take() {
            let with = (self.offer, std::mem::take(&mut self.lies));
            let opened = self.open(config.as_ref(), with);
            self.config = Some(config);
            if let Some(device) = opened {
                return device;
            }
        }
        let body = (self.what.body)(self.path());
        let config = (self.what.words.kind.from_json)(body).expect("it is well-formed");
        // The host may be slow.
        let honest = (0..100).find_map(|_| self.open(config.as_ref(), (Offer::ALL, Vec::new())));
        honest.expect("the back end does all that it is asked for")
    }

    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        let what = from.int_in_range(0..=15)?;
        let ring = usize::from(from.arbitrary::<u8>()?) % RINGS;
        let Some(told) = &self.told else { return Ok(()) };
        let mut told = told.lock().expect("nobody panicked");
        match what {
            0..=4 => {
                let (after, lie) = (from.int_in_range(0..=12)?, Lie::some(from)?);
                match from.ratio(1, 8)? {
                    true => self.lies.push((after, lie)),
                    false => told.lie(after, lie),
                }
            }
            5 => told.hang_up(),
            6 => {
                let length = from.int_in_range(0..=40_usize)?.min(from.len());
                told.say(from.bytes(length)?);
            }
            7..=8 => told.ring(ring, 0),
            9 => told.ring(ring, 1),
            10 => told.resize(from.int_in_range(0..=16)?),
            11 => told.take(ring, from.int_in_range(0..=20)?),
            12 => told.give_back(ring, from.int_in_range(0..=20)?),
            _ => told.give_back(ring, 0),
        }
        Ok(())
    }

    fn request(
        &mut self,
        queue: usize,
        queues: usize,
        from: &mut Unstructured<'_>,
    ) -> Result<Request> {
        // The last of a card's several queues is for commands: how many pairs are used.
        let is_control = queues > 2 && (queue + 1 == queues || queue == 2);
        if is_control && std::ptr::eq(self.what, &CARD) {
            let command = [4, 0, from.arbitrary::<u8>()? % 10, 0];
            return Ok(Request { readable: command.to_vec(), writable: 1 });
        }
        // Nobody looks at it.
        Ok(Request { readable: vec![0; 16], writable: from.arbitrary::<u8>()?.into() })
    }

    fn change(&mut self, from: &mut Unstructured<'_>) -> Result<Option<Change>> {
        Ok(Change::from_json(self.what.words.kind, body(self.what.patch, "", from)?).ok())
    }
}

impl Drop for Lent {
    /// The device has gone, and with it who is asked.
    fn drop(&mut self) {
        for server in self.servers.drain(..) {
            server.join().expect("a back end does not panic");
        }
    }
}

/// A message for who has hung up is an error, and no more: a program of Rust's own has it so.
fn block_sigpipe() {
    const SIGPIPE: i32 = 13;
    let _ = vmm_sys_util::signal::block_signal(SIGPIPE);
}
