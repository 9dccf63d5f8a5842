//! What holds of any guest that moves between any two hosts: recorded ones, changed at
//! random.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod recorded;

use std::collections::BTreeSet;

use kedge_arch::regs;
use kedge_firmware::{
    ARM64_V0, ARM64_V1, Birth, Destination, Domain, Firmware, FwSpec, GuestAbi, HOST, HostAbi,
    Plan, PlanLine, Power, Quirk, Recorded, RegRow, RegValue, RegisterState, Rules, SavedRegister,
    UnknownFirmware, VcpuRegisters, Verdict, baseline, builtin, check, plan,
};
use kedge_hv::VcpuFeatures;
use kedge_ids::RegId;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::RngSeed;
use recorded::changes::{Change, apply, change};
use recorded::{CPUS, KERNELS, host};

const VCPUS: usize = 2;

/// One to four hosts, mostly of one CPU: the guest is born on the first, and moves to
/// the last.
fn fleet() -> impl Strategy<Value = Vec<(String, HostAbi)>> {
    let names = CPUS.iter().flat_map(|cpu| KERNELS.map(|kernel| format!("{cpu}-{kernel}")));
    let recorded: Vec<_> = names.map(|name| host(&name)).collect();
    let one = (any::<Index>(), prop::bool::weighted(0.1), prop::collection::vec(change(), 0..4));
    (select(&CPUS[..]), prop::collection::vec(one, 1..=4)).prop_map(move |(cpu, hosts)| {
        let host = |(number, (which, any_cpu, changes)): (usize, (Index, bool, Vec<Change>))| {
            let all = recorded.iter().filter(|(name, _)| any_cpu || name.starts_with(cpu));
            let all: Vec<_> = all.collect();
            let (name, mut host) = which.get(&all).to_owned().clone();
            changes.iter().for_each(|change| apply(&mut host, change));
            (format!("{name} {number}"), host)
        };
        (0..).zip(hosts).map(host).collect()
    })
}

/// The built-in profiles and, where there is one, the baseline of the fleet.
fn profiles(hosts: &[(String, HostAbi)]) -> Vec<GuestAbi> {
    let built_in = [ARM64_V1, ARM64_V0, HOST].map(|name| builtin(name).unwrap());
    let of_fleet = baseline(hosts).ok().map(|baseline| baseline.abi);
    built_in.into_iter().chain(of_fleet).collect()
}

const OPTIONAL: [(&str, VcpuFeatures); 3] =
    [("pmu", VcpuFeatures::PMU_V3), ("sve", VcpuFeatures::SVE), ("ptrauth", VcpuFeatures::PTRAUTH)];

/// The features that `abi` names or, if it names none, those of `host` that `which`
/// says.
fn features(abi: &GuestAbi, host: &HostAbi, which: u8) -> VcpuFeatures {
    let wanted = |place: u8, name: &str| match &abi.cpu.features {
        Some(names) => names.iter().any(|one| one == name),
        None => which >> place & 1 != 0 && host.limits.features.iter().any(|one| one == name),
    };
    let all = (0..).zip(OPTIONAL).filter(|(place, (name, _))| wanted(*place, name));
    all.fold(VcpuFeatures::PSCI_0_2, |all, (_, (_, feature))| all | feature)
}

/// What a guest of `abi` makes of a firmware register at its birth.
fn at_birth(abi: &GuestAbi, firmware: Firmware, born: &RegValue) -> RegValue {
    let neutral = || {
        let neutralised = abi.unknown_firmware == UnknownFirmware::Neutralise
            && abi.levels.get(firmware).is_none();
        firmware.neutral().filter(|_| neutralised)
    };
    let promised = abi.firmware.get(firmware).or_else(neutral);
    promised.map_or_else(|| born.clone(), RegValue::from)
}

/// A guest that was born on `host`; nothing where `host` cannot honour the profile.
fn guest(host: &HostAbi, abi: &GuestAbi, features: VcpuFeatures) -> Option<RegisterState> {
    if check(abi, host).is_refused() {
        return None;
    }
    let mut machine = Recorded::new(host, abi, features, VCPUS).ok()?;
    let list = machine.list(0).unwrap();
    let names: Vec<_> = features.names().map(str::to_owned).collect();
    for promise in abi.cpu.id_registers.iter().filter(|promise| list.contains(promise.id)) {
        let born = machine.read(0, promise.id).unwrap();
        let goal = promise.value.0 & promise.mask.0 | number(&born) & !promise.mask.0;
        let goal = RegValue(goal.to_le_bytes()[..born.0.len()].to_vec());
        let found = host.cpu_with(&names).id_register(promise.id).cloned();
        // What is left to the processor is as promised, and cannot be given.
        if found.is_none_or(|found| found.guest.is_none()) {
            give(&mut machine, promise.id, &goal);
        }
    }
    for firmware in list.iter().filter_map(Firmware::of) {
        let born = machine.read(0, firmware.id()).unwrap();
        give(&mut machine, firmware.id(), &at_birth(abi, firmware, &born));
    }
    Some(saved(&machine, abi, features))
}

