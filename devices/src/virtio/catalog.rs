//! The devices there are: one row each. The command line, the configuration
//! file and the machine iterate over the rows and know no device by name.

use std::fmt::Debug;

use kedge_diag::Trouble;
use serde_json::Value;

use super::device::VirtioDevice;

/// What a user configured: parsed and checked, nothing opened yet.
pub trait DeviceConfig: Debug + Send + Sync {
    /// The row of [`KINDS`] it belongs to.
    fn kind(&self) -> &'static Kind;

    /// The name that tells it from others of its kind: `drive_id`, `iface_id`.
    fn id(&self) -> &str;

    /// The configuration as the configuration file would hold it.
    fn to_json(&self) -> Value;

    /// Words the device wants on a kernel command line made for it: the root
    /// device of a Firecracker configuration (`root=/dev/vda rw`), where `index`
    /// counts the devices of this kind from 0.
    fn cmdline(&self, _index: usize) -> Option<String> {
        None
    }

    /// Whether it comes before all others of its kind: a root device. There can
    /// be one.
    fn leads(&self) -> bool {
        false
    }

    /// Opens the host's resource and makes the device.
    ///
    /// # Errors
    /// The resource is missing, busy, or may not be used.
    fn open(&self) -> Result<Box<dyn VirtioDevice>, Trouble>;
}

/// What parsing makes of a user's words.
pub type Parsed = Result<Box<dyn DeviceConfig>, Trouble>;

/// A kind of device.
#[derive(Debug)]
pub struct Kind {
    /// What errors call it: `disk`, `network interface`, `entropy device`.
    pub noun: &'static str,
    /// The flag of `kedge run`, without dashes: `disk`.
    pub flag: &'static str,
    /// The flag's value as its help shows it: `path=FILE[,readonly]...`; empty
    /// for a flag without value.
    pub flag_value: &'static str,
    /// The flag's help, one sentence.
    pub flag_help: &'static str,
    /// The key in Firecracker's configuration file: `drives`.
    pub key: &'static str,
    /// Whether a machine can have several: then the key holds an array.
    pub many: bool,
    /// Parses the flag's value; `index` counts those of this kind from 0, for a
    /// default id.
    pub from_flag: fn(value: &str, index: usize) -> Parsed,
    /// Parses an object of the configuration file (FIRECRACKER's PUT body).
    pub from_json: fn(value: Value) -> Parsed,
}

/// Every kind, in the order in which a guest finds them.
pub const KINDS: &[&Kind] = &[];
