//! Machines that are killed while their guest writes: what it was told is to last is there,
//! and its file systems are whole.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use ext4_view::Ext4;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::host::{Host, Need};
use crate::kedge::{Kedge, SOON};
use crate::linux::BOOT;
use crate::suite::{Outcome, Suite, times};
use crate::tap::run;

/// The guest's disks, by its names for them, and their options.
const DISKS: [(&str, &str); 2] =
    [("vdb", "cache=writeback,engine=io_uring,queues=2"), ("vdc", "cache=writethrough")];
/// Bytes of each.
const SIZE: u64 = 32 << 20;
/// Files that are to last of each disk before the machine is killed.
const FILES: usize = 4;

pub(crate) fn tests(suite: &mut Suite) {
    let name = "killed::what_was_flushed_is_there_when_the_machine_is_killed";
    suite.each_guest(name, &[Need::Programs, Need::GicV3], |host, kernel| {
        (0..times(4, 1)).try_for_each(|time| {
            let transport = if time % 2 == 0 { "pci" } else { "mmio" };
            let outcome = killed(host, (kernel, transport), time);
            outcome.with_context(|| format!("on {transport}, time {time}"))
        })
    });
}

fn killed(host: &Host, (kernel, transport): (&Path, &str), time: u32) -> Outcome {
    let folder = TempDir::new()?;
    let file = |name: &str| folder.path().join(name);
    let mut kedge = Kedge::run(kernel.join("Image"))
        .flags("--cpus 2 --memory 192M --transport")
        .with([transport])
        .with(["--initrd".into(), kernel.join("initrd.gz")])
        .with(["--disk", &format!("path={},readonly", host.programs().display())]);
    for (name, options) in DISKS {
        fs::File::create(file(name))?.set_len(SIZE)?;
        kedge = kedge.with(["--disk", &format!("path={},{options}", file(name).display())]);
    }
    let guest = kedge.cmdline("console=ttyS0 loglevel=1 kedge.run=killed").start()?;
    for (name, _) in DISKS {
        guest.wait_for(&format!("ADDED {name} "), FILES, BOOT)?;
    }
    // Somewhere between.
    thread::sleep(Duration::from_millis(u64::from(time * 37 % 200)));
    guest.signal(Signal::KILL)?;
    let ended = guest.finish_within(SOON)?.by_signal(Signal::KILL)?;
    ensure!(!ended.stdout.contains("ENDED"), "it had nothing more to write");
    for (name, options) in DISKS {
        check(&file(name), name, &ended.stdout).with_context(|| options)?;
    }
    Ok(())
}

/// The file system in `image` is whole and has all that the guest said of disk `name`.
fn check(image: &Path, name: &str, said: &str) -> Outcome {
    let path = image.display().to_string();
    run("e2fsck", &["-E", "journal_only", "-p", &path]).context("the journal")?;
    run("e2fsck", &["-fn", &path]).context("the file system")?;
    let disk = Ext4::load(Box::new(fs::read(image)?))?;
    let scratch = image.with_extension("copy");
    let (mut files, mut lines) = (0, 0);
    // The last line may be half of one.
    for line in said.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["SYNCED", of, number, sum, "-"] if of == name => {
                let path = format!("/file.{number}");
                fs::write(&scratch, disk.read(path.as_str()).context(path)?)?;
                let found = run("md5sum", &[&scratch.display().to_string()])?;
                ensure!(found.starts_with(sum), "file {number} is another");
                files += 1;
            }
            ["ADDED", of, number] if of == name => lines = number.parse()?,
            _ => {}
        }
    }
    let found = disk.read_to_string("/lines")?;
    let there = found.lines().zip(1..).take_while(|(line, n)| *line == format!("line {n}"));
    let there = there.count();
    ensure!(there >= lines, "of {lines} lines {there} are there:\n{found}");
    ensure!(files >= FILES, "the guest has said of {files} files only that they are to last");
    Ok(())
}
