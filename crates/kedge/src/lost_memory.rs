//! The process's handler of SIGBUS: guest RAM is a file's, and others can take that away.
//! The machine then ends with an error; the process goes on to say so.

// UNSAFETY: what a handler of signals may do is up to who registers it.
#![expect(unsafe_code)]

use std::io;
use std::sync::Arc;

use kedge_vmm::Lost;
use libc::{SIG_DFL, SIGBUS, siginfo_t};
use signal_hook_registry::register_sigaction;

/// From now on, asks `lost` of each SIGBUS. One that is not of its memory ends the process,
/// as it would have.
///
/// # Errors
/// The host refuses.
pub(crate) fn guard(lost: Arc<Lost>) -> io::Result<()> {
    // Rust's own handler would put the default back before ours is asked.
    set_default();
    let handler = move |info: &siginfo_t| {
        // SAFETY: the kernel's own SIGBUS comes with an address, and only of that is it used.
        let address = unsafe { info.si_addr() };
        let is_fault = info.si_code > 0;
        if !(is_fault && lost.replace(address.addr())) {
            end();
        }
    };
    // SAFETY: the handler takes no lock, no memory, and cannot panic: see `Lost::replace`;
    // sigaction(2) may be called in a handler. signal-hook-registry keeps errno.
    unsafe { register_sigaction(SIGBUS, handler) }.map(drop)
}

/// Ends the process by the signal, once its handler has returned.
fn end() {
    set_default();
    // SAFETY: the signal is held back while it is handled; raise(3) may be called meanwhile.
    let raised = unsafe { libc::raise(SIGBUS) };
    // If it was a fault, it is raised again anyway.
    let _ = raised;
}

fn set_default() {
    // SAFETY: the default action is the kernel's, and may be set at any time.
    let before = unsafe { libc::signal(SIGBUS, SIG_DFL) };
    // There is such a signal.
    let _ = before;
}
