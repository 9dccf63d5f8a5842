//! What a user says about a disk that another process has: `--disk socket=`, and `socket`
//! in the drives of Firecracker's API.

use std::path::PathBuf;

use kedge_diag::{Fix, Trouble};
use serde_json::{Value, json};

use super::super::config::{self, Body, Format, KIND, Root};
use super::super::{Access, Cache};
use super::UserBlock;
use crate::virtio::body::BodyError;
use crate::virtio::catalog::{DeviceConfig, Kind};
use crate::virtio::device::VirtioDevice;
use crate::virtio::options::{OptionError, Options};

/// A disk that another process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDiskConfig {
    /// Its name, which the guest does not see.
    pub id: String,
    /// The socket at which the back end listens.
    pub socket: PathBuf,
    /// Whether the guest can flush: what a flush does is the back end's to say.
    pub cache: Cache,
    /// How many queues there are, 1 to 64.
    pub queues: u16,
    /// Whether, and where on it, the guest's root file system is.
    pub root: Option<Root>,
}

/// Something that is the back end's to say.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` does not go with `socket`: the disk is another program's")]
pub(super) struct NotHere {
    pub(super) field: &'static str,
}

impl Fix for NotHere {
    fn fix(&self) -> Option<String> {
        Some(format!("leave `{}` out, or tell the back end", self.field))
    }
}

const FLAG_WANTED: &str =
    "it to the back end: such a disk has `socket`, `id`, `cache` and `queues`";

/// The disk that `--disk` describes, which has `socket`.
pub(in super::super) fn from_options(
    options: &Options,
    common: (String, Cache, u16),
) -> Result<UserDiskConfig, OptionError> {
    for name in ["path", "readonly", "direct", "engine", "format", "bandwidth", "ops"] {
        if let Some(value) = options.value(name) {
            return Err(options.refuse(name, value, FLAG_WANTED));
        }
    }
    let (id, cache, queues) = common;
    if cache == Cache::Writethrough {
        let wanted = "`writeback` or `unsafe`";
        return Err(options.refuse("cache", "writethrough", wanted));
    }
    Ok(UserDiskConfig { id, socket: options.needed("socket")?.into(), cache, queues, root: None })
}

/// The disk of a drive's `body`, which has `socket`.
pub(in super::super) fn from_body(
    body: Body,
    socket: PathBuf,
    (queues, root): (u16, Option<Root>),
) -> Result<UserDiskConfig, BodyError> {
    let fields = [
        ("path_on_host", body.path_on_host.is_some()),
        ("is_read_only", body.is_read_only.is_some()),
        ("rate_limiter", body.rate_limiter.is_some()),
        ("io_engine", body.io_engine.is_some()),
        ("direct", body.direct),
        ("format", body.format != Format::Raw),
    ];
    let key = KIND.key;
    if let Some((field, _)) = fields.into_iter().find(|(_, is_given)| *is_given) {
        return Err(BodyError::Beside { key, field, other: "socket" });
    }
    if body.cache_type == Cache::Writethrough {
        let (field, value) = ("cache_type", "Writethrough".to_owned());
        let wanted = "`Writeback` or `Unsafe`: the rest is for the back end to say";
        return Err(BodyError::Value { key, field, value, wanted });
    }
    Ok(UserDiskConfig { id: body.drive_id, socket, cache: body.cache_type, queues, root })
}

impl DeviceConfig for UserDiskConfig {
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
            "partuuid": config::partuuid(self.root.as_ref()),
            "cache_type": self.cache,
            "is_read_only": null,
            "path_on_host": null,
            "rate_limiter": null,
            "socket": self.socket.to_string_lossy(),
        });
        if self.queues != 1 {
            body["num_queues"] = json!(self.queues);
        }
        body
    }

    fn cmdline(&self, index: usize) -> Option<String> {
        // Where it turns out to be read-only, Linux mounts it so.
        config::root_cmdline(self.root.as_ref(), Access::ReadWrite, index)
    }

    fn leads(&self) -> bool {
        self.root.is_some()
    }

    fn shares_memory(&self) -> bool {
        true
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        let opened =
            UserBlock::open(self).map_err(|source| Unopened { id: self.id.clone(), source });
        Ok(Box::new(opened.map_err(Trouble::new)?))
    }
}

/// Why there is no such disk.
#[derive(Debug, thiserror::Error)]
#[error("disk `{id}` has no back end")]
struct Unopened {
    id: String,
    source: super::BackEndError,
}

impl Fix for Unopened {
    fn fix(&self) -> Option<String> {
        self.source.fix()
    }
}
