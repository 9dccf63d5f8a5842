//! Guest tests: each host of the plan boots, runs the suites, and hands over what they print.

use std::{
    collections::VecDeque,
    env,
    process::Command,
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::{
    libtest::Reader,
    plan::{Entry, LONG_TESTS, Length},
    tally::Tally,
};
use crate::{
    debian::kernels::KernelGone,
    host::{self, Content, Guest, HostExit, HostJob, Overlay},
    process,
};

/// Hosts that run at one time.
const AT_ONCE: usize = 1;
/// The longest one host may take.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The same with long tests.
const LONG_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// The programs that hold the tests.
const SUITES: [&str; 2] = ["conformance", "guest-tests"];
/// Runs the suites with the arguments it is given, each announced as cargo would.
const SCRIPT: &str = r#"status=0
for suite in conformance guest-tests; do
    echo "Running $suite ($suite-)"
    $suite "$@" || status=$?
done
exit $status"#;

/// Runs the suites on each of these hosts.
///
/// # Errors
/// What the hosts have in common cannot be built or fetched.
pub(super) fn run(hosts: &[Entry], filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
    let files = host::standard_files(&[])?;
    if filter.is_some_and(|filter| !any_test(&files, filter)) {
        return Ok(());
    }
    let queue = Mutex::new(hosts.iter().collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (results, of_hosts) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let (results, next, files) = (results.clone(), &next, &files);
            scope.spawn(move || {
                while let Some(entry) = next() {
                    // The receiver outlives every worker.
                    let _ = results.send(on_host(entry, files, filter));
                }
            });
        }
    });
    drop(results);
    of_hosts.iter().for_each(|result| tally.add(result));
    Ok(())
}

/// Some test has this in its name, so that it is worth booting hosts. A suite that cannot say counts as one that has.
fn any_test(files: &[Overlay], filter: &str) -> bool {
    SUITES.into_iter().any(|suite| tests_of(files, suite).is_none_or(|all| has(&all, filter)))
}

/// The names of a suite's tests, as it lists them under user-mode emulation.
fn tests_of(files: &[Overlay], suite: &str) -> Option<String> {
    let path = format!("/kedge/bin/{suite}");
    let Content::Copy(program) = &files.iter().find(|file| file.path == path)?.content else {
        return None;
    };
    let mut list =
        Command::new(if env::consts::ARCH == "aarch64" { "env" } else { "qemu-aarch64" });
    process::output(list.arg(program).arg("--list")).ok()
}

fn has(list: &str, filter: &str) -> bool {
    list.lines().filter_map(|line| line.strip_suffix(": test")).any(|name| name.contains(filter))
}

/// Runs the suites on one host; a kernel that is not to be had is one skip.
fn on_host(entry: &Entry, files: &[Overlay], filter: Option<&str>) -> Tally {
    suites_on_host(entry, files, filter).unwrap_or_else(|error| {
        let mut tally = Tally::default();
        match error.downcast_ref::<KernelGone>() {
            Some(gone) => tally.skip(&entry.name, &gone.to_string()),
            None => tally.fail(&entry.name, "cannot run", &format!("{error:#}")),
        }
        tally
    })
}

fn suites_on_host(entry: &Entry, files: &[Overlay], filter: Option<&str>) -> anyhow::Result<Tally> {
    let guest = Guest { label: entry.kernel.to_owned(), page_size: entry.page_size };
    let mut files = files.to_vec();
    files.extend(host::guest_files(&guest)?);
    let mut job = HostJob::new(command(entry.length, filter), files);
    job.timeout = match entry.length {
        Length::Short => TIMEOUT,
        Length::All => LONG_TIMEOUT,
    };
    let name = &entry.name;
    let mut reader = Reader::new(name);
    let exit = host::run(&entry.host(), &job, &mut |line| {
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

/// The command that runs the suites. Only one test at a time: each wants the whole host.
fn command(length: Length, filter: Option<&str>) -> Vec<String> {
    let mut words = vec!["sh", "-c", SCRIPT, "suites", "--test-threads=1"];
    if length == Length::Short {
        words.extend(LONG_TESTS.into_iter().flat_map(|test| ["--skip", test]));
    }
    words.extend(filter);
    words.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_tests_are_left_out_unless_asked_for() {
        let short = command(Length::Short, Some("boot"));
        assert_eq!(short[4..], ["--test-threads=1", "--skip", "systemd", "boot"]);
        assert_eq!(command(Length::All, None)[4..], ["--test-threads=1"]);
    }

    #[test]
    fn every_suite_is_in_the_script() {
        assert!(SCRIPT.contains(&format!("for suite in {};", SUITES.join(" "))));
    }

    #[test]
    fn a_filter_is_looked_for_in_the_names_of_tests() {
        let list = "boot::one_cpu: test\nboot::four_cpus: test\n";
        assert!(has(list, "four"));
        assert!(!has(list, "test"));
    }
}
