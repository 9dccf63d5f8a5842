//! Which emulated hosts the guest tests run on: a table for every day, and every combination for `--full`.

use std::collections::BTreeSet;

use anyhow::bail;

use crate::host::{HostConfig, PageSize, Threads};

/// A host and what runs there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// How its lines begin.
    pub name: String,
    pub kernel: &'static str,
    pub page_size: PageSize,
    pub gic: u8,
    pub cpu: Cpu,
    pub threads: Threads,
    pub share: Share,
    /// Kernels that tests of every guest boot there; none where they do not run.
    pub guests: Vec<&'static str>,
}

/// A CPU of the emulated host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cpu {
    pub name: &'static str,
    /// QEMU's `-cpu`.
    pub qemu: &'static str,
    /// Kernels with 16 KiB pages run on it.
    pub has_16k: bool,
}

/// Which tests a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Share {
    /// Those that depend on the host.
    OfEveryHost,
    /// Those that depend on the host's kernel only, too.
    OfEveryKernel,
    /// Those in which all kernels should do the same, too.
    OfAnyKernel,
    /// Those of which one host shows enough, too.
    Everything,
    /// Those that compare what guests find with what they found on a host with another kernel and the same CPU.
    Fingerprints,
}

/// Parts of the names of tests that depend on kedge alone, not on its host.
const ON_ONE_HOST: &str = "once::";
/// Parts of the names of tests that depend on the host's kernel alone, not on its CPU, its pages or its GIC.
const ON_ONE_HOST_A_KERNEL: &str = "every_kernel::";
/// Parts of the names of tests in which all kernels should do the same: one shows it every day, each with `--full`.
const ON_ANY_KERNEL: &str = "any_kernel::";
/// Parts of the names of tests that one host and guest show every day, and with `--full` several of both.
const ON_EVERY_GUEST: &str = "every_guest::";
/// Parts of the names of tests that have a stage of their own.
const BETWEEN_HOSTS: &str = "moves::";
/// A part of the names of tests that compare hosts.
const FINGERPRINTS: &str = "fingerprint::";

impl Share {
    /// Parts of the names of the tests that are left out.
    fn skips(self) -> Vec<&'static str> {
        match self {
            Self::OfEveryHost => {
                vec![BETWEEN_HOSTS, ON_ONE_HOST, ON_ANY_KERNEL, ON_ONE_HOST_A_KERNEL]
            }
            Self::OfEveryKernel | Self::Fingerprints => {
                vec![BETWEEN_HOSTS, ON_ONE_HOST, ON_ANY_KERNEL]
            }
            Self::OfAnyKernel => vec![BETWEEN_HOSTS, ON_ONE_HOST],
            Self::Everything => vec![BETWEEN_HOSTS],
        }
    }

    /// The part that names are to contain of the tests that run, when tests with `asked` in their names are asked for;
    /// an error if the host is not there for them.
    pub(super) fn filter(self, asked: Option<&str>) -> Result<Option<&str>, NotForThese> {
        match (self, asked) {
            (Self::Fingerprints, None) => Ok(Some(FINGERPRINTS)),
            (Self::Fingerprints, Some(part)) if !part.contains("fingerprint") => Err(NotForThese),
            (_, asked) => Ok(asked),
        }
    }
}

/// A host runs other tests than these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotForThese;

/// Which table of hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Everything once.
    Daily,
    /// Every combination.
    Full,
}

impl Entry {
    /// What this host cannot give its guests, by the names that tests have for it.
    pub(super) fn lacks(&self) -> Vec<&'static str> {
        let parts = [
            ("gicv2", self.gic == 2),
            ("gicv3", self.gic == 3),
            // KVM wires the monitors' interrupt through a GICv3 in the tests.
            ("pmu", self.gic == 3),
            ("sve", self.cpu == SVE),
        ];
        parts.into_iter().filter(|(_, has)| !has).map(|(part, _)| part).collect()
    }

    /// Parts of the names of the tests that are left out.
    pub(super) fn skips(&self) -> Vec<&'static str> {
        let of_guests = self.guests.is_empty().then_some(ON_EVERY_GUEST);
        self.share.skips().into_iter().chain(of_guests).collect()
    }

    /// The machine to emulate.
    pub(super) fn host(&self) -> HostConfig {
        HostConfig {
            kernel: self.kernel.to_owned(),
            cpu: self.cpu.qemu.to_owned(),
            gic: self.gic,
            page_size: self.page_size,
            threads: self.threads,
            ..HostConfig::default()
        }
    }
}

