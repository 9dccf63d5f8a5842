//! Whether a host can honour a profile.

use super::lines::Lines;
use super::{Plan, Verdict, firmware, identity, parts};
use crate::abi::{GuestAbi, HOST, builtin, builtin_names};
use crate::host::HostAbi;

/// Whether `host` can honour `abi`: a line for everything that `abi` promises, and one
/// for every firmware register of the host that it does not name.
///
/// A plan that refuses nothing is still no guarantee: a host was tried one value at a
/// time, and only a machine with all of them shows whether they go together.
pub fn check(abi: &GuestAbi, host: &HostAbi) -> Plan {
    let mut plan = judge(abi, host);
    if plan.is_refused() {
        prescribe(&mut plan, abi, host);
    }
    plan
}

/// The same without the lines of what is kept: nothing is put into words that nobody
/// reads. Refusals have no cure yet.
pub(crate) fn deviations(abi: &GuestAbi, host: &HostAbi) -> Plan {
    made(Lines::of_deviations(), abi, host)
}

/// Of what no register shows alone: the lines of what is not kept.
pub(crate) fn of_parts(abi: &GuestAbi, host: &HostAbi) -> Plan {
    let mut lines = Lines::of_deviations();
    parts::judge(&mut lines, abi, host);
    lines.into_plan()
}

fn judge(abi: &GuestAbi, host: &HostAbi) -> Plan {
    made(Lines::of_everything(), abi, host)
}

fn made(mut lines: Lines, abi: &GuestAbi, host: &HostAbi) -> Plan {
    firmware::judge(&mut lines, abi, host);
    identity::judge(&mut lines, abi, host);
    parts::judge(&mut lines, abi, host);
    lines.into_plan()
}

/// What every host can do.
const ADOPT: &str = "`--guest-abi host`";

/// Where `abi` is one of this release's own, or made from one, and the host can honour
/// another: names that one as the cure of what the first cannot have here.
fn prescribe(plan: &mut Plan, abi: &GuestAbi, host: &HostAbi) {
    let Some(base) = abi.name.split('+').next().and_then(builtin) else { return };
    let names = builtin_names().into_iter().filter(|name| ![HOST, &base.name].contains(name));
    let mut others = names.filter_map(builtin);
    let other = others.find(|other| !judge(other, host).is_refused());
    let base = judge(&base, host);
    for line in plan.lines.iter_mut().filter(|line| base.lines.contains(line)) {
        if let Verdict::Refuse { cure, .. } = &mut line.verdict {
            *cure = Some(match (&other, &cure) {
                (Some(other), _) => format!("start the guest with `--guest-abi {}`", other.name),
                (None, Some(cure)) if cure.contains(ADOPT) => cure.clone(),
                (None, Some(cure)) => format!("{cure}, or with {ADOPT}"),
                (None, None) => format!("start the guest with {ADOPT}"),
            });
        }
    }
}
