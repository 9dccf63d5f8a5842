//! Promises settled with models of hosts, and with each other.

use std::io;

use expect_test::expect;
use kedge_arch::smccc::{Call, Results, only};
use kedge_arch::{GicChoice, Layout};
use kedge_diag::report;
use kedge_firmware::{ARM64_V1, FilterAction, FilterRange, builtin};
use kedge_guest_memory::{map_anonymous, regions};
use kedge_hv::{Access, Conduit, Exit, Hypervisor, VcpuFeatures, VmConfig};
use kedge_hv_model::{ModelHypervisor, Program, Step, psci, release};
use kedge_ids::VcpuId;

use super::*;

const TRNG_RND32: u32 = 0x8400_0053;
const OWN: u32 = 0xc600_0100;
const DISCOVER_CPUS: u32 = 0xc600_0041;

/// A service with a name and a function.
struct Named(&'static str, [Functions; 1]);

impl Service for Named {
    fn name(&self) -> &str {
        self.0
    }
    fn functions(&self) -> &[Functions] {
        &self.1
    }
    fn call(&self, _: &Call) -> Results {
        only(7)
    }
}

fn named(name: &'static str, function: u32) -> Named {
    Named(name, [function..=function])
}

fn around() -> Surroundings {
    Surroundings::new(io::sink())
}

fn profile(change: impl FnOnce(&mut GuestAbi)) -> GuestAbi {
    let mut abi = builtin(ARM64_V1).unwrap();
    change(&mut abi);
    abi
}

fn forward(abi: &mut GuestAbi, base: u64, count: u32) {
    let action = FilterAction::Forward;
    abi.machine.smccc_filter.push(FilterRange { base: Hex(base), count, action });
}

/// A machine of the model with one vCPU that calls `function` and powers off.
struct Host {
    vm: Arc<dyn Vm>,
    vcpu: Box<dyn Vcpu>,
}

impl Host {
    fn new(name: &str, function: u32) -> Self {
        let calls = [function, psci::SYSTEM_OFF].map(|function| Step::call(function, [0; 3]));
        let program = Program::new(calls.concat());
        let model = ModelHypervisor::new(release(name).unwrap()).unwrap();
        let model = model.with_program(VcpuId(0), program);
        let vm = model.create_vm(&VmConfig::new(40)).unwrap();
        let mut vcpu = vm.create_vcpu(VcpuId(0)).unwrap();
        vcpu.init(VcpuFeatures::PSCI_0_2).unwrap();
        Self { vm, vcpu }
    }

    fn prepare(&self, abi: &GuestAbi, around: &Surroundings) -> Result<Dispatcher, ServicesError> {
        prepare(self.vm.as_ref(), self.vcpu.as_ref(), abi, around)
    }

    /// Whether its guest's call comes here.
    fn hands_over(mut self) -> bool {
        matches!(self.vcpu.run().unwrap(), Exit::Hypercall { .. })
    }
}

fn settled(abi: &GuestAbi, around: &Surroundings) -> Dispatcher {
    Host::new("7.2", 0).prepare(abi, around).unwrap()
}

fn refusal(name: &str, abi: &GuestAbi, around: &Surroundings) -> String {
    report(&Host::new(name, 0).prepare(abi, around).unwrap_err())
}

fn answer(dispatcher: &Dispatcher, function: u32, argument: u64) -> Option<Results> {
    dispatcher.call(&Call::new(function, Conduit::Hvc, VcpuId(0), &[argument]))
}

#[test]
fn the_default_promises_need_no_filter() {
    let host = Host::new("6.1", OWN);
    assert_eq!(host.prepare(&profile(|_| {}), &around()).unwrap().functions().count(), 0);
}

#[test]
fn the_calls_of_a_programs_service_are_handed_over() {
    let host = Host::new("6.12", OWN);
    let around = around().with_service(named("clock", OWN));
    let dispatcher = host.prepare(&profile(|_| {}), &around).unwrap();
    assert_eq!(answer(&dispatcher, OWN, 0), Some(only(7)));
    assert!(host.hands_over());
}

#[test]
fn calls_that_the_profile_forwards_are_handed_over_though_nobody_answers() {
    let host = Host::new("6.12", OWN);
    let dispatcher = host.prepare(&profile(|abi| forward(abi, OWN.into(), 1)), &around()).unwrap();
    assert_eq!(answer(&dispatcher, OWN, 0), None);
    assert!(host.hands_over());
}

#[test]
fn a_host_without_a_filter_is_refused_with_the_calls() {
    let around = around().with_service(named("clock", OWN));
    let deny = |abi: &mut GuestAbi| {
        let action = FilterAction::Deny;
        abi.machine.smccc_filter.push(FilterRange { base: Hex(0x8600_0001), count: 1, action });
    };
    expect![[r#"
        error: this host keeps all firmware calls to itself; the guest's are to be denied (0x86000001), to be answered (0xc6000100)
          fix: run on Linux 6.4 or later, or have no such calls: they come from `smccc_filter` and `vendor_hyp_bmap_2` in the profile, and from services that a program adds"#]]
    .assert_eq(&refusal("6.1", &profile(deny), &around));
}

#[test]
fn services_of_a_program_that_overlap_are_refused() {
    let around = around().with_service(named("clock", OWN)).with_service(named("battery", OWN));
    expect![[r#"
        error: `clock` and `battery` both answer the firmware calls 0xc6000100
          fix: give `battery` functions of its own, or leave one of the two out"#]]
    .assert_eq(&refusal("6.12", &profile(|_| {}), &around));
}

#[test]
fn entropy_is_ours_where_the_profile_takes_it_from_the_host() {
    let trng = profile(|abi| forward(abi, 0x8400_0050, 4));
    let around = around().with_entropy(|buffer| {
        buffer.fill(0xa5);
        Ok(())
    });
    let dispatcher = settled(&trng, &around);
    assert_eq!(answer(&dispatcher, TRNG_RND32, 32), Some([0, 0, 0, 0xa5a5_a5a5]));
}

#[test]
fn a_programs_own_entropy_takes_the_place_of_ours() {
    let trng = profile(|abi| forward(abi, 0x8400_0050, 4));
    let dispatcher = settled(&trng, &around().with_service(named("dice", TRNG_RND32)));
    assert_eq!(answer(&dispatcher, TRNG_RND32, 32), Some(only(7)));
}

#[test]
fn a_guest_is_told_of_the_processors_of_the_profile() {
    let n1 = ImplementationIds { midr: Hex(0x413f_d0c1), ..ImplementationIds::default() };
    let discovery = profile(|abi| {
        abi.firmware.set(Firmware::Known(FwReg::VendorHypBmap2), 0x3);
        abi.cpu.implementations = vec![ImplementationIds::default(), n1];
    });
    let dispatcher = settled(&discovery, &around());
    assert_eq!(answer(&dispatcher, DISCOVER_CPUS, 1), Some([0, 0x413f_d0c1, 0, 0]));
}

#[test]
fn a_guest_is_told_of_its_own_processor_where_the_profile_names_none() {
    let discovery = profile(|abi| abi.firmware.set(Firmware::Known(FwReg::VendorHypBmap2), 0x3));
    let host = Host::new("7.2", DISCOVER_CPUS);
    let midr = host.vcpu.reg64(RegId::system(3, 0, 0, 0, 0)).unwrap();
    let dispatcher = host.prepare(&discovery, &around()).unwrap();
    assert_eq!(answer(&dispatcher, DISCOVER_CPUS, 0).unwrap()[1], midr);
    assert!(host.hands_over());
}

/// Where a vCPU of a machine with this profile has its record of stolen time.
fn record(change: impl FnOnce(&mut GuestAbi)) -> Option<u64> {
    let host = Host::new("6.12", 0);
    let limits = ModelHypervisor::new(release("6.12").unwrap()).unwrap().limits();
    let layout = Layout::new(2 << 20, 1, GicChoice::V3 { its: false }, &limits).unwrap();
    for region in regions(&map_anonymous(layout.ram()).unwrap()) {
        host.vm.map_ram(0, region, Access::ReadWrite).unwrap();
    }
    place_pv_time([host.vcpu.as_ref()], &layout, &profile(change)).unwrap();
    host.vcpu.pv_time().unwrap().map(|address| address.0)
}

#[test]
fn stolen_time_has_its_place_where_the_profile_has_it() {
    assert_eq!(record(|abi| abi.machine.pv_time = Some(true)), Some(0x8000_0000));
    assert_eq!(record(|abi| abi.machine.pv_time = Some(false)), None);
}

#[test]
fn stolen_time_that_is_left_to_the_host_has_a_place_where_the_guest_can_ask_for_it() {
    let left_to_host = |std_hyp| {
        move |abi: &mut GuestAbi| {
            abi.machine.pv_time = None;
            abi.firmware.set(Firmware::Known(FwReg::StdHypBmap), std_hyp);
        }
    };
    assert_eq!(record(left_to_host(0x1)), Some(0x8000_0000));
    assert_eq!(record(left_to_host(0x0)), None);
}
