//! What a machine is, in the words of a snapshot.

use std::time::SystemTime;

use kedge_arch::Layout;
use kedge_arch::layout::{OWN_DEVICE_BYTES, Place};
use kedge_firmware::RegisterState;
use kedge_guest_memory::MemoryRegionAddress;
use kedge_guest_memory::{Bytes, GuestMemory, GuestMemoryBackend, GuestMemoryRegion};
use kedge_hv::GicConfig;
use kedge_ids::{RegId, usize_from};
use kedge_saved_state::About;

use super::saved::{BootV1, DeviceV1, LayoutV1, MachineV1, PlaceV1, RomV1};
use crate::build::{CLOCK_PAGE, GENERATION, RTC, SERIAL, virtio_name};
use crate::own_device::Wanted;
use crate::spec::{
    Boot, KernelFormat, MachineSpec, OnPanic, OnReset, RomSpec, SerialSpec, Transport,
};

/// What [`About::architecture`] says here.
pub(crate) const ARCHITECTURE: &str = "aarch64";

/// The head of a snapshot of this machine.
pub(super) fn about(spec: &MachineSpec, registers: &RegisterState) -> About {
    const MIDR_EL1: RegId = RegId::system(3, 0, 0, 0, 0);
    let midr = registers.of_machine(MIDR_EL1).and_then(kedge_firmware::RegValue::as_u64);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    About {
        release: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: ARCHITECTURE.to_owned(),
        page_size: page_size(),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        cpu: midr.unwrap_or(0),
        saved_at: now.as_secs(),
        machine: serde_json::to_string(spec).unwrap_or_default(),
    }
}

/// The size of this host's pages in bytes.
pub(crate) fn page_size() -> u32 {
    u32::try_from(rustix::param::page_size()).expect("pages have up to 64 KiB")
}

/// The machine, but for what its guest was born with.
pub(super) fn machine(spec: &MachineSpec, roms: &[GuestMemory]) -> MachineV1 {
    // No `..`: a field that is added must be decided on here. What the guest was born with
    // took the place of the profile, the PSCI version and the interrupt controller.
    let MachineSpec {
        cpus,
        memory,
        cpu_features,
        guest_abi: _,
        psci: _,
        gic: _,
        transport,
        pci_slots,
        boot,
        rom,
        serial,
        devices,
        // They are in slots.
        removable: _,
        plugged,
        io_threads,
        metadata,
        on_reset,
        on_panic,
    } = spec;
    let Boot { kernel, kernel_format, initrd, cmdline } = boot.clone();
    MachineV1 {
        cpus: *cpus,
        memory: *memory,
        cpu_features: cpu_features.names().map(str::to_owned).collect(),
        boot: BootV1 { kernel, flat: kernel_format == KernelFormat::Flat, initrd, cmdline },
        rom: rom.iter().zip(roms).map(|(spec, rom)| rom_v1(spec, rom)).collect(),
        serial: match serial {
            SerialSpec::Stdio => None,
            SerialSpec::File(path) => Some(path.clone()),
        },
        devices: devices
            .iter()
            .map(|device| DeviceV1 {
                kind: device.kind().key.to_owned(),
                id: device.id().to_owned(),
                configuration: device.to_json().to_string(),
            })
            .collect(),
        restarts: *on_reset == OnReset::Restart,
        ends_on_panic: *on_panic == OnPanic::Exit,
        // What it holds always is JSON.
        metadata: metadata.as_ref().and_then(|config| serde_json::to_string(config).ok()),
        pci: *transport == Transport::Pci,
        pci_slots: *pci_slots,
        plugged: plugged.clone(),
        io_threads: *io_threads,
    }
}

fn rom_v1(spec: &RomSpec, rom: &GuestMemory) -> RomV1 {
    RomV1 { path: spec.path.clone(), address: spec.address, checksum: checksum(rom) }
}

/// The checksum of all of a memory.
pub(crate) fn checksum(memory: &GuestMemory) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    for region in memory.iter() {
        let mut bytes = vec![0; usize_from(region.len())];
        // Cannot fail: it is all of the region. If it did, the checksum would not match.
        let _ = region.read_slice(&mut bytes, MemoryRegionAddress(0));
        checksum.update(&bytes);
    }
    checksum.finalize()
}

/// Where the guest finds things.
pub(crate) fn layout(layout: &Layout, spec: &MachineSpec, own: &[Wanted]) -> LayoutV1 {
    let at = |name: &str, address| PlaceV1 { name: name.to_owned(), address, interrupt: None };
    let place = |name: &str, place: Place| PlaceV1 {
        name: name.to_owned(),
        address: place.range.start.0,
        interrupt: Some(place.spi.intid()),
    };
    let mut places = match layout.gic() {
        GicConfig::V2 { distributor, cpu_interface, .. } => {
            vec![at("GICv2 distributor", distributor.0), at("GICv2 CPU interface", cpu_interface.0)]
        }
        GicConfig::V3 { distributor, redistributors, its, .. } => {
            let mut frames = vec![
                at("GICv3 distributor", distributor.0),
                at("GICv3 redistributors", redistributors.0),
            ];
            frames.extend(its.map(|its| at("GICv3 ITS", its.0)));
            frames
        }
    };
    places.extend(layout.ram().iter().map(|range| at("RAM", range.start.0)));
    places.push(at("stolen time", layout.pv_time(kedge_ids::VcpuId(0)).0));
    places.push(place(RTC, layout.rtc()));
    places.push(place(SERIAL, layout.serial()));
    places.push(place(CLOCK_PAGE, layout.clock_page()));
    places.push(place(GENERATION, layout.generation()));
    for (index, device) in own.iter().enumerate() {
        // How large it is the device says: it is where it is, and asks for no more than it may.
        let own = layout.own_device(index, OWN_DEVICE_BYTES).ok();
        places.extend(own.map(|own| place(&device.saved_name(), own)));
    }
    if let Some(pci) = layout.pci() {
        places.push(at("PCI configuration spaces", pci.config.start.0));
        places.push(at("PCI window", pci.window.start.0));
        return LayoutV1 { places };
    }
    for index in 0..spec.built_in() {
        places.extend(layout.virtio(index).ok().map(|own| place(&virtio_name(index), own)));
    }
    LayoutV1 { places }
}

/// How many shared peripheral interrupts the controller has.
pub(crate) fn spis(layout: &Layout) -> u32 {
    match layout.gic() {
        GicConfig::V2 { spis, .. } | GicConfig::V3 { spis, .. } => spis,
    }
}
