//! Promises of what a guest reads and no register of its machine tells.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod closed;

use std::sync::Arc;

use expect_test::expect;
use kedge_diag::report;
use kedge_firmware::{
    ARM64_V1, BirthError, Born, GuestAbi, HOST, Hex, HostAbi, IdPromise, Newborn, PmuEventSet,
    baseline, builtin, check, probe, settle,
};
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Gic, GicConfig, Hypervisor, Vcpu, VcpuFeatures, Vm, VmConfig};
use kedge_hv_model::{ModelHypervisor, Release, V5_10, V6_1, V6_12, V7_2};
use kedge_ids::{Ppi, RegId, VcpuId};

use closed::Closed;

const CTR_EL0: RegId = RegId::system(3, 3, 0, 0, 1);
const CLIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 1);
const CACHE_0: RegId = RegId(0x6020_0000_0011_0000);
const PMCEID0_EL0: RegId = RegId::system(3, 3, 9, 12, 6);
/// `CTR_EL0` of the modelled hosts' processor, and as Linux has it: with IDC.
const OWN: u64 = 0x8444_c004;
const EFFECTIVE: u64 = 0x9444_c004;
/// SW_INCR and CPU_CYCLES, but not CHAIN.
const EVENTS: PmuEventSet = PmuEventSet { pmceid0: Hex(0x2_0001), pmceid1: Hex(0) };

/// A host, and a machine of which nothing has run.
struct Nursery {
    hypervisor: ModelHypervisor,
    vm: Arc<dyn Vm>,
    gic: Box<dyn Gic>,
    vcpus: Vec<Box<dyn Vcpu>>,
}

impl Nursery {
    fn new(release: &Release) -> Self {
        let hypervisor = ModelHypervisor::new(release).unwrap();
        let vm = hypervisor.create_vm(&VmConfig::new(40)).unwrap();
        let create = |id| {
            let mut vcpu = vm.create_vcpu(VcpuId(id)).unwrap();
            vcpu.init(VcpuFeatures::PSCI_0_2 | VcpuFeatures::PMU_V3).unwrap();
            vcpu
        };
        let vcpus = (0..2).map(create).collect();
        let gic = GicConfig::V3 {
            distributor: GuestAddress(0x800_0000),
            redistributors: GuestAddress(0x80a_0000),
            its: None,
            spis: 32,
        };
        let gic = vm.create_gic(&gic).unwrap();
        gic.init().unwrap();
        Self { hypervisor, vm, gic, vcpus }
    }

    fn settle(&self, abi: &GuestAbi) -> Result<Born, BirthError> {
        self.settle_on(&self.hypervisor, abi)
    }

    fn settle_on(&self, hypervisor: &dyn Hypervisor, abi: &GuestAbi) -> Result<Born, BirthError> {
        let vcpus: Vec<&dyn Vcpu> = self.vcpus.iter().map(|vcpu| vcpu.as_ref()).collect();
        let (vm, gic) = (self.vm.as_ref(), Some(self.gic.as_ref()));
        settle(&Newborn { hypervisor, vm, gic, vcpus: &vcpus, services: &[], notes: None }, abi)
    }

    /// What the guest of this machine reads.
    fn read(&mut self, id: RegId) -> Option<u64> {
        self.vcpus.iter().try_for_each(|vcpu| vcpu.init_pmu(Ppi::PMU)).unwrap();
        self.vcpus[1].read_as_guest(&[id]).unwrap()[0]
    }
}

fn promising(id: RegId, value: u64) -> GuestAbi {
    let promise = IdPromise { id, name: String::new(), value: Hex(value), mask: Hex(u64::MAX) };
    let mut abi = builtin(HOST).unwrap();
    abi.cpu.id_registers = vec![promise];
    abi
}

fn promising_events(events: PmuEventSet) -> GuestAbi {
    let mut abi = builtin(ARM64_V1).unwrap();
    abi.machine.pmu_events = Some(events);
    abi
}

fn probed(release: &Release) -> HostAbi {
    probe(&ModelHypervisor::new(release).unwrap()).unwrap()
}

#[test]
fn a_probe_finds_what_a_guest_reads() {
    let (old, new) = (probed(&V6_1), probed(&V6_12));
    let ctr = |host: &HostAbi| {
        let found = host.cpus[0].id_register(CTR_EL0).unwrap();
        (found.value.0, found.shown())
    };
    assert_eq!(ctr(&old), (EFFECTIVE, OWN));
    assert_eq!(ctr(&new), (EFFECTIVE, EFFECTIVE));
    expect!["0x0, 0x11, 0x23, 0x24, 0x3c"].assert_eq(&old.limits.pmu_events.unwrap().words());
    expect!["0x0, 0x11, 0x1e, 0x23, 0x24, 0x3c"].assert_eq(&new.limits.pmu_events.unwrap().words());
}

