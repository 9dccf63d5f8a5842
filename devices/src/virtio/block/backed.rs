//! A disk whose data the program around the machine has, as it is configured.

use std::fmt;
use std::sync::Arc;

use kedge_diag::Trouble;
use serde_json::{Value, json};

use super::back_end::BlockBackEnd;
use super::config::{BlockConfig, parse_body};
use super::disk::Disk;
use super::open::OpenError;
use crate::virtio::catalog::{DeviceConfig, Kind, Parsed};
use crate::virtio::device::VirtioDevice;

/// Says in a saved machine that a disk is on a back end: `path_on_host` is then what that
/// is called.
const MARK: &str = "back_end";

/// Whether `body` describes a disk on a back end; if so, the rest is as any disk's.
pub(super) fn take_mark(body: &mut Value) -> bool {
    let marked = body.get(MARK) == Some(&Value::Bool(true));
    if let (true, Value::Object(fields)) = (marked, body) {
        fields.remove(MARK);
    }
    marked
}

/// A disk on a back end of the program around the machine.
///
/// A saved machine does not have the back end: who restores it gives one, with the same
/// content, by putting a disk of the same name in its place (`Restoration::replace`); or a
/// file with the same content, by its path.
#[derive(Clone)]
pub struct BackEndDisk {
    config: BlockConfig,
    /// Absent in a machine that was saved, until somebody gives one.
    back_end: Option<Arc<dyn BlockBackEnd>>,
}

impl BackEndDisk {
    /// The disk that `config` describes, with its data in `back_end`.
    pub fn new(config: BlockConfig, back_end: Arc<dyn BlockBackEnd>) -> Self {
        Self { config, back_end: Some(back_end) }
    }

    /// A disk as a saved machine has it.
    pub(super) fn lost(config: BlockConfig) -> Self {
        Self { config, back_end: None }
    }

    /// What it is besides its data.
    pub fn config(&self) -> &BlockConfig {
        &self.config
    }
}

impl DeviceConfig for BackEndDisk {
    fn kind(&self) -> &'static Kind {
        self.config.kind()
    }

    fn id(&self) -> &str {
        self.config.id()
    }

    fn to_json(&self) -> Value {
        let mut body = self.config.to_json();
        body[MARK] = json!(true);
        body
    }

    /// Keeps its back end, unless `body` names something else.
    fn with_json(&self, mut body: Value) -> Parsed {
        let path = self.config.to_json()["path_on_host"].take();
        take_mark(&mut body);
        if body["path_on_host"] != path {
            return (self.kind().from_json)(body);
        }
        let config = parse_body(body).map_err(Trouble::new)?;
        Ok(Box::new(Self { config, back_end: self.back_end.clone() }))
    }

    fn cmdline(&self, index: usize) -> Option<String> {
        self.config.cmdline(index)
    }

    fn leads(&self) -> bool {
        self.config.leads()
    }

    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble> {
        let opened = match &self.back_end {
            Some(back_end) => Disk::on_back_end(&self.config, Arc::clone(back_end)),
            None => {
                let (id, path) = (self.config.id.clone(), self.config.path.clone());
                Err(OpenError::NoBackEnd { id, path })
            }
        };
        self.config.device(opened)
    }
}

impl fmt::Debug for BackEndDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackEndDisk").field("config", &self.config).finish_non_exhaustive()
    }
}
