//! The map of every machine: nothing overlaps, nothing is out of reach.

use expect_test::expect;
use kedge_diag::{Fix, report};
use kedge_hv::VcpuFeatures;
use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const V3: GicChoice = GicChoice::V3 { its: true };

fn host() -> Limits {
    Limits {
        ipa_bits: 40,
        vcpus: 512,
        slot_bytes: 1 << 43,
        slots: 32,
        features: VcpuFeatures::NONE,
    }
}

fn refusal(memory: u64, cpus: u32, gic: GicChoice, host: &Limits) -> String {
    report(&Layout::new(memory, cpus, gic, host).unwrap_err())
}

/// Every range that the map gives to something, RAM as one.
fn everything(layout: &Layout) -> Vec<GuestRange> {
    let cpus = u64::from(layout.cpus());
    let mut ranges = match layout.gic() {
        GicConfig::V2 { distributor, cpu_interface, .. } => {
            vec![GuestRange::new(distributor.0, 0x1000), GuestRange::new(cpu_interface.0, 0x2000)]
        }
        GicConfig::V3 { distributor, redistributors, its, .. } => {
            let its = its.map(|its| GuestRange::new(its.0, 0x2_0000));
            let mut frames = vec![
                GuestRange::new(distributor.0, 0x1_0000),
                GuestRange::new(redistributors.0, cpus * 0x2_0000),
            ];
            frames.extend(its);
            frames
        }
    };
    ranges.extend([layout.boot_timer(), layout.rtc().range, layout.serial().range]);
    ranges.extend((0..92).map(|n| layout.virtio(n).unwrap().range));
    ranges.push(GuestRange::new(RAM_BASE, layout.memory()));
    ranges
}

proptest! {
    #[test]
    fn nothing_overlaps(
        units in RAM_LEAST / RAM_UNIT..=RAM_MOST / RAM_UNIT,
        cpus in 1_u32..=512,
        v2 in any::<bool>(),
        its in any::<bool>(),
    ) {
        let (gic, cpus) = if v2 { (GicChoice::V2, cpus % 8 + 1) } else { (GicChoice::V3 { its }, cpus) };
        let layout = Layout::new(units * RAM_UNIT, cpus, gic, &host()).unwrap();
        let mut ranges = everything(&layout);
        ranges.sort();
        prop_assert!(ranges.windows(2).all(|pair| pair[0].end() <= pair[1].start.0));
    }

    #[test]
    fn everything_lies_in_an_area(
        units in RAM_LEAST / RAM_UNIT..=RAM_MOST / RAM_UNIT,
        cpus in 1_u32..=512,
    ) {
        let layout = Layout::new(units * RAM_UNIT, cpus, V3, &host()).unwrap();
        let areas = layout.areas();
        let within = |range: &GuestRange| {
            areas.iter().any(|area| {
                area.range.start <= range.start && range.end() <= area.range.end()
            })
        };
        prop_assert!(everything(&layout).iter().all(within));
    }

    #[test]
    fn the_areas_in_ram_follow_each_other_within_it(
        units in RAM_LEAST / RAM_UNIT..=RAM_MOST / RAM_UNIT,
    ) {
        let layout = Layout::new(units * RAM_UNIT, 1, V3, &host()).unwrap();
        prop_assert_eq!(layout.own_area().start.0, RAM_BASE);
        prop_assert_eq!(layout.own_area().end(), layout.fdt_area().start.0);
        prop_assert_eq!(layout.fdt_area().end(), layout.load_floor());
        prop_assert!(layout.load_floor() < layout.ram_end());
    }

    #[test]
    fn each_vcpu_has_a_record_of_stolen_time_of_its_own_in_the_reserved_area(cpu in 0_u32..512) {
        let layout = Layout::new(RAM_LEAST, 512, V3, &host()).unwrap();
        let record = layout.pv_time(VcpuId(cpu));
        prop_assert!(layout.pv_time(VcpuId(0)).0.is_multiple_of(64 << 10));
        prop_assert_eq!(record.0 - layout.pv_time(VcpuId(0)).0, u64::from(cpu) * 64);
        prop_assert!(record >= layout.own_area().start && record.0 + 64 <= layout.own_area().end());
    }

    #[test]
    fn what_tells_of_a_restore_lies_apart_in_the_reserved_area(
        units in RAM_LEAST / RAM_UNIT..=RAM_MOST / RAM_UNIT,
    ) {
        let layout = Layout::new(units * RAM_UNIT, 1, V3, &host()).unwrap();
        let (generation, clock) = (layout.generation().range, layout.clock_page().range);
        prop_assert!(layout.pv_time(VcpuId(511)).0 + 64 <= generation.start.0);
        prop_assert!(generation.end() <= clock.start.0);
        prop_assert!(clock.start.0.is_multiple_of(64 << 10) && clock.size == 64 << 10);
        prop_assert_eq!(clock.end(), layout.own_area().end());
    }

    #[test]
    fn memory_slots_hold_ram_exactly(
        units in RAM_LEAST / RAM_UNIT..=RAM_MOST / RAM_UNIT,
        slot_bytes in 16 * GIB..1 << 41,
    ) {
        let host = Limits { slot_bytes, slots: 512, ..host() };
        let layout = Layout::new(units * RAM_UNIT, 1, V3, &host).unwrap();
        let mut end = RAM_BASE;
        for range in layout.ram() {
            prop_assert_eq!(range.start.0, end);
            prop_assert!(range.size > 0 && range.size <= slot_bytes);
            prop_assert_eq!(range.size % RAM_UNIT, 0);
            end = range.end();
        }
        prop_assert_eq!(end, layout.ram_end());
    }

    #[test]
    fn any_request_is_answered(
        memory in any::<u64>(),
        cpus in any::<u32>(),
        ipa_bits in any::<u8>(),
        slot_bytes in any::<u64>(),
        slots in any::<u32>(),
    ) {
        let host = Limits { ipa_bits, slot_bytes, slots, ..host() };
        let layout = Layout::new(memory, cpus, V3, &host);
        prop_assert!(layout.err().is_none_or(|error| error.fix().is_some()));
    }
}

