//! `PUT /snapshot/create` and `/snapshot/load` (FIRECRACKER_API.md, 3.7), and kedge's own
//! fields beside Firecracker's: each has a default that changes nothing.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Call, Fault, Parsed, body};

/// How much of memory is saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotType {
    /// All that the guest has touched.
    #[default]
    Full,
    /// What has changed since the last snapshot, or since it was loaded.
    Diff,
    /// kedge's own: as [`Self::Full`], for other machines to go on from. What is saved as a
    /// difference later is one to the snapshot before.
    Copy,
}

/// A snapshot to be made of a paused machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    /// The state file.
    pub snapshot_path: PathBuf,
    /// The memory file.
    pub mem_file_path: PathBuf,
    /// How much of memory.
    #[serde(default)]
    pub snapshot_type: SnapshotType,
    /// kedge's own: wait until both files are on the disk.
    #[serde(default)]
    pub sync: bool,
    /// kedge's own: let the guest go on once they are written.
    #[serde(default)]
    pub resume_vm: bool,
    /// kedge's own: make checksums of all memory, by which damage to the memory file can be
    /// found. It takes about a third more time. Without them a load still tells the file
    /// from others, by a few of its pages.
    #[serde(default)]
    pub checksums: bool,
}

pub(super) fn read_create(bytes: &[u8]) -> Result<Parsed, Fault> {
    body::read(bytes).map(|create| Call::CreateSnapshot(create).into())
}

/// `PUT /snapshot/check`, kedge's own: what a load would do, of which nothing is done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckSnapshot {
    /// The state file; the memory is not looked at.
    pub snapshot_path: PathBuf,
    /// The registers whose loss is accepted.
    #[serde(default)]
    pub allow: Vec<String>,
}

pub(super) fn read_check(bytes: &[u8]) -> Result<Parsed, Fault> {
    body::read(bytes).map(|check| Call::CheckSnapshot(check).into())
}

/// Where a guest's memory comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "backend_type", content = "backend_path")]
pub enum MemoryBackend {
    /// From a memory file, as the guest touches it.
    File(PathBuf),
    /// From a page server at this socket.
    Uffd(PathBuf),
}

/// The pages behind a guest's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// As when it was saved.
    #[default]
    Snapshot,
    /// The host's smallest.
    None,
    /// As the host sees fit.
    Transparent,
    /// 2 MiB, reserved.
    #[serde(rename = "2M")]
    Huge2M,
}

/// What the time since it was saved is to the guest's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// What its profile says.
    #[default]
    Profile,
    /// Nothing: it stood still.
    Stop,
    /// Time that has passed: it went on.
    Advance,
}

/// Another host device, or another back end, for a network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NetworkOverrideBody")]
pub struct NetworkOverride {
    /// The interface's name.
    pub iface_id: String,
    /// The host's device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_dev_name: Option<String>,
    /// kedge's own: where its back end listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// kedge's own: another MAC address, which the guest finds when its driver begins anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_mac: Option<String>,
}

/// The same, in which the host's device may be missing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkOverrideBody {
    iface_id: String,
    #[serde(default, deserialize_with = "given")]
    host_dev_name: Option<String>,
    socket: Option<PathBuf>,
    guest_mac: Option<String>,
}

/// Reads what may be left out, and is not null.
fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    String::deserialize(from).map(Some)
}

impl TryFrom<NetworkOverrideBody> for NetworkOverride {
    type Error = &'static str;

    fn try_from(body: NetworkOverrideBody) -> Result<Self, Self::Error> {
        let NetworkOverrideBody { iface_id, host_dev_name, socket, guest_mac } = body;
        match (&host_dev_name, &socket) {
            // As serde says it where it is not to be left out.
            (None, None) => Err("missing field `host_dev_name`"),
            _ => Ok(Self { iface_id, host_dev_name, socket, guest_mac }),
        }
    }
}

/// Another file, or another back end, for a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveOverride {
    /// The disk's name.
    pub drive_id: String,
    /// The file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_on_host: Option<PathBuf>,
    /// Where its back end listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}

/// Another socket for the vsock device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockOverride {
    /// The socket.
    pub uds_path: PathBuf,
}

/// Another place for what the guest writes to its serial port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialOverride {
    /// The file.
    pub serial_out_path: PathBuf,
}

/// A snapshot to go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadSnapshot {
    /// The state file.
    pub snapshot_path: PathBuf,
    /// Where memory comes from.
    pub memory: MemoryBackend,
    /// Whether a difference to this snapshot can be saved later.
    pub track_dirty_pages: bool,
    /// Whether the guest goes on at once.
    pub resume_vm: bool,
    /// The pages behind memory.
    pub huge_pages: HugePages,
    /// Other host devices for network interfaces.
    pub network_overrides: Vec<NetworkOverride>,
    /// Another socket for the vsock device.
    pub vsock_override: Option<VsockOverride>,
    /// kedge's own: other files for disks.
    pub drive_overrides: Vec<DriveOverride>,
    /// kedge's own: another place for the serial port's output.
    pub serial_override: Option<SerialOverride>,
    /// kedge's own: the file of the pages that are to be in place at once. If there is none,
    /// it is written at the first pause.
    pub working_set_path: Option<PathBuf>,
    /// kedge's own: the registers whose loss is accepted.
    pub allow: Vec<String>,
    /// kedge's own: what the guest's clock does.
    pub clock: Clock,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadBody {
    snapshot_path: PathBuf,
    mem_backend: Option<MemoryBackend>,
    mem_file_path: Option<PathBuf>,
    #[serde(default)]
    track_dirty_pages: bool,
    enable_diff_snapshots: Option<bool>,
    #[serde(default)]
    resume_vm: bool,
    #[serde(default)]
    network_overrides: Vec<NetworkOverride>,
    vsock_override: Option<VsockOverride>,
    #[serde(default)]
    clock_realtime: bool,
    #[serde(default)]
    huge_pages: HugePages,
    #[serde(default)]
    drive_overrides: Vec<DriveOverride>,
    serial_override: Option<SerialOverride>,
    working_set_path: Option<PathBuf>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    clock: Clock,
}

