//! What guests get from accesses that no operating system makes.

use anyhow::{Context, ensure};
use tempfile::NamedTempFile;

use crate::host::Host;
use crate::kedge::Kedge;
use crate::suite::{Outcome, Suite, ensure_contains};
use crate::tap::Tap;

/// `ESR_EL1` of an external abort of a data access at the same exception level
/// (Arm DDI 0487, D24.2.40): EC 0x25, IL, DFSC 0x10.
const EXTERNAL_ABORT: &str = "esr 0x96000010";

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("devices::loads_from_nowhere_read_ones", &[], |host| {
        let said = abort(host)?;
        let ones = |bytes: u32| {
            let ones = u64::MAX >> (64 - 8 * bytes);
            format!("ABORT load of {bytes} bytes from nowhere: {ones:#x}\n")
        };
        [1, 2, 4, 8].into_iter().try_for_each(|bytes| ensure_contains(&said, &[&ones(bytes)]))
    });
    suite.every_host("devices::stores_to_nowhere_do_nothing", &[], |host| {
        let said = abort(host)?;
        let nothing = |bytes: u32| format!("ABORT store of {bytes} bytes to nowhere: 0 faults\n");
        [1, 2, 4, 8].into_iter().try_for_each(|bytes| ensure_contains(&said, &[&nothing(bytes)]))
    });
    suite.every_host("devices::what_cannot_be_decoded_aborts_and_the_guest_goes_on", &[], aborts);
    suite.every_host("devices::accesses_of_any_width_are_answered", &[], |host| {
        let said = abort(host)?;
        let of_devices: Vec<_> = said.lines().filter(|line| is_of_device(line)).collect();
        ensure!(of_devices.len() == 24, "{said}");
        let faulty = of_devices.iter().find(|line| !line.ends_with(" 0 faults"));
        ensure!(faulty.is_none(), "{faulty:?}");
        Ok(())
    });
    for seed in 1..=3 {
        let name = format!("devices::a_storm_of_accesses_is_weathered_{seed}");
        suite.every_host(&name, &[], move |host| storm(host, seed));
    }
}

fn abort(host: &Host) -> anyhow::Result<String> {
    let ended = Kedge::run(host.payload("abort")).flags("--memory 16M --rng").finish()?;
    let ended = ended.with_status(0)?;
    ensure_contains(&ended.stdout, &["ABORT done"])?;
    Ok(ended.stdout)
}

fn is_of_device(line: &str) -> bool {
    let devices = ["rtc", "serial", "virtio"];
    devices.iter().any(|device| line.starts_with(&format!("ABORT {device} ")))
}

fn aborts(host: &Host) -> Outcome {
    let said = abort(host)?;
    let ways = [
        "ldp",
        "stp",
        "ldr with writeback",
        "str with writeback",
        "vector load",
        "ldp of a device",
    ];
    for way in ways {
        let line = said.lines().find(|line| line.starts_with(&format!("ABORT {way}: ")));
        let line = line.with_context(|| format!("nothing of {way} in:\n{said}"))?;
        ensure!(line.contains(": 1 faults") && line.contains(EXTERNAL_ABORT), "{line}");
        ensure!(line.ends_with(" right"), "{line}");
    }
    Ok(())
}

/// A machine with every device, and a guest that does not know what it does.
fn storm(host: &Host, seed: u32) -> Outcome {
    let disk = NamedTempFile::new()?;
    disk.as_file().set_len(1 << 20)?;
    let tap = Tap::new("kedge-t1")?.with_address("10.87.1.1/24")?;
    let ended = Kedge::run(host.payload("storm"))
        .flags("--memory 32M --rng")
        .with(["--disk", &format!("path={}", disk.path().display())])
        .with(["--net", &format!("tap={}", tap.name())])
        .cmdline(&format!("{seed} 15000"))
        .finish()?
        .with_status(0)?;
    ensure_contains(&ended.stdout, &["STORM over"])
}
