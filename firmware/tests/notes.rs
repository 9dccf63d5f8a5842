//! Machines on a host on which there were machines before.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod closed;

use std::collections::BTreeMap;
use std::sync::Mutex;

use kedge_firmware::{
    ARM64_V1, BirthError, Born, GuestAbi, HOST, Hex, IdPromise, Newborn, Notes, NotesOf,
    PmuEventSet, builtin, settle,
};
use kedge_guest_memory::GuestAddress;
use kedge_hv::{Gic, GicConfig, Hypervisor, Vcpu, VcpuFeatures, VmConfig};
use kedge_hv_model::{ModelHypervisor, Release, V6_1, V6_12, V7_2};
use kedge_ids::{RegId, VcpuId};

use closed::Closed;

const FEATURES: VcpuFeatures = VcpuFeatures::PMU_V3;
/// SW_INCR and CPU_CYCLES, which all of them count, but not all that they do.
const EVENTS: PmuEventSet = PmuEventSet { pmceid0: Hex(0x2_0001), pmceid1: Hex(0) };
const ISAR0: RegId = RegId::system(3, 0, 0, 6, 0);
const ID_DFR0: RegId = RegId::system(3, 0, 0, 1, 2);
const MMFR0: RegId = RegId::system(3, 0, 0, 7, 0);
const ID_REGISTERS: std::ops::RangeInclusive<RegId> =
    RegId::system(3, 0, 0, 1, 0)..=RegId::system(3, 0, 0, 7, 7);
const CTR: RegId = RegId::system(3, 3, 0, 0, 1);
const CACHE_0: RegId = RegId(0x6020_0000_0011_0000);

/// Notes that are kept in memory, and how often one was.
#[derive(Default)]
struct Kept {
    notes: Mutex<BTreeMap<String, Vec<u8>>>,
    times: Mutex<usize>,
}

impl Notes for Kept {
    fn recall(&self, name: &str) -> Option<Vec<u8>> {
        self.notes.lock().unwrap().get(name).cloned()
    }

    fn keep(&self, name: &str, note: &[u8]) {
        *self.times.lock().unwrap() += 1;
        self.notes.lock().unwrap().insert(name.to_owned(), note.to_vec());
    }
}

impl Kept {
    fn times(&self) -> usize {
        *self.times.lock().unwrap()
    }
}

/// What became of a machine: what it was born with, and what its vCPUs are called.
type Grown = (Born, Vec<(RegId, Vec<u8>)>);

/// Makes a machine, and no other beside it if `closed`.
fn born(
    release: &Release,
    vcpus: u32,
    abi: &GuestAbi,
    notes: Option<&Kept>,
    closed: bool,
) -> Result<Grown, BirthError> {
    let hypervisor = ModelHypervisor::new(release).unwrap();
    let vm = hypervisor.create_vm(&VmConfig::new(40)).unwrap();
    let create = |id| {
        let mut vcpu = vm.create_vcpu(VcpuId(id)).unwrap();
        vcpu.init(VcpuFeatures::PSCI_0_2 | FEATURES).unwrap();
        vcpu
    };
    let all: Vec<_> = (0..vcpus).map(create).collect();
    let gic = GicConfig::V3 {
        distributor: GuestAddress(0x800_0000),
        redistributors: GuestAddress(0x80a_0000),
        its: None,
        spis: 32,
    };
    let gic = vm.create_gic(&gic).unwrap();
    gic.init().unwrap();
    let refs: Vec<&dyn Vcpu> = all.iter().map(AsRef::as_ref).collect();
    let no_more = Closed(&hypervisor);
    let hypervisor: &dyn Hypervisor = if closed { &no_more } else { &hypervisor };
    let notes = notes.map(|notes| NotesOf { notes, features: FEATURES });
    let (vm, gic): (_, Option<&dyn Gic>) = (vm.as_ref(), Some(gic.as_ref()));
    let newborn = Newborn { hypervisor, vm, gic, vcpus: &refs, services: &[], notes };
    let born = settle(&newborn, abi)?;
    let values = refs.iter().flat_map(|vcpu| {
        let value = |id| (id, vcpu.reg(id).unwrap());
        let identifies = |id: &RegId| *id == CTR || *id == CACHE_0 || ID_REGISTERS.contains(id);
        vcpu.reg_list().unwrap().into_iter().filter(identifies).map(value).collect::<Vec<_>>()
    });
    Ok((born, values.collect()))
}

fn promise(id: RegId, value: u64, mask: u64) -> IdPromise {
    IdPromise { id, name: String::new(), value: Hex(value & mask), mask: Hex(mask) }
}

