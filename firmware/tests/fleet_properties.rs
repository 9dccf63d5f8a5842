//! What holds of the baseline of any hosts: recorded ones, changed at random.

mod recorded;

use std::sync::LazyLock;

use kedge_firmware::fields::{self, Field, Rule};
use kedge_firmware::{
    Baseline, Domain, Firmware, FoundCpu, FoundField, GuestAbi, Hex, HostAbi, IdPromise,
    Implementation, Takes, baseline,
};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use recorded::{CPUS, KERNELS, host};

static RECORDED: LazyLock<Vec<(String, HostAbi)>> = LazyLock::new(|| {
    let names = CPUS.iter().flat_map(|cpu| KERNELS.map(|kernel| format!("{cpu}-{kernel}")));
    let mut all: Vec<_> = names.map(|name| host(&name)).collect();
    // The lists of all registers take no part, and cost most of the time.
    let cpus = all.iter_mut().flat_map(|(_, host)| &mut host.cpus);
    cpus.for_each(|cpu| cpu.registers.clear());
    all
});

/// A way to make a host another.
#[derive(Clone, Debug)]
enum Change {
    /// A field takes these values, too.
    Takes { cpu: Index, register: Index, shift: u32, takes: u16 },
    /// A field takes its own value only.
    Fixed { cpu: Index, register: Index, shift: u32 },
    /// A field has another value, among those it takes.
    Value { cpu: Index, register: Index, shift: u32, value: u8 },
    /// Its vCPUs do not have an ID register.
    NoIdRegister(Index),
    /// It does not have a firmware register.
    NoFirmware(Index),
    /// A firmware register takes fewer of its bits or values.
    FewerValues { firmware: Index, keep: u8 },
    /// It does not have a feature.
    NoFeature(Index),
    /// Its SVE vectors are shorter.
    ShorterVectors(Index),
    /// Its guests' addresses are shorter.
    ShorterAddresses(u8),
}

fn change() -> impl Strategy<Value = Change> {
    let place = || (any::<Index>(), any::<Index>(), (0..16_u32).prop_map(|group| group * 4));
    prop_oneof![
        8 => (place(), any::<u16>()).prop_map(|((cpu, register, shift), takes)| {
            Change::Takes { cpu, register, shift, takes }
        }),
        2 => place().prop_map(|(cpu, register, shift)| Change::Fixed { cpu, register, shift }),
        2 => (place(), 0..16_u8).prop_map(|((cpu, register, shift), value)| {
            Change::Value { cpu, register, shift, value }
        }),
        1 => any::<Index>().prop_map(Change::NoIdRegister),
        1 => any::<Index>().prop_map(Change::NoFirmware),
        3 => (any::<Index>(), any::<u8>())
            .prop_map(|(firmware, keep)| Change::FewerValues { firmware, keep }),
        1 => any::<Index>().prop_map(Change::NoFeature),
        1 => any::<Index>().prop_map(Change::ShorterVectors),
        1 => (36..52_u8).prop_map(Change::ShorterAddresses),
    ]
}

fn field(
    host: &mut HostAbi,
    cpu: Index,
    register: Index,
    shift: u32,
) -> (&mut Hex, &mut FoundField) {
    let cpu = cpu.index(host.cpus.len());
    let registers = &mut host.cpus[cpu].id_registers;
    let register = register.index(registers.len());
    let register = &mut registers[register];
    let takes = Hex(register.takes(shift));
    register.fields.retain(|field| field.shift != shift);
    register.fields.push(FoundField { shift, takes, drops: Hex(0) });
    (&mut register.value, register.fields.last_mut().unwrap())
}

