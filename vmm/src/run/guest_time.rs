//! A guest's time, which are its counters (Arm DDI 0487, D12): what a pause is to them.
//!
//! Where KVM keeps one distance from the host's counter for the whole machine
//! (`KVM_ARM_SET_COUNTER_OFFSET`, Linux 6.4), the machine is given one at its birth,
//! which starts both counters at zero; after a pause it grows by what the pause took.
//! It cannot be read back, hence it is kept here.
//!
//! Elsewhere, and for a guest whose profile adopts what the host gives, so that nothing
//! is written at its birth, each counter is written back after a pause: once, through
//! the first vCPU, since it is the whole machine's. Linux before 6.4 has no register for
//! the physical counter, which goes on there.

use std::time::SystemTime;

use kedge_firmware::{
    CounterPolicy, GuestAbi, PHYSICAL_COUNTER, RegValue, RegisterState, UnknownFirmware,
    VIRTUAL_COUNTER,
};
use kedge_hv::{Abilities, HvError, Vcpu, Vm};

use crate::control::Clock;
use crate::save::saved::ClockV1;

/// The time of a guest.
#[derive(Debug)]
pub(crate) struct GuestTime {
    policy: CounterPolicy,
    /// Whether the host has a register for the physical counter: since Linux 6.4, as it
    /// can keep a distance. No other is asked for one.
    has_physical: bool,
    /// How far the counters are behind the host's, where the host keeps that.
    offset: Option<u64>,
    /// What the counters read when the guest was last stopped.
    stopped: Option<Reading>,
    /// How fast they tick, in ticks a second, if that was elsewhere: they have not gone on
    /// since.
    elsewhere: Option<u32>,
}

/// What counters read, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reading {
    virtual_counter: u64,
    /// None where the host has no register for it, or one distance for both.
    physical_counter: Option<u64>,
    /// The host's time then, in nanoseconds since 1970.
    host_time: u64,
}

impl Reading {
    /// So many ticks later.
    fn later(self, ticks: u64) -> Self {
        Self {
            virtual_counter: self.virtual_counter.wrapping_add(ticks),
            physical_counter: self.physical_counter.map(|counter| counter.wrapping_add(ticks)),
            ..self
        }
    }

    /// Where counters that tick so fast would be by now.
    fn by_now(self, counter_hz: u32) -> Self {
        let elapsed = u128::from(host_time().saturating_sub(self.host_time));
        let ticks = elapsed * u128::from(counter_hz) / 1_000_000_000;
        self.later(u64::try_from(ticks).unwrap_or(u64::MAX))
    }
}

impl GuestTime {
    /// The time of a machine that is being born with `abi`: of which nothing has run,
    /// and whose vCPUs are all there, `first` among them.
    ///
    /// # Errors
    /// The hypervisor refuses what it has.
    pub(crate) fn begin(
        vm: &dyn Vm,
        first: &dyn Vcpu,
        abilities: &Abilities,
        abi: &GuestAbi,
    ) -> Result<Self, HvError> {
        let policy = abi.machine.counter;
        let has_physical = abilities.counter_offset;
        let adopts = abi.unknown_firmware == UnknownFirmware::Adopt;
        let keeps_distance = has_physical && policy == CounterPolicy::Stop && !adopts;
        let offset = keeps_distance.then(|| set_out(vm, first, 0)).transpose()?;
        Ok(Self { policy, has_physical, offset, stopped: None, elsewhere: None })
    }

    /// The time of a machine with `abi` that is being restored, as it was saved: `first`
    /// is one of its vCPUs, which are all there, and nothing was written to its counters.
    ///
    /// # Errors
    /// The hypervisor refuses what it has.
    pub(crate) fn again(
        vm: &dyn Vm,
        first: &dyn Vcpu,
        abilities: &Abilities,
        (saved, abi): (&ClockV1, &GuestAbi),
    ) -> Result<Self, HvError> {
        let has_physical = abilities.counter_offset;
        let behind = saved.virtual_counter;
        let keeps_distance = has_physical && saved.together;
        let offset = keeps_distance.then(|| set_out(vm, first, behind)).transpose()?;
        let stopped = Reading {
            virtual_counter: saved.virtual_counter,
            physical_counter: saved.physical_counter.filter(|_| has_physical),
            host_time: saved.host_time,
        };
        let (policy, elsewhere) = (abi.machine.counter, Some(saved.counter_hz));
        Ok(Self { policy, has_physical, offset, stopped: Some(stopped), elsewhere })
    }