/// A profile that the kernel can honour: on 6.1 by writing nothing, later ones hold the sizes
/// of caches for each vCPU.
fn abi(release: &Release) -> GuestAbi {
    let mut abi = builtin(HOST).unwrap();
    let (_, values) = born(release, 1, &abi, None, false).unwrap();
    let value = |id| {
        let (_, value) = values.iter().find(|value| value.0 == id).unwrap();
        value.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    abi.cpu.id_registers = vec![
        promise(ID_DFR0, value(ID_DFR0), !0xf00_0000),
        promise(MMFR0, value(MMFR0), u64::MAX),
        promise(CTR, 0x8444_c004, u64::MAX),
    ];
    if release.name != V6_1.name {
        abi.cpu.id_registers.push(promise(CACHE_0, 0x701f_e01a, 0xffff_ffff));
        abi.cpu.id_registers.push(promise(ISAR0, 0, u64::MAX));
    }
    abi.machine.pmu_events = Some(EVENTS);
    abi
}

fn change(abi: &mut GuestAbi, id: RegId, value: u64) {
    let promise = abi.cpu.id_registers.iter_mut().find(|promise| promise.id == id).unwrap();
    promise.value = Hex(value);
}

#[test]
fn a_machine_is_born_from_notes_as_without() {
    for release in [V6_1, V6_12, V7_2] {
        let abi = abi(&release);
        for vcpus in [1, 3] {
            let kept = Kept::default();
            let alone = born(&release, vcpus, &abi, None, false).unwrap();
            let first = born(&release, vcpus, &abi, Some(&kept), false).unwrap();
            assert_eq!(first, alone, "{}", release.name);
            assert_eq!(kept.times(), 1);
            let second = born(&release, vcpus, &abi, Some(&kept), true).unwrap();
            assert_eq!(second, alone, "{}", release.name);
            assert_eq!(kept.times(), 1, "nothing was asked for");
        }
    }
}

#[test]
fn what_notes_do_not_tell_is_asked_for_and_noted() {
    let kept = Kept::default();
    let abi = abi(&V6_12);
    let mut less = abi.clone();
    less.cpu.id_registers.retain(|promise| promise.id != ISAR0);
    born(&V6_12, 1, &less, Some(&kept), false).unwrap();
    let more = born(&V6_12, 1, &abi, Some(&kept), true).unwrap();
    assert_eq!(more, born(&V6_12, 1, &abi, None, false).unwrap());
    assert_eq!(kept.times(), 2);
    born(&V6_12, 1, &abi, Some(&kept), true).unwrap();
    born(&V6_12, 1, &less, Some(&kept), true).unwrap();
    assert_eq!(kept.times(), 2);
}

#[test]
fn notes_do_not_grow_with_every_profile() {
    let (kept, mut abi) = (Kept::default(), abi(&V6_12));
    let mut start = |size: u64| {
        change(&mut abi, CACHE_0, 0x7000_0002 | size << 13);
        born(&V6_12, 1, &abi, Some(&kept), false).unwrap()
    };
    (0..20).for_each(|size| drop(start(size)));
    assert_eq!(kept.times(), 8);
    let (_, values) = start(21);
    assert!(values.contains(&(CACHE_0, vec![2, 0xa0, 2, 0x70])));
}

#[test]
fn other_values_are_written_though_a_note_knows_of_some() {
    let (kept, abi) = (Kept::default(), abi(&V6_12));
    born(&V6_12, 1, &abi, Some(&kept), false).unwrap();
    let mut other = abi.clone();
    change(&mut other, ISAR0, 0x20);
    let noted = born(&V6_12, 1, &other, Some(&kept), true).unwrap();
    assert_eq!(noted, born(&V6_12, 1, &other, None, false).unwrap());
    assert!(noted.1.contains(&(ISAR0, vec![0x20, 0, 0, 0, 0, 0, 0, 0])));
}

#[test]
fn a_refusal_is_the_same_with_notes() {
    let (kept, mut abi) = (Kept::default(), abi(&V6_12));
    born(&V6_12, 1, &abi, Some(&kept), false).unwrap();
    change(&mut abi, ISAR0, u64::MAX);
    let refusal = |notes| match born(&V6_12, 1, &abi, notes, false) {
        Err(BirthError::NotHonoured(refusal)) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(Some(&kept)), refusal(None));
}

#[test]
fn a_note_that_is_none_is_written_anew() {
    let (kept, abi) = (Kept::default(), abi(&V6_12));
    let alone = born(&V6_12, 1, &abi, Some(&kept), false).unwrap();
    kept.notes.lock().unwrap().values_mut().for_each(|note| note[20] ^= 1);
    assert_eq!(born(&V6_12, 1, &abi, Some(&kept), false).unwrap(), alone);
    assert_eq!(born(&V6_12, 1, &abi, Some(&kept), true).unwrap(), alone);
    assert_eq!(kept.times(), 2);
}

#[test]
fn a_profile_of_firmware_alone_neither_reads_nor_keeps_notes() {
    let kept = Kept::default();
    born(&V6_12, 1, &builtin(ARM64_V1).unwrap(), Some(&kept), true).unwrap();
    assert_eq!(kept.times(), 0);
}
