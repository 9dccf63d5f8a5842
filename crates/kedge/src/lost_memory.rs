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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use kedge_guest_memory::{Bytes, GuestAddress, GuestMemory, GuestRange, map_file_private};

    use super::*;

    const RAM: GuestAddress = GuestAddress(0x8000_0000);
    const LENGTH: u64 = 1 << 20;

    /// In a process of its own, which may end by the signal.
    fn alone(test: &str) -> Option<i32> {
        const ALONE: &str = "KEDGE_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return None;
        }
        let program = std::env::current_exe().unwrap();
        let run = |words: &[&OsStr]| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]).args(["--exact", &format!("lost_memory::tests::{test}")]);
            command.env(ALONE, "1").output()
        };
        let program = program.as_os_str();
        // Under user-mode emulation the kernel does not know the program's format.
        let output = run(&[program]).or_else(|_| run(&["qemu-aarch64".as_ref(), program]));
        let status = output.unwrap().status;
        Some(status.signal().or(status.code()).unwrap())
    }

    /// Memory whose file is gone.
    fn gone() -> GuestMemory {
        let file = tempfile::tempfile().unwrap();
        file.set_len(LENGTH).unwrap();
        let file = Arc::new(file);
        let memory = map_file_private(&[GuestRange { start: RAM, size: LENGTH }], &file).unwrap();
        file.set_len(0).unwrap();
        memory
    }

    /// Touches memory that is gone, while `watched` is guarded.
    fn touch(touched: &GuestMemory, watched: &GuestMemory) {
        let lost = Arc::new(Lost::new(watched).unwrap());
        guard(Arc::clone(&lost)).unwrap();
        let at = GuestAddress(RAM.0 + 0x5008);
        assert_eq!(touched.read_obj::<u64>(at).unwrap(), 0);
        assert_eq!(lost.first(), Some(at));
        // Another page of it, by another fault.
        touched.write_obj(7_u64, RAM).unwrap();
        assert_eq!((touched.read_obj::<u64>(RAM).unwrap(), lost.first()), (7, Some(at)));
    }

    #[test]
    fn a_process_outlives_pages_that_are_gone() {
        match alone("a_process_outlives_pages_that_are_gone") {
            Some(status) => assert_eq!(status, 0),
            None => {
                let memory = gone();
                touch(&memory, &memory);
            }
        }
    }

    #[test]
    fn a_fault_elsewhere_still_ends_the_process() {
        match alone("a_fault_elsewhere_still_ends_the_process") {
            Some(status) => assert_eq!(status, SIGBUS),
            None => touch(&gone(), &gone()),
        }
    }
}