    /// Notes where the guest's time stands: no vCPU runs any more.
    ///
    /// # Errors
    /// The hypervisor does not tell.
    pub(crate) fn stop(&mut self, first: &dyn Vcpu) -> Result<(), HvError> {
        let virtual_counter = first.reg64(VIRTUAL_COUNTER)?;
        let apart = self.has_physical && self.offset.is_none();
        let physical_counter = apart.then(|| first.reg64(PHYSICAL_COUNTER)).transpose()?;
        let host_time = host_time();
        self.stopped = Some(Reading { virtual_counter, physical_counter, host_time });
        self.elsewhere = None;
        Ok(())
    }

    /// The guest's time, which stands still, as it is saved. The host's counter ticks
    /// `counter_hz` times a second.
    pub(crate) fn saved(&self, counter_hz: u32) -> ClockV1 {
        let stopped = self.stopped.unwrap_or_default();
        let Reading { virtual_counter, physical_counter, host_time } = stopped;
        ClockV1 {
            virtual_counter,
            physical_counter: self.offset.map_or(physical_counter, |_| Some(virtual_counter)),
            together: self.offset.is_some(),
            counter_hz,
            host_time,
        }
    }

    /// Puts the guest's time, which stands still, into what was read of its registers
    /// later.
    pub(crate) fn put_into(&self, registers: &mut RegisterState) {
        let clock = self.saved(0);
        let stood = [
            (VIRTUAL_COUNTER, Some(clock.virtual_counter)),
            (PHYSICAL_COUNTER, clock.physical_counter),
        ];
        for saved in &mut registers.machine {
            let value = stood.iter().find(|(id, _)| *id == saved.id).and_then(|(_, value)| *value);
            if let Some(value) = value {
                saved.value = RegValue::from(value);
            }
        }
    }

    /// What `clock` asks for.
    fn policy(&self, clock: Clock) -> CounterPolicy {
        match clock {
            Clock::Profile => self.policy,
            Clock::Stop => CounterPolicy::Stop,
            Clock::Advance => CounterPolicy::Advance,
        }
    }

    /// Whether the guest will find, after a pause that ends with `clock`, that time has
    /// passed.
    pub(crate) fn passes(&self, clock: Clock) -> bool {
        self.policy(clock) == CounterPolicy::Advance
    }

    /// Sets the guest's time to what `clock` makes of the pause that ends: no vCPU runs
    /// yet.
    ///
    /// # Errors
    /// The hypervisor refuses.
    pub(crate) fn go_on(
        &mut self,
        vm: &dyn Vm,
        first: &dyn Vcpu,
        clock: Clock,
    ) -> Result<(), HvError> {
        let wanted = match (self.policy(clock), self.elsewhere, self.stopped) {
            (CounterPolicy::Stop, _, stopped) => stopped,
            // They went on by themselves.
            (CounterPolicy::Advance, None, _) => None,
            (CounterPolicy::Advance, Some(counter_hz), stopped) => {
                stopped.map(|stopped| stopped.by_now(counter_hz))
            }
        };
        if let Some(wanted) = wanted {
            match self.offset {
                Some(offset) => self.fall_back(vm, first, (offset, wanted))?,
                None => write_back(first, wanted)?,
            }
        }
        (self.stopped, self.elsewhere) = (None, None);
        Ok(())
    }

    /// Makes the counters' distance from the host's larger by what they are past
    /// `wanted`.
    fn fall_back(
        &mut self,
        vm: &dyn Vm,
        first: &dyn Vcpu,
        (offset, wanted): (u64, Reading),
    ) -> Result<(), HvError> {
        let gained = first.reg64(VIRTUAL_COUNTER)?.wrapping_sub(wanted.virtual_counter);
        let offset = offset.wrapping_add(gained);
        vm.set_counter_offset(offset)?;
        self.offset = Some(offset);
        Ok(())
    }
}

