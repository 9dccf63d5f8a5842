//! Boots a guest from a program of one's own and reads what it prints:
//! `serial_output KERNEL [INITRD [COMMAND LINE]]` counts the lines.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use kedge_diag::{Trouble, report};
use kedge_hv_kvm::Kvm;
use kedge_vmm::spec::{Boot, MachineSpec};
use kedge_vmm::{Machine, Surroundings};

/// A writer that hands what it is given to another thread.
struct Forward(Sender<Vec<u8>>);

impl Write for Forward {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn run() -> Result<(), Trouble> {
    let mut words = std::env::args().skip(1);
    let mut boot = Boot::new(words.next().unwrap_or_default());
    boot.initrd = words.next().map(Into::into);
    boot.cmdline = words.next().unwrap_or_else(|| "console=ttyS0".to_owned());

    let (output, serial) = channel();
    let reader = std::thread::spawn(move || {
        let bytes: Vec<u8> = serial.iter().flatten().collect();
        String::from_utf8_lossy(&bytes).lines().count()
    });

    let kvm = Kvm::open().map_err(Trouble::new)?;
    let surroundings = Surroundings::new(Forward(output));
    let mut machine = Machine::build(MachineSpec::new(boot), Arc::new(kvm), surroundings)
        .map_err(Trouble::new)?;
    let ended = machine.run().map_err(Trouble::new)?;
    drop(machine);

    println!("the guest printed {} lines and ended: {ended:?}", reader.join().unwrap_or(0));
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{}", report(&error));
        std::process::exit(1);
    }
}
