//! The devices there are: one row each. The command line, the configuration
//! file and the machine iterate over the rows and know no device by name.

use std::fmt::Debug;

use kedge_diag::{Fix, Trouble};
use serde_json::Value;

use super::change::Changeable;
use super::device::VirtioDevice;
use super::syscalls::Syscall;
use super::{block, net, rng, vsock};

/// What a user configured: parsed and checked, nothing opened yet.
pub trait DeviceConfig: Debug + Send + Sync {
    /// The row of [`KINDS`] it belongs to.
    fn kind(&self) -> &'static Kind;

    /// The name that tells it from others of its kind: `drive_id`, `iface_id`.
    fn id(&self) -> &str;

    /// The configuration as the configuration file would hold it.
    fn to_json(&self) -> Value;

    /// The same device as `body` has it, which is [`DeviceConfig::to_json`] with changes:
    /// whatever has no words there stays.
    ///
    /// # Errors
    /// The device cannot be so.
    fn with_json(&self, body: Value) -> Parsed {
        (self.kind().from_json)(body)
    }

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

    /// Whether the open device keeps something on the host that is to go with it: a
    /// socket. Then its process had better not end without a word.
    fn leaves_behind(&self) -> bool {
        false
    }

    /// Whether another process serves it, with which the guest's memory must be shared.
    fn shares_memory(&self) -> bool {
        false
    }

    /// Whether the host's kernel serves it: what it touches of the guest's memory must be there,
    /// or come without anybody's help.
    fn is_in_kernel(&self) -> bool {
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
    /// The field of that object that holds the device's name; empty for a kind of
    /// which a machine has one.
    pub id_field: &'static str,
    /// What names something of the host's, and may be another when a saved machine
    /// is loaded.
    pub host_fields: &'static [HostField],
    /// The flag's value where it names such things: `[id=NAME,]path=FILE`.
    pub override_value: &'static str,
    /// The system calls that such devices make while they work, besides
    /// [`EVENT_LOOP`](super::syscalls::EVENT_LOOP).
    pub syscalls: &'static [Syscall],
    /// How such devices change while their machine runs; none where they cannot.
    pub change: Option<Changeable>,
    /// How Firecracker's API speaks of it.
    pub api: ApiWords,
}

/// How Firecracker's API speaks of a kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiWords {
    /// What messages about it begin with, before ` config error: `.
    pub noun: &'static str,
    /// What follows where it cannot be opened.
    pub unopened: &'static str,
    /// Fields of its object that will go away.
    pub deprecated: &'static [&'static str],
}

/// What names something of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostField {
    /// The option of the flag: `path`.
    pub option: &'static str,
    /// The field of the object in the configuration file: `path_on_host`.
    pub field: &'static str,
    /// What its value is.
    pub form: HostForm,
}

/// The value of what names something of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostForm {
    /// A text.
    Name,
    /// Whether it is used: `on` or `off` in a flag.
    Switch,
}

/// Every kind, in the order in which a guest finds them.
pub const KINDS: &[&Kind] = &[&block::KIND, &net::KIND, &vsock::KIND, &rng::KIND];

/// Devices that cannot be in one machine together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// Two with one name.
    #[error("there are two {noun}s with the name `{id}`")]
    Id {
        /// What they are.
        noun: &'static str,
        /// Their name.
        id: String,
    },
    /// Several of a kind of which a machine has one.
    #[error("there is more than one {noun}")]
    Many {
        /// What they are.
        noun: &'static str,
    },
    /// Two that want to come first.
    #[error("the {noun}s `{first}` and `{second}` are both root devices")]
    Leaders {
        /// What they are.
        noun: &'static str,
        /// The name of one.
        first: String,
        /// The name of the other.
        second: String,
    },
}

impl Fix for Clash {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Id { .. } => "give each a name of its own".to_owned(),
            Self::Many { noun } => format!("ask for one {noun}"),
            Self::Leaders { .. } => "make one of them the root device".to_owned(),
        })
    }
}

