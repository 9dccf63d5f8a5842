//! What is known of a process that did not do what a test waits for: how it ended
//! or, where it has not, what each of its threads is doing.

use std::fmt::Write;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};

/// A process whose output has ended is soon one that can be waited for.
const ENDING: Duration = Duration::from_millis(200);

/// Between two looks at a thread: one that computes has used some of it.
const A_MOMENT: Duration = Duration::from_millis(200);

/// The longest record of the kernel's log, in bytes, and how many are shown.
const RECORD: usize = 8192;
const LAST: usize = 4;

/// Describes this process's child `pid`, without taking it off.
pub(crate) fn of(pid: Pid) -> String {
    if peek(pid).is_none() {
        thread::sleep(ENDING);
    }
    let known = match peek(pid) {
        Some(status) => end(&status),
        None => life(pid),
    };
    format!("{known}\n{}", hypervisor())
}

/// The last that the host's kernel said of its guests.
fn hypervisor() -> String {
    let open = |options: &mut OpenOptions| options.read(true).open("/dev/kmsg");
    let mut options = OpenOptions::new();
    let Ok(mut log) = open(options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()))
    else {
        return String::new();
    };
    let (mut record, mut said) = ([0; RECORD], Vec::new());
    loop {
        match log.read(&mut record) {
            Ok(length @ 1..) => said.push(String::from_utf8_lossy(&record[..length]).into_owned()),
            // What was overwritten while it was read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Ok(_) | Err(_) => break,
        }
    }
    said.retain(|record| record.contains("kvm"));
    said.split_off(said.len().saturating_sub(LAST)).concat()
}

/// How the child ended, if it has.
fn peek(pid: Pid) -> Option<WaitIdStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), options).ok().flatten()
}

fn end(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => format!("it has ended with status {status}"),
        (_, Some(signal)) => format!("signal {signal} has ended it"),
        _ => format!("it has ended: {status:?}"),
    }
}

/// What the process's threads do, and what the host is busy with.
fn life(pid: Pid) -> String {
    let process = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let load = read(Path::new("/proc/loadavg"));
    let mut text = format!("it has not ended; load {}", load.trim_end());
    let threads = || fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    let before: Vec<_> = threads().map(|thread| (thread.path(), ticks(&thread.path()))).collect();
    thread::sleep(A_MOMENT);
    for (path, before) in before {
        let used = ticks(&path).saturating_sub(before);
        text += &about_thread(&path, used);
    }
    text
}

/// Its files in /proc, but for lines that say nothing here.
fn about_thread(path: &Path, used: u64) -> String {
    let line = |name: &str| read(&path.join(name)).trim_end().to_owned();
    let mut text = format!("\nthread {} `{}`:", path.display(), line("comm"));
    // Formatting into a String cannot fail.
    let _ = write!(text, " {used} ticks in {A_MOMENT:?}, in {}", line("wchan"));
    let _ = write!(text, "\n  syscall {}", line("syscall"));
    let wanted = ["State", "SigPnd", "ShdPnd", "SigBlk", "SigCgt", "voluntary", "nonvoluntary"];
    let status = line("status");
    let told = status.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name)));
    let stack = line("stack");
    for line in told.chain(stack.lines()) {
        let _ = write!(text, "\n  {line}");
    }
    text
}

/// The time a thread has run, in clock ticks (proc_pid_stat(5), fields 14 and 15).
fn ticks(path: &Path) -> u64 {
    let stat = read(&path.join("stat"));
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let times = after_name.split_whitespace().skip(11).take(2);
    times.filter_map(|time| time.parse::<u64>().ok()).sum()
}

/// A file of /proc; why not, where it cannot be read.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| format!("({error})"))
}
