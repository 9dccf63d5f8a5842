//! What a request asks for, in kedge's terms: Firecracker's resources and bodies
//! (FIRECRACKER_API.md, 3), and kedge's own fields beside them.
//!
//! Each resource is a row of a table; its body is a type of its own, with the fields,
//! defaults and spelling of the interface.

mod action;
mod body;
mod change;
mod clone;
mod device;
mod guest;
mod logger;
mod machine;
mod metadata;
mod metrics;
mod openapi;
mod place;
mod routes;
mod snapshot;
mod state;

use kedge_devices::virtio::catalog::Kind;
use kedge_devices::virtio::change::Change;
use kedge_firmware::CpuConfig;
use kedge_metadata::Config as MetadataConfig;
use serde::Serialize;
use serde_json::Value;

pub use body::Fault;
pub use clone::{BadClones, CloneMachine};
pub use device::Device;
pub use guest::Profile;
pub use logger::{LEVELS, LOG_FORMATS, LogFormat, Logger};
pub use machine::{BootSource, MachineChange, MachineConfig, NONE, Serial, TokenBucket};
pub use metrics::Metrics;
pub use place::Place;
pub use routes::{Route, routes};
pub use snapshot::{
    CheckSnapshot, Clock, CreateSnapshot, DriveOverride, HugePages, LoadSnapshot, MemoryBackend,
    NetworkOverride, SerialOverride, SnapshotType, VsockOverride,
};
pub use state::WantedState;

use crate::http::Request;

/// What can be asked for, as an OpenAPI document: JSON, which YAML is as well.
pub const OPENAPI: &str = openapi::TEXT;

/// Something asked of a machine.
#[derive(Debug)]
pub enum Call {
    /// `GET /`: who it is, and how it is.
    Describe,
    /// `GET /version`.
    Version,
    /// `GET /openapi.json`, kedge's own: [`OPENAPI`].
    OpenApi,
    /// `GET /machine-config`.
    ShowMachine,
    /// `GET /vm/config`.
    ShowConfig,
    /// `GET /mmds`.
    ShowMetadata,
    /// `PUT /mmds`.
    PutMetadata(Value),
    /// `PATCH /mmds`.
    PatchMetadata(Value),
    /// `PUT /logger`.
    SetLogger(Logger),
    /// `PUT /metrics`.
    SetMetrics(Metrics),
    /// `GET /metrics`, kedge's own: all that is counted, as Prometheus reads it.
    ShowMetrics,
    /// `GET /events`, kedge's own: what becomes of the machine, as it happens.
    Listen,
    /// What a machine is to be that has not started.
    Set(Setting),
    /// `PUT /actions`: the machine starts.
    Start,
    /// `PUT /actions`: metrics are written.
    FlushMetrics,
    /// `DELETE` of a device.
    Remove {
        /// Its kind.
        kind: &'static Kind,
        /// Its name.
        id: String,
    },
    /// `PATCH /vm`: stand still, or go on.
    SetState(WantedState),
    /// `PUT /snapshot/create`.
    CreateSnapshot(CreateSnapshot),
    /// `PUT /snapshot/load`.
    LoadSnapshot(LoadSnapshot),
    /// `PUT /snapshot/check`, kedge's own.
    CheckSnapshot(CheckSnapshot),
    /// `PUT /clone`, kedge's own.
    Clone(Box<CloneMachine>),
    /// `PATCH /drives/{id}` and its like.
    Change(Change),
}

/// What a machine is to be.
#[derive(Debug)]
pub enum Setting {
    /// `PUT /machine-config`.
    Machine(MachineConfig),
    /// `PATCH /machine-config`.
    MachineChange(MachineChange),
    /// `PUT /boot-source`.
    Boot(BootSource),
    /// `PUT /serial`.
    Serial(Serial),
    /// `PUT /cpu-config`.
    Cpu(Box<CpuConfig>),
    /// `PUT /guest-abi`, kedge's own.
    GuestAbi(Profile),
    /// `PUT /mmds/config`.
    Metadata(MetadataConfig),
    /// `PUT` of a device.
    Device(Device),
}

