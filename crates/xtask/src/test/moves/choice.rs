//! Which guests are saved and which restored, when tests are asked for by a part of their name.

use crate::test::plan::Fleet;

/// How the names of the first round's tests begin; a guest's name follows.
pub(super) const SAVE: &str = "moves::save::";
/// How those of the second round's begin; a kernel and a guest follow.
pub(super) const LOAD: &str = "moves::load::";

/// The tests of one fleet.
pub(super) struct Choice {
    /// Of the first round: those asked for.
    saved: Vec<String>,
    /// Of the second.
    loaded: Vec<String>,
    /// Of the first: all that there are.
    savable: Vec<String>,
}

impl Choice {
    /// Of `tests`, which are all there are, those that have `filter` in their name, move in this fleet, and come from
    /// one of its kernels.
    pub(super) fn new(tests: &[String], fleet: &Fleet, filter: Option<&str>) -> Self {
        let moves_here = |test: &&String| !fleet.without.iter().any(|part| test.contains(part));
        let is_asked_for = |test: &&String| filter.is_none_or(|part| test.contains(part));
        let comes_from_here =
            |test: &&String| fleet.hosts.iter().any(|host| is_from(test, host.kernel));
        let all = |part: &'static str| {
            tests.iter().filter(move |test| test.starts_with(part)).filter(moves_here)
        };
        let saved = all(SAVE).filter(is_asked_for).cloned().collect();
        let loaded = all(LOAD).filter(is_asked_for).filter(comes_from_here).cloned().collect();
        Self { saved, loaded, savable: all(SAVE).cloned().collect() }
    }

    /// The tests of the first round on a kernel: those that were asked for, and those without which there is nothing to
    /// restore.
    pub(super) fn saved_on(&self, kernel: &str) -> Vec<String> {
        let is_restored = |test: &String| {
            let mut from_here = self.loaded.iter().filter(|load| is_from(load, kernel));
            from_here.any(|load| guest_of(load).is_some_and(|guest| guest_of(test) == Some(guest)))
        };
        let chosen =
            self.savable.iter().filter(|test| self.saved.contains(test) || is_restored(test));
        chosen.cloned().collect()
    }

    /// The tests of the second round on every kernel.
    pub(super) fn loaded(&self) -> Vec<String> {
        self.loaded.clone()
    }
}

/// Whether a test restores what was saved on this kernel.
pub(super) fn is_from(test: &str, kernel: &str) -> bool {
    let name = test.strip_prefix(LOAD).and_then(|rest| rest.split("::").next());
    name.and_then(|name| name.strip_prefix("from_")) == Some(&kernel.replace('.', "_"))
}

/// The guest that a test is about.
fn guest_of(test: &str) -> Option<&str> {
    test.rsplit("::").next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::plan::{self, Plan};

    const TESTS: [&str; 6] = [
        "moves::save::plain",
        "moves::save::at_work",
        "moves::load::from_5_10::plain",
        "moves::load::from_5_10::at_work",
        "moves::load::from_6_1::plain",
        "boot::moves",
    ];

    fn choice(filter: Option<&str>, without: &'static [&'static str]) -> Choice {
        let mut fleet = plan::fleets(Plan::Daily, &["5.10".to_owned()]).remove(0);
        fleet.without = without;
        Choice::new(&TESTS.map(str::to_owned), &fleet, filter)
    }

    #[test]
    fn without_a_filter_all_move_between_the_kernels_there_are() {
        let all = choice(None, &[]);
        assert_eq!(all.saved_on("5.10"), TESTS[..2]);
        assert_eq!(all.loaded(), TESTS[2..4]);
    }

    #[test]
    fn what_is_restored_is_saved_first() {
        let one = choice(Some("from_5_10::at_work"), &[]);
        assert_eq!(one.saved_on("5.10"), ["moves::save::at_work"]);
        assert_eq!(one.saved_on("6.1"), [""; 0]);
        assert_eq!(one.loaded(), ["moves::load::from_5_10::at_work"]);
    }

    #[test]
    fn what_is_saved_is_restored_only_if_that_is_asked_for_too() {
        let saved = choice(Some("save::plain"), &[]);
        assert_eq!((saved.saved_on("5.10").len(), saved.loaded().len()), (1, 0));
    }

    #[test]
    fn guests_that_do_not_move_in_a_fleet_are_left_out() {
        let some = choice(None, &["at_work"]);
        assert_eq!(some.saved_on("5.10"), ["moves::save::plain"]);
        assert_eq!(some.loaded(), ["moves::load::from_5_10::plain"]);
    }

    #[test]
    fn a_kernel_is_told_from_one_whose_name_begins_alike() {
        assert!(is_from("moves::load::from_6_1::plain", "6.1"));
        assert!(!is_from("moves::load::from_6_12::plain", "6.1"));
        assert!(!is_from("moves::save::plain", "6.1"));
    }
}
