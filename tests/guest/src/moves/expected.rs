//! What is to come of each guest on each host.

use super::{Case, Profile, Source, fleet};
use crate::host::{Host, Need};

/// The register by which Linux 5.10 promises guests on some processors what no later kernel
/// does, and what the calls are that it is about.
pub(super) const LESSER: (&str, &str) = ("smccc_arch_workaround_3", "0x80003fff");

/// The processors on which it does: those that later kernels do not know to be safe.
const UNKNOWN: [&str; 2] = ["max", "a64fx"];
/// The first kernels that promise less.
const OLD_END: (u32, u32) = (5, 11);

/// What is to come of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Restored,
    Refused,
    /// For this register alone, unless it is allowed to be otherwise.
    RefusedFor(&'static str),
    /// Nobody has looked yet.
    Either,
}

/// Kernels: from where, and to where.
type Ways = [(&'static str, &'static str)];

/// Guests that are promised their firmware at most: the processor, the profile, and the
/// ways between different kernels on which they find nothing that has changed. On all
/// others they are refused.
#[rustfmt::skip]
const ALIKE: [(&str, &str, &Ways); 6] = [
    ("neoverse-n1", "host",     &[("6.1", "6.12"), ("6.1", "7.2"), ("6.12", "7.2")]),
    ("neoverse-n1", "arm64-v0", &[("6.1", "6.12"), ("6.1", "7.2"), ("6.12", "7.2"), ("7.2", "6.12")]),
    ("neoverse-n1", "arm64-v1", &[("6.1", "6.12"), ("6.1", "7.2"), ("6.12", "7.2"), ("7.2", "6.12")]),
    // Linux 6.12 cannot hide HCX, which 6.1 does.
    ("max",         "host",     &[("6.1", "7.2"), ("6.12", "7.2")]),
    ("max",         "arm64-v0", &[("6.1", "7.2"), ("6.12", "7.2"), ("7.2", "6.12")]),
    ("max",         "arm64-v1", &[("6.1", "7.2"), ("6.12", "7.2"), ("7.2", "6.12")]),
];

/// Of hosts like those that were looked at.
const LOOKED_AT: [Need; 3] = [Need::GicV3, Need::SmallPages, Need::NoSve];

/// What is to come of a guest here.
pub(super) fn wanted(host: &Host, source: &Source, case: &Case) -> Wanted {
    let is = |need: Need| host.lacks(need).is_none();
    match case.profile {
        Profile::Named(_) if !LOOKED_AT.into_iter().all(is) => Wanted::Either,
        Profile::Named(profile) => {
            let here = std::env::var("KEDGE_HOST_KERNEL").unwrap_or_default();
            let mut rows = ALIKE.iter().filter(|row| is(Need::Cpu(row.0)) && row.1 == profile);
            match rows.next() {
                _ if source.label == here => Wanted::Restored,
                Some((.., ways)) if ways.contains(&(source.label, here.as_str())) => {
                    Wanted::Restored
                }
                Some(_) => Wanted::Refused,
                None => Wanted::Either,
            }
        }
        Profile::Fleet if fleet::of(host).is_none() => Wanted::Either,
        Profile::Fleet if is_unknown(host) && source.release < OLD_END && !is_old(host) => {
            Wanted::RefusedFor(LESSER.0)
        }
        Profile::Fleet => Wanted::Restored,
    }
}

/// Whether a guest that was saved there is promised more here.
pub(super) fn is_better(host: &Host, source: &Source) -> bool {
    is_unknown(host) && source.release >= OLD_END && is_old(host)
}

fn is_unknown(host: &Host) -> bool {
    UNKNOWN.into_iter().any(|cpu| host.lacks(Need::Cpu(cpu)).is_none())
}

/// Whether the host's kernel promises what later ones do not.
fn is_old(host: &Host) -> bool {
    host.lacks(Need::OlderThan(OLD_END.0, OLD_END.1)).is_none()
}