/// Up to 64 bits as a number.
fn number(value: &RegValue) -> u64 {
    value.0.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Gives a register a value that [`check`] has promised.
fn give(machine: &mut Recorded<'_>, id: RegId, value: &RegValue) {
    (0..VCPUS).for_each(|vcpu| machine.offer(vcpu, id, value).unwrap());
}

fn saved(machine: &Recorded<'_>, abi: &GuestAbi, features: VcpuFeatures) -> RegisterState {
    let value = |id: RegId| match machine.knows(0, id) {
        true => machine.read(0, id).unwrap(),
        false => RegValue(vec![0; id.size().bytes()]),
    };
    let list = machine.list(0).unwrap();
    let all: Vec<_> = list.iter().map(|id| SavedRegister { id, value: value(id) }).collect();
    let is_firmware = |saved: &SavedRegister| Firmware::of(saved.id).is_some();
    let (whole, own): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|saved| is_firmware(saved) || is_identity(saved.id));
    let firmware = whole.iter().filter(|saved| is_firmware(saved)).cloned().collect();
    let vcpu = VcpuRegisters { registers: own, power: Power::Runnable, serror: None };
    RegisterState {
        features,
        ptp: machine.ptp(),
        birth: Birth { abi: abi.clone(), firmware },
        machine: whole,
        vcpus: vec![vcpu; VCPUS],
    }
}

/// Whether it is in the space of ID registers: one that is not there reads zero.
fn is_identity(id: RegId) -> bool {
    (RegId::system(3, 0, 0, 1, 0)..=RegId::system(3, 0, 0, 7, 7)).contains(&id)
}

/// What a guest finds when it calls the firmware: the functions that are open, and what
/// else it can tell; nothing where a register that there is not means nothing.
fn shown(firmware: Firmware, value: Option<u64>, ptp: bool) -> Option<(BTreeSet<u32>, u64)> {
    let Some(FwSpec { domain, absent, .. }) = firmware.spec() else {
        return Some((BTreeSet::new(), value.unwrap_or(0)));
    };
    let means = absent.and_then(|absent| match absent.by_ptp {
        Some(told) if ptp => Some(told.with),
        Some(told) => Some(told.without),
        None => absent.same_as,
    });
    let value = value.or(means)?;
    let (opened, told): (Vec<_>, _) = match domain {
        Domain::Bits(bits) => {
            let open = bits.iter().filter(|bit| value & bit.value != 0).collect();
            (open, value & !domain.mask())
        }
        Domain::Version(versions) => {
            (versions.iter().filter(|version| version.value <= value).collect(), value)
        }
        Domain::Level(_) => (Vec::new(), value),
    };
    Some((opened.into_iter().flat_map(|symbol| symbol.opens).copied().collect(), told))
}

/// What becomes of a register, if that is not just what it was.
fn other_than_kept(plan: &Plan, id: RegId) -> Vec<&PlanLine> {
    let about = plan.lines.iter().filter(|line| line.subject.id() == Some(id));
    about.filter(|line| line.verdict != Verdict::Keep).collect()
}

/// The bits of an ID register that may be otherwise for a reason.
fn may_differ(rows: &[RegRow], abi: &GuestAbi, id: RegId) -> u64 {
    let rows = rows.iter().filter(|row| row.ids.contains(&id)).map(|row| match row.quirk {
        Quirk::KeepDestination(mask) | Quirk::Normalised(mask) => mask,
        Quirk::OnlySource | Quirk::OnlyDestination => u64::MAX,
        // No ID register is one of those.
        Quirk::NormalisedFrom { .. } | Quirk::ClearedBy(_) => 0,
    });
    let varying = abi.cpu.varying.iter().filter(|varying| varying.id == id);
    rows.chain(varying.map(|varying| varying.mask.0)).fold(0, |all, mask| all | mask)
}

/// A guest that has moved, as far as its destination let it.
struct Moved<'a> {
    state: RegisterState,
    here: Recorded<'a>,
    rows: Vec<RegRow>,
    plan: Plan,
}

impl<'a> Moved<'a> {
    fn to(host: &'a HostAbi, state: RegisterState) -> Option<Self> {
        let rows = regs::rows();
        let mut here = Recorded::for_state(host, &state).ok()?;
        let plan = plan(&state, &mut here, &Rules::new(&rows)).unwrap().plan;
        Some(Self { state, here, rows, plan })
    }

    fn now(&self, vcpu: usize, id: RegId) -> Option<u64> {
        let listed = self.here.list(vcpu).unwrap().contains(id);
        listed.then(|| self.here.read(vcpu, id).unwrap().as_u64().unwrap())
    }

