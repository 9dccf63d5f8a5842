//! What a user says about a disk.

use std::path::PathBuf;
use std::sync::Arc;

use kedge_diag::Trouble;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::back_end::BlockBackEnd;
use super::backed::{self, BackEndDisk};
use super::disk::Disk;
use super::open::OpenError;
use super::syscalls::SYSCALLS;
use super::{Access, Block, user};
use crate::virtio::body::{self, BodyError, object_or_null};
use crate::virtio::catalog::{ApiWords, DeviceConfig, HostField, HostForm, Kind, Parsed};
use crate::virtio::change::{Changeable, is_a};
use crate::virtio::device::VirtioDevice;
use crate::virtio::limits::{Limits, RateLimiter};
use crate::virtio::options::{OptionError, Options};

/// The row of the catalogue.
pub static KIND: Kind = Kind {
    noun: "disk",
    flag: "disk",
    flag_value: USAGE,
    flag_help: "Give the guest a disk: an image, a block device or a vhost-user back end (several: in this order)",
    key: "drives",
    many: true,
    from_flag,
    from_json,
    id_field: "drive_id",
    host_fields: &[
        HostField { option: "path", field: "path_on_host", form: HostForm::Name },
        HostField { option: "socket", field: "socket", form: HostForm::Name },
    ],
    override_value: "[id=NAME,]path=FILE|socket=PATH",
    syscalls: SYSCALLS,
    change: Some(Changeable {
        check: is_a::<Patch>,
        fault: "Drive config error: Unable to patch the block device: ",
    }),
    api: ApiWords {
        noun: "Drive",
        unopened: "Error manipulating the backing file: ",
        deprecated: &[],
    },
};

const USAGE: &str = "path=FILE[,readonly][,id=NAME][,cache=writeback|writethrough|unsafe][,direct]\
                     [,queues=N][,engine=sync|io_uring][,format=raw|qcow2][,bandwidth=RATE][,ops=RATE] \
                     or socket=PATH[,id=NAME][,cache=writeback|unsafe][,queues=N]";

/// How many queues a disk can have.
const QUEUES: std::ops::RangeInclusive<u16> = 1..=64;
const QUEUES_WANTED: &str = "a number of queues from 1 to 64";

/// What a flush by the guest does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cache {
    /// There is no flush: what the guest wrote lasts when the host gets to it.
    #[default]
    Unsafe,
    /// What the guest wrote is on the host's disk when the flush is done. A guest can
    /// ask for [`Cache::Writethrough`] instead.
    Writeback,
    /// What the guest writes is on the host's disk when the write is done; kedge's
    /// own.
    Writethrough,
}

/// Whether the host keeps what is on a disk in its memory, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// It does.
    #[default]
    Host,
    /// It does not, where requests are as it wants them (`O_DIRECT`, open(2)).
    Direct,
}

/// How requests reach the host: what the guest sees is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// By reads and writes that wait.
    #[default]
    Sync,
    /// By `io_uring`, many at once; where the host has none, as [`Engine::Sync`].
    Async,
}

/// What is in a disk's file. Nobody guesses: a guest that writes to a raw image may make it
/// look like another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The disk, byte by byte.
    #[default]
    Raw,
    /// A qcow2 image, which can only be read.
    Qcow2,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// Its name, which the guest does not see.
    pub id: String,
    /// The image or block device.
    pub path: PathBuf,
    /// What is in it.
    pub format: Format,
    /// Whether the guest may write.
    pub access: Access,
    /// What a flush does.
    pub cache: Cache,
    /// How requests reach the host.
    pub engine: Engine,
    /// Whether the host caches what they read and write.
    pub caching: Caching,
    /// How many queues there are for them, 1 to 64.
    pub queues: u16,
    /// How fast it may go.
    pub limits: RateLimiter,
    /// Whether, and where on it, the guest's root file system is.
    pub root: Option<Root>,
}

/// Where on a disk the root file system is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// It is all of the disk.
    Whole,
    /// It is the partition with this UUID.
    Partition(String),
}

/// `PUT /drives/{drive_id}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub(super) drive_id: String,
    is_root_device: bool,
    partuuid: Option<String>,
    #[serde(default)]
    pub(super) cache_type: Cache,
    pub(super) is_read_only: Option<bool>,
    pub(super) path_on_host: Option<PathBuf>,
    #[serde(default, deserialize_with = "object_or_null")]
    pub(super) rate_limiter: Option<RateLimiter>,
    #[serde(default, deserialize_with = "body::given")]
    pub(super) io_engine: Option<Engine>,
    socket: Option<PathBuf>,
    /// kedge's own.
    #[serde(default)]
    pub(super) direct: bool,
    /// kedge's own.
    num_queues: Option<u16>,
    /// kedge's own.
    #[serde(default)]
    pub(super) format: Format,
}

