//! What is counted in a machine's process, and who reads it: clients of the API, as
//! Prometheus has it, and a file that gets a line now and then, as Firecracker's does
//! (FIRECRACKER_API.md, 13). Nothing here is made for a machine that cannot be asked.

mod act;
mod keys;
mod lines;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kedge_vmm::metrics::{Counters, Outcome, Registry, Tally, Timings, prometheus};

use crate::boot_timer::Began;
use crate::logging::Control as LogControl;
pub(crate) use act::Act;
use keys::OfMethod;
use lines::Sink;
pub(crate) use lines::Unwritten;

/// All that is counted. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Metering(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The machine's name.
    id: String,
    registry: Registry,
    requests: Arc<Timings>,
    deprecated: Arc<Tally>,
    latencies: Arc<Tally>,
    misses: Arc<Tally>,
    sink: Mutex<Option<Sink>>,
}

/// Requests that make use of something that will go away.
const DEPRECATED: &str = "deprecated_http_api_calls";
/// Lines that could not be written.
const MISSED: &str = "missed_metrics_count";

impl Metering {
    /// What is counted in the process of the machine called `id`, whose log is `log`, where
    /// that counts as well.
    pub(crate) fn new(id: &str, log: Option<LogControl>) -> Self {
        let registry = Registry::default();
        let requests = Arc::new(Timings::default());
        registry.add("api_request", None, Arc::<Timings>::clone(&requests));
        for (group, keys) in keys::METHODS {
            let of_method = OfMethod { requests: Arc::clone(&requests), keys };
            registry.add(group, None, Arc::new(of_method));
        }
        let tally = |group, names: &[&'static str]| {
            let tally = Arc::new(Tally::of(names));
            registry.add(group, None, Arc::<Tally>::clone(&tally));
            tally
        };
        let deprecated = tally("deprecated_api", &[DEPRECATED]);
        let latencies = tally("latencies_us", &act::KEYS);
        let misses = Arc::new(Tally::of(&[MISSED]));
        let logger = Logger { misses: Arc::clone(&misses), log };
        registry.add("logger", None, Arc::new(logger));
        let sink = Mutex::default();
        let id = id.to_owned();
        Self(Arc::new(Shared { id, registry, requests, deprecated, latencies, misses, sink }))
    }

    /// Where a machine's parts are to be handed.
    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// All there is, as Prometheus reads it.
    pub(crate) fn prometheus(&self) -> String {
        prometheus(&self.0.registry)
    }

    /// A request of `kind`, by its method and its path, took so long.
    pub(crate) fn asked(&self, kind: String, took: Duration, outcome: Outcome) {
        self.0.requests.record(kind, took, outcome);
    }

    /// A request made use of something that will go away.
    pub(crate) fn deprecated(&self) {
        self.0.deprecated.count(DEPRECATED);
    }

    /// A client has waited so long for `act`, and so has the machine where that is quick.
    pub(crate) fn answered(&self, act: Act, took: Duration) {
        let us = microseconds(took);
        self.0.latencies.set(act.key(), us);
        if act.is_quick() {
            self.0.latencies.set(act.machine_key(), us);
        }
    }

    /// A machine has taken so long for `act`: says so in the log, too.
    pub(crate) fn done(&self, act: Act, took: Duration) {
        self.0.latencies.set(act.machine_key(), microseconds(took));
        act.log_done(took);
    }

    /// The process began when the monotonic clock and the CPU clock of whoever started it
    /// were at `start`, in microseconds; its parent had used so much of the CPU until then.
    /// All three are what Firecracker's jailer says.
    pub(crate) fn began(&self, [start, cpu_start, parent]: [Option<u64>; 3]) {
        if start.is_none() && cpu_start.is_none() {
            return;
        }
        const KEYS: [&str; 2] = ["process_startup_time_us", "process_startup_time_cpu_us"];
        let tally = Tally::of(&KEYS);
        let [wall, cpu] = Began::now().times().map(microseconds);
        if let Some(start) = start {
            tally.set(KEYS[0], wall.saturating_sub(start));
        }
        if let Some(start) = cpu_start {
            let own = cpu.saturating_sub(start);
            tally.set(KEYS[1], own.saturating_add(parent.unwrap_or_default()));
        }
        self.0.registry.add("api_server", None, Arc::new(tally));
    }

    fn sink(&self) -> MutexGuard<'_, Option<Sink>> {
        self.0.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// What gets lost of lines, the log's and those with metrics.
#[derive(Debug)]
struct Logger {
    misses: Arc<Tally>,
    log: Option<LogControl>,
}

impl Counters for Logger {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        self.misses.each(to);
        if let Some(log) = &self.log {
            let [missed, limited] = log.left_out();
            to("missed_log_count", missed);
            to("rate_limited_log_count", limited);
        }
    }
}