/// No virtualization host extensions: KVM's other way of working.
const A57: Cpu = Cpu { name: "cortex-a57", qemu: "cortex-a57", has_16k: false };
/// A server of 2019.
const N1: Cpu = Cpu { name: "neoverse-n1", qemu: "neoverse-n1", has_16k: true };
/// Everything QEMU knows but SVE, which is slow; pointer authentication by a fast algorithm.
const MAX: Cpu = Cpu { name: "max", qemu: "max,pauth-impdef=on,sve=off", has_16k: true };
const SVE: Cpu = Cpu { name: "max-sve", qemu: "max,pauth-impdef=on", has_16k: true };

const CPUS: [Cpu; 4] = [A57, N1, MAX, SVE];
const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];
/// The kernels there are with 16 KiB pages.
const KERNELS_16K: [&str; 2] = ["6.12", "7.2"];

/// The kernel of the host that shows every day what every guest does: another than the one that shows everything else,
/// which would have twice as much to do.
const HOST_OF_GUESTS: &str = "7.2";
/// Kernels of hosts whose guests, with `--full`, are of several kernels; and the guests'.
const HOSTS_OF_GUESTS: [&str; 3] = ["6.1", "6.12", "7.2"];
const GUESTS: [&str; 2] = ["6.1", "7.2"];

use PageSize::{K4, K16};
use Threads::{One, OnePerCpu};

/// A host: its kernel, that one's page size, the version of its GIC, its CPU.
type Row = (&'static str, PageSize, u8, Cpu);

/// Every kernel, page size, GIC version and kind of CPU once. Where one thread emulates all CPUs, tests take two thirds
/// of the time; that nothing happens at the same time on hosts that do so is no loss as long as others do not. Those with
/// the most to do come first.
#[rustfmt::skip]
const DAILY: [(Row, Threads); 6] = [
    // kernel  pages  GIC  CPU
    (("6.12",  K4,    3,   MAX), One),
    (("7.2",   K4,    3,   MAX), One),
    (("5.10",  K4,    3,   N1),  One),
    (("6.1",   K4,    3,   N1),  One),
    (("6.12",  K16,   3,   SVE), One),
    (("6.12",  K4,    2,   A57), OnePerCpu),
];

/// What makes every kernel with bitmaps of firmware run on both of these CPUs.
#[rustfmt::skip]
const COMPARED: [Row; 3] = [
    ("6.1",    K4,    3,   MAX),
    ("6.12",   K4,    3,   N1),
    ("7.2",    K4,    3,   N1),
];

/// Hosts that differ in their kernels only, between which guests move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fleet {
    /// What its hosts have in common.
    pub name: String,
    pub hosts: Vec<Entry>,
    /// Parts of the names of guests that do not move here.
    pub without: &'static [&'static str],
}

/// A CPU with long vectors and little else.
const A64FX: Cpu = Cpu { name: "a64fx", qemu: "a64fx", has_16k: false };

/// Fleets of every day, by what they have in common, and the guests that do not move in them.
#[rustfmt::skip]
const FLEETS: [(PageSize, u8, Cpu, &[&str]); 2] = [
    // pages  GIC  CPU    without
    (K4,      3,   N1,    &["long_vectors", "four_cpus", "any_host"]),
    (K4,      3,   MAX,   &["long_vectors", "at_work", "any_host"]),
];
#[rustfmt::skip]
const ALL_FLEETS: [(PageSize, u8, Cpu, &[&str]); 7] = [
    (K4,      3,   N1,    &["long_vectors"]),
    (K4,      3,   MAX,   &["long_vectors"]),
    (K4,      3,   A57,   &["long_vectors"]),
    (K4,      3,   A64FX, &[]),
    // No fleet of such hosts is recorded.
    (K4,      3,   SVE,   &["fleets_baseline"]),
    (K4,      2,   N1,    &["fleets_baseline", "long_vectors"]),
    (K16,     3,   MAX,   &["fleets_baseline", "long_vectors"]),
];