pub(super) fn read_load(bytes: &[u8]) -> Result<Parsed, Fault> {
    let body: LoadBody = body::read(bytes)?;
    let deprecated = body.mem_file_path.is_some() || body.enable_diff_snapshots.is_some();
    let wrong = |wrong, cure| Err(Fault::Fields { wrong, cure });
    let memory = match (body.mem_backend, body.mem_file_path) {
        (Some(backend), None) => backend,
        (None, Some(file)) => MemoryBackend::File(file),
        (Some(_), Some(_)) => {
            return wrong(
                "too many fields: either `mem_backend` or `mem_file_path` exclusively is required.",
                "leave `mem_file_path` out",
            );
        }
        (None, None) => {
            return wrong(
                "missing field: either `mem_backend` or `mem_file_path` is required",
                "add \"mem_backend\": {\"backend_type\": \"File\", \"backend_path\": \"FILE\"}",
            );
        }
    };
    if body.clock_realtime {
        return wrong(
            "`clock_realtime` is for x86 only",
            "write \"clock\": \"advance\" to let the guest's clock catch up",
        );
    }
    let load = LoadSnapshot {
        snapshot_path: body.snapshot_path,
        memory,
        track_dirty_pages: body.track_dirty_pages || body.enable_diff_snapshots == Some(true),
        resume_vm: body.resume_vm,
        huge_pages: body.huge_pages,
        network_overrides: body.network_overrides,
        vsock_override: body.vsock_override,
        drive_overrides: body.drive_overrides,
        serial_override: body.serial_override,
        working_set_path: body.working_set_path,
        allow: body.allow,
        clock: body.clock,
    };
    Ok(Parsed { call: Call::LoadSnapshot(load), deprecated })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(body: &str) -> Result<Parsed, Fault> {
        read_load(body.as_bytes())
    }

    #[test]
    fn a_snapshot_is_full_and_not_waited_for_unless_it_is_said() {
        let body = r#"{"snapshot_path": "s", "mem_file_path": "m"}"#;
        let Call::CreateSnapshot(create) = read_create(body.as_bytes()).unwrap().call else {
            panic!("another call")
        };
        let expected = CreateSnapshot {
            snapshot_path: "s".into(),
            mem_file_path: "m".into(),
            snapshot_type: SnapshotType::Full,
            sync: false,
            resume_vm: false,
            checksums: false,
        };
        assert_eq!(create, expected);
    }

    #[test]
    fn memory_comes_from_one_place() {
        let new = r#"{"snapshot_path": "s",
            "mem_backend": {"backend_type": "Uffd", "backend_path": "u"}}"#;
        let Parsed { call: Call::LoadSnapshot(loaded), deprecated: false } = load(new).unwrap()
        else {
            panic!("another call")
        };
        assert_eq!(loaded.memory, MemoryBackend::Uffd("u".into()));
        let old = r#"{"snapshot_path": "s", "mem_file_path": "m"}"#;
        assert!(load(old).unwrap().deprecated);
        assert!(load(r#"{"snapshot_path": "s"}"#).is_err());
        let both = r#"{"snapshot_path": "s", "mem_file_path": "m",
            "mem_backend": {"backend_type": "File", "backend_path": "m"}}"#;
        assert!(load(both).is_err());
    }

    #[test]
    fn the_vsock_device_may_have_another_socket() {
        let body = r#"{"snapshot_path": "s", "mem_file_path": "m",
            "vsock_override": {"uds_path": "other.sock"}}"#;
        let Parsed { call: Call::LoadSnapshot(loaded), .. } = load(body).unwrap() else {
            panic!("another call")
        };
        assert_eq!(loaded.vsock_override, Some(VsockOverride { uds_path: "other.sock".into() }));
    }

    #[test]
    fn what_the_host_has_may_be_something_else() {
        let body = r#"{"snapshot_path": "s", "mem_file_path": "m", "working_set_path": "w",
            "serial_override": {"serial_out_path": "log"}, "network_overrides":
            [{"iface_id": "lan", "host_dev_name": "tap1", "guest_mac": "06:00:0a:00:00:01"}]}"#;
        let Parsed { call: Call::LoadSnapshot(loaded), .. } = load(body).unwrap() else {
            panic!("another call")
        };
        assert_eq!(loaded.working_set_path, Some("w".into()));
        assert_eq!(loaded.serial_override, Some(SerialOverride { serial_out_path: "log".into() }));
        assert_eq!(loaded.network_overrides[0].guest_mac.as_deref(), Some("06:00:0a:00:00:01"));
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused() {
        let body = r#"{"snapshot_path": "s", "mem_file_path": "m", "resume": true}"#;
        assert!(matches!(load(body), Err(Fault::Json(_))));
        let body = r#"{"snapshot_path": "s", "mem_backend":
            {"backend_type": "File", "backend_path": "m", "more": 1}}"#;
        assert!(matches!(load(body), Err(Fault::Json(_))));
    }
}
