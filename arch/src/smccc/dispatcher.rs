//! Who answers which call.

use std::fmt;
use std::sync::Arc;

use kedge_diag::Fix;

use super::{Call, Functions, Results, Service, describe};

/// Arm's architecture calls, which say how the processor's errata are mitigated: no
/// hypervisor hands them over.
const ARCHITECTURE: [Functions; 2] = [0x8000_0000..=0x8000_ffff, 0xc000_0000..=0xc000_ffff];

/// Services that cannot be in one machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    /// Two services answer the same calls.
    #[error("`{one}` and `{other}` both answer the firmware calls {}", describe(functions))]
    Overlap {
        /// The service that came first.
        one: String,
        /// The other.
        other: String,
        /// What both answer.
        functions: Functions,
    },
    /// A service wants calls that are not handed over.
    #[error(
        "`{name}` wants to answer the firmware calls {}, which are the architecture's own",
        describe(functions)
    )]
    Reserved {
        /// The service.
        name: String,
        /// What it wants and cannot have.
        functions: Functions,
    },
    /// A range of functions that ends before it starts.
    #[error("`{name}` answers firmware calls from {first:#x} to {last:#x}, which is none")]
    Empty {
        /// The service.
        name: String,
        /// The first function.
        first: u32,
        /// The last.
        last: u32,
    },
}

impl Fix for Clash {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Overlap { other, .. } => {
                format!("give `{other}` functions of its own, or leave one of the two out")
            }
            Self::Reserved { .. } => {
                "choose functions that DEN0028 leaves to vendors: 0xc3000000 to 0xc300ffff"
                    .to_owned()
            }
            Self::Empty { .. } => "name the lower function first".to_owned(),
        })
    }
}

/// A table of services by their functions.
#[derive(Clone, Default)]
pub struct Dispatcher {
    /// In rising order, none overlapping.
    table: Vec<(Functions, Arc<dyn Service>)>,
}

impl Dispatcher {
    /// The table of `services`.
    ///
    /// # Errors
    /// Two of them answer the same call, or one answers what it cannot.
    pub fn new(services: impl IntoIterator<Item = Arc<dyn Service>>) -> Result<Self, Clash> {
        let mut all = Self::default();
        services.into_iter().try_for_each(|service| all.add(&service))?;
        all.table.sort_by_key(|(functions, _)| *functions.start());
        Ok(all)
    }

    fn add(&mut self, service: &Arc<dyn Service>) -> Result<(), Clash> {
        let name = || service.name().to_owned();
        for functions in service.functions() {
            if functions.is_empty() {
                let (first, last) = (*functions.start(), *functions.end());
                return Err(Clash::Empty { name: name(), first, last });
            }
            if let Some(functions) = architecture(functions) {
                return Err(Clash::Reserved { name: name(), functions });
            }
            let taken =
                self.table.iter().find_map(|(taken, by)| Some((common(functions, taken)?, by)));
            if let Some((functions, by)) = taken {
                let one = by.name().to_owned();
                return Err(Clash::Overlap { one, other: name(), functions });
            }
            self.table.push((functions.clone(), Arc::clone(service)));
        }
        Ok(())
    }

    /// The functions that have a service, in rising order.
    pub fn functions(&self) -> impl Iterator<Item = (&Functions, &dyn Service)> {
        self.table.iter().map(|(functions, service)| (functions, service.as_ref()))
    }

    /// The service that answers `function`, if one does.
    pub fn service(&self, function: u32) -> Option<&dyn Service> {
        let after = self.table.partition_point(|(functions, _)| *functions.start() <= function);
        let (functions, service) = self.table.get(after.checked_sub(1)?)?;
        functions.contains(&function).then_some(service.as_ref())
    }

    /// Answers a call; nothing where no service does.
    pub fn call(&self, call: &Call) -> Option<Results> {
        self.service(call.function()).map(|service| service.call(call))
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |(functions, service): (&Functions, &dyn Service)| {
            format!("{}: {}", describe(functions), service.name())
        };
        f.debug_list().entries(self.functions().map(row)).finish()
    }
}

/// Those of `functions` that are the architecture's own.
pub(super) fn architecture(functions: &Functions) -> Option<Functions> {
    ARCHITECTURE.iter().find_map(|reserved| common(functions, reserved))
}