/// The fleets in which guests move, narrowed to these kernels unless there are none. Fleets in which no host is left
/// are left out.
pub(super) fn fleets(plan: Plan, kernels: &[String]) -> Vec<Fleet> {
    let (rows, threads) = match plan {
        Plan::Daily => (&FLEETS[..], One),
        Plan::Full => (&ALL_FLEETS[..], OnePerCpu),
    };
    let is_asked_for =
        |label: &&'static str| kernels.is_empty() || kernels.iter().any(|asked| asked == label);
    let fleet = |&(page_size, gic, cpu, without): &(PageSize, u8, Cpu, &'static [&'static str])| {
        let labels = match page_size {
            K4 => &KERNELS[..],
            K16 => &KERNELS_16K,
        };
        let labels = labels.iter().copied().filter(is_asked_for);
        let host = |label| Entry { threads, ..entry((label, page_size, gic, cpu)) };
        let hosts: Vec<_> = labels.map(host).collect();
        let name = hosts.first()?.name.strip_prefix(hosts.first()?.kernel)?;
        let name = name.trim_start_matches(['-', ' ']).to_owned();
        Some(Fleet { name, hosts, without })
    };
    rows.iter().filter_map(fleet).collect()
}

/// The hosts to run on, narrowed to these kernels unless there are none.
///
/// # Errors
/// A kernel that no host runs.
pub(super) fn hosts(plan: Plan, kernels: &[String]) -> anyhow::Result<Vec<Entry>> {
    if let Some(unknown) = kernels.iter().find(|label| !KERNELS.contains(&label.as_str())) {
        bail!("no test runs on kernel `{unknown}`; there are {}", KERNELS.join(", "));
    }
    let mut hosts: Vec<_> =
        DAILY.into_iter().map(|(row, threads)| Entry { threads, ..entry(row) }).collect();
    match plan {
        Plan::Daily => {
            let compared = COMPARED.into_iter().map(entry);
            let share = Share::Fingerprints;
            hosts.extend(compared.map(|host| Entry { share, threads: One, ..host }));
        }
        Plan::Full => {
            hosts.iter_mut().for_each(|host| host.threads = OnePerCpu);
            // What runs every day runs first.
            let rest =
                every_combination().filter(|host| !hosts.iter().any(|h| h.name == host.name));
            hosts.extend(rest.collect::<Vec<_>>());
        }
    }
    hosts.retain(|host| kernels.is_empty() || kernels.iter().any(|label| label == host.kernel));
    let mut shown = BTreeSet::new();
    for host in hosts.iter_mut().filter(|host| host.share == Share::OfEveryHost) {
        if plan == Plan::Full {
            host.share = Share::OfAnyKernel;
        } else if shown.insert(host.kernel) {
            host.share = Share::OfEveryKernel;
        }
    }
    if let Some(first) = hosts.first_mut() {
        first.share = Share::Everything;
    }
    give_guests(plan, &mut hosts);
    Ok(hosts)
}

/// Says which hosts show what every guest does. One of them always does.
fn give_guests(plan: Plan, hosts: &mut [Entry]) {
    let every_day = match plan {
        Plan::Daily => hosts.iter().position(|host| host.kernel == HOST_OF_GUESTS),
        Plan::Full => None,
    };
    if let Some(host) = hosts.get_mut(every_day.unwrap_or_default()) {
        host.guests = vec![host.kernel];
    }
    if plan == Plan::Full {
        for label in HOSTS_OF_GUESTS {
            let first = hosts.iter_mut().find(|host| host.kernel == label);
            first.into_iter().for_each(|host| host.guests = GUESTS.to_vec());
        }
    }
}

fn every_combination() -> impl Iterator<Item = Entry> {
    let kernels =
        KERNELS.map(|label| (label, K4)).into_iter().chain(KERNELS_16K.map(|label| (label, K16)));
    kernels.flat_map(|(label, page_size)| {
        let cpus = CPUS.into_iter().filter(move |cpu| page_size == K4 || cpu.has_16k);
        cpus.flat_map(move |cpu| [3, 2].map(|gic| entry((label, page_size, gic, cpu))))
    })
}