    fn before(&self, vcpu: usize, id: RegId) -> Option<u64> {
        self.state.of_vcpu(vcpu, id).map(|value| value.as_u64().unwrap())
    }

    /// All registers that one of both sides has, and all firmware that there is.
    fn ids(&self) -> BTreeSet<RegId> {
        let saved = self.state.machine.iter().map(|saved| saved.id);
        let known = kedge_firmware::TABLE.iter().map(|spec| spec.id);
        saved.chain(self.here.list(0).unwrap().iter()).chain(known).collect()
    }

    /// What the guest can tell from before, and nobody has told.
    fn untold(&self, vcpu: usize, id: RegId) -> Option<String> {
        let (before, now) = (self.before(vcpu, id), self.now(vcpu, id));
        let lines = other_than_kept(&self.plan, id);
        let refused = lines.iter().any(|line| matches!(line.verdict, Verdict::Refuse { .. }));
        let told = match Firmware::of(id) {
            Some(firmware) => {
                let adopted = before.is_none()
                    && self.state.birth.abi.unknown_firmware == UnknownFirmware::Adopt;
                let is_level = |spec: &FwSpec| matches!(spec.domain, Domain::Level(_));
                let may_differ = adopted || firmware.spec().is_some_and(is_level);
                let before = shown(firmware, before, self.state.ptp);
                let same = before == shown(firmware, now, self.here.ptp());
                same || refused || (may_differ && !lines.is_empty())
            }
            None => {
                let differs = before.unwrap_or(0) ^ now.unwrap_or(0);
                let excused = may_differ(&self.rows, &self.state.birth.abi, id);
                differs == 0 || refused || (!lines.is_empty() && differs & !excused == 0)
            }
        };
        let abi = &self.state.birth.abi.name;
        (!told).then(|| format!("{id} of a guest of {abi}: {before:x?}, then {now:x?}: {lines:?}"))
    }
}

#[test]
fn kernels_that_mean_different_things_by_a_lack_are_told_apart() {
    let bitmap = kedge_firmware::FwReg::StdBmap.spec().id;
    let lacking = |name| {
        let (_, mut host) = host(name);
        host.firmware.retain(|found| found.id != bitmap);
        host
    };
    let (source, destination) = (lacking("max-6.1"), lacking("max-5.10"));
    let abi = builtin(HOST).unwrap();
    let state = guest(&source, &abi, VcpuFeatures::PSCI_0_2).unwrap();
    let moved = Moved::to(&destination, state).unwrap();
    let told: Vec<_> =
        other_than_kept(&moved.plan, bitmap).iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["std_bmap: trng wanted, none offered: neither kernel has the register, and each shows a \
          guest its own, for good"]
    );
}

#[test]
fn a_host_without_a_feature_is_no_destination() {
    let (_, host) = host("max-7.2");
    let abi = builtin(HOST).unwrap();
    let missing = Recorded::new(&host, &abi, VcpuFeatures::SVE, VCPUS).map(drop);
    assert_eq!(missing.unwrap_err().to_string(), "this host has vCPUs without sve");
}

#[test]
fn vectors_of_a_recorded_host_have_all_its_lengths_up_to_the_longest() {
    let (_, host) = host("a64fx-7.2");
    let abi = builtin(HOST).unwrap();
    let features = VcpuFeatures::PSCI_0_2 | VcpuFeatures::SVE;
    let mut machine = Recorded::new(&host, &abi, features, VCPUS).unwrap();
    let mut takes = |bits: u8| {
        let mut value = RegValue(vec![0; 64]);
        value.0[0] = bits;
        machine.offer(0, RegId::SVE_VLS, &value).is_ok()
    };
    // 128, 256 and 512 bits.
    assert!(takes(0b1011) && takes(0b11) && takes(0b1));
    assert!(!takes(0b10) && !takes(0b111) && !takes(0));
}

proptest! {
    // The same cases each time; PROPTEST_CASES and PROPTEST_RNG_SEED ask for others.
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(48),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_kept_a_guest_reads_as_before_and_all_else_is_told(
        hosts in fleet(),
        which in any::<u8>(),
    ) {
        let (source, destination) = (&hosts[0].1, &hosts[hosts.len() - 1].1);
        for abi in profiles(&hosts) {
            let guest = guest(source, &abi, features(&abi, source, which));
            let Some(moved) = guest.and_then(|state| Moved::to(destination, state)) else {
                continue;
            };
            let seen = moved.ids().into_iter().filter(|id| is_identity(*id) || Firmware::of(*id).is_some());
            let untold = seen.flat_map(|id| (0..VCPUS).map(move |vcpu| (vcpu, id)));
            let untold: Vec<_> = untold.filter_map(|(vcpu, id)| moved.untold(vcpu, id)).collect();
            prop_assert_eq!(untold, Vec::<String>::new());
        }
    }
}
