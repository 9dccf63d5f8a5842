//! Gives a guest a disk of one's own, which lets it write to what stays as it is:
//! `own_disk KERNEL INITRD COMMAND_LINE FILE` says how many sectors the guest has written.

mod overlay;

use std::io;
use std::path::Path;
use std::sync::Arc;

use kedge_hv_kvm::Kvm;
use kedge_vmm::diag::{Fix, Trouble, report};
use kedge_vmm::disk::BlockConfig;
use kedge_vmm::spec::{Boot, MachineSpec};
use kedge_vmm::{Machine, Surroundings};

use overlay::Overlay;

/// The file below cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {path}")]
struct NoFile {
    path: String,
    source: io::Error,
}

impl Fix for NoFile {
    fn fix(&self) -> Option<String> {
        Some("name a disk image that this user may read".to_owned())
    }
}

fn run() -> Result<(), Trouble> {
    let mut words = std::env::args().skip(1);
    let mut boot = Boot::new(words.next().unwrap_or_default());
    boot.initrd = words.next().map(Into::into);
    boot.cmdline = words.next().unwrap_or_default();
    let path = words.next().unwrap_or_default();

    let overlay = Overlay::new(Path::new(&path));
    let overlay =
        Arc::new(overlay.map_err(|source| Trouble::new(NoFile { path: path.clone(), source }))?);
    let mut spec = MachineSpec::new(boot);
    spec.memory = 192 << 20;
    let disk = BlockConfig::new("scratch", path).on(Arc::<Overlay>::clone(&overlay));
    spec.devices.push(Box::new(disk));

    let kvm = Kvm::open().map_err(Trouble::new)?;
    let mut machine = Machine::build(spec, Arc::new(kvm), Surroundings::new(io::stdout()))
        .map_err(Trouble::new)?;
    machine.run().map_err(Trouble::new)?;

    println!("the guest wrote {} sectors", overlay.sectors());
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{}", report(&error));
        std::process::exit(1);
    }
}
