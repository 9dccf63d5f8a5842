//! What a machine takes from the process around it: outputs, entropy and time
//! are parameters, so that a test can choose them.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use kedge_arch::smccc::{Service, record};
use kedge_firmware::ServiceRecord;

/// What hears of a `Kernel panic` line on the guest's console.
pub type PanicListener = Box<dyn FnMut(&str) + Send>;

/// Fills a buffer with random bytes.
pub type Entropy = fn(&mut [u8]) -> io::Result<()>;

/// The process around a machine.
#[derive(Clone)]
pub struct Surroundings {
    /// Where the serial port's output goes that no file takes.
    pub(crate) output: Arc<Mutex<Box<dyn Write + Send>>>,
    pub(crate) on_panic: Arc<Mutex<PanicListener>>,
    pub(crate) entropy: Entropy,
    pub(crate) services: Vec<Arc<dyn Service>>,
}

impl Surroundings {
    /// Surroundings with the serial port's output at `output`, the host's entropy,
    /// and nobody to hear of a panic.
    pub fn new(output: impl Write + Send + 'static) -> Self {
        Self {
            output: Arc::new(Mutex::new(Box::new(output))),
            on_panic: Arc::new(Mutex::new(Box::new(|_| {}))),
            entropy: host_entropy,
            services: Vec::new(),
        }
    }

    /// With `listener` to hear of each line of a panic.
    #[must_use]
    pub fn on_panic(mut self, listener: impl FnMut(&str) + Send + 'static) -> Self {
        self.on_panic = Arc::new(Mutex::new(Box::new(listener)));
        self
    }

    /// With another source of the seeds in the device tree, and of what the guest gets
    /// where the machine answers its calls for entropy.
    #[must_use]
    pub fn with_entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = entropy;
        self
    }

    /// With `service` to answer its functions, which the hypervisor then leaves to it,
    /// whatever it would have answered itself. That takes Linux 6.4.
    ///
    /// What a service answers is part of what the guest was promised: it is on record as
    /// what the guest was born with, and a program without it cannot restore the guest.
    #[must_use]
    pub fn with_service(mut self, service: impl Service + 'static) -> Self {
        self.services.push(Arc::new(service));
        self
    }

    /// What is on record of its services.
    pub(crate) fn services_on_record(&self) -> Vec<ServiceRecord> {
        self.services.iter().map(|service| record(service.as_ref())).collect()
    }

    /// The same for a guest that was born with these services, and with no others.
    pub(crate) fn with_only(&self, born: &[ServiceRecord]) -> Self {
        let mut only = self.clone();
        only.services.retain(|service| born.contains(&record(service.as_ref())));
        only
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings").field("services", &self.services).finish_non_exhaustive()
    }
}

fn host_entropy(buffer: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < buffer.len() {
        filled +=
            rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}