fn entry((kernel, page_size, gic, cpu): Row) -> Entry {
    let pages = match page_size {
        K4 => "",
        K16 => "-16k",
    };
    let name = format!("{kernel}{pages} gicv{gic} {}", cpu.name);
    let (threads, share) = (OnePerCpu, Share::OfEveryHost);
    Entry { name, kernel, page_size, gic, cpu, threads, share, guests: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daily() -> Vec<Entry> {
        hosts(Plan::Daily, &[]).unwrap()
    }

    fn full() -> Vec<Entry> {
        hosts(Plan::Full, &[]).unwrap()
    }

    #[test]
    fn every_day_has_every_kernel_gic_page_size_and_cpu() {
        let daily = daily();
        assert!(KERNELS.iter().all(|label| daily.iter().any(|host| host.kernel == *label)));
        assert!(CPUS.iter().all(|cpu| daily.iter().any(|host| host.cpu == *cpu)));
        assert!([2, 3].iter().all(|gic| daily.iter().any(|host| host.gic == *gic)));
        assert!([K4, K16].iter().all(|size| daily.iter().any(|host| host.page_size == *size)));
    }

    #[test]
    fn cpus_run_at_the_same_time_somewhere_every_day_and_everywhere_with_full() {
        let at_once = |host: &Entry| host.threads == OnePerCpu;
        assert!(daily().iter().any(at_once));
        assert!(full().iter().all(at_once));
    }

    #[test]
    fn every_day_some_host_has_what_another_lacks() {
        let daily = daily();
        for part in ["gicv2", "gicv3", "pmu", "sve"] {
            assert!(daily.iter().any(|host| !host.lacks().contains(&part)), "{part}");
        }
    }

    #[test]
    fn the_full_plan_begins_with_every_day() {
        let (daily, full) = (daily(), full());
        let names =
            |hosts: &[Entry]| hosts.iter().map(|host| host.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&full[..DAILY.len()]), names(&daily[..DAILY.len()]));
    }

    #[test]
    fn every_day_each_kernel_with_bitmaps_is_compared_on_two_cpus() {
        let daily = daily();
        for (label, cpu) in ["6.1", "6.12", "7.2"].iter().flat_map(|k| [(k, N1), (k, MAX)]) {
            let has = |host: &&Entry| host.kernel == *label && host.cpu == cpu && host.gic == 3;
            assert!(daily.iter().any(|host| has(&host)), "{label} on {}", cpu.name);
        }
    }

    #[test]
    fn a_host_for_comparing_runs_nothing_else() {
        let compared = Share::Fingerprints;
        assert_eq!(compared.filter(None), Ok(Some(FINGERPRINTS)));
        assert_eq!(compared.filter(Some("fingerprint::cpu")), Ok(Some("fingerprint::cpu")));
        assert_eq!(compared.filter(Some("boot")), Err(NotForThese));
        assert_eq!(Share::OfEveryHost.filter(Some("boot")), Ok(Some("boot")));
    }

    #[test]
    fn the_full_plan_has_every_combination_once() {
        let mut names: Vec<_> = full().into_iter().map(|host| host.name).collect();
        names.sort();
        names.dedup();
        // 4 CPUs and 2 GICs on 4 kernels; with 16 KiB pages one CPU fewer, on two.
        assert_eq!((names.len(), full().len()), (44, 44));
    }

    #[test]
    fn one_host_runs_what_one_host_shows_whatever_the_plan_is_narrowed_to() {
        for kernels in [vec![], vec!["6.1".to_owned()]] {
            let hosts = hosts(Plan::Daily, &kernels).unwrap();
            let shares: Vec<_> = hosts.iter().map(|host| host.share).collect();
            assert_eq!(shares[0], Share::Everything);
            assert!(!shares[1..].contains(&Share::Everything));
        }
    }

    #[test]
    fn every_day_each_kernel_shows_once_what_depends_on_it_alone() {
        let shows = |host: &&Entry| matches!(host.share, Share::OfEveryKernel | Share::Everything);
        let daily = daily();
        let mut labels: Vec<_> = daily.iter().filter(shows).map(|host| host.kernel).collect();
        labels.sort_unstable();
        assert_eq!(labels, ["5.10", "6.1", "6.12", "7.2"]);
    }

    #[test]
    fn one_host_shows_what_any_kernel_does_every_day_and_all_with_full() {
        let shows = |host: &&Entry| !host.skips().contains(&ON_ANY_KERNEL);
        assert_eq!(daily().iter().filter(shows).count(), 1);
        let full = full();
        assert_eq!(full.iter().filter(shows).count(), full.len());
        assert!(!full.iter().any(|host| host.skips().contains(&ON_ONE_HOST_A_KERNEL)));
    }

    #[test]
    fn one_host_shows_what_every_guest_does_every_day_and_several_with_full() {
        let shows = |hosts: Vec<Entry>| {
            let shows = hosts.into_iter().filter(|host| !host.skips().contains(&ON_EVERY_GUEST));
            shows.map(|host| (host.name, host.guests)).collect::<Vec<_>>()
        };
        assert_eq!(shows(daily()), [("7.2 gicv3 max".to_owned(), vec!["7.2"])]);
        let old = hosts(Plan::Daily, &["5.10".to_owned()]).unwrap();
        assert_eq!(shows(old), [("5.10 gicv3 neoverse-n1".to_owned(), vec!["5.10"])]);
        let full = shows(full());
        let expected = ["6.12 gicv3 max", "7.2 gicv3 max", "6.1 gicv3 neoverse-n1"];
        assert!(full.iter().map(|(name, _)| name).eq(&expected));
        assert!(full.iter().all(|(_, guests)| *guests == GUESTS));
    }

    #[test]
    fn no_host_is_one_that_does_not_boot() {
        let broken = |host: &Entry| {
            host.page_size == K16 && (["5.10", "6.1"].contains(&host.kernel) || host.cpu == A57)
        };
        assert!(!full().iter().any(broken));
    }

    #[test]
    fn guests_move_between_all_kernels_of_a_fleet() {
        let fleets = fleets(Plan::Daily, &[]);
        let names: Vec<_> = fleets.iter().map(|fleet| fleet.name.as_str()).collect();
        assert_eq!(names, ["gicv3 neoverse-n1", "gicv3 max"]);
        assert!(fleets.iter().all(|fleet| fleet.hosts.len() == KERNELS.len()));
    }

    #[test]
    fn guests_move_between_hosts_with_large_pages_in_the_full_plan() {
        let fleets = fleets(Plan::Full, &[]);
        let large = fleets.iter().find(|fleet| fleet.hosts[0].page_size == K16).unwrap();
        let labels: Vec<_> = large.hosts.iter().map(|host| host.kernel).collect();
        assert_eq!(labels, ["6.12", "7.2"]);
    }

    #[test]
    fn a_fleet_without_any_of_the_kernels_asked_for_is_left_out() {
        let fleets = fleets(Plan::Full, &["5.10".to_owned()]);
        assert!(fleets.iter().all(|fleet| fleet.hosts.len() == 1));
        assert!(fleets.iter().all(|fleet| !fleet.name.starts_with("16k")));
    }

    #[test]
    fn kernels_narrow_the_plan() {
        let hosts = hosts(Plan::Daily, &["5.10".to_owned(), "7.2".to_owned()]).unwrap();
        let labels: Vec<_> = hosts.iter().map(|host| host.kernel).collect();
        assert_eq!(labels, ["7.2", "5.10", "7.2"]);
    }

    #[test]
    fn an_unknown_kernel_names_the_known_ones() {
        let error = hosts(Plan::Daily, &["4.19".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no test runs on kernel `4.19`; there are 5.10, 6.1, 6.12, 7.2");
    }

    #[test]
    fn a_host_is_what_its_row_says() {
        let host = entry(("6.12", K16, 2, N1)).host();
        assert_eq!((host.kernel.as_str(), host.cpu.as_str(), host.gic), ("6.12", "neoverse-n1", 2));
        assert_eq!(host.page_size, K16);
    }
}
