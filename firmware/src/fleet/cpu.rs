//! The vCPUs: features, vector lengths, which CPU they take themselves for.

use kedge_ids::RegId;

use super::identity::Identity;
use super::{Findings, Fleet, varying};
use crate::abi::{CpuAbi, IdPromise, Implementation, ImplementationIds, Promises, Varying};
use crate::hex::Hex;
use crate::host::HostAbi;
use crate::register::{Firmware, FwReg};

/// The features that a machine may have or not; all vCPUs have the others alike.
const OPTIONAL: [&str; 3] = [PMU, SVE, "ptrauth"];
const PMU: &str = "pmu";
const SVE: &str = "sve";

/// What tells one CPU from another.
pub(super) const IMPLEMENTATION: [(RegId, &str); 3] = [
    (RegId::system(3, 0, 0, 0, 0), "MIDR_EL1"),
    (RegId::system(3, 0, 0, 0, 6), "REVIDR_EL1"),
    (RegId::system(3, 1, 0, 0, 7), "AIDR_EL1"),
];

/// What all hosts have.
pub(super) fn promises(fleet: &Fleet<'_>, firmware: &Promises, found: &mut Findings) -> CpuAbi {
    let mut features = features(fleet, found);
    let own = implementation(fleet, found);
    if own.is_some() {
        without(&mut features, PMU, fleet, found, |host| {
            format!("counts the events of its own CPU, {}", Hex(implementation_of(host)[0]))
        });
    }
    let lengths = sve_lengths(fleet, found);
    if lengths.is_empty() {
        without(&mut features, SVE, fleet, found, |host| {
            format!("has the vector lengths {}", words(&host.limits.sve_lengths))
        });
    }
    let identity = loop {
        let identity = Identity::new(fleet, &features);
        // A feature whose fields cannot be made the same is one that not all hosts have.
        let Some((feature, conflict)) = identity.clash else { break identity };
        features.retain(|name| name != feature);
        for (host, takes) in &conflict.hosts {
            found.lose(feature, host, format!("{takes} in `{}`", conflict.subject));
        }
    };
    let Identity { mut promises, mut varying, findings, .. } = identity;
    if features.iter().any(|name| name == PMU) {
        let (id, name, mask, reason) = varying::MONITORS_MAKER;
        let (name, reason) = (name.to_owned(), reason.to_owned());
        varying.push(Varying { id, name, mask: Hex(mask), reason });
    }
    found.losses.extend(findings.losses);
    found.conflicts.extend(findings.conflicts);
    let implementation = match own {
        None => Implementation::Host,
        Some(promised) => {
            promises.extend(promised);
            promises.sort_by_key(|promise| promise.id);
            Implementation::Promised
        }
    };
    CpuAbi {
        sve_lengths: features.iter().any(|name| name == SVE).then_some(lengths),
        features: Some(features),
        id_registers: promises,
        varying,
        implementation,
        implementations: implementations(fleet, firmware),
    }
}

/// The CPUs that a guest is told it may find itself on, where they differ and it can be
/// told.
fn implementations(fleet: &Fleet<'_>, firmware: &Promises) -> Vec<ImplementationIds> {
    let told = firmware.get(Firmware::Known(FwReg::VendorHypBmap2)).unwrap_or(0);
    let mut all: Vec<_> = fleet.hosts().map(implementation_of).collect();
    all.sort_unstable();
    all.dedup();
    if told == 0 || all.len() < 2 {
        return Vec::new();
    }
    let ids = |[midr, revidr, aidr]: [u64; 3]| ImplementationIds {
        midr: Hex(midr),
        revidr: Hex(revidr),
        aidr: Hex(aidr),
    };
    all.into_iter().map(ids).collect()
}

/// The features that all hosts have.
fn features(fleet: &Fleet<'_>, found: &mut Findings) -> Vec<String> {
    let mut common = Vec::new();
    for feature in OPTIONAL {
        let has = |host: &HostAbi| host.limits.features.iter().any(|name| name == feature);
        if fleet.all(has) {
            common.push(feature.to_owned());
        } else if fleet.any(has) {
            found.lost(fleet, feature, has, |_| "does not have it".to_owned());
        }
    }
    common
}

