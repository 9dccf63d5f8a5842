//! Saves a guest in the middle of its work, and lets it go on from there:
//! `snapshot save KERNEL STATE MEMORY [PROFILE]`, then `snapshot load STATE MEMORY`, as
//! often as one likes. Either repeats what the guest says in a second.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kedge_diag::{Trouble, report};
use kedge_firmware::{ARM64_V1, builtin};
use kedge_hv_kvm::Kvm;
use kedge_saved_state::Snapshot;
use kedge_vmm::spec::{Boot, MachineSpec};
use kedge_vmm::{Clock, ControlError, Handle, Machine, Restoration, SaveOrder, Surroundings};

const A_SECOND: Duration = Duration::from_secs(1);

/// Runs `machine` while another thread does `act` with it.
fn run_while<T: Send + 'static>(
    mut machine: Machine,
    act: impl FnOnce(&Handle) -> Result<T, ControlError> + Send + 'static,
) -> Result<T, Trouble> {
    let handle = machine.handle();
    let acting = thread::spawn(move || {
        let done = act(&handle);
        handle.stop();
        done
    });
    machine.run().map_err(Trouble::new)?;
    let done = acting.join().map_err(|_| Trouble::new(ControlError::Ended))?;
    done.map_err(Trouble::new)
}

fn save(kernel: &str, order: SaveOrder, profile: &str) -> Result<(), Trouble> {
    let mut spec = MachineSpec::new(Boot::new(kernel));
    spec.guest_abi = builtin(profile).unwrap_or(spec.guest_abi);
    let kvm = Arc::new(Kvm::open().map_err(Trouble::new)?);
    let surroundings = Surroundings::new(io::stdout());
    let machine = Machine::build(spec, kvm, surroundings).map_err(Trouble::new)?;
    let saved = run_while(machine, |handle| {
        thread::sleep(A_SECOND);
        handle.pause()?;
        handle.save(order)
    })?;
    println!("\nsaved {} with {} of {} bytes", saved.id, saved.data, saved.memory);
    Ok(())
}

fn load(state: &Path, memory: &Path) -> Result<(), Trouble> {
    let snapshot = Snapshot::open(state, memory).map_err(Trouble::new)?;
    let kvm = Arc::new(Kvm::open().map_err(Trouble::new)?);
    let restoration = Restoration::of(&snapshot).map_err(Trouble::new)?;
    let surroundings = Surroundings::new(io::stdout());
    let machine = Machine::restore(restoration, kvm, surroundings).map_err(Trouble::new)?;
    run_while(machine, |handle| {
        handle.resume(Clock::default())?;
        thread::sleep(A_SECOND);
        Ok(())
    })?;
    println!("\nwent on from {}", snapshot.id());
    Ok(())
}

fn run() -> Result<(), Trouble> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["save", kernel, state, memory] => save(kernel, SaveOrder::new(state, memory), ARM64_V1),
        ["save", kernel, state, memory, profile] => {
            save(kernel, SaveOrder::new(state, memory), profile)
        }
        ["load", state, memory] => load(state.as_ref(), memory.as_ref()),
        _ => {
            let usage = "usage: snapshot save KERNEL STATE MEMORY [PROFILE] | load STATE MEMORY";
            writeln!(io::stderr(), "{usage}").map_err(|_| Trouble::new(ControlError::Ended))
        }
    }
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{}", report(&error));
        std::process::exit(1);
    }
}
