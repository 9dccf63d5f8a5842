//! Running suites on many emulated hosts: several at a time, and once more where tests failed.

use std::{
    collections::VecDeque,
    fs,
    num::NonZero,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::{
    libtest::Reader,
    plan::Entry,
    second_try::{self, End, Try},
    tally::Tally,
};
use crate::{
    debian::kernels::KernelGone,
    host::{self, HostExit, HostJob},
};

/// Memory to be free for each host that runs at the same time, in KiB: its own and its initial file system's.
const KIB_PER_HOST: usize = 4 * 1024 * 1024;
/// The longest one host may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// The longest that a host says nothing: no test takes that long, on a busy machine either.
pub(super) const SILENCE: Duration = Duration::from_secs(10 * 60);

/// Runs `run` on each of these hosts, with what is given for it and with the try before, which it may complete.
pub(super) fn each<'a, T: Send + Sync>(
    hosts: impl IntoIterator<Item = (&'a Entry, T)>,
    run: impl Fn(&Entry, &T, Option<&Try>) -> anyhow::Result<Try> + Sync,
) -> Tally {
    let queue = Mutex::new(hosts.into_iter().collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let on_host = |host: &Entry, with: &T, last: Option<&Try>| {
        run(host, with, last).unwrap_or_else(|error| cannot_run(host, &error))
    };
    let (results, of_hosts) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..at_once() {
            let (results, next, on_host) = (results.clone(), &next, &on_host);
            scope.spawn(move || {
                while let Some((host, with)) = next() {
                    let tally = on_host(host, &with, None);
                    // The receiver outlives every worker.
                    let _ = results.send((host, with, tally));
                }
            });
        }
    });
    drop(results);
    let first: Vec<_> = of_hosts.into_iter().collect();
    let failed = first.iter().filter(|(.., one)| one.has_failed()).count();
    let widespread = failed > second_try::MOST;
    let mut sum = Tally::default();
    for (host, with, one) in first {
        let mut tries = vec![one];
        while second_try::wants_another(&tries, widespread) {
            // Whoever looks on need not wait for another try to see why.
            tries.last().iter().for_each(|last| print!("{}", last.tally.failures_text()));
            println!("{}: tests failed, or the host did; once more, alone", host.name);
            tries.push(on_host(host, &with, tries.last()));
        }
        sum.add(second_try::settle(tries));
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
fn cannot_run(host: &Entry, error: &anyhow::Error) -> Try {
    let name = &host.name;
    let mut tally = Tally::default();
    match error.downcast_ref::<KernelGone>() {
        Some(gone) => tally.skip(name, &gone.to_string()),
        None => tally.fail(name, "cannot run", &format!("{error:#}")),
    }
    Try { tally, end: End::Complete }
}

/// Runs a job that runs suites, announced as cargo would; `on_line` sees every line.
///
/// # Errors
/// The host could not be built, or did not come up.
pub(super) fn suites(
    host: &Entry,
    job: &HostJob,
    on_line: &mut dyn FnMut(&str),
) -> anyhow::Result<Try> {
    let name = &host.name;
    let mut reader = Reader::new(name);
    let exit = host::run(&host.host(), job, &mut |line| {
        on_line(line);
        if let Some(test) = reader.line(line) {
            println!("{name:<20} {} | test {} ... {}", test.program, test.name, test.outcome);
        }
    })?;
    let (tally, end) = match exit {
        HostExit::Status(0) => (reader.finish(None), End::Complete),
        HostExit::Status(status) => {
            (reader.finish(Some(&format!("ended with status {status}"))), End::Complete)
        }
        HostExit::TimedOut => {
            let how = format!("not done after {} s", job.timeout.as_secs());
            (reader.finish(Some(&how)), End::HostGone)
        }
        HostExit::Silent(console) => {
            reader.last_words(console);
            let how = format!("the host was silent for {} s", job.silence.as_secs());
            (reader.finish(Some(&how)), End::HostGone)
        }
        HostExit::Died(console) => {
            reader.last_words(console);
            (reader.finish(Some("the host died")), End::HostGone)
        }
    };
    Ok(Try { tally, end })
}
