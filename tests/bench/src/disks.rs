//! `bench disks RUNS KERNEL INITRD`: how long a Linux guest waits for a request to its
//! disk, by the guest's own clock; the disk is a file in memory.
//!
//! Lines as `bench read-4k request_us=N`: the mean of some thousand requests, one after
//! the other. `RUNS` is of no account: they are in the guest's script.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

const DISK: &str = "/tmp/bench-disk";
/// A disk with the guest's program.
const PROGRAM: &str = "/tmp/bench-program";
/// As large as what the guest reads of it at most.
const BYTES: u64 = 200 * (128 << 10);

/// Measures; the lines to print.
pub(crate) fn measure(kernel: &Path, initrd: &Path) -> anyhow::Result<Vec<String>> {
    File::create(DISK)?.set_len(BYTES)?;
    let mut program = fs::read("/kedge/bin/disk_checker").context("the guest's program")?;
    program.resize(program.len().next_multiple_of(512), 0);
    fs::write(PROGRAM, program)?;
    // Pages that are not there yet cost more than the request.
    fs::write(DISK, vec![1; usize::try_from(BYTES)?])?;
    let ended = Command::new("kedge")
        .args(["run".as_ref(), "--kernel".as_ref(), kernel.as_os_str()])
        .args(["--initrd".as_ref(), initrd.as_os_str()])
        .args(["--disk", &format!("path={PROGRAM},readonly")])
        .args(["--disk", &format!("path={DISK},cache=unsafe")])
        .args(["--cmdline", "console=ttyS0 loglevel=1 kedge.run=rate"])
        .stdin(Stdio::null())
        .output()
        .context("cannot start kedge")?;
    [DISK, PROGRAM].iter().try_for_each(fs::remove_file)?;
    let said = String::from_utf8_lossy(&ended.stdout);
    ensure!(ended.status.success(), "the guest ended with {}: {said}", ended.status);
    let lines: Vec<_> = said.lines().filter_map(figure).collect();
    // The first round is dropped.
    let counted = lines.len() / 2;
    ensure!(counted > 0, "the guest told nothing: {said}");
    Ok(lines[counted..].to_vec())
}

/// `RATE read-4k 99` as the bench says it.
fn figure(line: &str) -> Option<String> {
    let (name, microseconds) = line.trim().strip_prefix("RATE ")?.split_once(' ')?;
    let microseconds: u64 = microseconds.parse().ok()?;
    Some(format!("bench {name} request_us={microseconds}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_says_becomes_a_figure() {
        assert_eq!(figure("RATE read-4k 99\r").unwrap(), "bench read-4k request_us=99");
        assert_eq!(figure("RATE read-4k "), None);
        assert_eq!(figure("Linux 6.12"), None);
    }
}