/// A call as it was read.
#[derive(Debug)]
pub struct Parsed {
    /// What is asked for.
    pub call: Call,
    /// Whether it is asked for in a way that will go away: the answer says so.
    pub deprecated: bool,
}

impl From<Call> for Parsed {
    fn from(call: Call) -> Self {
        Self { call, deprecated: false }
    }
}

impl Parsed {
    /// What `request` asks for.
    ///
    /// # Errors
    /// There is no such resource, or its body is not right: what the client is told.
    pub fn read(request: &Request) -> Result<Self, Fault> {
        let (route, id) = Route::find(request.method, &request.path)?;
        route.read(id.as_deref(), &request.body)
    }
}

impl Call {
    /// What clients' messages about it begin with (FIRECRACKER_API.md, 2).
    pub fn prefix(&self) -> String {
        let prefix = match self {
            Self::Set(Setting::Machine(_) | Setting::MachineChange(_)) => "Machine config error: ",
            Self::Set(Setting::Boot(_)) => "Boot source error: ",
            Self::Set(Setting::Device(device)) => return device_prefix(device.kind()),
            Self::Remove { kind, .. } => return device_prefix(kind),
            Self::Change(change) => change.kind().change.map_or("", |change| change.fault),
            Self::Set(Setting::Metadata(_)) => "MMMDS config error: ",
            Self::ShowMetadata | Self::PutMetadata(_) | Self::PatchMetadata(_) => "MMDS error: ",
            Self::SetLogger(_) => "Logger error: ",
            Self::SetMetrics(_) | Self::FlushMetrics => "Metrics error: ",
            Self::Start => "Start microvm error: ",
            Self::LoadSnapshot(_) => "Load snapshot error: ",
            Self::CreateSnapshot(_) => "Create snapshot error: ",
            Self::CheckSnapshot(_) => "Check snapshot error: ",
            Self::Clone(_) => "Clone error: ",
            Self::Set(Setting::Serial(_) | Setting::Cpu(_) | Setting::GuestAbi(_))
            | Self::Describe
            | Self::Version
            | Self::OpenApi
            | Self::ShowMachine
            | Self::ShowConfig
            | Self::ShowMetrics
            | Self::Listen
            | Self::SetState(_) => "",
        };
        prefix.to_owned()
    }
}

/// What messages about a device begin with.
fn device_prefix(kind: &Kind) -> String {
    format!("{} config error: ", kind.api.noun)
}

/// `GET /`'s answer (FIRECRACKER_API.md, 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance<'a> {
    /// The machine's name.
    pub id: &'a str,
    /// `Not started`, `Running` or `Paused`.
    pub state: &'a str,
    /// The release whose interface is answered.
    pub vmm_version: &'a str,
    /// What the program is called there.
    pub app_name: &'a str,
    /// kedge's own release.
    pub kedge_version: &'a str,
    /// What it is at, where that takes long: a key of kedge's own, there only then.
    pub operation: Option<Operation>,
}

/// Something that a machine is at for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// The request: its method and path.
    pub request: &'static str,
    /// Bytes of the guest's memory that have been gone through.
    pub done_bytes: u64,
    /// Bytes of the guest's memory.
    pub total_bytes: u64,
}

impl Instance<'_> {
    /// As JSON.
    pub fn to_json(&self) -> Value {
        let Self { id, state, vmm_version, app_name, kedge_version, operation } = self;
        let mut json = serde_json::json!({
            "id": id,
            "state": state,
            "vmm_version": vmm_version,
            "app_name": app_name,
            "kedge_version": kedge_version,
        });
        if let Some(operation) = operation {
            json["operation"] = serde_json::json!(operation);
        }
        json
    }
}

#[cfg(test)]
mod tests;
