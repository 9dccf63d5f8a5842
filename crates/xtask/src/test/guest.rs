//! Guest tests: each host of the plan boots, runs the suites, and hands over what they print.

use std::{thread, time::Duration};

use super::{
    hosts::{self, SILENCE, TIMEOUT},
    plan::{Entry, Share},
    second_try::{self, Test, Try},
    suites,
    tally::Tally,
};
use crate::host::{self, Guest, HostJob, Overlay};

/// The longest that a host of `--full` may take on which all tests of guests run with all guests, and be silent.
const LONG_DAY: [Duration; 2] = [Duration::from_secs(4 * 3600), Duration::from_secs(3600)];

/// Runs the suites with the arguments it is given, each announced as cargo would.
const SCRIPT: &str = r#"status=0
run() {
    suite=$1
    shift
    echo "Running $suite ($suite-)"
    case $suite in
        *.on_kvm) more=$KEDGE_ON_KVM ;;
        *) more= ;;
    esac
    $suite $more "$@" || status=$?
}
if [ -n "$KEDGE_AGAIN" ]; then
    for test in $KEDGE_AGAIN; do
        run ${test%%=*} $KEDGE_PLAIN --exact ${test#*=}
    done
else
    for suite in $KEDGE_SUITES; do
        run $suite $KEDGE_PLAIN "$@"
    done
fi
exit $status"#;
/// Only one test at a time: each wants the whole host. The host's console is a terminal, on which they would print
/// colours between the words that are read.
const PLAIN: &str = "--test-threads=1 --color=never";

/// What of the tests runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// Those with this in their names.
    pub filter: Option<&'a str>,
    /// `--full`.
    pub full: bool,
}

impl Asked<'_> {
    /// What takes long is done as often as there is time for every day.
    fn is_of_every_day(self) -> bool {
        self.filter.is_none() && !self.full
    }
}

/// Runs the suites on each of these hosts.
///
/// # Errors
/// What the hosts have in common cannot be built or fetched.
pub(super) fn run(
    hosts: &[Entry],
    asked @ Asked { filter, .. }: Asked<'_>,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let mut files = host::standard_files(&[])?;
    files.extend(suites::on_kvm()?);
    let tests = suites::tests(&files);
    let worth_booting = |entry: &&Entry| {
        entry.share.filter(filter).is_ok_and(|filter| {
            let skips = entry.skips();
            filter.is_none_or(|filter| tests.iter().any(|suite| suite.runs(filter, &skips)))
        })
    };
    let hosts = hosts.iter().filter(worth_booting).map(|entry| (entry, ()));
    tally.add(hosts::each(hosts, |entry, (), last| {
        let again = last.map(|last| second_try::again(&entry.name, last)).unwrap_or_default();
        let one = on_host(entry, &files, asked, &again)?;
        Ok(match last {
            Some(last) if !again.is_empty() => second_try::completed(one, last),
            _ => one,
        })
    }));
    Ok(())
}

/// Runs the suites on one host, or only the tests `again` if there are any.
fn on_host(
    entry: &Entry,
    files: &[Overlay],
    asked: Asked<'_>,
    again: &[Test],
) -> anyhow::Result<Try> {
    let filter = asked.filter;
    let guest = |label: &str| Guest { label: label.to_owned(), page_size: entry.page_size };
    let mut files = files.to_vec();
    let others = entry.guests.iter().filter(|label| **label != entry.kernel);
    for label in [entry.kernel].iter().chain(others) {
        files.extend(host::guest_files(&guest(label))?);
    }
    let suites = suites::names(&files).join(" ");
    let mut job = HostJob::new(command(entry, filter), files);
    job.env.push(("KEDGE_GUEST_KERNELS".to_owned(), entry.guests.join(" ")));
    job.env.push(("KEDGE_SUITES".to_owned(), suites));
    job.env.push(("KEDGE_PLAIN".to_owned(), PLAIN.to_owned()));
    let again: Vec<_> =
        again.iter().map(|Test { suite, name }| format!("{suite}={name}")).collect();
    job.env.push(("KEDGE_AGAIN".to_owned(), again.join(" ")));
    job.env.push(("KEDGE_ON_KVM".to_owned(), on_kvm(entry)));
    if asked.is_of_every_day() {
        job.env.push(("KEDGE_EVERY_DAY".to_owned(), "1".to_owned()));
    }
    [job.timeout, job.silence] = patience(entry);
    if entry.share == Share::Everything && wants_debian(filter) {
        job.disks.push(host::debian_disk()?);
    }
    if !entry.guests.is_empty() {
        host::add_programs(&entry.host(), &mut job)?;
    }
    hosts::suites(entry, &job, &mut |_| ())
}

