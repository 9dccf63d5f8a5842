//! The device trees of several machines against their golden texts in
//! `resources/golden`, and against dtc. `UPDATE_GOLDEN=1` rewrites the texts.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dts;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs};

use expect_test::expect;
use kedge_arch::cache::{Caches, Geometry, Outer};
use kedge_arch::fdt::{self, Machine, PlacedDevice, Timers};
use kedge_arch::layout::Transport;
use kedge_arch::{GicChoice, Layout, Place, PsciVersion};
use kedge_bus::{Node, Value};
use kedge_guest_memory::GuestRange;
use kedge_hv::{Limits, VcpuFeatures};
use kedge_ids::{Mpidr, Ppi, VcpuId};

const GIB: u64 = 1 << 30;

/// A machine without devices.
fn bare(cpus: u32, memory: u64, gic: GicChoice) -> (Machine, Layout) {
    let limits = Limits {
        ipa_bits: 48,
        vcpus: 512,
        slot_bytes: 256 * GIB,
        slots: 512,
        features: VcpuFeatures::NONE,
    };
    let layout = Layout::new(memory, cpus, gic, &limits).unwrap();
    let machine = Machine {
        cpus: (0..cpus).map(|id| Mpidr::of(VcpuId(id))).collect(),
        caches: Caches::default(),
        memory: layout.ram().to_vec(),
        reserved: vec![layout.own_area()],
        cmdline: "console=ttyS0".to_owned(),
        initrd: None,
        rng_seed: None,
        kaslr_seed: None,
        psci: PsciVersion::V1_1,
        gic: layout.gic(),
        timers: Timers::default(),
        pmu: None,
        stdout: None,
        devices: Vec::new(),
        pci: layout.pci(),
    };
    (machine, layout)
}

fn placed(place: Place, node: Node) -> PlacedDevice {
    let GuestRange { start: address, size } = place.range;
    PlacedDevice { address, size, interrupt: Some(place.spi), node }
}

fn strings(texts: &[&str]) -> Value {
    Value::Strings(texts.iter().map(|&text| text.to_owned()).collect())
}

/// Serial port, clock, `virtio` virtio devices, and what tells of a restore.
fn with_devices(machine: Machine, layout: &Layout, virtio: usize) -> Machine {
    let serial =
        Node::new("serial", &["ns16550a"]).with("clock-frequency", Value::Cells(vec![1_843_200]));
    let rtc = Node::new("rtc", &["arm,pl031", "arm,primecell"])
        .with("clocks", Value::Clock(1))
        .with("clock-names", strings(&["apb_pclk"]));
    let transport = Node::new("virtio_mmio", &["virtio,mmio"]).with("dma-coherent", Value::Empty);
    let mut devices = vec![placed(layout.serial(), serial), placed(layout.rtc(), rtc)];
    let transports = (0..virtio).map(|n| placed(layout.virtio(n).unwrap(), transport.clone()));
    devices.extend(transports);
    devices.push(placed(layout.clock_page(), Node::new("ptp", &["amazon,vmclock"])));
    devices.push(placed(layout.generation(), Node::new("rng", &["microsoft,vmgenid"])));
    Machine { devices, stdout: Some(layout.serial().range.start), ..machine }
}

/// Caches as a server's: two levels of its own for each core, one for all.
fn server_caches() -> Caches {
    let l1 = Some(Geometry { size: 64 << 10, line: Some(64), sets: Some(256) });
    let l2 = Geometry { size: 1 << 20, line: Some(64), sets: Some(2048) };
    let l3 = Geometry { size: 32 << 20, line: Some(64), sets: Some(32768) };
    let outer = vec![
        Outer { level: 2, geometry: l2, shared_by: 1 },
        Outer { level: 3, geometry: l3, shared_by: 64 },
    ];
    Caches { data: l1, instruction: l1, outer }
}

fn smallest() -> Machine {
    bare(1, 16 << 20, GicChoice::V3 { its: true }).0
}

fn usual() -> Machine {
    let (machine, layout) = bare(4, GIB, GicChoice::V3 { its: true });
    let machine = Machine {
        caches: server_caches(),
        cmdline: "console=ttyS0 root=/dev/vda rw quiet".to_owned(),
        initrd: Some(GuestRange::new(0xbff0_0000, 0xf_1234)),
        rng_seed: Some([0x5a; 64]),
        kaslr_seed: Some(0x0123_4567_89ab_cdef),
        pmu: Some(Ppi::PMU),
        ..machine
    };
    with_devices(machine, &layout, 3)
}

fn pci() -> Machine {
    let (machine, layout) = bare(2, GIB, GicChoice::V3 { its: true });
    let layout = layout.with_transport(Transport::Pci).unwrap();
    with_devices(Machine { pci: layout.pci(), ..machine }, &layout, 0)
}

fn gicv2() -> Machine {
    let (machine, layout) = bare(8, 2 * GIB, GicChoice::V2);
    let machine = Machine { pmu: Some(Ppi::PMU), psci: PsciVersion::V0_2, ..machine };
    with_devices(machine, &layout, 1)
}

