//! What guests get from accesses that no operating system makes.

use std::fs;

use anyhow::{Context, ensure};
use tempfile::{NamedTempFile, TempDir};

use crate::host::Host;
use crate::kedge::{Kedge, SOON};
use crate::suite::{Outcome, Shared, Suite, ensure_contains};
use crate::tap::Tap;

/// `ESR_EL1` of an external abort of a data access at the same exception level
/// (Arm DDI 0487, D24.2.40): EC 0x25, IL, DFSC 0x10.
const EXTERNAL_ABORT: &str = "esr 0x96000010";

pub(crate) fn tests(suite: &mut Suite) {
    let said = Shared::new();
    let part = |check: fn(&str) -> Outcome| {
        let said = said.clone();
        move |host: &Host| check(said.get(|| abort(host))?)
    };
    suite.every_host("devices::loads_from_nowhere_read_ones", &[], part(loads));
    suite.every_host("devices::stores_to_nowhere_do_nothing", &[], part(stores));
    suite.every_host(
        "devices::what_cannot_be_decoded_aborts_and_the_guest_goes_on",
        &[],
        part(aborts),
    );
    suite.every_host("devices::accesses_of_any_width_are_answered", &[], part(widths));
    suite.every_host("devices::a_storm_of_accesses_is_weathered_1", &[], |host| storm(host, 1));
    for seed in 2..=3 {
        let name = format!("devices::a_storm_of_accesses_is_weathered_{seed}");
        suite.every_kernel(&name, &[], move |host| storm(host, seed));
    }
    suite.once("devices::no_typed_byte_is_lost", &[], typing);
    suite.once("devices::the_serial_port_writes_to_a_file", &[], |host| {
        let folder = TempDir::new()?;
        let file = folder.path().join("serial");
        let kedge = Kedge::run(host.payload("power")).flags("--memory 16M").cmdline("off");
        let kedge = kedge.with(["--serial", &format!("file={}", file.display())]);
        let ended = kedge.finish()?.with_status(0)?;
        ensure!(ended.stdout.is_empty(), "stdout: {}", ended.stdout);
        ensure_contains(&fs::read_to_string(file)?, &["POWER off\n"])
    });
    suite.once("devices::a_tap_is_left_as_it_was", &[], |host| {
        let tap = Tap::new("kedge-t4")?.with_address("10.87.2.1/24")?;
        let before = tap.state();
        let kedge = Kedge::run(host.payload("null")).flags("--memory 16M --net tap=kedge-t4");
        kedge.finish()?.with_status(0)?;
        ensure!(tap.state() == before, "before {before:?}, after {:?}", tap.state());
        Ok(())
    });
}

fn abort(host: &Host) -> anyhow::Result<String> {
    let ended = Kedge::run(host.payload("abort")).flags("--memory 16M --rng").finish()?;
    let ended = ended.with_status(0)?;
    ensure_contains(&ended.stdout, &["ABORT done"])?;
    Ok(ended.stdout)
}

fn loads(said: &str) -> Outcome {
    let ones = |bytes: u32| {
        let ones = u64::MAX >> (64 - 8 * bytes);
        format!("ABORT load of {bytes} bytes from nowhere: {ones:#x}\n")
    };
    [1, 2, 4, 8].into_iter().try_for_each(|bytes| ensure_contains(said, &[&ones(bytes)]))
}

fn stores(said: &str) -> Outcome {
    let nothing = |bytes: u32| format!("ABORT store of {bytes} bytes to nowhere: 0 faults\n");
    [1, 2, 4, 8].into_iter().try_for_each(|bytes| ensure_contains(said, &[&nothing(bytes)]))
}

fn widths(said: &str) -> Outcome {
    let of_devices: Vec<_> = said.lines().filter(|line| is_of_device(line)).collect();
    ensure!(of_devices.len() == 24, "{said}");
    let faulty = of_devices.iter().find(|line| !line.ends_with(" 0 faults"));
    ensure!(faulty.is_none(), "{faulty:?}");
    Ok(())
}

fn is_of_device(line: &str) -> bool {
    let devices = ["rtc", "serial", "virtio"];
    devices.iter().any(|device| line.starts_with(&format!("ABORT {device} ")))
}

fn aborts(said: &str) -> Outcome {
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
    let folder = TempDir::new()?;
    let socket = folder.path().join("v.sock");
    let ended = Kedge::run(host.payload("storm"))
        .flags("--memory 32M --rng")
        .with(["--disk", &format!("path={}", disk.path().display())])
        .with(["--net", &format!("tap={}", tap.name())])
        .with(["--vsock", &format!("cid=3,path={}", socket.display())])
        .cmdline(&format!("{seed} 15000"))
        .finish()?
        .with_status(0)?;
    ensure_contains(&ended.stdout, &["STORM over"])
}

/// More than the port's FIFO holds, at once.
fn typing(host: &Host) -> Outcome {
    const BYTES: usize = 200;
    let mut kedge = Kedge::run(host.payload("echo")).flags("--memory 16M").start()?;
    kedge.wait_for("ECHO ready", 1, SOON)?;
    kedge.type_in(&[b'k'; BYTES])?;
    kedge.type_in(b"q")?;
    let ended = kedge.finish_within(SOON)?.with_status(0)?;
    let arrived = ended.stdout.matches("ECHO 6b\n").count();
    ensure!(arrived == BYTES, "{arrived} of {BYTES} bytes arrived");
    Ok(())
}
