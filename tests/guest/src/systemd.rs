//! A stock Debian with systemd, on a disk: from its first boot to a login on the
//! serial console, and back to a clean disk.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::host::{Host, Need};
use crate::kedge::{Kedge, Running};
use crate::linux::BOOT;
use crate::suite::{Outcome, Shared, Suite, ensure_contains};
use crate::tap::run;

/// The longest from the start to the login prompt.
const LOGIN: Duration = Duration::from_secs(5 * 60);
const PROMPT: &str = "root@kedge-debian:~# ";

/// What came of the boot.
struct Boot {
    console: String,
    /// `systemctl is-system-running`.
    state: String,
    /// `systemctl --failed`.
    failed: String,
    /// What the root is: device, form and options.
    root: String,
    first_process: String,
    fsck: Result<String, String>,
}

pub(crate) fn tests(suite: &mut Suite) {
    let boot = Shared::new();
    let part = |check: fn(&Boot) -> Outcome| {
        let boot = boot.clone();
        move |host: &Host| check(boot.get(|| start(host))?)
    };
    let mut add = |name, check| suite.once(name, &[Need::Debian], part(check));
    add("systemd::debian_boots_to_a_login_on_the_serial_console", logs_in);
    add("systemd::every_unit_comes_up", units);
    add("systemd::the_root_is_the_disk_and_writable", root);
    add("systemd::it_powers_the_machine_off_and_leaves_a_clean_disk", powers_off);
}

fn start(host: &Host) -> anyhow::Result<Boot> {
    let disk = host.debian().display().to_string();
    let begin = Instant::now();
    let mut kedge = Kedge::run(host.linux()?)
        .flags("--cpus 2 --memory 512M --rng")
        .with(["--initrd".into(), host.initrd()?])
        .with(["--disk", &format!("path={disk}")])
        .cmdline("console=ttyS0 root=/dev/vda ro kedge.then=switch-root")
        .start()?;
    kedge.wait_for("kedge-debian login: ", 1, LOGIN)?;
    eprintln!("systemd: login prompt after {} s", begin.elapsed().as_secs());
    kedge.type_in(b"root\n")?;
    kedge.wait_for(PROMPT, 1, BOOT)?;
    let mut session = Session { kedge, asked: 0 };
    let state = session.ask("systemctl is-system-running --wait")?;
    let failed = session.ask("systemctl --failed --no-legend")?;
    let root = session.ask("findmnt -no SOURCE,FSTYPE,OPTIONS /")?;
    let first_process = session.ask("cat /proc/1/comm")?;
    let mut kedge = session.kedge;
    kedge.type_in(b"systemctl poweroff\n")?;
    let console = kedge.finish_within(LOGIN)?.with_status(0)?.stdout;
    let fsck = run("e2fsck", &["-fn", &disk]).map_err(|error| format!("{error:#}"));
    Ok(Boot { console, state, failed, root, first_process, fsck })
}

/// A shell on the console.
struct Session {
    kedge: Running,
    asked: usize,
}

impl Session {
    /// What `command` prints. It has at most 40 bytes: where the shell breaks a longer
    /// line, its echo could look like an answer.
    fn ask(&mut self, command: &str) -> anyhow::Result<String> {
        self.asked += 1;
        self.kedge.type_in(format!("echo \"<<$({command})>>\"\n").as_bytes())?;
        // The echo of what is typed has a quote before the line's end.
        self.kedge.wait_for(">>\r\n", self.asked, BOOT)?;
        let said = self.kedge.said();
        let (before, _) = said.rsplit_once(">>\r\n").context("it was waited for")?;
        let (_, answer) = before.rsplit_once("<<").context("an answer begins with <<")?;
        Ok(answer.replace('\r', ""))
    }
}

fn logs_in(boot: &Boot) -> Outcome {
    ensure!(boot.first_process == "systemd", "the first process is {}", boot.first_process);
    let parts = ["Welcome to ", "Debian GNU/Linux 12 kedge-debian ttyS0", PROMPT];
    ensure_contains(&boot.console, &parts)
}

fn units(boot: &Boot) -> Outcome {
    ensure!(boot.state == "running", "the system is {}; failed:\n{}", boot.state, boot.failed);
    ensure!(boot.failed.is_empty(), "failed:\n{}", boot.failed);
    Ok(())
}

fn root(boot: &Boot) -> Outcome {
    let words: Vec<_> = boot.root.split_whitespace().collect();
    let options = words.get(2).copied().unwrap_or_default();
    ensure!(words.starts_with(&["/dev/vda", "ext4"]) && options.starts_with("rw"), "{}", boot.root);
    Ok(())
}

fn powers_off(boot: &Boot) -> Outcome {
    ensure_contains(&boot.console, &["Reached target", "reboot: Power down"])?;
    boot.fsck.as_ref().map(drop).map_err(|error| anyhow::anyhow!("{error}"))
}