#[test]
fn the_cache_type_that_a_guest_reads_is_honoured_whatever_the_kernel_tells() {
    let abi = promising(CTR_EL0, OWN);
    for release in [V5_10, V6_1, V6_12, V7_2] {
        let mut nursery = Nursery::new(&release);
        nursery.settle(&abi).unwrap();
        assert_eq!(nursery.read(CTR_EL0), Some(OWN), "{}", release.name);
        assert!(!check(&abi, &probed(&release)).is_refused());
    }
}

#[test]
fn the_cache_type_that_only_the_kernel_tells_is_refused() {
    let abi = promising(CTR_EL0, EFFECTIVE);
    assert!(check(&abi, &probed(&V6_1)).is_refused());
    expect![[r#"
        error: this host cannot honour the guest ABI profile `host`
          CTR_EL0: 0x9444c004 wanted, 0x8444c004 offered: IDC is 0x0 and cannot be 0x1
          fix: make a baseline of a fleet that this host is in, or run the guest on a host like those of the profile"#]]
    .assert_eq(&report(&Nursery::new(&V6_1).settle(&abi).unwrap_err()));
    assert!(Nursery::new(&V6_12).settle(&abi).is_ok());
}

#[test]
fn every_vcpu_is_given_the_sizes_of_its_caches() {
    const SIZE: [u8; 4] = [0x1a, 0xe0, 0x1f, 0x70];
    let nursery = Nursery::new(&V6_12);
    nursery.settle(&promising(CACHE_0, u32::from_le_bytes(SIZE).into())).unwrap();
    for vcpu in &nursery.vcpus {
        assert_eq!(vcpu.reg(CACHE_0).unwrap(), SIZE);
    }
    expect![[r#"
        error: this host cannot honour the guest ABI profile `host`
          CCSIDR_EL1 of cache 0: 0x701fe01a wanted, 0x701fe00a offered: Associativity is 0x1 and cannot be 0x3
          fix: make a baseline of a fleet that this host is in, or run the guest on a host like those of the profile"#]]
    .assert_eq(&report(
        &Nursery::new(&V6_1)
            .settle(&promising(CACHE_0, u32::from_le_bytes(SIZE).into()))
            .unwrap_err(),
    ));
}

#[test]
fn events_that_are_not_promised_are_hidden() {
    for release in [V6_1, V6_12, V7_2] {
        let mut nursery = Nursery::new(&release);
        nursery.settle(&promising_events(EVENTS)).unwrap();
        assert_eq!(nursery.read(PMCEID0_EL0), Some(EVENTS.pmceid0.0), "{}", release.name);
    }
}

#[test]
fn events_that_the_host_does_not_count_are_refused() {
    let events = PmuEventSet { pmceid0: Hex(0x4002_0003), pmceid1: Hex(0) };
    let abi = promising_events(events);
    assert!(check(&abi, &probed(&V6_12)).is_refused());
    expect![[r#"
        error: this host cannot honour the guest ABI profile `arm64-v1`
          pmu_events: 0x0, 0x1, 0x11, 0x1e wanted, 0x0, 0x11, 0x1e, 0x23, 0x24, 0x3c offered: the host's performance monitors do not count 0x1
          fix: run the guest on hosts with the same CPU, or with a profile without `pmu`"#]]
    .assert_eq(&report(&Nursery::new(&V6_12).settle(&abi).unwrap_err()));
}

#[test]
fn a_profile_without_such_promises_costs_no_scratch_machine() {
    let nursery = Nursery::new(&V6_12);
    nursery.settle_on(&Closed(&nursery.hypervisor), &builtin(ARM64_V1).unwrap()).unwrap();
    let abi = promising(CLIDR_EL1, nursery.vcpus[0].reg64(CLIDR_EL1).unwrap());
    nursery.settle_on(&Closed(&nursery.hypervisor), &abi).unwrap();
    let refused = nursery.settle_on(&Closed(&nursery.hypervisor), &promising_events(EVENTS));
    assert!(matches!(refused, Err(BirthError::Hypervisor(_))));
}

#[test]
fn a_baseline_promises_what_guests_read_on_every_kernel() {
    let hosts: Vec<_> =
        [V5_10, V6_1, V6_12, V7_2].iter().map(|one| (one.name.to_owned(), probed(one))).collect();
    let abi = baseline(&hosts).unwrap().abi;
    let promised = |id| abi.cpu.id_registers.iter().find(|promise| promise.id == id).unwrap();
    assert_eq!(promised(CTR_EL0).value.0, OWN);
    assert_eq!(promised(CACHE_0).value.0, 0x701f_e00a);
    for (name, host) in &hosts {
        assert!(!check(&abi, host).is_refused(), "{name}");
    }
}