/// The longest that a host may take, and be silent.
fn patience(entry: &Entry) -> [Duration; 2] {
    if entry.guests.len() > 1 { LONG_DAY } else { [TIMEOUT, SILENCE] }
}

/// Tests that boot Debian from a disk, which takes minutes to make.
const ON_DEBIAN: &str = "once::systemd::";

/// Begins in the background with what takes minutes and leaves processors idle: Debian installs itself in a machine.
pub(super) fn prepare(hosts: &[Entry], filter: Option<&str>) {
    if wants_debian(filter) && hosts.iter().any(|host| host.share == Share::Everything) {
        // Who needs it waits for it, and says what is wrong if it is not there.
        thread::spawn(host::debian_disk);
    }
}

/// Whether the filter leaves such tests in.
fn wants_debian(filter: Option<&str>) -> bool {
    filter.is_none_or(|part| ON_DEBIAN.contains(part) || part.contains("systemd"))
}

/// The command that runs the suites.
fn command(entry: &Entry, filter: Option<&str>) -> Vec<String> {
    let mut words = vec!["sh", "-c", SCRIPT, "suites"];
    words.extend(entry.skips().into_iter().flat_map(|part| ["--skip", part]));
    // What is not there for these tests was not booted.
    words.extend(entry.share.filter(filter).unwrap_or(filter));
    words.into_iter().map(str::to_owned).collect()
}

/// Arguments of the suites that cargo builds: their tests are ignored elsewhere, and name what a host must have.
fn on_kvm(entry: &Entry) -> String {
    let lacking = entry.lacks().into_iter().map(|part| format!(" --skip host_with_{part}"));
    "--include-ignored".to_owned() + &lacking.collect::<String>()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        process::Command,
    };

    use super::*;
    use crate::test::plan::{self, Plan};

    #[test]
    fn what_another_host_shows_is_left_out() {
        let hosts = plan::hosts(Plan::Daily, &[]).unwrap();
        let one = |share| hosts.iter().find(|host| host.share == share).unwrap();
        let words = command(one(Share::OfEveryHost), Some("boot"));
        let moves = ["suites", "--skip", "moves::"];
        let skips = ["once::", "any_kernel::", "every_kernel::", "every_guest::"];
        let skips = skips.map(|part| ["--skip", part]).concat();
        assert_eq!(words[3..], [&moves[..], &skips, &["boot"]].concat());
        let everything = command(one(Share::Everything), None);
        assert_eq!(everything[3..], [&moves[..], &["--skip", "every_guest::"]].concat());
        let compared = command(one(Share::Fingerprints), None);
        let skips = ["once::", "any_kernel::", "every_guest::"].map(|part| ["--skip", part]);
        assert_eq!(compared[3..], [&moves[..], &skips.concat(), &["fingerprint::"]].concat());
    }

    /// What the script runs of suites that only say what they are told, with these tests to run again.
    fn runs(again: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        for suite in ["a.on_kvm", "b"] {
            let path = folder.path().join(suite);
            fs::write(&path, "#!/bin/sh\necho \"${0##*/} $*\"\n").unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "suites", "--skip", "x"]).env("PATH", path);
        shell.envs([("KEDGE_SUITES", "a.on_kvm b"), ("KEDGE_PLAIN", "-p")]);
        shell.envs([("KEDGE_ON_KVM", "-k"), ("KEDGE_AGAIN", again)]);
        String::from_utf8(shell.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn all_suites_run_or_only_tests_that_failed() {
        let all = "Running a.on_kvm (a.on_kvm-)\na.on_kvm -k -p --skip x\n\
                   Running b (b-)\nb -p --skip x\n";
        assert_eq!(runs(""), all);
        assert_eq!(runs("b=c::d"), "Running b (b-)\nb -p --exact c::d\n");
    }

    #[test]
    fn all_is_asked_for_by_a_filter_and_by_full() {
        let is_of_every_day = |filter, full| Asked { filter, full }.is_of_every_day();
        assert!(is_of_every_day(None, false));
        assert!(!is_of_every_day(Some("programs::"), false));
        assert!(!is_of_every_day(None, true));
    }

    #[test]
    fn hosts_with_guests_of_several_kernels_get_hours() {
        let hosts = plan::hosts(Plan::Full, &[]).unwrap();
        let long = hosts.iter().filter(|host| patience(host) == LONG_DAY);
        assert_eq!(long.map(|host| host.kernel).collect::<Vec<_>>(), ["6.12", "7.2", "6.1"]);
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