#[test]
fn the_map_is_the_documented_one() {
    let layout = Layout::new(16 * MIB, 1, V3, &host()).unwrap();
    assert_eq!(layout.ram(), [GuestRange::new(0x8000_0000, 16 * MIB)]);
    assert_eq!(layout.boot_timer(), GuestRange::new(0x4000_0000, 0x1000));
    assert_eq!(layout.rtc().range, GuestRange::new(0x4000_1000, 0x1000));
    assert_eq!(layout.serial().range, GuestRange::new(0x4000_2000, 0x1000));
    assert_eq!(layout.virtio(1).unwrap().range, GuestRange::new(0x4000_4000, 0x1000));
    assert_eq!(layout.load_floor(), 0x8008_0000);
}

#[test]
fn interrupts_are_handed_out_in_order() {
    let layout = Layout::new(16 * MIB, 1, V3, &host()).unwrap();
    let offsets = [layout.serial(), layout.rtc(), layout.virtio(0).unwrap()];
    assert_eq!(offsets.map(|place| place.spi.offset()), [0, 1, 2]);
    assert_eq!(layout.virtio(91).unwrap().spi.offset(), 93);
    assert_eq!(
        [layout.clock_page(), layout.generation()].map(|place| place.spi.offset()),
        [94, 95]
    );
    assert_eq!(layout.virtio(92), Err(TooManyDevices::Virtio { most: 92 }));
}

#[test]
fn forty_bits_address_every_machine() {
    assert_eq!(ipa_bits(&Limits { ipa_bits: 52, ..host() }), 40);
    assert_eq!(ipa_bits(&Limits { ipa_bits: 36, ..host() }), 36);
    let layout = Layout::new(1022 * GIB, 512, V3, &host()).unwrap();
    assert_eq!(layout.ram_end(), 1 << 40);
}

#[test]
fn small_slots_split_ram() {
    let host = Limits { slot_bytes: 3 * GIB + 1, ..host() };
    let layout = Layout::new(4 * GIB, 1, V3, &host).unwrap();
    let ranges = [GuestRange::new(0x8000_0000, 3 * GIB), GuestRange::new(0x1_4000_0000, GIB)];
    assert_eq!(layout.ram(), ranges);
}