/// What two ranges have in common.
pub(super) fn common(one: &Functions, other: &Functions) -> Option<Functions> {
    let common = *one.start().max(other.start())..=*one.end().min(other.end());
    (!common.is_empty()).then_some(common)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;
    use kedge_hv::Conduit;
    use kedge_ids::VcpuId;
    use proptest::prelude::*;

    use super::*;

    /// Answers with its number and the function.
    struct Numbered {
        name: &'static str,
        number: u64,
        functions: Vec<Functions>,
    }

    impl Service for Numbered {
        fn name(&self) -> &str {
            self.name
        }
        fn functions(&self) -> &[Functions] {
            &self.functions
        }
        fn call(&self, call: &Call) -> Results {
            [self.number, call.function().into(), call.argument(1), 0]
        }
    }

    fn service(name: &'static str, number: u64, functions: &[Functions]) -> Arc<dyn Service> {
        Arc::new(Numbered { name, number, functions: functions.to_vec() })
    }

    fn answer(dispatcher: &Dispatcher, function: u32) -> Option<Results> {
        dispatcher.call(&Call::new(function, Conduit::Hvc, VcpuId(0), &[5]))
    }

    fn refusal(services: [Arc<dyn Service>; 2]) -> String {
        report(&Dispatcher::new(services).unwrap_err())
    }

    #[test]
    fn a_call_reaches_the_service_that_has_its_function() {
        let upper = service("upper", 2, &[0xc600_0100..=0xc600_01ff, 0x8600_0100..=0x8600_0100]);
        let lower = service("lower", 1, &[0xc600_0040..=0xc600_00ff]);
        let dispatcher = Dispatcher::new([upper, lower]).unwrap();
        assert_eq!(answer(&dispatcher, 0xc600_0040), Some([1, 0xc600_0040, 5, 0]));
        assert_eq!(answer(&dispatcher, 0xc600_00ff), Some([1, 0xc600_00ff, 5, 0]));
        assert_eq!(answer(&dispatcher, 0xc600_0100), Some([2, 0xc600_0100, 5, 0]));
        assert_eq!(answer(&dispatcher, 0x8600_0100), Some([2, 0x8600_0100, 5, 0]));
    }

    #[test]
    fn a_call_that_no_service_has_is_not_answered() {
        let dispatcher = Dispatcher::new([service("one", 1, &[5..=6, 9..=9])]).unwrap();
        let answers = [0, 4, 7, 8, 10, u32::MAX].map(|function| answer(&dispatcher, function));
        assert_eq!(answers, [None; 6]);
        assert_eq!(answer(&Dispatcher::default(), 0), None);
    }

    #[test]
    fn services_that_overlap_are_refused_by_name() {
        let two = [
            service("clock", 1, &[0xc600_0040..=0xc600_004f]),
            service("battery", 2, &[0xc600_0048..=0xc600_0060]),
        ];
        expect![[r#"
            error: `clock` and `battery` both answer the firmware calls 0xc6000048 to 0xc600004f
              fix: give `battery` functions of its own, or leave one of the two out"#]]
        .assert_eq(&refusal(two));
    }

    #[test]
    fn the_architectures_calls_are_not_to_be_had() {
        let greedy = service("greedy", 1, &[0x8000_8000..=0x8001_0000]);
        expect![[r#"
            error: `greedy` wants to answer the firmware calls 0x80008000 to 0x8000ffff, which are the architecture's own
              fix: choose functions that DEN0028 leaves to vendors: 0xc3000000 to 0xc300ffff"#]]
        .assert_eq(&refusal([greedy, service("other", 2, &[])]));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "that is the mistake")]
    fn a_range_that_ends_before_it_starts_is_refused() {
        let empty = service("empty", 1, &[0xc600_0041..=0xc600_0040]);
        expect![[r#"
            error: `empty` answers firmware calls from 0xc6000041 to 0xc6000040, which is none
              fix: name the lower function first"#]]
        .assert_eq(&refusal([empty, service("other", 2, &[])]));
    }

    proptest! {
        #[test]
        fn whoever_has_a_function_answers_it(
            ranges in prop::collection::vec((0_u32..64, 0_u32..8), 0..6),
            function in 0_u32..80,
        ) {
            let service = |(number, (first, more)): (u64, (u32, u32))| {
                service("any", number, &[first..=first + more])
            };
            let services: Vec<_> = (0..).zip(ranges.iter().copied()).map(service).collect();
            if let Ok(dispatcher) = Dispatcher::new(services) {
                let has = |(first, more): &(u32, u32)| (*first..=first + more).contains(&function);
                let expected = ranges.iter().position(has).and_then(|n| u64::try_from(n).ok());
                prop_assert_eq!(answer(&dispatcher, function).map(|results| results[0]), expected);
            }
        }
    }
}
