//! A machine on the model, and what it says: what every test here starts from.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kedge_firmware::{ARM64_V0, builtin};
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Hypervisor, SystemEvent};
use kedge_hv_model::{Event, ModelHypervisor, Program, Step, Width, psci, release};
use kedge_ids::{Spi, VcpuId};
use kedge_vmm::smccc::Service;
use kedge_vmm::spec::{Boot, KernelFormat, MachineSpec};
use kedge_vmm::{
    BuildError, Ended, Handle, Machine, Restoration, RestoreError, RunError, SerialInput, Stopper,
    Surroundings,
};
use tempfile::NamedTempFile;

/// The serial port: its first register is the one for data.
pub(crate) const SERIAL: u64 = 0x4000_2000;
/// Its register that says which interrupts are wanted.
const IER: u64 = SERIAL + 1;
/// An address that nobody owns.
pub(crate) const NOWHERE: u64 = 0x7000_0000;
/// Where a flat kernel is entered: the address of a program's first step.
pub(crate) const ENTRY: u64 = 0x8008_0000;

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The interrupt at `offset` from the first.
pub(crate) fn spi(offset: u32) -> Spi {
    Spi::from_offset(offset).unwrap()
}

/// Sends `text`.
pub(crate) fn print(text: &str) -> Vec<Step> {
    text.bytes().flat_map(|byte| Step::store(SERIAL, Width::Byte, byte.into())).collect()
}

/// Sends the low byte of register `reg`.
pub(crate) fn print_reg(reg: u8) -> Vec<Step> {
    vec![Step::Store { reg, address: SERIAL, width: Width::Byte }]
}

/// Receives `count` bytes, there or not, and sends each back.
pub(crate) fn echo(count: usize) -> Vec<Step> {
    let read = Step::Load { reg: 9, address: SERIAL, width: Width::Byte };
    (0..count).flat_map(|_| [vec![read.clone()], print_reg(9)].concat()).collect()
}

/// Wants an interrupt for input.
pub(crate) fn want_input() -> Vec<Step> {
    Step::store(IER, Width::Byte, 1).to_vec()
}

/// Waits for that interrupt.
pub(crate) fn await_input() -> Vec<Step> {
    vec![Step::AwaitIrq(spi(0))]
}

/// Calls the firmware.
pub(crate) fn call(function: u32, arguments: [u64; 3]) -> Vec<Step> {
    Step::call(function, arguments).to_vec()
}

/// Turns CPU `cpu` on.
pub(crate) fn turn_on(cpu: u64) -> Vec<Step> {
    call(psci::CPU_ON, [cpu, ENTRY, 0])
}

/// Powers off.
pub(crate) fn off() -> Vec<Step> {
    call(psci::SYSTEM_OFF, [0; 3])
}

/// Resets.
pub(crate) fn reset() -> Vec<Step> {
    call(psci::SYSTEM_RESET, [0; 3])
}

/// A program of these steps.
pub(crate) fn program(parts: &[Vec<Step>]) -> Program {
    Program::new(parts.concat())
}

/// A machine to be.
pub(crate) struct Guest {
    pub(crate) spec: MachineSpec,
    hypervisor: ModelHypervisor,
    services: Box<dyn FnOnce(Surroundings) -> Surroundings>,
    wrap: Wrap,
    kernel: NamedTempFile,
}

/// Puts something between a machine and its hypervisor.
type Wrap = Box<dyn FnOnce(Arc<ModelHypervisor>) -> Arc<dyn Hypervisor>>;

impl Guest {
    /// One vCPU on Linux 6.12 that runs a flat kernel.
    pub(crate) fn new(programs: &[Program]) -> Self {
        Self::on("6.12", programs)
    }

    /// The same on another release, with the profile for the oldest; a vCPU for each
    /// program.
    pub(crate) fn on(name: &str, programs: &[Program]) -> Self {
        let hypervisor = ModelHypervisor::new(release(name).unwrap()).unwrap();
        let mut guest = Self::over(hypervisor);
        for (id, program) in (0..).zip(programs) {
            guest.hypervisor = guest.hypervisor.with_program(VcpuId(id), program.clone());
        }
        guest.spec.cpus = u32::try_from(programs.len()).unwrap();
        if name == "5.10" {
            guest.spec.guest_abi = builtin(ARM64_V0).unwrap();
        }
        guest
    }

    /// One vCPU that does nothing, on any host.
    pub(crate) fn over(hypervisor: ModelHypervisor) -> Self {
        let kernel = NamedTempFile::new().unwrap();
        kernel.as_file().write_all(b"flat").unwrap();
        let kernel_format = KernelFormat::Flat;
        let mut spec = MachineSpec::new(Boot { kernel_format, ..Boot::new(kernel.path()) });
        spec.memory = 2 << 20;
        let services = Box::new(|around| around);
        Self { spec, hypervisor, services, wrap: Box::new(|model| model), kernel }
    }

    /// The first vCPU's program in the life after.
    pub(crate) fn then(mut self, program: Program) -> Self {
        self.hypervisor = self.hypervisor.with_program(VcpuId(0), program);
        self
    }