#[test]
fn memory_beyond_the_host_is_refused_with_both_sizes() {
    expect![[r#"
        error: 64 GiB of memory are too much for this host: its 36-bit guest addresses leave room for 62 GiB
          fix: ask for at most 62 GiB of memory"#]]
    .assert_eq(&refusal(64 * GIB, 1, V3, &Limits { ipa_bits: 36, ..host() }));
    expect![[r#"
        error: 1023 GiB of memory are too much: a machine has at most 1022 GiB
          fix: ask for at most 1022 GiB of memory"#]]
    .assert_eq(&refusal(1023 * GIB, 1, V3, &host()));
    expect![[r#"
        error: 4 GiB of memory are too much for this host: it has 2 memory slots of at most 1 GiB
          fix: ask for at most 2 GiB of memory"#]]
    .assert_eq(&refusal(4 * GIB, 1, V3, &Limits { slots: 2, slot_bytes: GIB, ..host() }));
}

#[test]
fn memory_that_is_none_or_odd_is_refused() {
    expect![[r#"
        error: a machine without memory cannot run
          fix: ask for some memory: 512 MiB suit most Linux guests"#]]
    .assert_eq(&refusal(0, 1, V3, &host()));
    expect![[r#"
        error: 64 KiB of memory are too little: a machine has at least 2 MiB
          fix: ask for 2 MiB or more"#]]
    .assert_eq(&refusal(0x1_0000, 1, V3, &host()));
    expect![[r#"
        error: memory of 16777217 bytes is not a multiple of 64 KiB
          fix: ask for 16448 KiB"#]]
    .assert_eq(&refusal(16 * MIB + 1, 1, V3, &host()));
}

#[test]
fn vcpus_that_are_none_or_too_many_are_refused() {
    expect![[r#"
        error: a machine without vCPUs cannot run
          fix: ask for at least one vCPU"#]]
    .assert_eq(&refusal(GIB, 0, V3, &host()));
    expect![[r#"
        error: 9 vCPUs are too many for a GICv2: it serves 8
          fix: ask for at most 8 vCPUs"#]]
    .assert_eq(&refusal(GIB, 9, GicChoice::V2, &host()));
    expect![[r#"
        error: 9 vCPUs are too many: this host allows 4
          fix: ask for at most 4 vCPUs"#]]
    .assert_eq(&refusal(GIB, 9, V3, &Limits { vcpus: 4, ..host() }));
}

#[test]
fn pci_needs_a_translation_service() {
    let on_pci = |gic| {
        let layout = Layout::new(GIB, 1, gic, &host()).unwrap();
        layout.with_transport(Transport::Pci)
    };
    expect![[r#"
        error: a machine with PCI needs an Interrupt Translation Service, which this GICv2 has not
          fix: ask for a GICv3, or for virtio devices on MMIO (`--transport mmio`)"#]]
    .assert_eq(&report(&on_pci(GicChoice::V2).unwrap_err()));
    let without = GicChoice::V3 { its: false };
    assert_eq!(on_pci(without), Err(LayoutError::PciWithoutIts { gic: without }));
    assert!(on_pci(V3).unwrap().pci().is_some());
}

#[test]
fn pci_has_its_place_to_itself() {
    let layout = Layout::new(RAM_MOST, 512, V3, &host()).unwrap();
    assert_eq!(layout.pci(), None);
    let before = layout.areas();
    let layout = layout.with_transport(Transport::Pci).unwrap();
    let pci = layout.pci().unwrap();
    assert!(pci.window.end() <= pci.config.start.0);
    let overlap = |area: &Area| {
        area.range.start.0 < pci.config.end() && pci.window.start.0 < area.range.end()
    };
    assert!(!before.iter().any(overlap), "{before:?}");
    assert_eq!(layout.areas().len(), before.len() + 1);
    assert_eq!((layout.pci_virtio(0), layout.pci_virtio(29)), (Ok(1), Ok(30)));
    assert_eq!(layout.pci_virtio(30), Err(TooManyDevices::Virtio { most: 30 }));
}

#[test]
fn a_programs_devices_have_a_mebibyte_each_and_interrupts_from_the_last_one_on() {
    let plain = Layout::new(16 * MIB, 1, V3, &host()).unwrap();
    assert_eq!(plain.own_device(0, 8), Err(TooManyDevices::Own));
    let layout = plain.clone().with_own_devices(2).unwrap();
    let places = [0, 1].map(|index| layout.own_device(index, 8).unwrap());
    assert_eq!(places.map(|place| place.range.start.0), [0x5000_0000, 0x5010_0000]);
    assert_eq!(places.map(|place| place.spi.offset()), [93, 92]);
    assert_eq!(layout.own_device(2, 8), Err(TooManyDevices::Own));
    assert_eq!(layout.virtio(89).unwrap().spi.offset(), 91);
    assert_eq!(layout.virtio(90), Err(TooManyDevices::Virtio { most: 90 }));
    let free = plain.areas();
    let is_taken = |area: &Area| !free.contains(area);
    let taken: Vec<_> = layout.areas().into_iter().filter(is_taken).collect();
    assert_eq!(taken[0].range, GuestRange::new(0x5000_0000, 2 * MIB));
    assert_eq!((taken.len(), free.len() + 1), (1, layout.areas().len()));
}

#[test]
fn there_is_room_for_sixteen_of_a_programs_devices() {
    let layout = Layout::new(16 * MIB, 1, V3, &host()).unwrap();
    assert!(layout.clone().with_own_devices(16).is_ok());
    expect![[r#"
        error: a machine has room for 16 devices of a program, not for more
          fix: bring at most 16 along"#]]
    .assert_eq(&report(&layout.with_own_devices(17).unwrap_err()));
}
