//! Which calls the hypervisor is to hand over or to deny, so that a guest gets what
//! its profile promises and its machine's services answer.

use std::ops::RangeInclusive;

use kedge_diag::Fix;
use kedge_firmware::{FilterAction, FilterRange, GuestAbi, Hex, ServiceRecord};
use kedge_hv::{SmcccAction, SmcccRange};

use super::dispatcher::{architecture, common};
use super::{Dispatcher, Functions, Service, describe};

/// A profile whose filter cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFilter {
    /// A range that is none.
    #[error(
        "the `smccc_filter` of the profile `{profile}` has {count} functions from {base:#x}: \
         function ids are 32-bit numbers, and a range has at least one"
    )]
    NoRange {
        /// The profile.
        profile: String,
        /// The first function.
        base: u64,
        /// How many.
        count: u32,
    },
    /// A range of calls that the hypervisor keeps.
    #[error(
        "the `smccc_filter` of the profile `{profile}` takes {} from the host, the \
         architecture's own calls",
        describe(functions)
    )]
    Reserved {
        /// The profile.
        profile: String,
        /// What it wants and cannot have.
        functions: Functions,
    },
    /// Calls that are to be denied and answered.
    #[error(
        "the profile `{profile}` denies the firmware calls {}, which {by}",
        describe(functions)
    )]
    Denied {
        /// The profile.
        profile: String,
        /// The calls.
        functions: Functions,
        /// Who says otherwise, with a verb.
        by: String,
    },
}

impl Fix for BadFilter {
    fn fix(&self) -> Option<String> {
        let fix = match self {
            Self::NoRange { .. } => "give the range a base up to 0xffffffff and a count from 1",
            Self::Reserved { .. } => {
                "leave 0x80000000 to 0x8000ffff and 0xc0000000 to 0xc000ffff out of it"
            }
            Self::Denied { .. } => "deny the calls or have them answered, not both",
        };
        Some(fix.to_owned())
    }
}

/// The ranges that `profile` says, and those of the services in `answered`: in rising
/// order, none overlapping and none touching another of its kind.
///
/// # Errors
/// The profile contradicts itself or a service.
pub fn filter(profile: &GuestAbi, answered: &Dispatcher) -> Result<Vec<SmcccRange>, BadFilter> {
    let of_profile = |action| {
        let ranges = profile.machine.smccc_filter.iter();
        let ranges = ranges.filter(move |range| range.action == action);
        ranges.map(|range| functions_of(profile, range)).collect::<Result<Vec<_>, _>>()
    };
    let denied = of_profile(FilterAction::Deny)?;
    let forwarded = of_profile(FilterAction::Forward)?;
    let by_profile = forwarded.iter().map(|functions| (functions, "it forwards too".to_owned()));
    let by_service = answered
        .functions()
        .map(|(functions, service)| (functions, format!("`{}` answers", service.name())));
    for (functions, by) in by_profile.chain(by_service) {
        if let Some(functions) = denied.iter().find_map(|denied| common(functions, denied)) {
            return Err(BadFilter::Denied { profile: profile.name.clone(), functions, by });
        }
    }
    let services = answered.functions().map(|(functions, _)| functions.clone());
    let forwarded = joined(forwarded.into_iter().chain(services).collect());
    let ranges = |functions: Vec<Functions>, action| {
        functions.into_iter().map(move |functions| range(&functions, action))
    };
    let denied = ranges(joined(denied), SmcccAction::Deny);
    let mut all: Vec<_> = denied.chain(ranges(forwarded, SmcccAction::Forward)).collect();
    all.sort_by_key(|range| range.base);
    Ok(all)
}

/// What goes with a guest of `service`: wherever the guest wakes up, there must be one of
/// this name that answers the same.
pub fn record(service: &dyn Service) -> ServiceRecord {
    let ranges = joined(service.functions().to_vec()).into_iter().map(|functions| {
        let SmcccRange { base, count, .. } = range(&functions, SmcccAction::Forward);
        FilterRange { base: Hex(base.into()), count, action: FilterAction::Forward }
    });
    ServiceRecord { name: service.name().to_owned(), functions: ranges.collect() }
}

/// The functions of a range that the hypervisor was told of.
pub fn functions(range: &SmcccRange) -> Functions {
    range.base..=range.base.saturating_add(range.count.saturating_sub(1))
}

fn functions_of(profile: &GuestAbi, range: &FilterRange) -> Result<Functions, BadFilter> {
    let last =
        u64::from(range.count).checked_sub(1).and_then(|more| range.base.0.checked_add(more));
    let ids = u32::try_from(range.base.0).ok().zip(last.and_then(|last| u32::try_from(last).ok()));
    let profile = || profile.name.clone();
    let Some((first, last)) = ids else {
        let &FilterRange { base, count, .. } = range;
        return Err(BadFilter::NoRange { profile: profile(), base: base.0, count });
    };
    match architecture(&(first..=last)) {
        Some(functions) => Err(BadFilter::Reserved { profile: profile(), functions }),
        None => Ok(first..=last),
    }
}

/// `all` in rising order, those that touch made one.
fn joined(mut all: Vec<Functions>) -> Vec<Functions> {
    all.sort_by_key(|functions| *functions.start());
    let mut joined: Vec<Functions> = Vec::new();
    for functions in all {
        match joined.last_mut() {
            Some(last) if *functions.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(functions.end());
            }
            _ => joined.push(functions),
        }
    }
    joined
}

