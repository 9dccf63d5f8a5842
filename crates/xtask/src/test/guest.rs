//! Guest tests: each host of the plan boots, runs the suites, and hands over what they print.

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
    plan::{Entry, Share},
    second_try, suites,
    tally::Tally,
};
use crate::{
    debian::kernels::KernelGone,
    host::{self, Guest, HostExit, HostJob, Overlay},
};

/// Memory to be free for each host that runs at the same time, in KiB: its own and its initial file system's.
const KIB_PER_HOST: usize = 4 * 1024 * 1024;
/// The longest one host may take.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Runs the suites with the arguments it is given, each announced as cargo would.
const SCRIPT: &str = r#"status=0
for suite in $KEDGE_SUITES; do
    echo "Running $suite ($suite-)"
    case $suite in
        *.on_kvm) more=$KEDGE_ON_KVM ;;
        *) more= ;;
    esac
    $suite $more "$@" || status=$?
done
exit $status"#;

/// Runs the suites on each of these hosts.
///
/// # Errors
/// What the hosts have in common cannot be built or fetched.
pub(super) fn run(hosts: &[Entry], filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
    let mut files = host::standard_files(&[])?;
    files.extend(suites::on_kvm()?);
    let tests = suites::tests(&files);
    let worth_booting = |entry: &&Entry| {
        entry.share.filter(filter).is_ok_and(|filter| {
            let skips = entry.share.skips();
            filter.is_none_or(|filter| tests.iter().any(|suite| suite.runs(filter, &skips)))
        })
    };
    let queue = Mutex::new(hosts.iter().filter(worth_booting).collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (results, of_hosts) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..at_once() {
            let (results, next, files) = (results.clone(), &next, &files);
            scope.spawn(move || {
                while let Some(entry) = next() {
                    // The receiver outlives every worker.
                    let _ = results.send((entry, on_host(entry, files, filter)));
                }
            });
        }
    });
    drop(results);
    let (bad, good): (Vec<_>, Vec<_>) =
        of_hosts.iter().partition(|(_, result)| !result.failures.is_empty());
    good.into_iter().for_each(|(_, result)| tally.add(result));
    let again = bad.len() <= second_try::MOST;
    for (entry, first) in bad {
        tally.add(if again { try_again(entry, first, &files, filter) } else { first });
    }
    Ok(())
}

/// Runs the suites once more on a host where tests failed.
fn try_again(entry: &Entry, first: Tally, files: &[Overlay], filter: Option<&str>) -> Tally {
    println!("{}: {} failed; once more, alone", entry.name, first.failures.len());
    second_try::settle(first, on_host(entry, files, filter))
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
    let suites = suites::names(&files).join(" ");
    let mut job = HostJob::new(command(entry.share, filter), files);
    job.env.push(("KEDGE_SUITES".to_owned(), suites));
    job.env.push(("KEDGE_ON_KVM".to_owned(), on_kvm(entry)));
    job.timeout = TIMEOUT;
    if entry.share == Share::Everything && wants_debian(filter) {
        job.disks.push(host::debian_disk()?);
    }
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

/// Tests that boot Debian from a disk, which takes minutes to make.
const ON_DEBIAN: &str = "once::systemd::";

/// Whether the filter leaves such tests in.
fn wants_debian(filter: Option<&str>) -> bool {
    filter.is_none_or(|part| ON_DEBIAN.contains(part) || part.contains("systemd"))
}

/// The command that runs the suites. Only one test at a time: each wants the whole host.
fn command(share: Share, filter: Option<&str>) -> Vec<String> {
    // The host's console is a terminal, on which they would print colours between the words that are read.
    let plain = ["--test-threads=1", "--color=never"];
    let mut words = [&["sh", "-c", SCRIPT, "suites"][..], &plain].concat();
    words.extend(share.skips().into_iter().flat_map(|part| ["--skip", part]));
    // What is not there for these tests was not booted.
    words.extend(share.filter(filter).unwrap_or(filter));
    words.into_iter().map(str::to_owned).collect()
}

/// Arguments of the suites that cargo builds: their tests are ignored elsewhere, and name what a host must have.
fn on_kvm(entry: &Entry) -> String {
    let lacking = entry.lacks().into_iter().map(|part| format!(" --skip host_with_{part}"));
    "--include-ignored".to_owned() + &lacking.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::plan::{self, Plan};

    #[test]
    fn what_another_host_shows_is_left_out() {
        let words = command(Share::OfEveryHost, Some("boot"));
        let skips = ["--skip", "once::", "--skip", "every_kernel::"];
        assert_eq!(words[5..], [&["--color=never"], &skips[..], &["boot"]].concat());
        assert_eq!(command(Share::Everything, None)[5..], ["--color=never"]);
        let compared = command(Share::Fingerprints, None);
        assert_eq!(compared[5..], ["--color=never", "--skip", "once::", "fingerprint::"]);
    }

    #[test]
    fn tests_for_what_a_host_lacks_are_left_out_there() {
        let hosts = plan::hosts(Plan::Daily, &[]).unwrap();
        let with_gicv2 = hosts.iter().find(|host| host.gic == 2).unwrap();
        let expected =
            "--include-ignored --skip host_with_gicv3 --skip host_with_pmu --skip host_with_sve";
        assert_eq!(on_kvm(with_gicv2), expected);
    }
}
