//! Interrupt controllers saved and restored on the model, as its hypervisor sees it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::sync::Mutex;

use expect_test::expect;
use kedge_arch::gic_state::{
    Devices, GicState, GicV2StateV1, GicV3StateV1, ItsStateV1, RestoreError, flush_tables,
};
use kedge_diag::report;
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Gic, GicConfig, GicReg, GicVersion, HvError, Hypervisor, VcpuFeatures, VmConfig};
use kedge_hv_model::{ModelHypervisor, Recording, V7_2};
use kedge_ids::{Mpidr, VcpuId};
use kedge_saved_state::Versioned;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::Value;

const SPIS: u32 = 32;

fn cpus(count: u32) -> Vec<Mpidr> {
    (0..count).map(|id| Mpidr::of(VcpuId(id))).collect()
}

/// A controller that is ready, on the newest of the modelled kernels.
fn gic(version: GicVersion, vcpus: u32) -> Box<dyn Gic> {
    let host = Recording::parse(V7_2.recording).unwrap();
    let vm = ModelHypervisor::on(&V7_2, host, &[version]).create_vm(&VmConfig::new(40)).unwrap();
    for id in 0..vcpus {
        vm.create_vcpu(VcpuId(id)).unwrap().init(VcpuFeatures::PSCI_0_2).unwrap();
    }
    let distributor = GuestAddress(0x800_0000);
    let config = match version {
        GicVersion::V2 => {
            GicConfig::V2 { distributor, cpu_interface: GuestAddress(0x801_0000), spis: SPIS }
        }
        GicVersion::V3 => GicConfig::V3 {
            distributor,
            redistributors: GuestAddress(0x80a_0000),
            its: Some(GuestAddress(0x808_0000)),
            spis: SPIS,
        },
    };
    let gic = vm.create_gic(&config).unwrap();
    gic.init().unwrap();
    gic
}

/// Notes what is written to a controller.
struct Watched {
    gic: Box<dyn Gic>,
    written: Mutex<String>,
}

impl Watched {
    fn new(gic: Box<dyn Gic>) -> Self {
        Self { gic, written: Mutex::default() }
    }

    fn note(&self, what: &str) {
        let mut written = self.written.lock().unwrap();
        written.push_str(what);
        written.push('\n');
    }
}

impl Gic for Watched {
    fn version(&self) -> GicVersion {
        self.gic.version()
    }
    fn init(&self) -> Result<(), HvError> {
        self.gic.init()
    }
    fn reg(&self, reg: GicReg) -> Result<u64, HvError> {
        self.gic.reg(reg)
    }
    fn set_reg(&self, reg: GicReg, value: u64) -> Result<(), HvError> {
        let name = match reg {
            GicReg::Distributor { offset } => format!("gicd {offset:x}"),
            GicReg::Redistributor { cpu, offset } => format!("gicr{} {offset:x}", cpu.affinity()),
            GicReg::CpuSystem { cpu, encoding } => format!("icc{} {encoding:x}", cpu.affinity()),
            GicReg::LineLevel { cpu, first } => format!("level{} {first}", cpu.affinity()),
            GicReg::Its { offset } => format!("gits {offset:x}"),
            GicReg::DistributorV2 { cpu, offset } => format!("gicd{cpu} {offset:x}"),
            GicReg::CpuInterfaceV2 { cpu, offset } => format!("gicc{cpu} {offset:x}"),
        };
        self.note(&format!("{name} = {value:x}"));
        self.gic.set_reg(reg, value)
    }
    fn save_pending_tables(&self) -> Result<(), HvError> {
        self.note("save pending tables");
        self.gic.save_pending_tables()
    }
    fn save_its_tables(&self) -> Result<(), HvError> {
        self.note("save tables");
        self.gic.save_its_tables()
    }
    fn restore_its_tables(&self) -> Result<(), HvError> {
        self.note("restore tables");
        self.gic.restore_its_tables()
    }
    fn reset_its(&self) -> Result<(), HvError> {
        self.note("reset");
        self.gic.reset_its()
    }
}

fn v3(vcpus: u32) -> GicV3StateV1 {
    match GicState::capture(gic(GicVersion::V3, vcpus).as_ref(), &cpus(vcpus), SPIS).unwrap() {
        GicState::V3(state) => state,
        GicState::V2(_) => panic!("a GICv3 was captured"),
    }
}

fn v2(vcpus: u32) -> GicV2StateV1 {
    match GicState::capture(gic(GicVersion::V2, vcpus).as_ref(), &cpus(vcpus), SPIS).unwrap() {
        GicState::V2(state) => state,
        GicState::V3(_) => panic!("a GICv2 was captured"),
    }
}

fn its() -> ItsStateV1 {
    ItsStateV1::capture(gic(GicVersion::V3, 1).as_ref()).unwrap().unwrap()
}

