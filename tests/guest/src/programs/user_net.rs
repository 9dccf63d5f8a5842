//! A network card whose frames Debian's `passt` carries (vhost-user): the guest reaches the
//! host by it, before its machine is saved and after it is loaded beside another `passt`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use super::on_host::{Programs, Started};
use super::{go_on, work};
use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running};
use crate::linux::BOOT;
use crate::suite::{Outcome, Suite, after, times};
use crate::tap::run;

/// The guest's card.
const MAC: &str = "06:00:ac:10:00:05";
const MTU: u16 = 1400;

/// Bytes of each transfer.
fn bytes() -> u64 {
    u64::from(times(6, 4)) << 20
}

pub(super) fn tests(suite: &mut Suite) {
    let name = "programs::a_card_of_passt_on_";
    suite.each_guest(&format!("{name}mmio"), &[Need::Programs], |host, kernel| {
        card(host, kernel, "mmio")
    });
    let needs = &[Need::Programs, Need::GicV3];
    suite.each_guest(&format!("{name}pci"), needs, |host, kernel| card(host, kernel, "pci"));
}

/// `passt`, once it listens at `socket` in `folder`: the guest's gateway is the host.
fn passt(programs: &Programs, folder: &Path, socket: &str) -> anyhow::Result<Started> {
    let socket = format!("/tmp/{socket}");
    let words = format!(
        "--foreground --quiet --vhost-user --runas 0 --socket {socket} --interface lo \
         --address 10.93.0.2 --netmask 24 --gateway 10.93.0.1 --mtu {MTU} --ipv4-only"
    );
    let words: Vec<_> = words.split(' ').collect();
    let passt = programs.start_alone(folder, "/usr/bin/passt", &words)?;
    passt.listens(&socket)?;
    Ok(passt)
}

fn card(host: &Host, kernel: &Path, transport: &str) -> Outcome {
    let folder = TempDir::new()?;
    let folder = folder.path();
    let programs = Programs::mount(host)?;
    let _server = programs.start("usr/bin/iperf3", &["--server"])?;
    let web = Web::start(folder)?;
    let first = passt(&programs, folder, "first")?;
    let mut guest = Kedge::run(kernel.join("Image"))
        .flags("--id saved --cpus 2 --memory 192M --transport")
        .with([transport])
        .with(["--initrd".into(), kernel.join("initrd.gz")])
        .with(["--disk", &format!("path={},readonly", host.programs().display())])
        .with(["--net", &format!("socket={},mac={MAC},mtu={MTU}", folder.join("first").display())])
        .cmdline(&format!("console=ttyS0 loglevel=1 kedge.run=user_net kedge.bytes={}", bytes()))
        .start()?;
    guest.wait_for("=== ready", 1, BOOT)?;
    go_on(&mut guest)?;
    guest.wait_for("=== saving", 1, work())?;
    let before = moved_away(guest, folder)?;
    drop(first);

    let second = passt(&programs, folder, "second")?;
    let load = Kedge::new(["snapshot", "load"]).with([folder.join("state")]);
    let load = load.with(["--memory".into(), folder.join("memory")]);
    let other = format!("id=eth0,socket={}", folder.join("second").display());
    let mut guest = load.with(["--net", &other]).start()?;
    go_on(&mut guest)?;
    let ended = guest.finish_within(work())?.with_status(0)?;
    drop(second);
    ensure!(ended.stderr.is_empty(), "stderr: {}", ended.stderr);
    judge(&[before, ended.stdout].concat(), &web.sum)
}

/// Saves `guest` while it stands still, and ends it: what it has said.
fn moved_away(guest: Running, folder: &Path) -> anyhow::Result<String> {
    Kedge::new(["pause", "saved"]).finish()?.with_status(0)?;
    let create = Kedge::new(["snapshot", "create", "saved"]);
    let create = create.with(["--state".into(), folder.join("state")]);
    create.with(["--memory".into(), folder.join("memory")]).finish_within(BOOT)?.with_status(0)?;
    Ok(guest.terminate()?.stdout)
}

fn judge(said: &str, sum: &str) -> Outcome {
    ensure!(!said.contains("WRONG"), "{said}");
    ensure!(after(said, "CARD ")? == format!("{MAC} mtu {MTU}"), "{said}");
    for when in ["before", "after"] {
        for way in ["to-host", "to-guest"] {
            let count = |sum: &str| -> anyhow::Result<u64> {
                Ok(after(said, &format!("{when} {way} {sum} "))?.parse()?)
            };
            let (sent, received) = (count("sum_sent")?, count("sum_received")?);
            ensure!(sent >= bytes() && received <= sent, "{sent} sent, {received} received");
            // What was under way when its sender had sent enough is not counted.
            ensure!(received * 2 > sent, "{sent} sent, {received} received");
        }
        let page = after(said, &format!("{when} page "))?;
        ensure!(page.starts_with(sum), "{when}: the page is {page}, not {sum}");
    }
    Ok(())
}

/// A page that the host serves; gone with it.
struct Web {
    server: std::process::Child,
    sum: String,
}

impl Web {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        let page = folder.join("page");
        fs::write(&page, (0..100_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>())?;
        let sum = run("md5sum", &[&page.display().to_string()])?;
        let sum = sum.split(' ').next().context("a sum")?.to_owned();
        let mut command = Command::new("httpd");
        command.args(["-f", "-p", "127.0.0.1:8093", "-h"]).arg(folder);
        Ok(Self { server: command.spawn().context("httpd")?, sum })
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
