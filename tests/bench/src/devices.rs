//! `bench devices RUNS KERNEL INITRD`: how long a Linux guest waits for its devices, by the
//! guest's own clock: for a request to its disk, a file in memory, and for the host's answer
//! to a ping over a tap interface; on MMIO, and on PCI.
//!
//! Lines as `bench read-4k request_us=N` and `bench pci-read-4k request_us=N`: the mean of
//! some hundred or thousand requests, one after the other. `RUNS` is of no account: they are
//! in the guest's script.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

const DISK: &str = "/tmp/bench-disk";
/// A disk with the guest's program.
const PROGRAM: &str = "/tmp/bench-program";
/// As large as what the guest reads of it at most.
const BYTES: u64 = 200 * (128 << 10);
/// The tap interface.
const TAP: &str = "benchtap";
/// Its address, which the guest's script knows.
const ADDRESS: &str = "10.88.0.1/24";

/// Measures; the lines to print.
pub(crate) fn measure(kernel: &Path, initrd: &Path) -> anyhow::Result<Vec<String>> {
    File::create(DISK)?.set_len(BYTES)?;
    let mut program = fs::read("/kedge/bin/disk_checker").context("the guest's program")?;
    program.resize(program.len().next_multiple_of(512), 0);
    fs::write(PROGRAM, program)?;
    // Pages that are not there yet cost more than the request.
    fs::write(DISK, vec![1; usize::try_from(BYTES)?])?;
    make_tap()?;
    let mut lines = on("mmio", "", [kernel, initrd])?;
    lines.extend(on("pci", "pci-", [kernel, initrd])?);
    run("tap_maker", &["remove", TAP])?;
    [DISK, PROGRAM].iter().try_for_each(fs::remove_file)?;
    Ok(lines)
}

/// What the guest tells of devices on `transport`, their names after `prefix`.
fn on(transport: &str, prefix: &str, [kernel, initrd]: [&Path; 2]) -> anyhow::Result<Vec<String>> {
    let ended = Command::new("kedge")
        .args(["run".as_ref(), "--kernel".as_ref(), kernel.as_os_str()])
        .args(["--initrd".as_ref(), initrd.as_os_str()])
        .args(["--transport", transport])
        .args(["--disk", &format!("path={PROGRAM},readonly")])
        .args(["--disk", &format!("path={DISK},cache=unsafe")])
        .args(["--net", &format!("tap={TAP}")])
        .args(["--cmdline", "console=ttyS0 loglevel=1 kedge.run=rate"])
        .stdin(Stdio::null())
        .output()
        .context("cannot start kedge")?;
    let said = String::from_utf8_lossy(&ended.stdout);
    let errors = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "the guest ended with {}: {said}{errors}", ended.status);
    let lines: Vec<_> = said.lines().filter_map(|line| figure(prefix, line)).collect();
    // The first round is dropped.
    let counted = lines.len() / 2;
    ensure!(counted > 0, "the guest told nothing: {said}");
    Ok(lines[counted..].to_vec())
}

/// Makes the tap interface, with its address.
fn make_tap() -> anyhow::Result<()> {
    run("tap_maker", &["make", TAP])?;
    run("ip", &["addr", "add", ADDRESS, "dev", TAP])?;
    run("ip", &["link", "set", TAP, "up"])
}

fn run(program: &str, words: &[&str]) -> anyhow::Result<()> {
    let done = Command::new(program).args(words).status();
    let done = done.with_context(|| format!("cannot run {program}"))?;
    ensure!(done.success(), "{program} {} ended with {done}", words.join(" "));
    Ok(())
}

/// `RATE read-4k 99` as the bench says it.
fn figure(prefix: &str, line: &str) -> Option<String> {
    let (name, microseconds) = line.trim().strip_prefix("RATE ")?.split_once(' ')?;
    let microseconds: u64 = microseconds.parse().ok()?;
    Some(format!("bench {prefix}{name} request_us={microseconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_says_becomes_a_figure() {
        assert_eq!(figure("", "RATE read-4k 99\r").unwrap(), "bench read-4k request_us=99");
        assert_eq!(figure("pci-", "RATE ping 0178").unwrap(), "bench pci-ping request_us=178");
        assert_eq!(figure("", "RATE read-4k "), None);
        assert_eq!(figure("", "Linux 6.12"), None);
    }
}
