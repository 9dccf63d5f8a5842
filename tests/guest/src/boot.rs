//! What boots: from the shortest guest to Linux with little.

use std::fs;

use anyhow::ensure;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::host::Host;
use crate::kedge::Kedge;
use crate::linux::{BOOT, Report, ensure_timers_rise};
use crate::suite::{Outcome, Shared, Suite, ensure_contains};

/// The longest command line that an arm64 kernel takes (`COMMAND_LINE_SIZE`, less
/// the zero at its end).
const LONGEST: usize = 2047;

pub(crate) fn tests(suite: &mut Suite) {
    suite.every_host("boot::the_shortest_guest_powers_off", &[], |host| {
        Kedge::run(host.payload("null")).finish()?.with_status(0).map(drop)
    });
    suite.every_host("boot::a_flat_guest_runs_in_16_mib", &[], flat);
    suite.once("boot::a_flat_guest_is_not_taken_for_an_image", &[], |host| {
        let ended = Kedge::run(host.payload("flat")).finish()?.with_status(1)?;
        ensure_contains(&ended.stderr, &["in no format that kedge knows", "flat"])
    });

    let small = Shared::new();
    let part = |check: fn(&Report) -> Outcome| {
        let small = small.clone();
        move |host: &Host| check(small.get(|| reboot(host))?)
    };
    suite.every_kernel("boot::linux_boots_with_one_cpu_and_an_initrd", &[], part(one_cpu));
    suite.every_kernel("boot::linux_reboots", &[], part(reboots));
    suite.every_kernel("boot::a_command_line_of_2047_bytes_arrives", &[], part(cmdline));
}

fn flat(host: &Host) -> Outcome {
    let folder = TempDir::new()?;
    let dtb = folder.path().join("dtb");
    let ended = Kedge::run(host.payload("flat"))
        .flags("--kernel-format flat --memory 16M")
        .with(["--dump-dtb".as_ref(), dtb.as_os_str()])
        .cmdline("to the letter:  \"two  spaces\"")
        .finish()?
        .with_status(0)?;
    let expected = [
        "FLAT entered at 0x80080000",
        "FLAT device tree at 0x8002",
        "FLAT bootargs [to the letter:  \"two  spaces\"]",
        // From 0x8000_0000 on, 0x100_0000 bytes.
        "FLAT memory@80000000 [0, 0, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]",
    ];
    ensure!(fs::read(&dtb)?.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]), "no device tree was dumped");
    ensure_contains(&ended.stdout, &expected)
}

fn longest() -> String {
    let mut line = "console=ttyS0 loglevel=1 kedge.run=one kedge.then=reboot \
                    quoted=\"a  b\" comma=,;%$`'\\ pad="
        .to_owned();
    while line.len() < LONGEST {
        line.push(char::from(b'a' + u8::try_from(line.len() % 26).unwrap_or(0)));
    }
    line
}

/// Boots Linux until it is up for the second time.
fn reboot(host: &Host) -> anyhow::Result<Report> {
    let kedge = Kedge::run(host.linux()?)
        .with(["--initrd".into(), host.initrd()?])
        .flags("--memory 256M")
        .cmdline(&longest())
        .start()?;
    kedge.wait_for("=== done", 1, BOOT)?;
    kedge.wait_for("GUEST-UP ", 2, BOOT)?;
    let ended = kedge.terminate()?.by_signal(Signal::TERM)?;
    Ok(Report::new(&ended.stdout))
}

fn one_cpu(said: &Report) -> Outcome {
    let cpus = said.section("cpus")?;
    ensure!(cpus == "0", "CPUs online: {cpus}");
    ensure_timers_rise(said, 1)
}

fn reboots(said: &Report) -> Outcome {
    ensure!(said.whole().matches("GUEST-UP ").count() >= 2, "{}", said.whole());
    Ok(())
}

fn cmdline(said: &Report) -> Outcome {
    let (found, given) = (said.section("cmdline")?, longest());
    ensure!(found == given, "the guest has {} bytes: {found}", found.len());
    Ok(())
}
