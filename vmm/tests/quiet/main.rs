//! A program that embeds a machine finds its process as it left it: nothing was printed, no
//! signal is caught that was not, nobody listens to the log, no thread is left.
//!
//! One test, in a process of its own: what it looks at is the process's.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kedge_hv_model::{ModelHypervisor, Program, Step, Width, release};
use kedge_vmm::saved_state::Snapshot;
use kedge_vmm::smccc::VcpuId;
use kedge_vmm::spec::{Boot, KernelFormat, MachineSpec};
use kedge_vmm::{Clock, ControlError, Handle, Machine, Restoration, SaveOrder, Surroundings};
use libtest_mimic::{Arguments, Trial};
use rustix::stdio;
use tempfile::{NamedTempFile, TempDir};

/// What of a process a library must leave alone.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    /// Which signals are caught, and which ignored.
    signals: Vec<String>,
    threads: usize,
    folder: PathBuf,
    log_is_heard: bool,
}

impl Process {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let of_signals = |line: &&str| line.starts_with("SigCgt") || line.starts_with("SigIgn");
        Self {
            signals: status.lines().filter(of_signals).map(str::to_owned).collect(),
            threads: fs::read_dir("/proc/self/task").unwrap().count(),
            folder: env::current_dir().unwrap(),
            log_is_heard: tracing::dispatcher::has_been_set(),
        }
    }
}

/// A guest that prints for ever, and now and then does what devices do not take.
fn hypervisor() -> Arc<ModelHypervisor> {
    let prints = Step::store(0x4000_2000, Width::Byte, u64::from(b'a'));
    let nowhere = Step::store(0x7000_0000, Width::Word, 1);
    let steps = [&prints[..], &nowhere[..], &[Step::Jump(-4)]].concat();
    let program = Program::new(steps).at(0x8008_0000);
    let model = ModelHypervisor::new(release("6.12").unwrap()).unwrap();
    Arc::new(model.with_program(VcpuId(0), program))
}

/// Runs `machine` while `act` asks things of it.
fn run(
    mut machine: Machine,
    act: impl FnOnce(&Handle) -> Result<(), ControlError> + Send + 'static,
) {
    let handle = machine.handle();
    let acting = thread::spawn(move || {
        let done = act(&handle);
        handle.stop();
        done
    });
    machine.run().unwrap();
    acting.join().unwrap().unwrap();
}

/// A machine built, run, paused, saved, restored and resumed; and one that cannot be built.
fn lives(folder: &Path, kernel: &Path) {
    let mut boot = Boot::new(kernel);
    boot.kernel_format = KernelFormat::Flat;
    let mut spec = MachineSpec::new(boot);
    spec.memory = 2 << 20;
    let machine = Machine::build(spec, hypervisor(), Surroundings::new(io::sink())).unwrap();
    let order = SaveOrder::new(folder.join("state"), folder.join("memory"));
    run(machine, |handle| {
        handle.pause()?;
        handle.save(order).map(drop)
    });
    let snapshot = Snapshot::open(&folder.join("state"), &folder.join("memory")).unwrap();
    let restoration = Restoration::of(&snapshot).unwrap();
    let machine = Machine::restore(restoration, hypervisor(), Surroundings::new(io::sink()));
    run(machine.unwrap(), |handle| handle.resume(Clock::default()));
    let nothing = MachineSpec::new(Boot::new("/nowhere"));
    assert!(Machine::build(nothing, hypervisor(), Surroundings::new(io::sink())).is_err());
}

fn a_machine_leaves_the_process_as_it_was_and_prints_nothing() {
    let (folder, kernel) = (TempDir::new().unwrap(), NamedTempFile::new().unwrap());
    kernel.as_file().write_all(b"flat").unwrap();
    let printed = folder.path().join("printed");
    let to = File::create(&printed).unwrap();
    let (out, err) =
        (rustix::io::dup(io::stdout()).unwrap(), rustix::io::dup(io::stderr()).unwrap());
    // The C library catches a signal of its own from the first thread on.
    thread::spawn(|| {}).join().unwrap();
    let (before, variables) = (Process::now(), env::vars_os().collect::<Vec<_>>());
    stdio::dup2_stdout(&to).unwrap();
    stdio::dup2_stderr(&to).unwrap();
    lives(folder.path(), kernel.path());
    stdio::dup2_stdout(out).unwrap();
    stdio::dup2_stderr(err).unwrap();
    // A thread that was waited for may be there for a moment more.
    let deadline = Instant::now() + Duration::from_secs(10);
    while Process::now() != before && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(Process::now(), before);
    assert!(env::vars_os().eq(variables), "the environment has changed");
    assert_eq!(fs::read_to_string(&printed).unwrap(), "");
    // The log was there to be heard.
    assert!(!before.log_is_heard);
}

fn main() {
    // First, while there are no threads of the harness.
    a_machine_leaves_the_process_as_it_was_and_prints_nothing();
    const NAME: &str = "a_machine_leaves_the_process_as_it_was_and_prints_nothing";
    let trial = Trial::test(NAME, || Ok(()));
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}
