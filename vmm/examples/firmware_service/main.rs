//! Gives a guest a firmware service of one's own:
//! `firmware_service KERNEL [COMMAND LINE]` says how many laps the guest has reported.

mod lap_counter;

use std::io;
use std::sync::Arc;

use kedge_diag::{Trouble, report};
use kedge_hv_kvm::Kvm;
use kedge_vmm::spec::{Boot, MachineSpec};
use kedge_vmm::{Machine, Surroundings};

use lap_counter::LapCounter;

fn run() -> Result<(), Trouble> {
    let mut words = std::env::args().skip(1);
    let mut boot = Boot::new(words.next().unwrap_or_default());
    boot.cmdline = words.next().unwrap_or_default();

    let counter = LapCounter::default();
    let surroundings = Surroundings::new(io::stdout()).with_service(counter.clone());
    let kvm = Kvm::open().map_err(Trouble::new)?;
    let mut machine = Machine::build(MachineSpec::new(boot), Arc::new(kvm), surroundings)
        .map_err(Trouble::new)?;
    machine.run().map_err(Trouble::new)?;

    println!("the guest reported {} laps", counter.laps());
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{}", report(&error));
        std::process::exit(1);
    }
}
