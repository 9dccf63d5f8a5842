//! A Linux guest in which a program works: with the disk, the network and the timers,
//! round after round, a line for each.

use std::path::Path;
use std::time::Duration;

use anyhow::{bail, ensure};

use crate::host::Host;
use crate::kedge::{Ended, Kedge, Running};
use crate::linux::BOOT;
use crate::suite::{Outcome, ensure_contains};
use crate::tap::{Tap, run};

/// The names of its devices.
pub(crate) const DISK: &str = "work";
pub(crate) const CARD: &str = "lan";

/// The tap where it is born, and the one where it goes on.
pub(crate) const FIRST_TAP: &str = "kedge-m0";
pub(crate) const OTHER_TAP: &str = "kedge-m1";

/// The host's address on the tap.
pub(crate) const HOST_IP: &str = "10.88.0.1";
const HOST_ADDRESS: &str = "10.88.0.1/24";
/// What the guest finds at that address must not change.
const HOST_MAC: &str = "06:00:0a:58:00:01";
const GUEST_MAC: &str = "06:00:0a:58:00:02";

const ROUND: &str = "ROUND ";
/// How many rounds show that the guest works.
const ENOUGH: usize = 3;
/// The longest that these may take.
const ROUNDS: Duration = Duration::from_secs(60);

/// What the guest reaches over its card.
///
/// # Errors
/// The host refuses.
pub(crate) fn tap(name: &'static str) -> anyhow::Result<Tap> {
    let tap = Tap::new(name)?;
    run("ip", &["link", "set", "dev", name, "address", HOST_MAC])?;
    tap.with_address(HOST_ADDRESS)
}

/// kedge with the guest.
///
/// # Errors
/// The host has no Linux for guests.
pub(crate) fn guest(host: &Host, disk: &Path, tap: &Tap) -> anyhow::Result<Kedge> {
    guest_with("", host, disk, tap)
}

/// The same, with more words on its command line.
///
/// # Errors
/// The host has no Linux for guests.
pub(crate) fn guest_with(
    words: &str,
    host: &Host,
    disk: &Path,
    tap: &Tap,
) -> anyhow::Result<Kedge> {
    Ok(Kedge::run(host.linux()?)
        .flags("--memory 192M")
        .with(["--initrd".into(), host.initrd()?])
        .with(["--disk", &format!("path={},id={DISK}", disk.display())])
        .with(["--net", &format!("tap={},mac={GUEST_MAC},id={CARD}", tap.name())])
        .cmdline(&format!("console=ttyS0 loglevel=1 kedge.run=work {words}")))
}

/// Waits until the guest has worked for a few more rounds.
///
/// # Errors
/// It does not, or something went wrong in it.
pub(crate) fn works(guest: &Running) -> Outcome {
    let limit = if guest.said().contains(ROUND) { ROUNDS } else { BOOT };
    let before = guest.said().matches(ROUND).count();
    guest.wait_for(ROUND, before + ENOUGH + 1, limit)?;
    nothing_wrong(&guest.said())
}

/// Has the guest end.
///
/// # Errors
/// It does not, or something went wrong in it.
pub(crate) fn end(mut guest: Running, disk: &Path) -> anyhow::Result<Ended> {
    guest.type_in(b"that will do\n")?;
    let ended = guest.finish_within(BOOT)?.with_status(0)?;
    nothing_wrong(&ended.stdout)?;
    ensure_contains(&ended.stdout, &["=== done"])?;
    let unexpected = ended.stderr.lines().find(|line| !line.starts_with("warning: "));
    ensure!(unexpected.is_none(), "stderr: {}", ended.stderr);
    run("e2fsck", &["-fn", &disk.display().to_string()])?;
    Ok(ended)
}

pub(crate) fn nothing_wrong(said: &str) -> Outcome {
    if said.contains("WRONG") {
        bail!("the guest found something wrong:\n{said}");
    }
    Ok(())
}
