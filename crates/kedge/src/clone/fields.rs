//! What a client of a machine's API asks for, in the words of the command's flags.

use std::ffi::OsString;

use kedge_api::call::{Clock, CloneMachine, HugePages};
use serde_json::{Value, json};

use super::flags::Wanted;
use crate::awaited::{DISKS, NETWORK, VSOCK, kind};
use crate::machines::BadId;

/// What a client's words ask for.
///
/// # Errors
/// The clones cannot be called so.
pub(super) fn wanted(asked: &CloneMachine) -> Result<Wanted, BadId> {
    Wanted::new((asked.first, asked.count), asked.name.clone(), words(asked))
}

fn words(asked: &CloneMachine) -> Vec<OsString> {
    let switches = [("--paused", !asked.resume_vm), ("--track-changes", asked.track_dirty_pages)];
    let switches = switches.into_iter().filter(|(_, is_set)| *is_set);
    let mut words: Vec<OsString> = switches.map(|(word, _)| word.into()).collect();
    words.push(format!("--clock={}", clock(asked.clock)).into());
    words.push(format!("--huge-pages={}", pages(asked.huge_pages)).into());
    words.extend(asked.allow.iter().map(|name| format!("--allow={name}").into()));
    let serial = asked.serial_override.as_ref().map(|serial| &serial.serial_out_path);
    for (flag, path) in [("--log=", asked.log.as_ref()), ("--serial=file=", serial)] {
        words.extend(path.map(|path| {
            let mut word = OsString::from(flag);
            word.push(path);
            word
        }));
    }
    let networks = asked.network_overrides.iter().map(|change| (NETWORK, json!(change)));
    let disks = asked.drive_overrides.iter().map(|change| (DISKS, json!(change)));
    let vsock = asked.vsock_override.iter().map(|change| (VSOCK, json!(change)));
    let others = networks.chain(disks).chain(vsock);
    words.extend(others.filter_map(|(key, change)| other(key, &change)));
    words
}

const fn clock(clock: Clock) -> &'static str {
    match clock {
        Clock::Profile => "profile",
        Clock::Stop => "stop",
        Clock::Advance => "advance",
    }
}

const fn pages(pages: HugePages) -> &'static str {
    match pages {
        HugePages::Snapshot => "snapshot",
        HugePages::None => "none",
        HugePages::Transparent => "transparent",
        HugePages::Huge2M => "2M",
    }
}

/// The flag by which a device of the kind with this key uses something else. Its name comes
/// first, and a comma in a value is written twice.
fn other(key: &str, change: &Value) -> Option<OsString> {
    let kind = kind(key)?;
    let host = kind.host_fields.iter().map(|host| (host.option, host.field));
    let fields = [("id", kind.id_field)].into_iter().chain(host);
    let options = fields.filter_map(|(option, field)| {
        let value = change[field].as_str()?;
        Some(format!("{option}={}", value.replace(',', ",,")))
    });
    let options: Vec<_> = options.collect();
    Some(format!("--{}={}", kind.flag, options.join(",")).into())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::clone::flags::command;

    fn asked(body: &Value) -> CloneMachine {
        serde_json::from_value(body.clone()).unwrap()
    }

    #[test]
    fn every_field_is_a_flag_of_the_command() {
        let wanted = wanted(&asked(&json!({
            "count": 2, "name": "web-{n}", "first": 7, "log": "{n}.log",
            "track_dirty_pages": true, "huge_pages": "2M", "clock": "advance",
            "network_overrides": [{ "iface_id": "eth0", "host_dev_name": "tap{n}",
                "guest_mac": "06:00:0a:00:00:01" }],
            "drive_overrides": [{ "drive_id": "root", "path_on_host": "a,b/{n}.img" }],
            "vsock_override": { "uds_path": "v-{n}.sock" },
            "serial_override": { "serial_out_path": "{n}.out" },
            "allow": ["psci_version"],
        })))
        .unwrap();
        let line: Vec<_> = wanted.line().collect();
        let expected = [
            "--count=2",
            "--first=7",
            "--name=web-{n}",
            "--paused",
            "--track-changes",
            "--clock=advance",
            "--huge-pages=2M",
            "--allow=psci_version",
            "--log={n}.log",
            "--serial=file={n}.out",
            "--net=id=eth0,tap=tap{n},mac=06:00:0a:00:00:01",
            "--disk=id=root,path=a,,b/{n}.img",
            "--vsock=path=v-{n}.sock",
        ];
        assert_eq!(line, expected);
        let words = ["clone", "state", "--memory", "memory"].map(OsString::from);
        let flags = command().try_get_matches_from(words.into_iter().chain(line)).unwrap();
        let again = Wanted::from_flags(&flags).unwrap();
        assert!(again.gives_each("disk", "root", 1) && again.id(8) == "web-8");
        assert!(again.words(8).any(|word| word == OsStr::new("--disk=id=root,path=a,,b/8.img")));
    }

    #[test]
    fn words_that_look_like_flags_are_values() {
        let body = json!({ "count": 1, "name": "-x", "resume_vm": true, "log": "--paused" });
        let wanted = wanted(&asked(&body)).unwrap();
        let words = ["clone", "state", "--memory", "memory"].map(OsString::from);
        let words = words.into_iter().chain(wanted.line());
        let flags = command().try_get_matches_from(words).unwrap();
        assert_eq!(Wanted::from_flags(&flags).unwrap().id(1), "-x");
        assert!(!flags.get_flag("paused"));
    }

    #[test]
    fn a_name_that_no_machine_can_have_is_refused() {
        let body = json!({ "count": 2, "name": "web_{n}" });
        let error = wanted(&asked(&body)).unwrap_err();
        assert_eq!(error.to_string(), "`--id` cannot be `web_2`");
    }
}