fn apply(host: &mut HostAbi, change: &Change) {
    match change.clone() {
        Change::Takes { cpu, register, shift, takes } => {
            field(host, cpu, register, shift).1.takes.0 |= u64::from(takes);
        }
        Change::Fixed { cpu, register, shift } => {
            let (value, field) = field(host, cpu, register, shift);
            field.takes.0 = 1 << (value.0 >> shift & 0xf);
        }
        Change::Value { cpu, register, shift, value } => {
            let (whole, field) = field(host, cpu, register, shift);
            whole.0 = whole.0 & !(0xf << shift) | u64::from(value) << shift;
            field.takes.0 |= 1 << value;
        }
        Change::NoIdRegister(which) => {
            let all = &host.cpus[0].id_registers;
            let id = all[which.index(all.len())].id;
            host.cpus.iter_mut().for_each(|cpu| cpu.id_registers.retain(|found| found.id != id));
        }
        Change::NoFirmware(which) if host.firmware.len() > 1 => {
            host.firmware.remove(1 + which.index(host.firmware.len() - 1));
        }
        Change::NoFirmware(_) => {}
        Change::FewerValues { firmware, keep } => {
            let which = firmware.index(host.firmware.len());
            fewer(&mut host.firmware[which].takes, keep);
        }
        Change::NoFeature(which) => {
            let which = which.index(host.limits.features.len());
            let name = host.limits.features.remove(which);
            host.cpus.retain(|cpu| !cpu.features.contains(&name));
        }
        Change::ShorterVectors(which) if !host.limits.sve_lengths.is_empty() => {
            let count = which.index(host.limits.sve_lengths.len());
            host.limits.sve_lengths.truncate(count + 1);
        }
        Change::ShorterVectors(_) => {}
        Change::ShorterAddresses(bits) => host.limits.ipa_bits = bits,
    }
}

fn fewer(takes: &mut Takes, keep: u8) {
    match takes {
        Takes::Values(values) | Takes::Levels(values) => {
            let mut keep = (0..u8::BITS).cycle().map(|bit| keep >> bit & 1 != 0);
            values.retain(|_| keep.next().unwrap());
        }
        Takes::Bits { bits, .. } => bits.0 &= u64::from(keep),
        Takes::Untried => {}
    }
}

/// One to four hosts, mostly of one CPU.
fn fleet() -> impl Strategy<Value = Vec<(String, HostAbi)>> {
    let one = (any::<Index>(), prop::bool::weighted(0.1), prop::collection::vec(change(), 0..6));
    (select(&CPUS[..]), prop::collection::vec(one, 1..=4)).prop_map(|(cpu, hosts)| {
        let host = |(number, (which, any_cpu, changes)): (usize, (Index, bool, Vec<Change>))| {
            let all = RECORDED.iter().filter(|(name, _)| any_cpu || name.starts_with(cpu));
            let all: Vec<_> = all.collect();
            let (name, mut host) = which.get(&all).to_owned().clone();
            changes.iter().for_each(|change| apply(&mut host, change));
            (format!("{name} {number}"), host)
        };
        (0..).zip(hosts).map(host).collect()
    })
}

/// What `host` refuses of `abi`.
fn refused(abi: &GuestAbi, host: &HostAbi) -> Vec<String> {
    let firmware = abi.firmware.iter().chain(abi.levels.iter());
    let firmware = firmware.filter(|(firmware, value)| !gives(host, **firmware, **value));
    let mut refused: Vec<_> = firmware.map(|(firmware, _)| firmware.to_string()).collect();
    let features = abi.cpu.features.clone().unwrap_or_default();
    let lacks = features.iter().filter(|name| !host.limits.features.contains(name));
    refused.extend(lacks.cloned());
    let promised = abi.cpu.implementation == Implementation::Promised;
    if promised && !host.abilities.writable_imp_ids {
        refused.push("implementation".to_owned());
    }
    let registers = abi.cpu.id_registers.iter();
    let registers = registers.filter(|promise| !promise.name.ends_with("IDR_EL1") || !promised);
    let cpu = host.cpu_with(&features);
    let registers = registers.filter(|promise| !takes(&cpu, promise));
    refused.extend(registers.map(|promise| promise.name.clone()));
    if let Some(lengths) = &abi.cpu.sve_lengths
        && !host.limits.sve_lengths.starts_with(lengths)
    {
        refused.push("sve_lengths".to_owned());
    }
    if abi.machine.ipa_bits > Some(host.limits.ipa_bits) {
        refused.push("ipa_bits".to_owned());
    }
    refused
}

