//! The kedge command. It has two doors: `kedge run`, with flags of its own, and
//! at the top level the command line of Firecracker, whose users' clients and
//! platforms find what they know. Behind both is one machine.
#![deny(unsafe_code)]

mod abi;
mod api;
mod awaited;
mod boot_timer;
mod clone;
mod columns;
mod companions;
mod completion;
mod console;
mod devices;
mod events;
mod firecracker;
mod flags;
mod guest_abi;
mod host_notes;
mod hypervisor;
mod logging;
mod lost_memory;
mod machine;
mod machines;
mod man;
mod metering;
mod output;
mod ready;
mod remote;
mod report;
mod run;
mod size;
mod snapshot;
mod status;
mod usage;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use firecracker::Name;
use status::{Failure, Status};

/// musl's allocator gives each buffer of some KiB back to the kernel when it is freed, and
/// asks for it again: a tenth of what it costs to start a machine.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    open_what_is_allowed();
    let words: Vec<OsString> = std::env::args_os().collect();
    let status = enter(&words).unwrap_or_else(|Failure { error, status }| {
        // Where stderr is gone, nobody can be told.
        let _ = writeln!(std::io::stderr(), "{}", kedge_diag::report(&error));
        status
    });
    status.into()
}

/// Has this process open as many files as its host allows it, in place of the 1024 that are
/// usual: each connection of a guest's over vsock, and each client of the API, is one.
fn open_what_is_allowed() {
    let limit = getrlimit(Resource::Nofile);
    // Where it is refused, those that are too many are.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Goes through the door that the command line names.
fn enter(words: &[OsString]) -> Result<Status, Failure> {
    let program = words.first().map(Path::new).and_then(Path::file_name);
    if program.is_some_and(|name| name == "firecracker") {
        return firecracker::enter(Name::Firecracker, words);
    }
    let Some(rest @ [first, ..]) = words.get(1..) else {
        firecracker::enter(Name::Kedge, &["kedge".into(), "--help".into()])?;
        return Ok(Status::USAGE);
    };
    match first.to_str() {
        Some("run") => run::enter(rest),
        Some("abi") => abi::enter(rest),
        Some("clone") => clone::enter(rest),
        Some("snapshot") => snapshot::enter(rest),
        Some("completion") => completion::enter(rest),
        Some("man") => man::enter(rest),
        _ => {
            let remote = remote::enter(rest);
            remote.unwrap_or_else(|| firecracker::enter(Name::Kedge, words))
        }
    }
}
