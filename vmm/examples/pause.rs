//! Lets a guest stand still in the middle of its work:
//! `pause KERNEL MILLISECONDS stop|advance [PROFILE]` does so once the guest has said
//! something, ends it once it has gone on for a second, and repeats what it said.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use kedge_diag::{Trouble, report};
use kedge_firmware::{ARM64_V1, builtin};
use kedge_hv_kvm::Kvm;
use kedge_vmm::spec::{Boot, MachineSpec};
use kedge_vmm::{Clock, ControlError, Handle, Machine, Surroundings};

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

/// What the guest says in `duration`.
fn said_in(duration: Duration, output: &Receiver<Vec<u8>>) -> String {
    thread::sleep(duration);
    let bytes: Vec<u8> = output.try_iter().flatten().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Pauses the guest behind `handle`; what it said until then, meanwhile and afterwards.
fn pause(
    handle: &Handle,
    output: &Receiver<Vec<u8>>,
    duration: Duration,
    clock: Clock,
) -> Result<[String; 3], ControlError> {
    let first = match output.recv_timeout(Duration::from_secs(20)) {
        Ok(byte) => String::from_utf8_lossy(&byte).into_owned(),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => String::new(),
    };
    handle.pause()?;
    let before = first + &said_in(Duration::ZERO, output);
    let meanwhile = said_in(duration, output);
    handle.resume(clock)?;
    Ok([before, meanwhile, said_in(Duration::from_secs(1), output)])
}

fn run() -> Result<(), Trouble> {
    let mut words = std::env::args().skip(1);
    let mut spec = MachineSpec::new(Boot::new(words.next().unwrap_or_default()));
    let milliseconds = words.next().and_then(|word| word.parse().ok()).unwrap_or(1000);
    let clock = match words.next().as_deref() {
        Some("advance") => Clock::Advance,
        _ => Clock::Stop,
    };
    let profile = words.next().unwrap_or_else(|| ARM64_V1.to_owned());
    spec.guest_abi = builtin(&profile).unwrap_or(spec.guest_abi);

    let (write, output) = channel();
    let kvm = Arc::new(Kvm::open().map_err(Trouble::new)?);
    let mut machine =
        Machine::build(spec, kvm, Surroundings::new(Forward(write))).map_err(Trouble::new)?;
    let handle = machine.handle();
    let asking = thread::spawn(move || {
        let said = pause(&handle, &output, Duration::from_millis(milliseconds), clock);
        handle.stop();
        said
    });
    let ended = machine.run().map_err(Trouble::new)?;
    let said = asking.join().map_err(|_| Trouble::new(ControlError::Ended))?;
    let [before, meanwhile, after] = said.map_err(Trouble::new)?;
    println!("before:\n{before}\nmeanwhile:\n{meanwhile}\nafter:\n{after}\nended: {ended:?}");
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{}", report(&error));
        std::process::exit(1);
    }
}
