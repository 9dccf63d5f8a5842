//! Releases are data: those there are agree with their recordings, and those there
//! are not can be invented.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kedge_hv::{Hypervisor, Vcpu, VcpuFeatures, VmConfig};
use kedge_hv_model::{
    BitmapOrder, Ids, ModelHypervisor, RELEASES, Recording, Release, Row, Rule, V7_2, id, release,
};
use kedge_ids::{RegId, VcpuId};

/// State of an extension to come, 2048 bits in a bank that no kernel has.
const ZA: RegId = RegId(0x6080_0000_0017_0000);
/// A bitmap to come, with a service that is on by default.
const NEXT_BMAP: RegId = RegId(0x6030_0000_0016_0004);

/// A kernel that is not there yet.
const V9_0: Release = Release {
    name: "9.0",
    rows: &[
        &[
            Row::of(Ids::One(ZA), Rule::Stored).born(&[]),
            Row::of(Ids::One(NEXT_BMAP), BITMAP).whole_vm().frozen_by_run().born(&[0x1]),
        ],
        V7_2.rows[0],
        V7_2.rows[1],
        V7_2.rows[2],
        V7_2.rows[3],
        V7_2.rows[4],
    ],
    psci: &[0x2, 0x1_0000, 0x1_0001, 0x1_0002, 0x1_0003, 0x1_0004],
    ..V7_2
};
const BITMAP: Rule = Rule::Bitmap { known: 0x7, order: BitmapOrder::UnknownFirst };

fn plain_vcpu(release: &Release) -> Box<dyn Vcpu> {
    let hypervisor = ModelHypervisor::new(release).unwrap();
    let vm = hypervisor.create_vm(&VmConfig::new(40)).unwrap();
    let mut vcpu = vm.create_vcpu(VcpuId(0)).unwrap();
    vcpu.init(VcpuFeatures::PSCI_0_2).unwrap();
    vcpu
}

#[test]
fn a_release_is_found_by_its_name() {
    assert_eq!(release("6.12").unwrap().name, "6.12");
    assert!(release("6.13").is_none());
}

#[test]
fn a_plain_vcpu_lists_as_many_registers_as_the_kernel_does() {
    let lists = RELEASES.iter().map(|release| plain_vcpu(release).reg_list().unwrap().len());
    assert_eq!(lists.collect::<Vec<_>>(), [312, 242, 259, 257]);
}

#[test]
fn registers_are_born_as_they_were_recorded() {
    let runs = [id::TIMER_CNT, id::PTIMER_CNT];
    for release in RELEASES {
        let recorded = Recording::parse(release.recording).unwrap();
        let vcpu = plain_vcpu(release);
        for (id, value) in recorded.registers(VcpuFeatures::PSCI_0_2) {
            let born = vcpu.reg(id).unwrap();
            assert!(born == value || runs.contains(&id), "{}: {id} {born:x?}", release.name);
        }
    }
}

#[test]
fn an_invented_kernel_has_registers_of_any_size_in_any_bank() {
    let vcpu = plain_vcpu(&V9_0);
    assert_eq!(vcpu.reg_list().unwrap().len(), 259);
    assert_eq!(vcpu.reg(ZA).unwrap(), [0; 256]);
    vcpu.set_reg(ZA, &[0xa5; 256]).unwrap();
    assert_eq!(vcpu.reg(ZA).unwrap(), [0xa5; 256]);
}

#[test]
fn an_invented_kernel_has_firmware_of_its_own() {
    let vcpu = plain_vcpu(&V9_0);
    assert_eq!(vcpu.reg64(RegId::PSCI_VERSION).unwrap(), 0x1_0004);
    assert_eq!(vcpu.reg64(NEXT_BMAP).unwrap(), 0x1);
    vcpu.set_reg64(NEXT_BMAP, 0x6).unwrap();
    assert_eq!(vcpu.set_reg64(NEXT_BMAP, 0x8).unwrap_err().errno(), libc::EINVAL);
}