    /// With a changed specification.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut MachineSpec)) -> Self {
        change(&mut self.spec);
        self
    }

    /// With a service for firmware calls.
    pub(crate) fn with_service(mut self, service: impl Service + 'static) -> Self {
        let before = self.services;
        self.services = Box::new(|around| before(around).with_service(service));
        self
    }

    /// In other surroundings.
    pub(crate) fn around(
        mut self,
        change: impl FnOnce(Surroundings) -> Surroundings + 'static,
    ) -> Self {
        let before = self.services;
        self.services = Box::new(|around| change(before(around)));
        self
    }

    /// On what `wrap` makes of the model.
    pub(crate) fn watched<H: Hypervisor + 'static>(
        mut self,
        wrap: impl FnOnce(Arc<ModelHypervisor>) -> Arc<H> + 'static,
    ) -> Self {
        self.wrap = Box::new(|model| wrap(model));
        self
    }

    /// Builds it.
    pub(crate) fn build(self) -> Result<Built, BuildError> {
        let (screen, panics) = (Screen::default(), Arc::<Mutex<Vec<String>>>::default());
        let heard = Arc::clone(&panics);
        let surroundings = Surroundings::new(screen.clone())
            .on_panic(move |line| heard.lock().unwrap().push(line.to_owned()));
        let surroundings = (self.services)(surroundings);
        let hypervisor = Arc::new(self.hypervisor);
        let host = (self.wrap)(Arc::clone(&hypervisor));
        let machine = Machine::build(self.spec, host, surroundings)?;
        Ok(Built { machine, hypervisor, screen, panics, kernel: self.kernel })
    }

    /// Restores it from `restoration`, instead of building it.
    pub(crate) fn restore(self, restoration: Restoration<'_>) -> Result<Built, RestoreError> {
        let (screen, panics) = (Screen::default(), Arc::default());
        let surroundings = (self.services)(Surroundings::new(screen.clone()));
        let hypervisor = Arc::new(self.hypervisor);
        let host = (self.wrap)(Arc::clone(&hypervisor));
        let machine = Machine::restore(restoration, host, surroundings)?;
        Ok(Built { machine, hypervisor, screen, panics, kernel: self.kernel })
    }

    /// Builds and starts it.
    pub(crate) fn start(self) -> Running {
        self.build().unwrap().start()
    }

    /// Builds it and runs it to its end.
    pub(crate) fn run(self) -> Finished {
        self.start().end()
    }
}

/// A machine that could run.
pub(crate) struct Built {
    pub(crate) machine: Machine,
    hypervisor: Arc<ModelHypervisor>,
    screen: Screen,
    panics: Arc<Mutex<Vec<String>>>,
    kernel: NamedTempFile,
}

impl Built {
    /// Runs it on a thread of its own.
    pub(crate) fn start(self) -> Running {
        let Self { mut machine, hypervisor, screen, panics, kernel } = self;
        let (stopper, handle, input) =
            (machine.stopper(), machine.handle(), machine.serial_input());
        let thread = thread::spawn(move || {
            let ended = machine.run();
            (ended, machine)
        });
        Running { thread, stopper, handle, input, hypervisor, screen, panics, _kernel: kernel }
    }
}

/// A machine that runs.
pub(crate) struct Running {
    thread: JoinHandle<(Result<Ended, RunError>, Machine)>,
    pub(crate) stopper: Stopper,
    pub(crate) handle: Handle,
    pub(crate) input: SerialInput,
    pub(crate) hypervisor: Arc<ModelHypervisor>,
    pub(crate) screen: Screen,
    panics: Arc<Mutex<Vec<String>>>,
    _kernel: NamedTempFile,
}

impl Running {
    /// Waits until the guest has sent just `text`.
    pub(crate) fn says(&self, text: impl AsRef<[u8]>) {
        self.screen.wait(|said| said == text.as_ref());
    }

    /// Types on the serial port.
    pub(crate) fn types(&self, bytes: &[u8]) {
        self.input.send(bytes).unwrap();
    }

    /// Stops it and waits for its end.
    pub(crate) fn stop(self) -> Finished {
        self.stopper.stop();
        self.end()
    }

    /// Waits for its end; one that does not end is stopped, which no test expects.
    pub(crate) fn end(self) -> Finished {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.thread.is_finished() && std::time::Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        self.stopper.stop();
        let (ended, machine) = self.thread.join().unwrap();
        let panics = self.panics.lock().unwrap().clone();
        let events = self.hypervisor.trace().events();
        Finished { ended, said: self.screen.bytes(), panics, events, machine }
    }
}

/// How it went.
pub(crate) struct Finished {
    pub(crate) ended: Result<Ended, RunError>,
    pub(crate) said: Vec<u8>,
    pub(crate) panics: Vec<String>,
    pub(crate) events: Vec<Event>,
    pub(crate) machine: Machine,
}

impl Finished {
    /// What the guest said, and how it ended.
    pub(crate) fn outcome(&self) -> (&str, Ended) {
        (std::str::from_utf8(&self.said).unwrap(), *self.ended.as_ref().unwrap())
    }

    /// What the guest's loads from devices gave it.
    pub(crate) fn loaded(&self) -> Vec<u64> {
        let value = |event: &Event| match *event {
            Event::Loaded { value, .. } => Some(value),
            Event::Aborted { .. } => None,
        };
        self.events.iter().filter_map(value).collect()
    }
}

/// What a guest has sent.
#[derive(Clone, Default)]
pub(crate) struct Screen(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Screen {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until it is as `wanted`.
    pub(crate) fn wait(&self, wanted: impl Fn(&[u8]) -> bool) {
        let said = self.0.0.lock().unwrap();
        let (said, waited) =
            self.0.1.wait_timeout_while(said, PATIENCE, |said| !wanted(said)).unwrap();
        assert!(!waited.timed_out(), "the guest said {:?}", String::from_utf8_lossy(&said));
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().extend(bytes);
        self.0.1.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The step that reports `event`, whatever the firmware would do.
pub(crate) fn event(event: SystemEvent) -> Vec<Step> {
    vec![Step::Event(event)]
}

/// How often the doorbell of the transport `index` was rung.
pub(crate) fn notify_register(index: u64) -> GuestAddress {
    GuestAddress(0x4000_3050 + index * 0x1000)
}
