//! What a machine leaves behind: nothing, at whatever step it could not be built.
//!
//! One test in a process of its own, since it counts the process's descriptors
//! and threads.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faulty;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use expect_test::expect;
use kedge_devices::virtio::rng::RngConfig;
use kedge_diag::report;
use kedge_hv::VcpuFeatures;
use kedge_hv_model::{ModelHypervisor, Program, Step, V5_10, V6_12, Width, psci};
use kedge_ids::VcpuId;
use kedge_saved_state::Snapshot;
use kedge_vmm::spec::{Boot, KernelFormat, MachineSpec};
use kedge_vmm::{Ended, Machine, Restoration, SaveOrder, Surroundings};
use tempfile::{NamedTempFile, TempDir};

use faulty::Faulty;

/// Calls that building the machine below takes, and a few more.
const CALLS: usize = 200;

/// Entries of a folder of this process's.
fn count(folder: &str) -> usize {
    fs::read_dir(format!("/proc/self/{folder}")).unwrap().count()
}

fn traces() -> (usize, usize) {
    (count("fd"), count("task"))
}

/// The traces, once they are `expected` or will not be: the kernel lists a thread
/// for a moment longer than it takes to join it.
fn settled(expected: (usize, usize)) -> (usize, usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while traces() != expected && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
    traces()
}

fn spec(kernel: &NamedTempFile) -> MachineSpec {
    let boot = Boot { kernel_format: KernelFormat::Flat, ..Boot::new(kernel.path()) };
    let mut spec = MachineSpec::new(boot);
    spec.cpus = 4;
    spec.cpu_features = VcpuFeatures::SVE | VcpuFeatures::PMU_V3;
    spec.devices.push(Box::new(RngConfig::default()));
    spec
}

/// Whether the machine can be built where the hypervisor refuses its call number
/// `refused`, and what is said where it cannot.
fn build(kernel: &NamedTempFile, refused: usize) -> Result<(Machine, Arc<Faulty>), String> {
    build_with(kernel, refused, Program::new(Step::call(psci::SYSTEM_OFF, [0; 3])))
}

/// The same with a guest that runs `program`.
fn build_with(
    kernel: &NamedTempFile,
    refused: usize,
    program: Program,
) -> Result<(Machine, Arc<Faulty>), String> {
    let model = ModelHypervisor::new(&V6_12).unwrap().with_program(VcpuId(0), program);
    let hypervisor = Arc::new(Faulty::new(model, refused));
    let surroundings = Surroundings::new(io::sink());
    let machine = Machine::build(spec(kernel), Arc::<Faulty>::clone(&hypervisor), surroundings);
    machine.map(|machine| (machine, hypervisor)).map_err(|error| report(&error))
}

/// Pauses a guest in the middle of its accesses and ends it there.
fn stop_while_paused(kernel: &NamedTempFile) {
    /// Nobody's.
    const NOWHERE: u64 = 0x7000_0000;
    let load = Step::Load { reg: 0, address: NOWHERE, width: Width::Word };
    let program = Program::new([load, Step::Jump(-1)]);
    let (mut machine, hypervisor) = build_with(kernel, usize::MAX, program).unwrap();
    let handle = machine.handle();
    let running = thread::spawn(move || machine.run().unwrap());
    handle.pause().unwrap();
    assert_eq!(hypervisor.open_accesses(), 0);
    assert_eq!(hypervisor.clock_changes().len(), 1);
    handle.stop();
    assert_eq!(running.join().unwrap(), Ended::Stopped);
}

/// A guest that never leaves its first step.
fn spinning() -> Program {
    Program::new([Step::Jump(0)])
}

/// Saves a machine; its two files.
fn saved(kernel: &NamedTempFile, folder: &TempDir) -> [PathBuf; 2] {
    let files = ["state", "memory"].map(|name| folder.path().join(name));
    let (mut machine, _) = build_with(kernel, usize::MAX, spinning()).unwrap();
    let handle = machine.handle();
    let running = thread::spawn(move || machine.run().unwrap());
    handle.pause().unwrap();
    handle.save(SaveOrder::new(&files[0], &files[1])).unwrap();
    handle.stop();
    assert_eq!(running.join().unwrap(), Ended::Stopped);
    files
}

/// Whether the machine can be restored where the hypervisor refuses its call number
/// `refused`; how many it took.
fn restore([state, memory]: &[PathBuf; 2], refused: usize) -> Result<usize, String> {
    let snapshot = Snapshot::open(state, memory).unwrap();
    let model = ModelHypervisor::new(&V6_12).unwrap().with_program(VcpuId(0), spinning());
    let hypervisor = Arc::new(Faulty::new(model, refused));
    let restoration = Restoration::of(&snapshot).unwrap();
    let surroundings = Surroundings::new(io::sink());
    let host = Arc::<Faulty>::clone(&hypervisor);
    match Machine::restore(restoration, host, surroundings) {
        Ok(_) => Ok(hypervisor.calls()),
        Err(error) => Err(report(&error)),
    }
}

/// Saves a machine, and restores it, and where some call is refused does not: nothing is
/// left of any.
fn save_and_restore(kernel: &NamedTempFile, before: (usize, usize)) {
    /// Of the calls that a restore makes, one in so many is refused.
    const STEP: usize = 23;
    let folder = TempDir::new().unwrap();
    let files = saved(kernel, &folder);
    assert_eq!(settled(before), before);
    let calls = restore(&files, usize::MAX).unwrap();
    assert_eq!(settled(before), before);
    for refused in (0..calls).step_by(STEP) {
        let outcome = restore(&files, refused);
        assert_eq!(settled(before), before, "call {refused} was refused: {outcome:?}");
        assert!(outcome.is_err(), "call {refused} was refused");
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), files.len());
}

#[test]
fn nothing_is_left_of_a_machine_that_ended_or_was_never_built() {
    let kernel = NamedTempFile::new().unwrap();
    fs::write(&kernel, "flat").unwrap();
    let before = traces();

    let (mut machine, hypervisor) = build(&kernel, usize::MAX).unwrap();
    let calls = hypervisor.calls();
    assert!(calls < CALLS);
    assert_eq!(machine.run().unwrap(), Ended::Off);
    drop((machine, hypervisor));
    assert_eq!(settled(before), before);

    stop_while_paused(&kernel);
    assert_eq!(settled(before), before);
    save_and_restore(&kernel, before);

    let mut errors = Vec::new();
    for refused in 0..calls {
        let outcome = build(&kernel, refused).map(drop);
        assert_eq!(settled(before), before, "call {refused} was refused: {outcome:?}");
        errors.extend(outcome.err());
    }
    assert_eq!(errors.len(), calls);
    // What the guest is promised and does not get is told as that.
    errors.retain(|error| !error.contains("os error 12"));
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          system_suspend: yes wanted, no offered: the kernel cannot give it
          fix: run the guest on Linux 5.19 or later, or with a profile without it, or with `--guest-abi host`"#]].assert_eq(&errors.join("\n"));

    let old = Arc::new(Faulty::new(ModelHypervisor::new(&V5_10).unwrap(), usize::MAX));
    let surroundings = Surroundings::new(io::sink());
    let machine = Machine::build(spec(&kernel), Arc::<Faulty>::clone(&old), surroundings);
    assert!(report(&machine.unwrap_err()).contains("guest ABI profile `arm64-v1`"));
    assert_eq!(old.maps(), 0, "a profile is refused before memory is mapped");
    drop(old);
    assert_eq!(settled(before), before);
}