/// Takes a feature away that all hosts have, each in its own way.
fn without(
    features: &mut Vec<String>,
    feature: &str,
    fleet: &Fleet<'_>,
    found: &mut Findings,
    reason: impl Fn(&HostAbi) -> String,
) {
    if features.iter().any(|name| name == feature) {
        features.retain(|name| name != feature);
        found.lost(fleet, feature, |_| false, reason);
    }
}

/// The lengths up to which all hosts have the same: no host can leave a middle one out.
fn sve_lengths(fleet: &Fleet<'_>, found: &mut Findings) -> Vec<u32> {
    let of = |host: &HostAbi| host.limits.sve_lengths.clone();
    let shared = |one: Vec<u32>, other: Vec<u32>| {
        one.into_iter().zip(other).take_while(|(a, b)| a == b).map(|(length, _)| length).collect()
    };
    let common: Vec<u32> = fleet.hosts().map(of).reduce(shared).unwrap_or_default();
    let longest = fleet.hosts().map(of).max_by_key(Vec::len).unwrap_or_default();
    if !common.is_empty() && longest.len() > common.len() {
        let subject = format!("sve_lengths {}", words(&longest[common.len()..]));
        let has = |host: &HostAbi| of(host).len() > common.len();
        found.lost(fleet, &subject, has, |host| format!("has {}", words(&of(host))));
    }
    common
}

fn words(lengths: &[u32]) -> String {
    lengths.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// The values of [`IMPLEMENTATION`].
fn implementation_of(host: &HostAbi) -> [u64; 3] {
    let plain = host.cpus.first();
    let value = |id| plain.and_then(|cpu| cpu.id_register(id)).map_or(0, |found| found.value.0);
    IMPLEMENTATION.map(|(id, _)| value(id))
}

/// The one CPU that all vCPUs take themselves for, where the hosts' own differ.
fn implementation(fleet: &Fleet<'_>, found: &mut Findings) -> Option<Vec<IdPromise>> {
    let mut all: Vec<_> = fleet.hosts().map(implementation_of).collect();
    all.sort_unstable();
    let (first, last) = (all.first()?, all.last()?);
    if first == last {
        return None;
    }
    for ((_, name), number) in IMPLEMENTATION.into_iter().zip(0_usize..) {
        let of = |host: &HostAbi| implementation_of(host)[number];
        if fleet.all(|host| of(host) == first[number]) {
            continue;
        }
        if fleet.all(|host| host.abilities.writable_imp_ids) {
            let subject = format!("{name} of the host");
            found.lost(
                fleet,
                &subject,
                |host| of(host) == first[number],
                |host| format!("is {}, and shows {}", Hex(of(host)), Hex(first[number])),
            );
        } else {
            let only = |host: &HostAbi| if host.abilities.writable_imp_ids { "" } else { "only " };
            found.conflict(fleet, name, |host| format!("takes {}{}", only(host), Hex(of(host))));
        }
    }
    let promise = |((id, name), value): ((RegId, &str), &u64)| IdPromise {
        id,
        name: name.to_owned(),
        value: Hex(*value),
        mask: Hex(u64::MAX),
    };
    Some(IMPLEMENTATION.into_iter().zip(first).map(promise).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostLimits;
    use crate::{FoundCpu, HostAbilities};

    /// A host that has vectors of these lengths and nothing else.
    fn host(lengths: &[u32]) -> (String, HostAbi) {
        let limits = HostLimits { sve_lengths: lengths.to_vec(), ..HostLimits::default() };
        let host = HostAbi {
            format: HostAbi::FORMAT,
            limits,
            abilities: HostAbilities::default(),
            firmware: Vec::new(),
            cpus: vec![FoundCpu::default()],
        };
        (words(lengths), host)
    }

    fn common(all: &[&[u32]]) -> Vec<u32> {
        let hosts: Vec<_> = all.iter().map(|lengths| host(lengths)).collect();
        sve_lengths(&Fleet::new(&hosts), &mut Findings::default())
    }

    #[test]
    fn vectors_are_as_long_as_all_hosts_have_the_same_lengths() {
        assert_eq!(common(&[&[128, 256, 512], &[128, 256]]), [128, 256]);
        assert_eq!(common(&[&[128, 256, 512], &[128, 384, 512]]), [128]);
        assert_eq!(common(&[&[128, 256, 512], &[128, 512]]), [128]);
        assert_eq!(common(&[&[256], &[128]]), [0; 0]);
    }
}