fn psci_0_1() -> Machine {
    let (machine, layout) = bare(2, 256 << 20, GicChoice::V3 { its: false });
    with_devices(Machine { psci: PsciVersion::V0_1, ..machine }, &layout, 0)
}

fn largest() -> Machine {
    let (machine, layout) = bare(512, 1022 * GIB, GicChoice::V3 { its: true });
    let machine = Machine {
        caches: server_caches(),
        cmdline: "x".repeat(kedge_arch::cmdline::MOST),
        initrd: Some(GuestRange::new(0x8_7000_0000, 0x1000_0000)),
        rng_seed: Some([0xa5; 64]),
        kaslr_seed: Some(u64::MAX),
        psci: PsciVersion::V1_3,
        pmu: Some(Ppi::PMU),
        ..machine
    };
    with_devices(machine, &layout, 92)
}

/// What is wrong with the tree of `machine`: how it differs from the golden text
/// `name`, and what dtc says about it.
fn faults(name: &str, machine: &Machine) -> String {
    let blob = fdt::build(machine).unwrap();
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../resources/golden/{name}.dts"));
    let text = dts::text(&blob);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let differs = format!("{name}.dts differs: rewrite it with UPDATE_GOLDEN=1 and see how\n");
    let difference = if text == golden { String::new() } else { differs };
    difference + &dtc("dtb", &blob) + &dtc("dts", text.as_bytes())
}

/// What dtc has to say about a tree.
fn dtc(format: &str, tree: &[u8]) -> String {
    let mut child = Command::new("dtc")
        .args(["-I", format, "-O", "dtb", "-o", "/dev/null", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("dtc is not installed: run `cargo xtask setup`");
    child.stdin.take().unwrap().write_all(tree).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_smallest_machine() {
    assert_eq!(faults("smallest", &smallest()), "");
}

#[test]
fn a_usual_machine() {
    assert_eq!(faults("usual", &usual()), "");
}

#[test]
fn a_machine_with_pci() {
    assert_eq!(faults("pci", &pci()), "");
}

#[test]
fn a_machine_with_gicv2() {
    assert_eq!(faults("gicv2", &gicv2()), "");
}

#[test]
fn a_machine_with_psci_0_1_and_no_its() {
    assert_eq!(faults("psci-0.1", &psci_0_1()), "");
}

#[test]
fn the_largest_machine() {
    assert_eq!(faults("largest", &largest()), "");
}

#[test]
fn the_largest_tree_fits_its_place() {
    let (_, layout) = bare(1, GIB, GicChoice::V2);
    let memory = kedge_guest_memory::map_anonymous(layout.ram()).unwrap();
    let blob = fdt::build(&largest()).unwrap();
    assert_eq!(fdt::write(&blob, &memory, &layout).unwrap(), layout.fdt_area().start);
}

#[test]
fn a_tree_that_is_too_large_is_refused() {
    let (_, layout) = bare(1, GIB, GicChoice::V2);
    let memory = kedge_guest_memory::map_anonymous(layout.ram()).unwrap();
    let error = fdt::write(&vec![0; 0x6_0001], &memory, &layout).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the machine's device tree takes 393217 bytes, there is room for 393216"
    );
}

#[test]
fn the_same_machine_gives_the_same_bytes() {
    assert_eq!(fdt::build(&usual()).unwrap(), fdt::build(&usual()).unwrap());
}

#[test]
fn a_text_with_a_nul_is_refused() {
    let machine = Machine { cmdline: "a\0b".to_owned(), ..smallest() };
    assert!(matches!(fdt::build(&machine), Err(fdt::FdtError::Build { .. })));
}

/// The node `/psci` of a machine with this version, on one line.
fn psci_node(version: PsciVersion) -> String {
    let machine = Machine { psci: version, ..smallest() };
    let text = dts::text(&fdt::build(&machine).unwrap());
    let node = text.split("  psci {").nth(1).and_then(|rest| rest.split('}').next());
    node.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_tree_agrees_with_the_version_that_the_machine_is_given() {
    let versions = PsciVersion::all().chain([PsciVersion::reported(0x2_0000)]);
    let lines: Vec<_> =
        versions.map(|version| format!("{version}: {}", psci_node(version))).collect();
    expect![[r#"
        0.1: compatible = "arm,psci"; cpu_off = <0x95c1ba5f>; cpu_on = <0x95c1ba60>; method = "hvc";
        0.2: compatible = "arm,psci-0.2"; method = "hvc";
        1.0: compatible = "arm,psci-1.0", "arm,psci-0.2"; method = "hvc";
        1.1: compatible = "arm,psci-1.0", "arm,psci-0.2"; method = "hvc";
        1.2: compatible = "arm,psci-1.0", "arm,psci-0.2"; method = "hvc";
        1.3: compatible = "arm,psci-1.0", "arm,psci-0.2"; method = "hvc";
        2.0: compatible = "arm,psci-1.0", "arm,psci-0.2"; method = "hvc";"#]]
    .assert_eq(&lines.join("\n"));
}