fn gives(host: &HostAbi, firmware: Firmware, value: u64) -> bool {
    let Some(found) = host.firmware.iter().find(|found| found.id == firmware.id()) else {
        let absent = firmware.spec().and_then(|spec| spec.absent);
        let means = absent.and_then(|absent| absent.means(host.abilities.ptp));
        let asks_nothing =
            firmware.spec().is_some_and(|spec| matches!(spec.domain, Domain::Level(_)));
        return means == Some(value) || asks_nothing && value == 0;
    };
    found.default.as_u64() == Some(value)
        || match &found.takes {
            Takes::Values(all) | Takes::Levels(all) => all.contains(&Hex(value)),
            Takes::Bits { bits, empty } => value & !bits.0 == 0 && (*empty || value != 0),
            Takes::Untried => false,
        }
}

fn takes(cpu: &FoundCpu, promise: &IdPromise) -> bool {
    (0..64).step_by(4).filter(|shift| promise.mask.0 >> shift & 0xf != 0).all(|shift| {
        let value = promise.value.0 >> shift & 0xf;
        cpu.id_register(promise.id).map_or(value == 0, |found| found.takes(shift) >> value & 1 != 0)
    })
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
fn more_firmware(firmware: Firmware, value: u64) -> Vec<u64> {
    let symbols = firmware.spec().map_or(&[][..], |spec| spec.domain.symbols());
    let values = symbols.iter().map(|symbol| symbol.value);
    match firmware.is_bitmap() {
        true => values.filter(|bit| value & bit == 0).map(|bit| value | bit).collect(),
        false => values.skip_while(|other| *other != value).skip(1).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_host_takes_the_baseline(hosts in fleet()) {
        if let Ok(Baseline { abi, .. }) = baseline(&hosts) {
            for (name, host) in &hosts {
                prop_assert_eq!(refused(&abi, host), Vec::<String>::new(), "{}", name);
            }
        }
    }

    #[test]
    fn a_baseline_does_not_depend_on_the_order(hosts in fleet().prop_shuffle()) {
        let mut sorted = hosts.clone();
        sorted.sort_by(|one, other| one.0.cmp(&other.0));
        prop_assert_eq!(baseline(&hosts), baseline(&sorted));
    }

    #[test]
    fn whoever_promises_more_of_a_register_is_refused_by_some_host(hosts in fleet()) {
        if let Ok(Baseline { abi, .. }) = baseline(&hosts) {
            let features = abi.cpu.features.clone().unwrap_or_default();
            let cpus: Vec<_> = hosts.iter().map(|(_, host)| host.cpu_with(&features)).collect();
            for promise in abi.cpu.id_registers.iter().flat_map(raised) {
                let taken = cpus.iter().all(|cpu| takes(cpu, &promise));
                prop_assert!(!taken, "{:?}", promise);
            }
            for (firmware, value) in abi.firmware.iter().chain(abi.levels.iter()) {
                for more in more_firmware(*firmware, *value) {
                    let given = hosts.iter().all(|(_, host)| gives(host, *firmware, more));
                    prop_assert!(!given, "{} {:#x}", firmware, more);
                }
            }
        }
    }

    #[test]
    fn whoever_promises_more_of_a_machine_is_refused_by_some_host(hosts in fleet()) {
        if let Ok(Baseline { abi, losses }) = baseline(&hosts) {
            let limits = || hosts.iter().map(|(_, host)| &host.limits);
            prop_assert!(limits().any(|limits| Some(limits.ipa_bits) == abi.machine.ipa_bits));
            prop_assert_eq!(abi.machine.system_suspend, Some(limits().all(|limits| limits.system_suspend)));
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
