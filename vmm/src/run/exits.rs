//! How often vCPUs leave guest code, and why.

use std::sync::atomic::{AtomicU64, Ordering};

use kedge_hv::Exit;
use kedge_metrics::Counters;

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

/// The exits of all vCPUs of a machine.
#[derive(Debug)]
pub(crate) struct Exits(Box<[OfOne]>);

/// The exits of one vCPU, whose thread alone counts them: apart from those of others, so
/// that no two processors write to one cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct OfOne([AtomicU64; REASONS.len()]);

impl Exits {
    /// For so many vCPUs.
    pub(crate) fn of(vcpus: usize) -> Self {
        Self((0..vcpus).map(|_| OfOne::default()).collect())
    }

    /// The vCPU `index` has left guest code; its own thread says so.
    pub(super) fn count(&self, index: usize, exit: &Exit<'_>) {
        if let Some(counter) = self.0.get(index).and_then(|of_one| of_one.0.get(reason(exit))) {
            // Nobody else writes to it.
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        }
    }
}

impl Counters for Exits {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        for (place, name) in REASONS.into_iter().enumerate() {
            let of_one = |vcpu: &OfOne| vcpu.0.get(place).map_or(0, |n| n.load(Ordering::Relaxed));
            to(name, self.0.iter().map(of_one).sum());
        }
    }
}
