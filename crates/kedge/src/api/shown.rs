//! What `GET /machine-config` and `GET /vm/config` say of a machine (FIRECRACKER_API.md,
//! 3.1, 3.2 and 8): whoever changes the machine says so here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kedge_api::call::{BootSource, MachineConfig, NONE};
use kedge_devices::virtio::catalog::{DeviceConfig, KINDS, Kind};
use kedge_devices::virtio::change::Change;
use kedge_vmm::metadata::Config as MetadataConfig;
use kedge_vmm::spec::MachineSpec;
use serde_json::{Map, Value, json};

use crate::firecracker::{ABSENT, Configuration};

/// What is shown of a machine. Clones show the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown(Arc<Mutex<View>>);

impl Shown {
    /// Shows `view` from now on.
    pub(crate) fn set(&self, view: View) {
        *self.lock() = view;
    }

    /// A device has changed: shows it as it is now.
    pub(super) fn change(&self, change: &Change) {
        let key = change.kind().key;
        let is_it = |device: &Value| device[change.kind().id_field] == change.id();
        let mut view = self.lock();
        let mut devices = view.devices.iter_mut();
        let device = devices.find(|(other, device)| *other == key && is_it(device));
        let Some((_, device)) = device else { return };
        let before = (change.kind().from_json)(device.clone());
        // Whoever has changed the device has read both already.
        if let Some(after) = before.ok().and_then(|before| change.applied(before.as_ref()).ok()) {
            *device = after.to_json();
        }
    }

    /// A device has come: shows it, too.
    pub(super) fn add(&self, (kind, device): (&'static Kind, Value)) {
        self.lock().devices.push((kind.key, device));
    }

    /// A device has gone: shows it no more.
    pub(super) fn remove(&self, (kind, id): (&'static Kind, &str)) {
        let is_it = |device: &Value| device[kind.id_field] == id;
        self.lock().devices.retain(|(key, device)| *key != kind.key || !is_it(device));
    }

    /// The answer to `GET /machine-config`.
    pub(super) fn machine(&self) -> Value {
        self.lock().machine.clone()
    }

    /// The answer to `GET /vm/config`.
    pub(super) fn whole(&self) -> Value {
        self.lock().whole()
    }

    /// Whether its guest finds a metadata service.
    pub(super) fn has_metadata(&self) -> bool {
        self.lock().metadata.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, View> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine as Firecracker's configuration files have them.
#[derive(Clone, Debug)]
pub(crate) struct View {
    machine: Value,
    boot: Option<BootSource>,
    /// Each with the key of its kind.
    devices: Vec<(&'static str, Value)>,
    /// The name of its guest's profile.
    guest_abi: Option<String>,
    metadata: Option<MetadataConfig>,
}

impl Default for View {
    fn default() -> Self {
        Self::of(&Configuration::default())
    }
}

impl View {
    /// What is said of a machine.
    pub(crate) fn of(configuration: &Configuration) -> Self {
        let machine = configuration.machine.clone().unwrap_or_default();
        Self {
            machine: json!(machine),
            boot: configuration.boot.clone(),
            devices: shown(&configuration.devices),
            guest_abi: configuration.guest_abi.as_ref().map(|abi| abi.name.clone()),
            metadata: configuration.metadata.clone(),
        }
    }

    /// A machine of which something else was said.
    pub(crate) fn of_spec(spec: &MachineSpec, notes_changes: bool) -> Self {
        let MachineConfig { smt, .. } = MachineConfig::default();
        Self {
            machine: json!({
                "vcpu_count": spec.cpus,
                "mem_size_mib": spec.memory >> 20,
                "smt": smt,
                "track_dirty_pages": notes_changes,
                "huge_pages": NONE,
            }),
            boot: Some(BootSource {
                kernel_image_path: spec.boot.kernel.clone(),
                initrd_path: spec.boot.initrd.clone(),
                boot_args: Some(spec.boot.cmdline.clone()),
            }),
            devices: shown(&spec.devices),
            guest_abi: Some(spec.guest_abi.name.clone()),
            metadata: spec.metadata.clone(),
        }
    }

    fn whole(&self) -> Value {
        let absent = ABSENT.iter().map(|key| ((*key).to_owned(), absent(key)));
        let mut whole: Map<String, Value> = absent.collect();
        for kind in KINDS {
            let mut of_kind = self.devices.iter().filter(|(key, _)| *key == kind.key);
            let value = match kind.many {
                true => of_kind.map(|(_, device)| device.clone()).collect(),
                false => of_kind.next().map(|(_, device)| device.clone()).into(),
            };
            whole.insert(kind.key.to_owned(), value);
        }
        let Self { machine, boot, guest_abi, metadata, .. } = self;
        let rest = [
            ("boot-source", json!(boot)),
            ("machine-config", machine.clone()),
            ("guest-abi", json!(guest_abi)),
            ("mmds-config", json!(metadata)),
        ];
        // Firecracker does not show them either.
        let hidden = ["cpu-config", "logger", "metrics"].map(|key| (key, Value::Null));
        whole.extend(rest.into_iter().chain(hidden).map(|(key, value)| (key.to_owned(), value)));
        Value::Object(whole)
    }
}

fn shown(devices: &[Box<dyn DeviceConfig>]) -> Vec<(&'static str, Value)> {
    devices.iter().map(|device| (device.kind().key, device.to_json())).collect()
}

/// What is shown of a kind of which kedge has none: no object or an empty array.
fn absent(key: &str) -> Value {
    if key == "pmem" { json!([]) } else { Value::Null }
}
