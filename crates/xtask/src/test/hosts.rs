//! Running suites on many emulated hosts: several at a time, and once more where tests failed.

use std::{
    collections::VecDeque,
    fs,
    num::NonZero,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::{libtest::Reader, plan::Entry, second_try, tally::Tally};
use crate::{
    debian::kernels::KernelGone,
    host::{self, HostExit, HostJob},
};

/// Memory to be free for each host that runs at the same time, in KiB: its own and its initial file system's.
const KIB_PER_HOST: usize = 4 * 1024 * 1024;
/// The longest one host may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Runs `run` on each of these hosts, with what is given for it.
pub(super) fn each<'a, T: Send + Sync>(
    hosts: impl IntoIterator<Item = (&'a Entry, T)>,
    run: impl Fn(&Entry, &T) -> anyhow::Result<Tally> + Sync,
) -> Tally {
    let queue = Mutex::new(hosts.into_iter().collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let on_host =
        |host: &Entry, with: &T| run(host, with).unwrap_or_else(|error| cannot_run(host, &error));
    let (results, of_hosts) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..at_once() {
            let (results, next, on_host) = (results.clone(), &next, &on_host);
            scope.spawn(move || {
                while let Some((host, with)) = next() {
                    let tally = on_host(host, &with);
                    // The receiver outlives every worker.
                    let _ = results.send((host, with, tally));
                }
            });
        }
    });
    drop(results);
    let (bad, good): (Vec<_>, Vec<_>) =
        of_hosts.iter().partition(|(.., tally)| !tally.failures.is_empty());
    let mut sum = Tally::default();
    good.into_iter().for_each(|(.., tally)| sum.add(tally));
    let again = bad.len() <= second_try::MOST;
    for (host, with, first) in bad {
        if !again {
            sum.add(first);
            continue;
        }
        println!("{}: {} failed; once more, alone", host.name, first.failures.len());
        sum.add(second_try::settle(first, on_host(host, &with)));
    }
    sum
}

/// Hosts that run at one time: a host keeps one processor busy, rarely two.
fn at_once() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let free: usize =
        free.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    processors.min(free / KIB_PER_HOST).max(1)
}

/// A kernel that is not to be had is one skip.
fn cannot_run(host: &Entry, error: &anyhow::Error) -> Tally {
    let name = &host.name;
    let mut tally = Tally::default();
    match error.downcast_ref::<KernelGone>() {
        Some(gone) => tally.skip(name, &gone.to_string()),
        None => tally.fail(name, "cannot run", &format!("{error:#}")),
    }
    tally
}

/// Runs a job that runs suites, announced as cargo would; `on_line` sees every line.
///
/// # Errors
/// The host could not be built, or did not come up.
pub(super) fn suites(
    host: &Entry,
    job: &HostJob,
    on_line: &mut dyn FnMut(&str),
) -> anyhow::Result<Tally> {
    let name = &host.name;
    let mut reader = Reader::new(name);
    let exit = host::run(&host.host(), job, &mut |line| {
        on_line(line);
        if let Some(test) = reader.line(line) {
            println!("{name:<20} {} | test {} ... {}", test.program, test.name, test.outcome);
        }
    })?;
    Ok(match exit {
        HostExit::Status(0) => reader.finish(None),
        HostExit::Status(status) => reader.finish(Some(&format!("ended with status {status}"))),
        HostExit::TimedOut => {
            reader.finish(Some(&format!("not done after {} s", job.timeout.as_secs())))
        }
        HostExit::Died(console) => {
            reader.last_words(console);
            reader.finish(Some("the host died"))
        }
    })
}