fn range(functions: &RangeInclusive<u32>, action: SmcccAction) -> SmcccRange {
    let count = (functions.end() - functions.start()).saturating_add(1);
    SmcccRange { base: *functions.start(), count, action }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use expect_test::expect;
    use kedge_diag::report;
    use kedge_firmware::{ARM64_V1, builtin};
    use proptest::prelude::*;

    use super::*;
    use crate::smccc::{Call, Results, only};

    struct Silent(Vec<Functions>);

    impl Service for Silent {
        fn name(&self) -> &str {
            "silent"
        }
        fn functions(&self) -> &[Functions] {
            &self.0
        }
        fn call(&self, _: &Call) -> Results {
            only(0)
        }
    }

    fn silent(functions: &[Functions]) -> Dispatcher {
        let service: Arc<dyn Service> = Arc::new(Silent(functions.to_vec()));
        Dispatcher::new([service]).unwrap()
    }

    fn profile(ranges: &[(u64, u32, FilterAction)]) -> GuestAbi {
        let mut abi = builtin(ARM64_V1).unwrap();
        let range = |&(base, count, action)| FilterRange { base: Hex(base), count, action };
        abi.machine.smccc_filter = ranges.iter().map(range).collect();
        abi
    }

    fn refusal(ranges: &[(u64, u32, FilterAction)], services: &[Functions]) -> String {
        report(&filter(&profile(ranges), &silent(services)).unwrap_err())
    }

    #[test]
    fn a_machine_without_either_needs_no_filter() {
        assert_eq!(filter(&profile(&[]), &Dispatcher::default()), Ok(Vec::new()));
    }

    #[test]
    fn ranges_of_profile_and_services_become_few() {
        let profile = profile(&[
            (0xc600_0100, 0x10, FilterAction::Forward),
            (0x8600_0001, 1, FilterAction::Deny),
            (0x8400_0050, 4, FilterAction::Forward),
        ]);
        let services = silent(&[0xc600_010c..=0xc600_0117, 0xc600_0118..=0xc600_0118]);
        let expected = [
            (0x8400_0050, 4, SmcccAction::Forward),
            (0x8600_0001, 1, SmcccAction::Deny),
            (0xc600_0100, 0x19, SmcccAction::Forward),
        ];
        let range = |(base, count, action)| SmcccRange { base, count, action };
        assert_eq!(filter(&profile, &services).unwrap(), expected.map(range));
    }

    #[test]
    fn calls_that_are_denied_cannot_be_answered() {
        expect![[r#"
            error: the profile `arm64-v1` denies the firmware calls 0xc6000042 to 0xc600004f, which `silent` answers
              fix: deny the calls or have them answered, not both"#]]
        .assert_eq(&refusal(
            &[(0xc600_0040, 0x10, FilterAction::Deny)],
            &[0xc600_0042..=0xc600_0060],
        ));
        expect![[r#"
            error: the profile `arm64-v1` denies the firmware calls 0xc6000040, which it forwards too
              fix: deny the calls or have them answered, not both"#]]
        .assert_eq(&refusal(
            &[(0xc600_0040, 1, FilterAction::Deny), (0xc600_0000, 0x100, FilterAction::Forward)],
            &[],
        ));
    }

    #[test]
    fn ranges_that_no_host_takes_are_refused_before_it_is_asked() {
        expect![[r#"
            error: the `smccc_filter` of the profile `arm64-v1` has 0 functions from 0xc6000040: function ids are 32-bit numbers, and a range has at least one
              fix: give the range a base up to 0xffffffff and a count from 1"#]]
        .assert_eq(&refusal(&[(0xc600_0040, 0, FilterAction::Deny)], &[]));
        expect![[r#"
            error: the `smccc_filter` of the profile `arm64-v1` has 2 functions from 0xffffffff: function ids are 32-bit numbers, and a range has at least one
              fix: give the range a base up to 0xffffffff and a count from 1"#]]
        .assert_eq(&refusal(&[(0xffff_ffff, 2, FilterAction::Deny)], &[]));
        expect![[r#"
            error: the `smccc_filter` of the profile `arm64-v1` takes 0x8000ffff from the host, the architecture's own calls
              fix: leave 0x80000000 to 0x8000ffff and 0xc0000000 to 0xc000ffff out of it"#]]
        .assert_eq(&refusal(&[(0x8000_ffff, 2, FilterAction::Deny)], &[]));
    }

    proptest! {
        #[test]
        fn a_filter_says_of_each_call_what_the_profile_does(
            ranges in prop::collection::vec((0_u64..64, 1_u32..8, any::<bool>()), 0..8),
        ) {
            let action = |deny| if deny { FilterAction::Deny } else { FilterAction::Forward };
            let ranges: Vec<_> =
                ranges.into_iter().map(|(base, count, deny)| (base, count, action(deny))).collect();
            if let Ok(filter) = filter(&profile(&ranges), &Dispatcher::default()) {
                let apart = |pair: &[SmcccRange]| functions(&pair[0]).end() < &pair[1].base;
                prop_assert!(filter.windows(2).all(apart));
                for function in 0_u32..80 {
                    let within = |base: u64, count| {
                        (base..base + u64::from(count)).contains(&u64::from(function))
                    };
                    let said = ranges.iter().find(|(base, count, _)| within(*base, *count));
                    let found = filter.iter().find(|range| functions(range).contains(&function));
                    prop_assert_eq!(
                        said.map(|(_, _, action)| *action == FilterAction::Deny),
                        found.map(|range| range.action == SmcccAction::Deny)
                    );
                }
            }
        }
    }
}