/// `PATCH /drives/{drive_id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patch {
    #[serde(rename = "drive_id")]
    _id: String,
    /// The file behind the disk from now on, opened anew even where it is the same.
    pub(super) path_on_host: Option<PathBuf>,
    /// Its limits from now on.
    #[serde(default, deserialize_with = "object_or_null")]
    pub(super) rate_limiter: Option<RateLimiter>,
}

fn from_flag(value: &str, index: usize) -> Parsed {
    parse_flag(value, index).map_err(Trouble::new)
}

fn parse_flag(value: &str, index: usize) -> Result<Box<dyn DeviceConfig>, OptionError> {
    let known = [
        "path",
        "readonly",
        "id",
        "cache",
        "direct",
        "queues",
        "engine",
        "format",
        "bandwidth",
        "ops",
        "socket",
    ];
    let options = Options::parse(KIND.flag, USAGE, &known, value)?;
    let id = options.value("id").map_or_else(|| format!("disk{index}"), str::to_owned);
    if !body::is_id(&id) {
        return Err(options.refuse("id", &id, body::ID));
    }
    let cache = match options.value("cache") {
        None | Some("writeback") => Cache::Writeback,
        Some("writethrough") => Cache::Writethrough,
        Some("unsafe") => Cache::Unsafe,
        Some(other) => {
            let wanted = "`writeback`, `writethrough` or `unsafe`";
            return Err(options.refuse("cache", other, wanted));
        }
    };
    let engine = match options.value("engine") {
        None | Some("sync") => Engine::Sync,
        Some("io_uring") => Engine::Async,
        Some(other) => return Err(options.refuse("engine", other, "`sync` or `io_uring`")),
    };
    let format = match options.value("format") {
        None | Some("raw") => Format::Raw,
        Some("qcow2") => Format::Qcow2,
        Some(other) => return Err(options.refuse("format", other, "`raw` or `qcow2`")),
    };
    let queues = options.value("queues").unwrap_or("1");
    let queues = queues.parse().ok().filter(|count| QUEUES.contains(count));
    let queues = queues.ok_or_else(|| {
        options.refuse("queues", options.value("queues").unwrap_or_default(), QUEUES_WANTED)
    })?;
    if options.value("socket").is_some() {
        return Ok(Box::new(user::from_options(&options, (id, cache, queues))?));
    }
    Ok(Box::new(BlockConfig {
        id,
        path: options.needed("path")?.into(),
        format,
        access: access(options.is_on("readonly")?),
        cache,
        engine,
        caching: caching(options.is_on("direct")?),
        queues,
        limits: RateLimiter::from_options(&options, "bandwidth", "ops")?,
        root: None,
    }))
}

fn from_json(mut value: Value) -> Parsed {
    let on_back_end = backed::take_mark(&mut value);
    parse_any(value, on_back_end).map_err(Trouble::new)
}

fn parse_any(value: Value, on_back_end: bool) -> Result<Box<dyn DeviceConfig>, BodyError> {
    if on_back_end {
        return Ok(Box::new(BackEndDisk::lost(parse_body(value)?)));
    }
    let mut drive = Drive::parse(value)?;
    Ok(match drive.body.socket.take() {
        Some(socket) => Box::new(user::from_body(drive.body, socket, (drive.queues, drive.root))?),
        None => Box::new(drive.of_file()?),
    })
}

/// A disk on a file, as the configuration file has it.
///
/// # Errors
/// It has another form.
pub(super) fn parse_body(value: Value) -> Result<BlockConfig, BodyError> {
    Drive::parse(value)?.of_file()
}

/// A drive's body, as far as it is the same whoever has the disk.
struct Drive {
    body: Body,
    queues: u16,
    root: Option<Root>,
}

impl Drive {
    fn parse(value: Value) -> Result<Self, BodyError> {
        let key = KIND.key;
        let mut body: Body = body::parse(key, value)?;
        body::check_id(key, "drive_id", &body.drive_id)?;
        let queues = body.num_queues.unwrap_or(1);
        if !QUEUES.contains(&queues) {
            let (field, value) = ("num_queues", queues.to_string());
            return Err(BodyError::Value { key, field, value, wanted: QUEUES_WANTED });
        }
        let partuuid = body.partuuid.take();
        let root = body.is_root_device.then(|| partuuid.map_or(Root::Whole, Root::Partition));
        Ok(Self { body, queues, root })
    }

