//! What a user says about a disk.

use std::path::PathBuf;

use kedge_diag::Trouble;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::disk::Disk;
use super::{Access, Block};
use crate::virtio::body::{self, BodyError, object_or_null};
use crate::virtio::catalog::{ApiWords, DeviceConfig, HostField, Kind, Parsed};
use crate::virtio::change::{Changeable, is_a};
use crate::virtio::device::VirtioDevice;
use crate::virtio::limits::{Limits, RateLimiter};
use crate::virtio::options::{OptionError, Options};

/// The row of the catalogue.
pub static KIND: Kind = Kind {
    noun: "disk",
    flag: "disk",
    flag_value: USAGE,
    flag_help: "Give the guest a disk: a raw image or a block device (several: in this order)",
    key: "drives",
    many: true,
    from_flag,
    from_json,
    id_field: "drive_id",
    host_fields: &[HostField { option: "path", field: "path_on_host" }],
    override_value: "[id=NAME,]path=FILE",
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
                     [,queues=N][,engine=sync|io_uring][,bandwidth=RATE][,ops=RATE]";

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

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockConfig {
    /// Its name, which the guest does not see.
    pub id: String,
    /// The raw image or block device.
    pub path: PathBuf,
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
struct Body {
    drive_id: String,
    is_root_device: bool,
    partuuid: Option<String>,
    #[serde(default)]
    cache_type: Cache,
    is_read_only: Option<bool>,
    path_on_host: Option<PathBuf>,
    #[serde(default, deserialize_with = "object_or_null")]
    rate_limiter: Option<RateLimiter>,
    #[serde(default)]
    io_engine: Engine,
    socket: Option<PathBuf>,
    /// kedge's own.
    #[serde(default)]
    direct: bool,
    /// kedge's own.
    num_queues: Option<u16>,
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
    match parse_flag(value, index) {
        Ok(config) => Ok(Box::new(config)),
        Err(error) => Err(Trouble::new(error)),
    }
}

fn parse_flag(value: &str, index: usize) -> Result<BlockConfig, OptionError> {
    let known =
        ["path", "readonly", "id", "cache", "direct", "queues", "engine", "bandwidth", "ops"];
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
    let queues = options.value("queues").unwrap_or("1");
    let queues = queues.parse().ok().filter(|count| QUEUES.contains(count));
    let queues = queues.ok_or_else(|| {
        options.refuse("queues", options.value("queues").unwrap_or_default(), QUEUES_WANTED)
    })?;
    Ok(BlockConfig {
        id,
        path: options.needed("path")?.into(),
        access: access(options.is_on("readonly")?),
        cache,
        engine,
        caching: caching(options.is_on("direct")?),
        queues,
        limits: RateLimiter::from_options(&options, "bandwidth", "ops")?,
        root: None,
    })
}

fn from_json(value: Value) -> Parsed {
    match parse_body(value) {
        Ok(config) => Ok(Box::new(config)),
        Err(error) => Err(Trouble::new(error)),
    }
}

fn parse_body(value: Value) -> Result<BlockConfig, BodyError> {
    let key = KIND.key;
    let body: Body = body::parse(key, value)?;
    body::check_id(key, "drive_id", &body.drive_id)?;
    if body.socket.is_some() {
        return Err(BodyError::Unsupported { key, field: "socket" });
    }
    let queues = body.num_queues.unwrap_or(1);
    if !QUEUES.contains(&queues) {
        let (field, value) = ("num_queues", queues.to_string());
        return Err(BodyError::Value { key, field, value, wanted: QUEUES_WANTED });
    }
    let missing = BodyError::Missing { key, field: "path_on_host" };
    let root = body.is_root_device.then(|| body.partuuid.map_or(Root::Whole, Root::Partition));
    Ok(BlockConfig {
        id: body.drive_id,
        path: body.path_on_host.ok_or(missing)?,
        access: access(body.is_read_only.unwrap_or_default()),
        cache: body.cache_type,
        engine: body.io_engine,
        caching: caching(body.direct),
        queues,
        limits: body.rate_limiter.unwrap_or_default(),
        root,
    })
}

const fn access(read_only: bool) -> Access {
    if read_only { Access::ReadOnly } else { Access::ReadWrite }
}

const fn caching(direct: bool) -> Caching {
    if direct { Caching::Direct } else { Caching::Host }
}

impl DeviceConfig for BlockConfig {
    fn kind(&self) -> &'static Kind {
        &KIND
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn to_json(&self) -> Value {
        let partuuid = match &self.root {
            Some(Root::Partition(uuid)) => Some(uuid),
            Some(Root::Whole) | None => None,
        };
        let mut body = json!({
            "drive_id": self.id,
            "is_root_device": self.root.is_some(),
            "partuuid": partuuid,
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
        body
    }

    fn cmdline(&self, index: usize) -> Option<String> {
        let mode = if self.access == Access::ReadOnly { "ro" } else { "rw" };
        Some(match self.root.as_ref()? {
            Root::Whole => format!("root=/dev/{} {mode}", linux_name(index)),
            Root::Partition(uuid) => format!("root=PARTUUID={uuid} {mode}"),
        })
    }

    fn leads(&self) -> bool {
        self.root.is_some()
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        let disk = Disk::open(self).map_err(Trouble::new)?;
        Ok(Box::new(Block::new(disk, self.queues, Limits::new(self.limits))))
    }
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
