//! `PUT /clone`: kedge's own. What it has in common with `PUT /snapshot/load` has the names
//! and the defaults that it has there.

use std::path::PathBuf;

use kedge_diag::Fix;
use serde::Deserialize;

use super::{
    Call, Clock, DriveOverride, Fault, HugePages, NetworkOverride, Parsed, SerialOverride,
    VsockOverride, body,
};

/// Machines to be made of one that is paused. In every text, `{n}` stands for a clone's
/// number.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneMachine {
    /// How many.
    pub count: u32,
    /// Their names.
    pub name: String,
    /// The number of the first.
    #[serde(default = "one")]
    pub first: u32,
    /// Where each writes its log, and what its guest writes to a serial port on standard
    /// output.
    pub log: Option<PathBuf>,
    /// Whether differences to what is cloned are noted.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Whether they go on at once.
    #[serde(default)]
    pub resume_vm: bool,
    /// The pages behind memory.
    #[serde(default)]
    pub huge_pages: HugePages,
    /// Other host devices for network interfaces.
    #[serde(default)]
    pub network_overrides: Vec<NetworkOverride>,
    /// Another socket for the vsock device.
    pub vsock_override: Option<VsockOverride>,
    /// Other files for disks.
    #[serde(default)]
    pub drive_overrides: Vec<DriveOverride>,
    /// Another place for what each guest writes to its serial port.
    pub serial_override: Option<SerialOverride>,
    /// The registers whose loss is accepted.
    #[serde(default)]
    pub allow: Vec<String>,
    /// What the guests' clocks do.
    #[serde(default)]
    pub clock: Clock,
}

const fn one() -> u32 {
    1
}

impl CloneMachine {
    /// What stands for a clone's number.
    pub const PLACE: &str = "{n}";
    /// More at once are a slip of the pen.
    pub const MOST: u32 = 10_000;
    /// The largest number that the first can have: there are more behind it.
    pub const LAST: u32 = i32::MAX.cast_unsigned();

    fn check(&self) -> Result<(), BadClones> {
        let &Self { count, first, .. } = self;
        if !(1..=Self::MOST).contains(&count) {
            return Err(BadClones::Count(count));
        }
        if first > Self::LAST {
            return Err(BadClones::First(first));
        }
        if count > 1 && !self.name.contains(Self::PLACE) {
            return Err(BadClones::Same { count, name: self.name.clone() });
        }
        Ok(())
    }
}

/// Clones that there cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadClones {
    /// None, or too many.
    #[error("`count` cannot be {0}")]
    Count(u32),
    /// No number for the first.
    #[error("`first` cannot be {0}")]
    First(u32),
    /// All would have the same name.
    #[error("{count} clones cannot all have the name `{name}`")]
    Same {
        /// How many.
        count: u32,
        /// The name.
        name: String,
    },
}

impl Fix for BadClones {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Count(_) => format!("write a number from 1 to {}", CloneMachine::MOST),
            Self::First(_) => format!("write a number from 0 to {}", CloneMachine::LAST),
            Self::Same { name, .. } => {
                format!("write \"name\": \"{name}-{}\"", CloneMachine::PLACE)
            }
        })
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<Parsed, Fault> {
    let clone: CloneMachine = body::read(bytes)?;
    clone.check().map_err(Fault::Clones)?;
    Ok(Call::Clone(Box::new(clone)).into())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn clones(body: &str) -> Result<CloneMachine, Fault> {
        match read(body.as_bytes())? {
            Parsed { call: Call::Clone(clone), deprecated: false } => Ok(*clone),
            other => panic!("another call: {other:?}"),
        }
    }

    fn fault(body: &str, expected: &Expect) {
        expected.assert_eq(&clones(body).unwrap_err().message());
    }

    #[test]
    fn clones_stand_still_and_are_counted_from_one_unless_it_is_said() {
        let expected = CloneMachine {
            count: 3,
            name: "web-{n}".to_owned(),
            first: 1,
            log: None,
            track_dirty_pages: false,
            resume_vm: false,
            huge_pages: HugePages::Snapshot,
            network_overrides: vec![],
            vsock_override: None,
            serial_override: None,
            drive_overrides: vec![],
            allow: vec![],
            clock: Clock::Profile,
        };
        assert_eq!(clones(r#"{"count": 3, "name": "web-{n}"}"#), Ok(expected));
    }

    #[test]
    fn what_a_load_has_is_called_the_same() {
        let body = r#"{"count": 1, "name": "web", "first": 7, "log": "{n}.log",
            "track_dirty_pages": true, "resume_vm": true, "huge_pages": "2M",
            "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap{n}"}],
            "vsock_override": {"uds_path": "{n}.sock"},
            "serial_override": {"serial_out_path": "{n}.out"},
            "drive_overrides": [{"drive_id": "root", "path_on_host": "{n}.img"}],
            "allow": ["psci_version"], "clock": "advance"}"#;
        let clones = clones(body).unwrap();
        assert_eq!((clones.first, clones.clock), (7, Clock::Advance));
        assert!(clones.resume_vm && clones.track_dirty_pages);
        assert_eq!(clones.network_overrides[0].host_dev_name.as_deref(), Some("tap{n}"));
        let serial = clones.serial_override.unwrap();
        assert_eq!(serial.serial_out_path, PathBuf::from("{n}.out"));
        assert_eq!(clones.vsock_override.unwrap().uds_path, PathBuf::from("{n}.sock"));
        assert_eq!(clones.drive_overrides[0].path_on_host, Some(PathBuf::from("{n}.img")));
    }

    #[test]
    fn clones_that_there_cannot_be_are_told() {
        let same =
            expect![[r#"2 clones cannot all have the name `web`; fix: write "name": "web-{n}""#]];
        fault(r#"{"count": 2, "name": "web"}"#, &same);
        let none = expect!["`count` cannot be 0; fix: write a number from 1 to 10000"];
        fault(r#"{"count": 0, "name": "web-{n}"}"#, &none);
        let many = expect!["`count` cannot be 10001; fix: write a number from 1 to 10000"];
        fault(r#"{"count": 10001, "name": "web-{n}"}"#, &many);
        let far = expect!["`first` cannot be 2147483648; fix: write a number from 0 to 2147483647"];
        fault(r#"{"count": 1, "name": "w", "first": 2147483648}"#, &far);
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        let unknown = expect![
            "An error occurred when deserializing the json body of a request: unknown field `drive_override`, expected one of `count`, `name`, `first`, `log`, `track_dirty_pages`, `resume_vm`, `huge_pages`, `network_overrides`, `vsock_override`, `drive_overrides`, `serial_override`, `allow`, `clock` at line 1 column 48; fix: write `drive_overrides`"
        ];
        fault(r#"{"count": 2, "name": "web-{n}", "drive_override": []}"#, &unknown);
        for body in [
            r#"{"name": "web-{n}"}"#,
            r#"{"count": 2}"#,
            r#"{"count": -1, "name": "web-{n}"}"#,
            r#"{"count": 1e9, "name": "web-{n}"}"#,
            r#"{"count": 4294967296, "name": "web-{n}"}"#,
            r#"{"count": 2, "name": "web-{n}", "snapshot_path": "s"}"#,
            "\u{0}",
        ] {
            assert!(matches!(clones(body), Err(Fault::Json(_))), "{body}");
        }
        assert!(matches!(clones("[]"), Err(Fault::NoObject)));
    }
}
