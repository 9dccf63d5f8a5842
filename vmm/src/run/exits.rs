//! How often vCPUs leave guest code, and why.

use kedge_hv::Exit;
use kedge_metrics::{Counters, Latency, Moment, Timing};

/// Why a vCPU leaves guest code, by the names in Firecracker's metrics where it has one.
#[rustfmt::skip]
const REASONS: [&str; 7] = [
    "exit_mmio_read", "exit_mmio_write", "exit_undecoded", "exit_hypercall", "exit_system",
    "exit_interrupted", "failures",
];

const fn reason(exit: &Exit<'_>) -> usize {
    match exit {
        Exit::MmioRead { .. } => 0,
        Exit::MmioWrite { .. } => 1,
        Exit::Undecoded { .. } => 2,
        Exit::Hypercall { .. } => 3,
        Exit::System(_) => 4,
        Exit::Interrupted => 5,
        Exit::Failed { .. } => 6,
    }
}

/// The exits of all vCPUs of a machine, and how long each was answered for.
#[derive(Debug)]
pub(crate) struct Exits(Box<[OfOne]>);

/// The exits of one vCPU, whose thread alone counts them: apart from those of others, so
/// that no two processors write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OfOne([Latency; REASONS.len()]);

/// An exit that is being answered, until it is dropped.
pub(super) struct Answering<'e> {
    latency: Option<&'e Latency>,
    since: Moment,
}

impl Exits {
    /// For so many vCPUs.
    pub(crate) fn of(vcpus: usize) -> Self {
        Self((0..vcpus).map(|_| OfOne::default()).collect())
    }

    /// The vCPU `index` has left guest code; its own thread says so.
    pub(super) fn begin(&self, index: usize, exit: &Exit<'_>) -> Answering<'_> {
        let of_one = self.0.get(index);
        let latency = of_one.and_then(|of_one| of_one.0.get(reason(exit)));
        Answering { latency, since: Moment::now() }
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        if let Some(latency) = self.latency {
            latency.record(self.since.elapsed());
        }
    }
}

impl Counters for Exits {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        for (place, name) in REASONS.into_iter().enumerate() {
            let of_one = |vcpu: &OfOne| vcpu.0.get(place).map_or(0, Latency::count);
            to(name, self.0.iter().map(of_one).sum());
        }
    }

    fn each_timing(&self, to: &mut dyn FnMut(&str, &Timing)) {
        for (place, name) in REASONS.into_iter().enumerate() {
            let of_each = self.0.iter().filter_map(|vcpu| vcpu.0.get(place));
            let whole = of_each.fold(Timing::default(), |sum, one| sum + one.timing());
            to(name, &whole);
        }
    }
}
