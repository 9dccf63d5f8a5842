//! Gives a guest a device of one's own:
//! `own_device KERNEL [COMMAND LINE]` repeats what the guest says of it.

mod tally;

use std::io;
use std::sync::Arc;

use kedge_hv_kvm::Kvm;
use kedge_vmm::diag::{Trouble, report};
use kedge_vmm::mmio::OwnDevice;
use kedge_vmm::spec::{Boot, MachineSpec};
use kedge_vmm::{Machine, Surroundings};

use tally::Tally;

fn run() -> Result<(), Trouble> {
    let mut words = std::env::args().skip(1);
    let mut boot = Boot::new(words.next().unwrap_or_default());
    boot.cmdline = words.next().unwrap_or_default();

    // A device is made whenever the machine is built: once more after a reset.
    let surroundings = Surroundings::new(io::stdout())
        .with_device("tally", |wiring| Ok(OwnDevice::with_state(Tally::new(wiring.irq))));
    let kvm = Kvm::open().map_err(Trouble::new)?;
    let mut machine = Machine::build(MachineSpec::new(boot), Arc::new(kvm), surroundings)
        .map_err(Trouble::new)?;
    machine.run().map_err(Trouble::new)?;
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{}", report(&error));
        std::process::exit(1);
    }
}
