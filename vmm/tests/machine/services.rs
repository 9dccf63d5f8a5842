//! Firmware calls that the machine answers, by the service of the library's example.

use expect_test::expect;
use kedge_diag::report;
use kedge_firmware::{
    FilterAction, FilterRange, Firmware, FwReg, GuestAbi, Hex, ImplementationIds, ServiceRecord,
};
use kedge_hv_model::{Program, Step, Width};
use kedge_vmm::Ended;
use kedge_vmm::smccc::{Call, Functions, Results, Service};

use crate::guest::{Guest, call, off, print_reg, program, turn_on};
use lap_counter::{LAP, LapCounter};

#[path = "../../examples/firmware_service/lap_counter.rs"]
mod lap_counter;

/// Reports `laps` and shows the low bytes of what is answered.
fn report_laps(laps: u64) -> Vec<Step> {
    let shown = [0, 1, 2, 3].map(print_reg).concat();
    [call(LAP, [laps, 0, 0]), shown].concat()
}

#[test]
fn a_guest_is_answered_by_the_service_of_a_program() {
    let counter = LapCounter::default();
    let guest = Guest::new(&[program(&[report_laps(5), report_laps(2), off()])]);
    let finished = guest.with_service(counter.clone()).run();
    assert_eq!(finished.ended.unwrap(), Ended::Off);
    assert_eq!(finished.said, [0, 5, 5, 0, 0, 7, 5, 0]);
    assert_eq!(counter.laps(), 7);
}

#[test]
fn a_call_goes_by_either_instruction() {
    let [arguments @ .., _] = Step::call(LAP, [3, 0, 0]);
    let steps = [arguments.to_vec(), vec![Step::SecureCall], print_reg(1), off()];
    let finished = Guest::new(&[program(&steps)]).with_service(LapCounter::default()).run();
    assert_eq!(finished.said, [3]);
}

#[test]
fn every_vcpu_is_answered() {
    let counter = LapCounter::default();
    let first = program(&[turn_on(1), report_laps(1)]);
    let second = program(&[report_laps(1), vec![Step::Wait]]);
    let guest = Guest::new(&[first, second]).with_service(counter.clone()).start();
    guest.screen.wait(|said| said.len() == 8);
    assert_eq!(guest.stop().ended.unwrap(), Ended::Stopped);
    assert_eq!(counter.laps(), 2);
}

#[test]
fn without_the_service_the_guest_is_told_that_there_is_none() {
    let finished = Guest::new(&[program(&[report_laps(5), off()])]).run();
    assert_eq!(finished.said, [0xff, 0, 0, 0]);
}

#[test]
fn a_service_goes_on_over_a_reset() {
    let counter = LapCounter::default();
    let guest = Guest::new(&[program(&[report_laps(5), crate::guest::reset()])])
        .then(program(&[report_laps(1), off()]))
        .with(|spec| spec.on_reset = kedge_vmm::spec::OnReset::Restart)
        .with_service(counter.clone());
    assert_eq!(guest.run().ended.unwrap(), Ended::Off);
    assert_eq!(counter.laps(), 6);
}

#[test]
fn what_a_guest_was_born_with_tells_of_the_services_of_the_program() {
    let guest = Guest::new(&[Program::default()]).with_service(LapCounter::default());
    let functions = FilterRange { base: Hex(LAP.into()), count: 1, action: FilterAction::Forward };
    let record = ServiceRecord { name: "lap counter".to_owned(), functions: vec![functions] };
    assert_eq!(guest.build().unwrap().machine.born().services, [record]);
}

/// A service that breaks down.
struct Broken;

impl Service for Broken {
    fn name(&self) -> &str {
        "broken clock"
    }

    fn functions(&self) -> &[Functions] {
        const FUNCTIONS: &[Functions] = &[LAP..=LAP];
        FUNCTIONS
    }

    fn call(&self, _: &Call) -> Results {
        panic!("no time left")
    }
}