/// Puts `devices` in the order in which the guest finds them: that of [`KINDS`],
/// a root device before others of its kind, else as they were.
///
/// # Errors
/// They cannot be in one machine together.
pub fn arrange(devices: &mut [Box<dyn DeviceConfig>]) -> Result<(), Clash> {
    check_ids(devices)?;
    for kind in KINDS {
        let mut leaders = of_kind(devices, kind).filter(|device| device.leads());
        if let (Some(first), Some(second)) = (leaders.next(), leaders.next()) {
            let (first, second) = (first.id().to_owned(), second.id().to_owned());
            return Err(Clash::Leaders { noun: kind.noun, first, second });
        }
    }
    let rank = |kind: &Kind| KINDS.iter().position(|other| other.key == kind.key);
    devices.sort_by_key(|device| (rank(device.kind()), !device.leads()));
    Ok(())
}

/// Checks that no two devices of a kind have one name, and that there is one at
/// most of a kind that a machine has one of.
///
/// # Errors
/// There are.
pub fn check_ids(devices: &[Box<dyn DeviceConfig>]) -> Result<(), Clash> {
    for kind in KINDS {
        let ids: Vec<&str> = of_kind(devices, kind).map(DeviceConfig::id).collect();
        if !kind.many && ids.len() > 1 {
            return Err(Clash::Many { noun: kind.noun });
        }
        let twice = ids.iter().enumerate().find(|&(i, id)| ids[..i].contains(id));
        if let Some((_, id)) = twice {
            return Err(Clash::Id { noun: kind.noun, id: (*id).to_owned() });
        }
    }
    Ok(())
}

fn of_kind<'d>(
    devices: &'d [Box<dyn DeviceConfig>],
    kind: &'static Kind,
) -> impl Iterator<Item = &'d dyn DeviceConfig> {
    devices.iter().map(AsRef::as_ref).filter(|device| device.kind().key == kind.key)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kedge_diag::report;
    use serde_json::json;

    use super::*;

    fn disk(id: &str, is_root: bool) -> Box<dyn DeviceConfig> {
        let body = json!({"drive_id": id, "is_root_device": is_root, "path_on_host": "a.img"});
        (block::KIND.from_json)(body).unwrap()
    }

    fn rng() -> Box<dyn DeviceConfig> {
        (rng::KIND.from_flag)("", 0).unwrap()
    }

    fn clash(mut devices: Vec<Box<dyn DeviceConfig>>, expected: &Expect) {
        expected.assert_eq(&report(&arrange(&mut devices).unwrap_err()));
    }

    #[test]
    fn the_guest_finds_the_root_disk_first_and_then_kind_by_kind() {
        let mut devices = [rng(), disk("a", false), disk("b", true), disk("c", false)];
        arrange(&mut devices).unwrap();
        assert_eq!(devices.each_ref().map(|device| device.id()), ["b", "a", "c", "rng"]);
    }

    #[test]
    fn two_devices_with_one_name_are_refused() {
        clash(
            vec![disk("data", false), disk("data", true)],
            &expect![[r#"
                error: there are two disks with the name `data`
                  fix: give each a name of its own"#]],
        );
    }

    #[test]
    fn two_root_devices_are_refused() {
        clash(
            vec![disk("a", true), disk("b", true)],
            &expect![[r#"
                error: the disks `a` and `b` are both root devices
                  fix: make one of them the root device"#]],
        );
    }

    #[test]
    fn a_second_entropy_device_is_refused() {
        clash(
            vec![rng(), rng()],
            &expect![[r#"
                error: there is more than one entropy device
                  fix: ask for one entropy device"#]],
        );
    }

    #[test]
    fn no_two_kinds_share_a_flag_or_a_key() {
        let flags: std::collections::BTreeSet<_> = KINDS.iter().map(|kind| kind.flag).collect();
        let keys: std::collections::BTreeSet<_> = KINDS.iter().map(|kind| kind.key).collect();
        assert_eq!((flags.len(), keys.len()), (KINDS.len(), KINDS.len()));
    }
}
