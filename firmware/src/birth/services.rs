//! The services of the program around a machine: part of what its guest was born with,
//! that no host can bring along.

use serde::{Deserialize, Serialize};

use crate::abi::FilterRange;
use crate::plan::{Plan, PlanLine, Subject, Verdict};

/// A service of the program around a machine, which answers calls that a filter takes
/// from KVM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Its name: what it is known by wherever the guest wakes up.
    pub name: String,
    /// The functions that it answers, rising, none touching another.
    pub functions: Vec<FilterRange>,
}

/// What becomes of the services that a guest was `born` with where the program around it
/// has those in `here`: a line for each service of either.
pub(super) fn judge(born: &[ServiceRecord], here: &[ServiceRecord]) -> Plan {
    let wanted = born.iter().map(|service| {
        let same = here.iter().find(|other| *other == service);
        let same = same.or_else(|| here.iter().find(|other| other.name == service.name));
        let verdict = match same {
            Some(same) if same == service => Verdict::Keep,
            Some(_) => Verdict::refuse("the guest was born with other functions of it", CURE),
            None => Verdict::refuse("the guest was born with it, and nobody else answers", CURE),
        };
        line(&service.name, (Some(service), same), verdict)
    });
    let new = here.iter().filter(|service| born.iter().all(|other| other.name != service.name));
    let new = new.map(|service| {
        let verdict = Verdict::adapt("the guest was born without it: it answers nothing");
        line(&service.name, (None, Some(service)), verdict)
    });
    Plan { lines: wanted.chain(new).collect() }
}

const CURE: &str = "restore the guest in a program with the services that it was born with";

fn line(
    name: &str,
    (wanted, offered): (Option<&ServiceRecord>, Option<&ServiceRecord>),
    verdict: Verdict,
) -> PlanLine {
    let subject = Subject::part(format!("service `{name}`"));
    PlanLine { subject, wanted: words(wanted), offered: words(offered), verdict }
}

/// `0xc3000100+1`, as profiles name ranges.
fn words(service: Option<&ServiceRecord>) -> String {
    let Some(service) = service else { return "nothing".to_owned() };
    let ranges = service.functions.iter();
    let ranges = ranges.map(|FilterRange { base, count, .. }| format!("{base}+{count}"));
    ranges.collect::<Vec<_>>().join(", ")
}