    fn of_file(self) -> Result<BlockConfig, BodyError> {
        let Self { body, queues, root } = self;
        let missing = BodyError::Missing { key: KIND.key, field: "path_on_host" };
        Ok(BlockConfig {
            id: body.drive_id,
            path: body.path_on_host.ok_or(missing)?,
            format: body.format,
            access: access(body.is_read_only.unwrap_or_default()),
            cache: body.cache_type,
            engine: body.io_engine.unwrap_or_default(),
            caching: caching(body.direct),
            queues,
            limits: body.rate_limiter.unwrap_or_default(),
            root,
        })
    }
}

const fn access(read_only: bool) -> Access {
    if read_only { Access::ReadOnly } else { Access::ReadWrite }
}

const fn caching(direct: bool) -> Caching {
    if direct { Caching::Direct } else { Caching::Host }
}

impl BlockConfig {
    /// A disk called `id` on the raw image or block device `path`, to write to, whose
    /// flushes are the host's (`Cache::Writeback`), with one queue and no limits.
    pub fn new(id: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            path: path.into(),
            format: Format::Raw,
            access: Access::ReadWrite,
            cache: Cache::Writeback,
            engine: Engine::Sync,
            caching: Caching::Host,
            queues: 1,
            limits: RateLimiter::default(),
            root: None,
        }
    }

    /// The same disk with its data in `back_end`, and not in a file: the path is then only
    /// what errors and saved machines call that, and how the host is asked is the back end's
    /// own matter.
    pub fn on(self, back_end: Arc<dyn BlockBackEnd>) -> BackEndDisk {
        BackEndDisk::new(self, back_end)
    }

    /// The device of the disk that was opened.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn device(
        &self,
        opened: Result<Disk, OpenError>,
    ) -> Result<Box<dyn VirtioDevice>, Trouble> {
        let disk = opened.map_err(Trouble::new)?;
        Ok(Box::new(Block::new(disk, self.queues, Limits::new(self.limits))))
    }
}

impl DeviceConfig for BlockConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn to_json(&self) -> Value {
        let mut body = json!({
            "drive_id": self.id,
            "is_root_device": self.root.is_some(),
            "partuuid": partuuid(self.root.as_ref()),
            "cache_type": self.cache,
            "is_read_only": self.access == Access::ReadOnly,
            "path_on_host": self.path.to_string_lossy(),
            "rate_limiter": self.limits.to_json(),
            "io_engine": self.engine,
            "socket": null,
        });
        // Firecracker's own clients know no others.
        if self.caching == Caching::Direct {
            body["direct"] = json!(true);
        }
        if self.queues != 1 {
            body["num_queues"] = json!(self.queues);
        }
        if self.format != Format::Raw {
            body["format"] = json!(self.format);
        }
        body
    }

    fn cmdline(&self, index: usize) -> Option<String> {
        root_cmdline(self.root.as_ref(), self.access, index)
    }

    fn leads(&self) -> bool {
        self.root.is_some()
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        self.device(Disk::open(self))
    }
}

/// The partition that the root file system is on, as the configuration file has it.
pub(super) fn partuuid(root: Option<&Root>) -> Option<&str> {
    match root? {
        Root::Partition(uuid) => Some(uuid),
        Root::Whole => None,
    }
}

/// How Linux is told of its root file system, on the disk that it finds as number `index`.
pub(super) fn root_cmdline(root: Option<&Root>, access: Access, index: usize) -> Option<String> {
    let mode = if access == Access::ReadOnly { "ro" } else { "rw" };
    Some(match root? {
        Root::Whole => format!("root=/dev/{} {mode}", linux_name(index)),
        Root::Partition(uuid) => format!("root=PARTUUID={uuid} {mode}"),
    })
}

/// What Linux calls the virtio disk it finds as number `index` from 0: `vda`,
/// `vdz`, `vdaa`.
pub(super) fn linux_name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = Some(index);
    while let Some(index) = rest {
        letters.extend(('a'..='z').nth(index % 26));
        rest = (index / 26).checked_sub(1);
    }
    letters.extend(['d', 'v']);
    letters.into_iter().rev().collect()
}