#[test]
fn tables_come_before_the_switch_and_revisions_before_everything() {
    let mut state = v3(2);
    state.gicd_ctlr = 0x52;
    state.spis.isenabler[0] = 3;
    state.spis.ispendr[0] = 1;
    state.spis.icfgr[0] = 0;
    state.spi_levels[0] = 2;
    state.irouter[1] = 1;
    for cpu in &mut state.cpus {
        cpu.gicr_ctlr |= 1;
        cpu.gicr_pendbaser |= 0x8000_0000;
        cpu.private.isenabler[0] = 0x0800_0001;
        cpu.private_levels = 1 << 27;
        cpu.icc_pmr = 0xf0;
    }
    let watched = Watched::new(gic(GicVersion::V3, 2));

    GicState::V3(state).restore(&watched, &cpus(2), SPIS).unwrap();

    expect![[r#"
        gicd 8 = 4b00343b
        gicd 8 = 4b00343b
        gicd c = 0
        gicd 0 = 52
        gicd 10 = ffffffff
        gicr0 70 = 580
        gicr0 74 = 0
        gicr0 78 = 80000580
        gicr0 7c = 0
        gicr1 70 = 580
        gicr1 74 = 0
        gicr1 78 = 80000580
        gicr1 7c = 0
        gicr0 0 = 7
        gicr1 0 = 7
        gicr0 10080 = ffffffff
        gicr0 10180 = f7fffffe
        gicr0 10100 = 8000001
        gicr0 10c00 = aaaaaaaa
        gicr0 10c04 = 0
        level0 0 = 8000000
        gicr1 10080 = ffffffff
        gicr1 10180 = f7fffffe
        gicr1 10100 = 8000001
        gicr1 10c00 = aaaaaaaa
        gicr1 10c04 = 0
        level1 0 = 8000000
        gicd 84 = ffffffff
        gicd 104 = 3
        gicd 6108 = 1
        gicd c08 = 0
        gicd c0c = aaaaaaaa
        level0 32 = 2
        gicd 204 = 1
        icc0 c665 = 7
        icc0 c664 = 8c00
        icc0 c230 = f0
        icc1 c665 = 7
        icc1 c664 = 8c00
        icc1 c230 = f0
    "#]]
    .assert_eq(&watched.written.into_inner().unwrap());
}

#[test]
fn a_gicv2_is_restored_behind_its_revision() {
    let mut state = v2(1);
    state.gicd_ctlr = 1;
    state.spis.ispendr[0] = 1;
    state.itargetsr[0] = 1;
    state.cpus[0].spendsgir[3] = 1;
    state.cpus[0].gicc_ctlr = 1;
    let watched = Watched::new(gic(GicVersion::V2, 1));

    GicState::V2(state).restore(&watched, &cpus(1), SPIS).unwrap();

    expect![[r#"
        gicd0 8 = 4b00343b
        gicd0 8 = 4b00343b
        gicd0 0 = 1
        gicd0 80 = 0
        gicd0 180 = ffff0000
        gicd0 100 = ffff
        gicd0 c00 = aaaaaaaa
        gicd0 c04 = 0
        gicd0 f2c = 1
        gicd0 84 = 0
        gicd0 820 = 1
        gicd0 824 = 0
        gicd0 828 = 0
        gicd0 82c = 0
        gicd0 830 = 0
        gicd0 834 = 0
        gicd0 838 = 0
        gicd0 83c = 0
        gicd0 c08 = aaaaaaaa
        gicd0 c0c = aaaaaaaa
        gicd0 204 = 1
        gicc0 0 = 1
    "#]]
    .assert_eq(&watched.written.into_inner().unwrap());
}

#[test]
fn a_service_is_switched_on_last() {
    let mut state = its();
    state.gits_cbaser = 1 << 63 | 3 << 59 | 0x8000_0000;
    state.gits_creadr = 0x20;
    state.gits_cwriter = 0x20;
    state.gits_ctlr |= 1;
    let watched = Watched::new(gic(GicVersion::V3, 1));

    let _ = state.restore(&watched, Devices::Unknown).unwrap();

    expect![[r#"
        gits 4 = 4b00043b
        gits 80 = 9800000080000000
        gits 90 = 20
        gits 88 = 20
        gits 100 = 1907000000000600
        gits 108 = 1c07000000000600
        restore tables
        gits 0 = 80000001
    "#]]
    .assert_eq(&watched.written.into_inner().unwrap());
}

#[test]
fn tables_are_written_before_registers_are_read() {
    let watched = Watched::new(gic(GicVersion::V3, 1));

    let _ = flush_tables(&watched).unwrap();

    expect![[r#"
        save pending tables
        save tables
    "#]]
    .assert_eq(&watched.written.into_inner().unwrap());
}

fn refusal(state: &GicState, onto: GicVersion) -> String {
    report(&state.restore(gic(onto, 1).as_ref(), &cpus(1), SPIS).unwrap_err())
}

#[test]
fn what_does_not_fit_is_named_with_a_cure() {
    let mut state = v3(1);
    state.cpus[0].icc_ctlr = 0x4d00;
    state.cpus[0].icc_ap0r = vec![0; 2];
    state.cpus[0].icc_ap1r = vec![0; 2];
    expect![[r#"
        error: the saved interrupt controller is not this host's: ICC_CTLR_EL1.PRIbits is saved as 0x5 and 0x4 here; ICC_CTLR_EL1.SEIS is saved as 0x1 and 0x0 here; ICC_CTLR_EL1.A3V is saved as 0x0 and 0x1 here
          fix: restore on a host with the same kind of interrupt controller, and a kernel at least as new as the one the guest was born on"#]].assert_eq(&refusal(&GicState::V3(state), GicVersion::V3));
    expect![[r#"
        error: the saved interrupt controller is not this host's: the version of the GIC is saved as 0x3 and 0x2 here
          fix: restore on a host with the same kind of interrupt controller, and a kernel at least as new as the one the guest was born on"#]].assert_eq(&refusal(&GicState::V3(v3(1)), GicVersion::V2));
}

#[test]
fn a_state_of_another_machine_is_told_by_its_field() {
    expect![[r#"
        error: the saved `gic-v3` is not plausible: `cpus` has 2 elements, not the machine's 1
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refusal(&GicState::V3(v3(2)), GicVersion::V3));
    let mut state = v3(1);
    state.cpus[0].mpidr = Mpidr::of(VcpuId(3));
    expect![[r#"
        error: the saved `gic-v3` is not plausible: `cpus[0].mpidr` is 0x3, not the vCPU's 0x0
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refusal(&GicState::V3(state), GicVersion::V3));
    let mut state = v3(1);
    state.spis.ipriorityr.pop();
    expect![[r#"
        error: the saved `gic-v3` is not plausible: `spis.ipriorityr` has 7 elements, not the machine's 8
          fix: take another snapshot: this one is damaged"#]].assert_eq(&refusal(&GicState::V3(state), GicVersion::V3));
    let mut state = v3(1);
    state.irouter[4] = 1 << 31;
    expect![[r#"
        error: the saved `gic-v3` is not plausible: `irouter[4]` is 0x80000000, which is no affinity
          fix: take another snapshot: this one is damaged"#]]
    .assert_eq(&refusal(&GicState::V3(state), GicVersion::V3));
    let mut state = v2(1);
    state.cpus[0].gicc_apr.clear();
    expect![[r#"
        error: the saved `gic-v2` is not plausible: `cpus[0].gicc_apr` has 0 elements, not the machine's 4
          fix: take another snapshot: this one is damaged"#]].assert_eq(&refusal(&GicState::V2(state), GicVersion::V2));
}

#[test]
fn a_service_that_cannot_be_is_told_by_its_field() {
    let refused = |state: ItsStateV1| {
        report(&state.restore(gic(GicVersion::V3, 1).as_ref(), Devices::Unknown).unwrap_err())
    };
    expect![[r#"
        error: the saved `gic-its` is not plausible: `gits_baser` has 7 elements, not the machine's 8
          fix: take another snapshot: this one is damaged"#]].assert_eq(&refused(ItsStateV1 { gits_baser: vec![0; 7], ..its() }));
    expect![[r#"
        error: the saved `gic-its` is not plausible: `gits_creadr` is 0x1000: no command of a queue of 0x1000 bytes
          fix: take another snapshot: this one is damaged"#]].assert_eq(&refused(ItsStateV1 { gits_creadr: 0x1000, ..its() }));
    expect![[r#"
        error: cannot set GITS_IIDR of the interrupt controller to 0x4b00143b
          because: the hypervisor refused to write a register of the interrupt controller
          because: Invalid argument (os error 22)"#]]
    .assert_eq(&refused(ItsStateV1 { gits_iidr: 0x4b00_143b, ..its() }));
    // Entries of 16 bytes.
    let baser = [0x100f_0000_0000_0600, 0, 0, 0, 0, 0, 0, 0].to_vec();
    expect!["error: GITS_BASER0 of the interrupt controller is 0x1107000000000600 once it was set to 0x100f000000000600"].assert_eq(&refused(ItsStateV1 { gits_baser: baser, ..its() }));
}

#[test]
fn a_table_of_devices_is_where_its_register_says() {
    let table = |baser: u64| ItsStateV1 { gits_baser: vec![0, baser], ..its() }.device_table();
    // Valid, of devices, two pages of 64 KiB; bits 51:48 of the address stand in 15:12.
    let devices = 0x8100_0000_4322_1201;
    assert_eq!(table(devices), Some((GuestAddress(0x0001_0000_4322_0000), 0x2_0000)));
    assert_eq!(table(devices & !(1 << 63)), None, "it is not valid");
    assert_eq!(table(0x8400_0000_4322_0201), None, "it is one of collections");
}

/// What every later release must read: each field of each struct by its name.
#[test]
fn the_saved_form_never_changes() {
    expect!["{cpus[{gicr_ctlr gicr_pendbaser gicr_propbaser gicr_statusr gicr_waker icc_ap0r[1] icc_ap1r[1] icc_bpr0 icc_bpr1 icc_ctlr icc_igrpen0 icc_igrpen1 icc_pmr icc_sre mpidr private{icfgr[2] igroupr[1] ipriorityr[8] isactiver[1] isenabler[1] ispendr[1]} private_levels}] gicd_ctlr gicd_iidr gicd_statusr gicd_typer2 irouter[32] spi_levels[1] spis{icfgr[2] igroupr[1] ipriorityr[8] isactiver[1] isenabler[1] ispendr[1]}}"].assert_eq(&shape(&serde_json::to_value(v3(1)).unwrap()));
    expect!["{cpus[{gicc_abpr gicc_apr[4] gicc_bpr gicc_ctlr gicc_pmr private{icfgr[2] igroupr[1] ipriorityr[8] isactiver[1] isenabler[1] ispendr[1]} spendsgir[4]}] gicd_ctlr gicd_iidr itargetsr[8] spis{icfgr[2] igroupr[1] ipriorityr[8] isactiver[1] isenabler[1] ispendr[1]}}"].assert_eq(&shape(&serde_json::to_value(v2(1)).unwrap()));
    expect!["{gits_baser[8] gits_cbaser gits_creadr gits_ctlr gits_cwriter gits_iidr}"]
        .assert_eq(&shape(&serde_json::to_value(its()).unwrap()));
    let versions = [
        (GicV3StateV1::KIND, GicV3StateV1::VERSION),
        (GicV2StateV1::KIND, GicV2StateV1::VERSION),
        (ItsStateV1::KIND, ItsStateV1::VERSION),
    ];
    assert_eq!(versions, [("gic-v3", 1), ("gic-v2", 1), ("gic-its", 1)]);
}

/// The fields, and how many values a list of numbers has.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}{}", shape(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(" "))
        }
        Value::Array(values) => match values.first() {
            Some(Value::Object(_)) => format!("[{}]", shape(&values[0])),
            _ => format!("[{}]", values.len()),
        },
        _ => String::new(),
    }
}

/// A saved state with one number in it replaced, or one list made shorter.
fn damaged<T: serde::Serialize + DeserializeOwned>(state: &T, at: usize, value: u64) -> Option<T> {
    fn places<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Value>) {
        let structs = value.as_array().is_some_and(|list| list.iter().any(Value::is_object));
        if structs {
            let list = value.as_array_mut().into_iter().flatten();
            list.for_each(|value| places(value, found));
        } else if value.is_object() {
            let fields = value.as_object_mut().into_iter().flat_map(|fields| fields.values_mut());
            fields.for_each(|value| places(value, found));
        } else {
            found.push(value);
        }
    }
    let mut json = serde_json::to_value(state).unwrap();
    let mut found = Vec::new();
    places(&mut json, &mut found);
    let count = found.len();
    match found.swap_remove(at % count) {
        Value::Array(values) if value.is_multiple_of(3) => drop(values.pop()),
        Value::Array(values) if value.is_multiple_of(5) => values.push(value.into()),
        Value::Array(values) => values.iter_mut().for_each(|place| *place = value.into()),
        place => *place = value.into(),
    }
    serde_json::from_value(json).ok()
}

proptest! {
    /// Whatever a file holds is restored or refused.
    #[test]
    fn nothing_that_is_saved_makes_a_restore_fail_otherwise(
        at in 0_usize..64,
        value in prop_oneof![any::<u64>(), any::<u32>().prop_map(u64::from), Just(0), 0_u64..16],
    ) {
        let (one, two) = (gic(GicVersion::V3, 1), gic(GicVersion::V2, 1));
        if let Some(state) = damaged(&v3(1), at, value) {
            let _ = GicState::V3(state).restore(one.as_ref(), &cpus(1), SPIS);
        }
        if let Some(state) = damaged(&v2(1), at, value) {
            let _ = GicState::V2(state).restore(two.as_ref(), &cpus(1), SPIS);
        }
        if let Some(state) = damaged(&its(), at, value) {
            let restored = state.restore(one.as_ref(), Devices::Unknown);
            prop_assert!(!matches!(restored, Err(RestoreError::Misfit(_))));
        }
    }
}