/// The host's time in nanoseconds since 1970.
fn host_time() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Gives a machine a distance from the host's counter with which its own are at `start`:
/// until then the physical counter is the host's.
fn set_out(vm: &dyn Vm, first: &dyn Vcpu, start: u64) -> Result<u64, HvError> {
    let offset = first.reg64(PHYSICAL_COUNTER)?.wrapping_sub(start);
    vm.set_counter_offset(offset)?;
    Ok(offset)
}

fn write_back(first: &dyn Vcpu, stopped: Reading) -> Result<(), HvError> {
    first.set_reg64(VIRTUAL_COUNTER, stopped.virtual_counter)?;
    match stopped.physical_counter {
        Some(counter) => first.set_reg64(PHYSICAL_COUNTER, counter),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kedge_firmware::{ARM64_V1, HOST, builtin};
    use kedge_hv::{Hypervisor, VcpuFeatures, VmConfig};
    use kedge_hv_model::{ModelHypervisor, release};
    use kedge_ids::VcpuId;

    use super::*;

    /// A machine with two vCPUs on a host whose time can pass.
    struct Newborn {
        host: ModelHypervisor,
        vm: Arc<dyn Vm>,
        vcpus: Vec<Box<dyn Vcpu>>,
        time: GuestTime,
    }

    /// More than all that is read in between.
    const LONG: u64 = 10_000_000;

    impl Newborn {
        fn new(release_name: &str, profile: &str) -> Self {
            Self::with(release_name, &builtin(profile).unwrap())
        }

        fn with(release_name: &str, abi: &GuestAbi) -> Self {
            let host = ModelHypervisor::new(release(release_name).unwrap()).unwrap();
            let vm = host.create_vm(&VmConfig::new(40)).unwrap();
            let vcpus = [0, 1].map(|id| vm.create_vcpu(VcpuId(id)).unwrap());
            let vcpus = vcpus.into_iter().map(|mut vcpu| {
                vcpu.init(VcpuFeatures::PSCI_0_2).unwrap();
                vcpu
            });
            let vcpus: Vec<_> = vcpus.collect();
            let first = vcpus[0].as_ref();
            let time = GuestTime::begin(vm.as_ref(), first, &host.abilities(), abi).unwrap();
            Self { host, vm, vcpus, time }
        }

        /// The virtual and, where there is one, the physical counter, by each vCPU.
        fn counters(&self) -> Vec<u64> {
            let of = |vcpu: &dyn Vcpu| [VIRTUAL_COUNTER, PHYSICAL_COUNTER].map(|id| vcpu.reg64(id));
            let read = self.vcpus.iter().flat_map(|vcpu| of(vcpu.as_ref()));
            read.flatten().collect()
        }

        /// A pause of [`LONG`].
        fn pause(&mut self, clock: Clock) {
            self.time.stop(self.vcpus[0].as_ref()).unwrap();
            let other = self.host.create_vm(&VmConfig::new(40)).unwrap();
            let mut other = other.create_vcpu(VcpuId(0)).unwrap();
            other.init(VcpuFeatures::PSCI_0_2).unwrap();
            while other.reg64(VIRTUAL_COUNTER).unwrap() < LONG {}
            self.time.go_on(self.vm.as_ref(), self.vcpus[0].as_ref(), clock).unwrap();
        }

        /// How far each counter came in a pause.
        fn over_a_pause(&mut self, clock: Clock) -> Vec<u64> {
            let before = self.counters();
            self.pause(clock);
            self.counters().iter().zip(before).map(|(after, before)| after - before).collect()
        }
    }

    #[test]
    fn all_time_stands_still_where_the_host_can_do_that() {
        for release in ["6.12", "7.2"] {
            let mut machine = Newborn::new(release, ARM64_V1);
            let gained = machine.over_a_pause(Clock::default());
            assert_eq!(gained.len(), 4);
            assert!(gained.iter().all(|ticks| *ticks < LONG / 10), "{release}: {gained:?}");
            let again = machine.over_a_pause(Clock::Stop);
            assert!(again.iter().all(|ticks| *ticks < LONG / 10), "{release}: {again:?}");
        }
    }

    #[test]
    fn both_counters_start_at_zero_where_both_can_stand_still() {
        let machine = Newborn::new("6.12", ARM64_V1);
        assert!(machine.counters().iter().all(|now| *now < LONG / 10));
    }

    #[test]
    fn the_virtual_counter_stands_still_on_an_older_host() {
        for release in ["5.10", "6.1"] {
            let mut machine = Newborn::new(release, ARM64_V1);
            let gained = machine.over_a_pause(Clock::default());
            assert_eq!(gained.len(), 2);
            assert!(gained.iter().all(|ticks| *ticks < LONG / 10), "{release}: {gained:?}");
        }
    }

    #[test]
    fn a_guest_that_adopts_its_host_finds_its_counters_as_they_are_and_they_stand_still() {
        let mut machine = Newborn::new("6.12", HOST);
        assert!(machine.counters()[1] > 1 << 24, "the physical counter is the host's");
        assert!(machine.over_a_pause(Clock::default()).iter().all(|ticks| *ticks < LONG / 10));
    }

    /// What is saved of a guest whose counters were at [`FAR`] two seconds ago.
    fn saved() -> ClockV1 {
        const TWO_SECONDS: u64 = 2_000_000_000;
        ClockV1 {
            virtual_counter: FAR,
            physical_counter: Some(FAR),
            together: true,
            counter_hz: FAST,
            host_time: host_time() - TWO_SECONDS,
        }
    }

    /// That guest in a new machine.
    fn again(release_name: &str, saved: &ClockV1) -> Newborn {
        let mut machine = Newborn::new(release_name, HOST);
        let (vm, first) = (machine.vm.as_ref(), machine.vcpus[0].as_ref());
        let abi = builtin(ARM64_V1).unwrap();
        let abilities = machine.host.abilities();
        machine.time = GuestTime::again(vm, first, &abilities, (saved, &abi)).unwrap();
        machine
    }

    /// What its counters read when it goes on there with `clock`.
    fn restored(release_name: &str, clock: Clock) -> Vec<u64> {
        let mut machine = again(release_name, &saved());
        machine.time.go_on(machine.vm.as_ref(), machine.vcpus[0].as_ref(), clock).unwrap();
        machine.counters()
    }

    /// Where no counter of the model comes by itself.
    const FAR: u64 = 1 << 60;
    /// So that two seconds are more than [`LONG`].
    const FAST: u32 = 1_000_000_000;

    #[test]
    fn a_guest_that_did_not_go_on_is_saved_again_as_it_was() {
        let saved = saved();
        assert_eq!(again("7.2", &saved).time.saved(FAST), saved);
        let older = ClockV1 { physical_counter: None, together: false, ..saved };
        assert_eq!(again("6.1", &saved).time.saved(FAST), older);
    }

    #[test]
    fn a_guest_that_was_saved_finds_its_counters_where_they_stood() {
        for release in ["6.1", "6.12", "7.2"] {
            let counters = restored(release, Clock::Stop);
            assert!(counters.iter().all(|now| (FAR..FAR + LONG).contains(now)), "{release}");
        }
    }

    #[test]
    fn a_guest_that_was_saved_finds_that_time_has_passed_when_that_is_asked_for() {
        for release in ["6.1", "6.12", "7.2"] {
            let counters = restored(release, Clock::Advance);
            let later = FAR + 2 * u64::from(FAST);
            assert!(counters.iter().all(|now| *now >= later), "{release}: {counters:?}");
        }
    }

    #[test]
    fn time_passes_for_the_guest_when_that_is_asked_for() {
        for (release, profile) in [("6.12", ARM64_V1), ("6.12", HOST), ("6.1", ARM64_V1)] {
            let gained = Newborn::new(release, profile).over_a_pause(Clock::Advance);
            assert!(gained.iter().all(|ticks| *ticks > LONG), "{release}: {gained:?}");
        }
    }

    #[test]
    fn a_profile_can_let_time_pass_and_who_resumes_can_still_stop_it() {
        let mut abi = builtin(ARM64_V1).unwrap();
        abi.machine.counter = CounterPolicy::Advance;
        let mut machine = Newborn::with("6.12", &abi);
        assert!(machine.over_a_pause(Clock::Profile).iter().all(|ticks| *ticks > LONG));
        assert!(machine.over_a_pause(Clock::Stop).iter().all(|ticks| *ticks < LONG / 10));
    }
}
