//! What holds of the baseline of any hosts: recorded ones, changed at random.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod recorded;

use kedge_firmware::fields::{self, Field, Rule};
use kedge_firmware::{
    Baseline, Firmware, GuestAbi, HOST, Hex, HostAbi, HostLimits, IdPromise, baseline, builtin,
    check,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use recorded::changes::{Change, apply, change};
use recorded::{CPUS, KERNELS, host};

fn all_recorded() -> Vec<(String, HostAbi)> {
    let names = CPUS.iter().flat_map(|cpu| KERNELS.map(|kernel| format!("{cpu}-{kernel}")));
    let mut all: Vec<_> = names.map(|name| host(&name)).collect();
    // The lists of all registers take no part, and cost most of the time.
    let cpus = all.iter_mut().flat_map(|(_, host)| &mut host.cpus);
    cpus.for_each(|cpu| cpu.registers.clear());
    all
}

/// One to four hosts, mostly of one CPU.
fn fleet() -> impl Strategy<Value = Vec<(String, HostAbi)>> {
    let one = (any::<Index>(), prop::bool::weighted(0.1), prop::collection::vec(change(), 0..6));
    let recorded = all_recorded();
    (select(&CPUS[..]), prop::collection::vec(one, 1..=4)).prop_map(move |(cpu, hosts)| {
        let host = |(number, (which, any_cpu, changes)): (usize, (Index, bool, Vec<Change>))| {
            let all = recorded.iter().filter(|(name, _)| any_cpu || name.starts_with(cpu));
            let all: Vec<_> = all.collect();
            let (name, mut host) = which.get(&all).to_owned().clone();
            changes.iter().for_each(|change| apply(&mut host, change));
            (format!("{name} {number}"), host)
        };
        (0..).zip(hosts).map(host).collect()
    })
}

/// Whether `host` refuses `abi`.
fn refuses(host: &HostAbi, abi: &GuestAbi) -> bool {
    check(abi, host).is_refused()
}

/// What `host` refuses of `abi`.
fn refused(host: &HostAbi, abi: &GuestAbi) -> Vec<String> {
    check(abi, host).refusals().map(ToString::to_string).collect()
}

/// `abi` with nothing but its features.
fn bare(abi: &GuestAbi) -> GuestAbi {
    let mut bare = builtin(HOST).unwrap();
    bare.cpu.features = abi.cpu.features.clone();
    bare
}

/// `abi` with one firmware register made to offer more, in every way.
fn more_firmware(abi: &GuestAbi) -> Vec<GuestAbi> {
    let versions = abi.firmware.iter().flat_map(|(firmware, value)| {
        more(*firmware, *value).into_iter().map(|more| {
            let mut abi = bare(abi);
            abi.firmware.set(*firmware, more);
            abi
        })
    });
    let levels = abi.levels.iter().flat_map(|(firmware, value)| {
        more(*firmware, *value).into_iter().map(|more| {
            let mut abi = bare(abi);
            abi.levels.set(*firmware, more);
            abi
        })
    });
    versions.chain(levels).collect()
}

/// `promise` with one field set to each value that promises more.
fn raised(promise: &IdPromise) -> Vec<IdPromise> {
    let more = |field: &Field| {
        let field = *field;
        let own = field.rule.place(field.of(promise.value.0), field.width);
        let values = (0..1_u64 << field.width.min(8))
            .filter(move |value| field.rule.place(*value, field.width) > own);
        values.map(move |value| {
            let value = Hex(promise.value.0 & !field.mask() | value << field.shift);
            IdPromise { value, ..promise.clone() }
        })
    };
    let promised =
        fields::of(promise.id).iter().filter(|field| field.mask() & !promise.mask.0 == 0);
    promised.filter(|field| field.rule != Rule::Description).flat_map(more).collect()
}

/// The values of a firmware register that offer more than `value`.
fn more(firmware: Firmware, value: u64) -> Vec<u64> {
    let symbols = firmware.spec().map_or(&[][..], |spec| spec.domain.symbols());
    let values = symbols.iter().map(|symbol| symbol.value);
    match firmware.is_bitmap() {
        true => values.filter(|bit| value & bit == 0).map(|bit| value | bit).collect(),
        false => values.skip_while(|other| *other != value).skip(1).collect(),
    }
}

/// Hosts that can take themselves for any CPU take any name: none promises more.
#[test]
fn a_baseline_over_two_cpus_is_not_smaller_for_the_name_it_chose() {
    let one = host("neoverse-n1-7.2");
    let (name, mut other) = host("neoverse-n1-7.2");
    let renamed = other.cpus.iter_mut().flat_map(|cpu| &mut cpu.id_registers);
    renamed.filter(|found| found.name == "MIDR_EL1").for_each(|found| found.value.0 += 1);
    let abi = baseline(&[one, (name, other)]).unwrap().abi;
    let chosen: Vec<_> = ["MIDR_EL1", "REVIDR_EL1", "AIDR_EL1"]
        .iter()
        .filter_map(|name| abi.cpu.id_registers.iter().find(|promise| promise.name == *name))
        .collect();
    assert_eq!(chosen.len(), 3);
    assert_eq!(chosen.into_iter().flat_map(raised).count(), 0);
}

proptest! {
    // The same cases each time; PROPTEST_CASES and PROPTEST_RNG_SEED ask for others.
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(48),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_host_takes_the_baseline(hosts in fleet()) {
        if let Ok(Baseline { abi, .. }) = baseline(&hosts) {
            for (name, host) in &hosts {
                prop_assert_eq!(refused(host, &abi), Vec::<String>::new(), "{}", name);
            }
        }
    }

    #[test]
    fn a_baseline_is_a_profile_that_can_be_read(hosts in fleet()) {
        if let Ok(Baseline { abi, .. }) = baseline(&hosts) {
            let read = GuestAbi::read(abi.to_json().as_bytes());
            prop_assert_eq!(read.map_err(|error| error.to_string()), Ok(abi));
        }
    }

    #[test]
    fn a_baseline_does_not_depend_on_the_order(hosts in fleet().prop_shuffle()) {
        let mut sorted = hosts.clone();
        sorted.sort_by(|one, other| one.0.cmp(&other.0));
        prop_assert_eq!(baseline(&hosts), baseline(&sorted));
    }

    #[test]
    fn whoever_promises_more_of_a_field_is_refused_by_some_host(
        hosts in fleet(),
        picks in prop::collection::vec(any::<Index>(), 8),
    ) {
        if let Ok(Baseline { abi, .. }) = baseline(&hosts) {
            let raised: Vec<_> = abi.cpu.id_registers.iter().flat_map(raised).collect();
            for pick in picks.iter().filter(|_| !raised.is_empty()) {
                let mut more = bare(&abi);
                more.cpu.implementation = abi.cpu.implementation;
                more.cpu.id_registers = vec![pick.get(&raised).clone()];
                let refused = hosts.iter().any(|(_, host)| refuses(host, &more));
                prop_assert!(refused, "{:?}", more.cpu.id_registers);
            }
        }
    }

    #[test]
    fn whoever_promises_more_of_the_firmware_is_refused_by_some_host(hosts in fleet()) {
        if let Ok(Baseline { abi, .. }) = baseline(&hosts) {
            for more in more_firmware(&abi) {
                let refused = hosts.iter().any(|(_, host)| refuses(host, &more));
                prop_assert!(refused, "{:?} {:?}", more.firmware, more.levels);
            }
        }
    }

    #[test]
    fn whoever_promises_more_of_a_machine_is_refused_by_some_host(hosts in fleet()) {
        if let Ok(Baseline { abi, losses }) = baseline(&hosts) {
            let limits = || hosts.iter().map(|(_, host)| &host.limits);
            prop_assert!(limits().any(|limits| Some(limits.ipa_bits) == abi.machine.ipa_bits));
            prop_assert_eq!(abi.machine.system_suspend, Some(limits().all(|limits| limits.system_suspend)));
            let both = |one: u64, limits: &HostLimits| {
                one & limits.pmu_events.unwrap_or_default().pmceid0.0
            };
            if let Some(events) = abi.machine.pmu_events {
                prop_assert_eq!(events.pmceid0.0, limits().fold(u64::MAX, both));
            }
            let features = abi.cpu.features.unwrap_or_default();
            for feature in ["pmu", "sve", "ptrauth"].map(str::to_owned) {
                let all = limits().all(|limits| limits.features.contains(&feature));
                let lost = losses.iter().any(|loss| loss.subject == feature);
                prop_assert!(features.contains(&feature) || lost || !all, "{}", feature);
            }
            let lengths = abi.cpu.sve_lengths.unwrap_or_default();
            let next = limits().map(|limits| limits.sve_lengths.get(lengths.len()));
            let next: Vec<_> = next.collect();
            let longer = next[0].is_some() && next.iter().all(|length| *length == next[0]);
            prop_assert!(lengths.is_empty() || !longer);
        }
    }
}
