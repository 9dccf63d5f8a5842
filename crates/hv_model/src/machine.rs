//! What a model machine is made of, and the checks that its calls share.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kedge_guest_memory::GuestAddress;
use kedge_hv::{GicConfig, GicVersion, HvError, Msi, VmConfig};
use kedge_ids::{Spi, usize_from};
use vmm_sys_util::epoll::{Epoll, EpollEvent};
use vmm_sys_util::eventfd::EventFd;

use crate::hypervisor::Shared;
use crate::refusal::{Refusal, refuse};
use crate::release::Ability;
use crate::state::{Counters, VmState};

/// SGIs and PPIs, which every vCPU has of its own.
const PRIVATE_INTERRUPTS: u32 = 32;

/// What a machine is, shared by its vCPUs and its interrupt controller.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) shared: Arc<Shared>,
    /// How many machines the hypervisor made before.
    pub(crate) number: usize,
    state: Mutex<VmState>,
}

impl Machine {
    pub(crate) fn new(
        shared: Arc<Shared>,
        config: &VmConfig,
        number: usize,
    ) -> Result<Self, HvError> {
        if !(32..=shared.host.limits.ipa_bits).contains(&config.ipa_bits) {
            return refuse(&shared.release, Refusal::AddressBits);
        }
        let imp_ids = match (config.writable_imp_ids, shared.release.writable_imp_ids) {
            (false, _) => Ability::Absent,
            (true, Ability::Present) => Ability::Present,
            (true, Ability::Absent) => return refuse(&shared.release, Refusal::ImpIds),
        };
        let state = VmState {
            ipa_bits: config.ipa_bits,
            slots: BTreeMap::new(),
            shared: BTreeMap::new(),
            features: None,
            vcpus: BTreeMap::new(),
            gic: None,
            ran: false,
            running: 0,
            dead: false,
            suspend: Ability::Absent,
            imp_ids,
            filter: Vec::new(),
            counters: Counters::Written,
            pmu_counters: None,
            hidden_events: Vec::new(),
            irqs: Vec::new(),
            triggers: Epoll::new().map_err(no_event)?,
            doorbells: Vec::new(),
            messages: Vec::new(),
        };
        Ok(Self { shared, number, state: Mutex::new(state) })
    }

    /// The state. A thread that panicked with it had a bug of its own; what it
    /// left is as good as what it found.
    pub(crate) fn lock(&self) -> MutexGuard<'_, VmState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn refuse<T>(&self, refusal: Refusal) -> Result<T, HvError> {
        refuse(&self.shared.release, refusal)
    }

    /// Takes the edges that events have raised, and wakes whoever may wait for
    /// them.
    pub(crate) fn take_irqs(&self, vm: &mut VmState) {
        let mut ready = vec![EpollEvent::default(); vm.irqs.len()];
        // Interrupted, or nothing to wait for: the next look finds them.
        let news = vm.triggers.wait(0, &mut ready).unwrap_or_default();
        for event in &ready[..news] {
            let irq = &mut vm.irqs[usize_from(event.data())];
            if irq.trigger.as_ref().is_some_and(|(trigger, _)| trigger.read().is_ok()) {
                irq.raise();
            }
        }
        if news > 0 {
            vm.wake_all();
        }
    }

    /// Edges of an interrupt since the machine was made.
    pub(crate) fn raised(&self, spi: Spi) -> u64 {
        let mut vm = self.lock();
        self.take_irqs(&mut vm);
        vm.irqs.iter().filter(|irq| irq.spi == spi).map(|irq| irq.raised).sum()
    }

    /// Rings of the doorbells at an address since the machine was made.
    pub(crate) fn rung(&self, address: GuestAddress) -> u64 {
        let vm = self.lock();
        vm.doorbells.iter().filter(|bell| bell.address == address.0).map(|bell| bell.rung).sum()
    }

    /// Messages that came to its translation service.
    pub(crate) fn messages(&self) -> Vec<Msi> {
        self.lock().messages.clone()
    }

    fn check_frame(&self, vm: &VmState, at: GuestAddress, align: u64) -> Result<(), HvError> {
        if at.0 >> vm.ipa_bits != 0 {
            return self.refuse(Refusal::GicBeyond);
        }
        if !at.0.is_multiple_of(align) {
            return self.refuse(Refusal::GicMisaligned);
        }
        Ok(())
    }

    fn check_lines(&self, spis: u32) -> Result<(), HvError> {
        let lines = spis.saturating_add(PRIVATE_INTERRUPTS);
        if (64..1024).contains(&lines) && lines.is_multiple_of(32) {
            Ok(())
        } else {
            self.refuse(Refusal::GicLines)
        }
    }

    pub(crate) fn check_gic(&self, vm: &VmState, config: &GicConfig) -> Result<(), HvError> {
        match *config {
            GicConfig::V2 { distributor, cpu_interface, spis } => {
                self.check_lines(spis)?;
                self.check_frame(vm, distributor, 4 << 10)?;
                self.check_frame(vm, cpu_interface, 4 << 10)
            }
            GicConfig::V3 { distributor, redistributors, its, spis } => {
                self.check_lines(spis)?;
                self.check_frame(vm, distributor, 64 << 10)?;
                self.check_frame(vm, redistributors, 64 << 10)?;
                its.map_or(Ok(()), |its| self.check_frame(vm, its, 64 << 10))
            }
        }
    }

    /// vCPUs that a controller of this version serves.
    pub(crate) const fn gic_vcpus(version: GicVersion) -> usize {
        match version {
            GicVersion::V2 => 8,
            GicVersion::V3 => 512,
        }
    }
}

pub(crate) fn no_event(error: std::io::Error) -> HvError {
    HvError { call: "make an event", source: error }
}

/// What tells one event from another, whatever number its descriptor has.
pub(crate) fn identity(event: &EventFd) -> String {
    let fd = event.as_raw_fd();
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let id = about.lines().find(|line| line.starts_with("eventfd-id:"));
    id.map_or_else(|| format!("descriptor {fd}"), str::to_owned)
}
