//! Firmware calls that the hypervisor hands over: read, answered, written back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use kedge_arch::smccc::{Call, Dispatcher, NOT_SUPPORTED, Results, Service, only};
use kedge_hv::{Conduit, HvError, Vcpu};
use kedge_ids::{RegId, u64_from};
use tracing::debug;

/// Who answers a machine's calls.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    dispatcher: Dispatcher,
    /// Calls that no service has, since the machine was built.
    unknown: AtomicU64,
}

/// Why a call has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The hypervisor refuses.
    Refused(HvError),
    /// The service of this name broke down over it.
    Panicked(String),
}

impl From<HvError> for Unanswered {
    fn from(source: HvError) -> Self {
        Self::Refused(source)
    }
}

impl Calls {
    /// Calls that the services of `dispatcher` answer.
    pub(crate) fn new(dispatcher: Dispatcher) -> Self {
        Self { dispatcher, unknown: AtomicU64::new(0) }
    }

    /// Answers the call of `function` that `vcpu` has just left its guest with.
    ///
    /// # Errors
    /// The hypervisor refuses, or the service panics: the guest waits for an answer that
    /// nobody has.
    pub(crate) fn answer(
        &self,
        vcpu: &dyn Vcpu,
        function: u32,
        conduit: Conduit,
    ) -> Result<(), Unanswered> {
        let results = match self.dispatcher.service(function) {
            Some(service) => {
                let last = u64_from(Call::arguments_of(function));
                let arguments = (1..=last).map(|n| vcpu.reg64(RegId::x(n)));
                let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
                ask(service, &Call::new(function, conduit, vcpu.id(), &arguments))?
            }
            None => {
                self.note_unknown(vcpu, function);
                only(NOT_SUPPORTED)
            }
        };
        (0..).zip(results).try_for_each(|(n, result)| vcpu.set_reg64(RegId::x(n), result))?;
        Ok(())
    }

    fn note_unknown(&self, vcpu: &dyn Vcpu, function: u32) {
        let before = self.unknown.fetch_add(1, Ordering::Relaxed);
        if before < LOGGED {
            let function = format_args!("{function:#x}");
            debug!(vcpu = vcpu.id().0, %function, "firmware call that nobody answers");
        }
    }
}

/// Has a service of the program around the machine answer, whose panic must not end the
/// vCPU's thread in silence: the machine would wait for it for ever.
fn ask(service: &dyn Service, call: &Call) -> Result<Results, Unanswered> {
    // Nobody calls it again that saw it unwind: the machine ends.
    catch_unwind(AssertUnwindSafe(|| service.call(call)))
        .map_err(|_| Unanswered::Panicked(service.name().to_owned()))
}

/// A guest can do this at will: only the first few are logged.
const LOGGED: u64 = 10;
