//! What a process that waits for a client to name its machine does meanwhile: whatever
//! nearly every machine needs and none says. What the client then waits for is the rest.

// UNSAFETY: the kernel is asked to map the program's own code, which it does anyway.
#![expect(unsafe_code)]

use std::hint::black_box;
use std::thread::Builder;

use kedge_hv::Hypervisor;

use kedge_vmm::usual_machine;
use rustix::mm::{Advice, madvise};
use tracing::warn;

use crate::hypervisor::Host;

/// As much memory as loading a machine takes.
const HEAP: usize = 192 << 10;

/// Makes ready what does not depend on which guest is to come: what the host can do, the
/// machine that most guests are given, and the process's own memory. Where the host cannot,
/// whoever asks for a machine is told.
pub(crate) fn make_ready(hypervisor: &Host) {
    let _ = hypervisor.abilities();
    let (config, features) = usual_machine(&hypervisor.limits());
    if let Err(error) = hypervisor.make_ready(&config, features) {
        warn!("no machine can be made ready: {error}");
    }
    // Freed, it stays the process's.
    drop(black_box(vec![1_u8; HEAP]));
    map_program();
}

/// Drops what was made ready for another guest than the one that came.
pub(crate) fn tidy(hypervisor: &Host) {
    if let Some(ready) = hypervisor.take_ready() {
        // The kernel takes its time, and the machine's is dear. Where there are no more
        // threads it is dropped here.
        let _ = Builder::new().name("tidy".to_owned()).spawn(move || {
            let _gone = ready;
        });
    }
}

/// Has the kernel map the program's code and constants, which are in its page cache, so
/// that none of it is a fault later.
fn map_program() {
    // SAFETY: the linker defines both, and nothing but their addresses is taken.
    unsafe extern "C" {
        // The linker's: where the program begins in memory, and where its code ends.
        static __executable_start: u8;
        static etext: u8;
    }
    /// Between its parts nothing is mapped, and there the call fails.
    const STEP: usize = 16 << 10;
    let start = (&raw const __executable_start).cast_mut();
    let end = (&raw const etext).addr();
    for at in (start.addr() / STEP * STEP..end).step_by(STEP) {
        let piece = start.with_addr(at).cast();
        // SAFETY: to read what is mapped changes nothing that a reference could see.
        let mapped = unsafe { madvise(piece, STEP, Advice::LinuxPopulateRead) };
        // Kernels before 5.14 cannot, and it is no more than early.
        let _ = mapped;
    }
}
