//! A command line as nearly all are: flags with values, each once, and nothing that has to
//! be explained. It is read without the description of all flags, which is most of what
//! it takes to come from a command line to a machine. Any other line is clap's to read.

use std::ffi::{OsStr, OsString};

use kedge_devices::virtio::catalog::KINDS;

use crate::flags::Given;

/// Flags whose value is a file.
const FILES: [&str; 3] = ["kernel", "initrd", "api-sock"];
/// Flags whose value is a text that is not one of a few words.
const TEXTS: [&str; 6] = ["cmdline", "cpus", "memory", "guest-abi", "serial", "id"];

/// Values of flags that are not there; what is not here has none.
const DEFAULTS: [(&str, &str); 7] = [
    ("kernel-format", "auto"),
    ("cmdline", ""),
    ("cpus", "1"),
    ("memory", "512M"),
    ("on-reset", "restart"),
    ("serial", "stdio"),
    ("log-level", "warn"),
];

/// A command line.
#[derive(Debug)]
pub(super) struct Quick<'w>(Vec<(&'static str, &'w OsStr)>);

impl<'w> Quick<'w> {
    /// Reads `words`, the command's name first, if they are as simple as that.
    pub(super) fn read(words: &'w [OsString]) -> Option<Self> {
        let mut given: Vec<(&'static str, &OsStr)> = Vec::new();
        let (_, words) = words.split_first()?;
        let (pairs, []) = words.as_chunks() else { return None };
        for [flag, value] in pairs {
            let flag = flag.to_str()?.strip_prefix("--")?;
            let (name, many) = known(flag)?;
            let plain = FILES.contains(&name) || value.to_str().is_some();
            let again = !many && given.iter().any(|(before, _)| *before == name);
            if !plain || again || value.is_empty() || value.as_encoded_bytes().starts_with(b"-") {
                return None;
            }
            given.push((name, value));
        }
        given.iter().any(|(name, _)| *name == "kernel").then_some(Self(given))
    }
}

/// A flag's name, and whether it can be there more than once.
fn known(flag: &str) -> Option<(&'static str, bool)> {
    let once = FILES.iter().chain(&TEXTS).map(|name| (*name, false));
    let devices = KINDS.iter().filter(|kind| !kind.flag_value.is_empty());
    once.chain(devices.map(|kind| (kind.flag, kind.many))).find(|(name, _)| *name == flag)
}

impl Given for Quick<'_> {
    fn all(&self, name: &str) -> Vec<&OsStr> {
        let given = self.0.iter().filter(|(given, _)| *given == name).map(|(_, value)| *value);
        let given: Vec<_> = given.collect();
        if !given.is_empty() {
            return given;
        }
        let defaults = DEFAULTS.iter().filter(|(of, _)| *of == name);
        defaults.map(|(_, value)| OsStr::new(*value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::command;
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_line_is_read_as_clap_reads_it() {
        for line in [
            "run --kernel Image",
            "run --cmdline console=ttyS0 --kernel Image --cpus 2 --memory 1G --initrd initrd.gz",
            "run --kernel k --disk path=a --disk path=b,readonly --net tap=t --id web",
            "run --kernel k --guest-abi fleet.json --serial none --api-sock /run/s",
        ] {
            let words = words(line);
            let quick = Quick::read(&words).expect(line);
            let slow = command().try_get_matches_from(&words).expect(line);
            for id in command().get_arguments().map(|arg| arg.get_id().as_str()) {
                // What is not there is none, or is not counted.
                let slow: Vec<_> =
                    slow.all(id).into_iter().filter(|word| *word != "false").collect();
                assert_eq!(quick.all(id), slow, "{id} in `{line}`");
            }
        }
    }

    #[test]
    fn any_other_line_is_left_to_clap() {
        for line in [
            "run",
            "run --kernel",
            "run --cpus 2",
            "run --kernel k --cpus 1 --cpus 2",
            "run --kernel k --cpus -2",
            "run --kernel k --cpus=2",
            "run --kernel k --gic v3",
            "run --kernel k --rng --id a",
            "run --kernel k k",
            "run --kernel k -h",
            "run --kernel k --cmdline ",
        ] {
            assert!(Quick::read(&words(line)).is_none(), "{line}");
        }
    }
}