#[test]
fn a_service_that_panics_ends_the_machine_and_is_named() {
    let waiting = program(&[vec![Step::Wait]]);
    let first = program(&[turn_on(1), report_laps(1), off()]);
    let finished = Guest::new(&[first, waiting]).with_service(Broken).run();
    expect![[r#"
        error: the guest cannot run any further
          because: `broken clock` panicked over the firmware call 0xc3000100 of vCPU 0"#]]
    .assert_eq(&report(&finished.ended.unwrap_err()));
}

#[test]
fn a_host_that_hands_over_no_calls_is_refused_with_the_calls() {
    let guest = Guest::on("6.1", &[Program::default()]).with_service(LapCounter::default());
    let error = guest.build().err().map(|error| report(&error)).unwrap();
    expect![[r#"
        error: this host keeps all firmware calls to itself; the guest's are to be answered (0xc3000100)
          fix: run on Linux 6.4 or later, or have no such calls: they come from `smccc_filter` and `vendor_hyp_bmap_2` in the profile, and from services that a program adds"#]]
    .assert_eq(&error);
}

/// A guest on Linux 7.2 that calls and shows the low bytes of what is answered, with
/// this profile.
fn answers(calls: &[(u32, u64)], change: impl FnOnce(&mut GuestAbi)) -> Vec<u8> {
    let shown = || [0, 1, 2, 3].map(print_reg).concat();
    let steps = calls.iter().map(|&(function, x1)| [call(function, [x1, 0, 0]), shown()].concat());
    let program = program(&[steps.collect::<Vec<_>>().concat(), off()]);
    Guest::on("7.2", &[program]).with(|spec| change(&mut spec.guest_abi)).run().said
}

fn forward(abi: &mut GuestAbi, base: u64, count: u32) {
    let action = FilterAction::Forward;
    abi.machine.smccc_filter.push(FilterRange { base: Hex(base), count, action });
}

#[test]
fn a_profile_can_take_entropy_from_kvm_and_have_it_from_the_machine() {
    let [version, uuid, features] = [0x8400_0050, 0x8400_0052, 0x8400_0051];
    let calls = [(version, 0), (uuid, 0), (features, 0x8400_0053), (0x8400_0053, 97)];
    let own = |abi: &mut GuestAbi| {
        abi.firmware.set(Firmware::Known(FwReg::StdBmap), 0);
        forward(abi, 0x8400_0050, 4);
        forward(abi, 0xc400_0053, 1);
    };
    let uuid = [0x05, 0x49, 0x8f, 0x9f];
    let expected = [[0; 4], uuid, [0; 4], [0xfe, 0, 0, 0]];
    assert_eq!(answers(&calls, own), expected.concat());
    let nobody = |abi: &mut GuestAbi| abi.firmware.set(Firmware::Known(FwReg::StdBmap), 0);
    assert_eq!(answers(&calls, nobody), [[0xff, 0, 0, 0]; 4].concat());
}

#[test]
fn a_profile_can_tell_a_guest_where_it_may_find_itself() {
    const VERSION: u32 = 0xc600_0040;
    const CPUS: u32 = 0xc600_0041;
    let calls = [(VERSION, 0), (CPUS, 0), (CPUS, 1), (CPUS, 2)];
    let processor = |midr, revidr, aidr| ImplementationIds {
        midr: Hex(midr),
        revidr: Hex(revidr),
        aidr: Hex(aidr),
    };
    let tell = |bitmap| {
        move |abi: &mut GuestAbi| {
            abi.firmware.set(Firmware::Known(FwReg::VendorHypBmap2), bitmap);
            abi.cpu.implementations = vec![processor(0xc1, 2, 3), processor(0xf0, 5, 6)];
        }
    };
    let told = [[0, 0, 2, 0], [0, 0xc1, 2, 3], [0, 0xf0, 5, 6], [0xfd, 0, 0, 0]];
    assert_eq!(answers(&calls, tell(0x3)), told.concat());
    // Each bit opens its own function.
    let half = [[0, 0, 2, 0], [0xff, 0, 0, 0], [0xff, 0, 0, 0], [0xff, 0, 0, 0]];
    assert_eq!(answers(&calls, tell(0x1)), half.concat());
    assert_eq!(answers(&calls, tell(0x0)), [[0xff, 0, 0, 0]; 4].concat());
}

#[test]
fn calls_that_a_profile_hands_over_to_nobody_are_not_supported() {
    let calls = [(LAP, 7)];
    assert_eq!(answers(&calls, |abi| forward(abi, LAP.into(), 1)), [0xff, 0, 0, 0]);
}

#[test]
fn stolen_time_is_where_every_machine_has_it() {
    const PV_TIME_FEATURES: u32 = 0xc500_0020;
    const PV_TIME_ST: u32 = 0xc500_0021;
    // The answer, by its highest byte of four.
    let spill = Step::Store { reg: 0, address: 0x8000_0100, width: Width::Double };
    let highest = Step::Load { reg: 9, address: 0x8000_0103, width: Width::Byte };
    let steps = [
        call(PV_TIME_FEATURES, [PV_TIME_ST.into(), 0, 0]),
        print_reg(0),
        call(PV_TIME_ST, [0; 3]),
        vec![spill, highest],
        print_reg(9),
        off(),
    ];
    let said = |pv_time| {
        let guest = Guest::new(&[program(&steps)]);
        guest.with(|spec| spec.guest_abi.machine.pv_time = pv_time).run().said
    };
    assert_eq!(said(Some(true)), [0, 0x80]);
    assert_eq!(said(Some(false)), [0xff, 0xff]);
}
