//! The events that performance monitors count.

use kedge_hv::PmuEvents;
use serde::{Deserialize, Serialize};

use crate::hex::Hex;

/// A set of common events, as a guest is told of them (Arm DDI 0487, `PMCEID0_EL0`
/// and `PMCEID1_EL0`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PmuEventSet {
    /// `PMCEID0_EL0`: events 0x0 to 0x1f, and 0x4000 to 0x401f in its upper half.
    pub pmceid0: Hex,
    /// `PMCEID1_EL0`: events 0x20 to 0x3f, and 0x4020 to 0x403f in its upper half.
    pub pmceid1: Hex,
}

impl PmuEventSet {
    /// The events that both have.
    pub(crate) fn common(self, other: Self) -> Self {
        let Self { pmceid0, pmceid1 } = self;
        Self {
            pmceid0: Hex(pmceid0.0 & other.pmceid0.0),
            pmceid1: Hex(pmceid1.0 & other.pmceid1.0),
        }
    }

    /// The events that `other` does not have.
    pub(crate) fn without(self, other: Self) -> Self {
        let Self { pmceid0, pmceid1 } = self;
        Self {
            pmceid0: Hex(pmceid0.0 & !other.pmceid0.0),
            pmceid1: Hex(pmceid1.0 & !other.pmceid1.0),
        }
    }

    /// The events, by number, ascending.
    pub(crate) fn numbers(self) -> Vec<u16> {
        let halves = [
            (self.pmceid0.0 & LOW, 0),
            (self.pmceid1.0 & LOW, 0x20),
            (self.pmceid0.0 >> 32, 0x4000),
            (self.pmceid1.0 >> 32, 0x4020),
        ];
        let of = |(bits, first): (u64, u16)| {
            (0..32).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| first + bit)
        };
        halves.into_iter().flat_map(of).collect()
    }

    /// The same in as few runs as there are.
    pub(crate) fn runs(self) -> Vec<PmuEvents> {
        let mut runs: Vec<PmuEvents> = Vec::new();
        for event in self.numbers() {
            match runs.last_mut() {
                Some(run) if run.first + run.count == event => run.count += 1,
                _ => runs.push(PmuEvents { first: event, count: 1 }),
            }
        }
        runs
    }

    /// In words: `0x1e, 0x23`.
    pub fn words(self) -> String {
        let numbers = self.numbers();
        let words: Vec<_> = numbers.iter().map(|event| format!("{event:#x}")).collect();
        if words.is_empty() { "none".to_owned() } else { words.join(", ") }
    }
}

const LOW: u64 = 0xffff_ffff;

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: PmuEventSet =
        PmuEventSet { pmceid0: Hex(0x3 << 32 | 1 << 31), pmceid1: Hex(0x8000_0000_0000_0003) };

    #[test]
    fn events_have_the_numbers_of_the_architecture() {
        assert_eq!(EVENTS.numbers(), [0x1f, 0x20, 0x21, 0x4000, 0x4001, 0x403f]);
        assert_eq!(EVENTS.words(), "0x1f, 0x20, 0x21, 0x4000, 0x4001, 0x403f");
    }

    #[test]
    fn events_that_follow_one_another_are_one_run() {
        let run = |first, count| PmuEvents { first, count };
        assert_eq!(EVENTS.runs(), [run(0x1f, 3), run(0x4000, 2), run(0x403f, 1)]);
        assert_eq!(PmuEventSet::default().runs(), []);
    }

    #[test]
    fn two_hosts_have_the_events_of_both_in_common() {
        let other = PmuEventSet { pmceid0: Hex(1 << 31 | 1), pmceid1: Hex(0) };
        assert_eq!(EVENTS.common(other).words(), "0x1f");
        assert_eq!(other.without(EVENTS).words(), "0x0");
        assert_eq!(EVENTS.without(EVENTS).words(), "none");
    }
}
