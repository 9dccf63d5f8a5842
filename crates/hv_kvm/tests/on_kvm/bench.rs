//! A machine small enough to be looked at whole, and what its exits say.

use std::sync::Arc;

use kedge_guest_memory::{
    Bytes, GuestAddress, GuestRange, MemoryRegionAddress, RamRegion, map_anonymous,
};
use kedge_hv::{
    Access, Exit, Gic, GicConfig, HvError, Hypervisor, Vcpu, VcpuFeatures, Vm, VmConfig,
};
use kedge_hv_kvm::Kvm;
use kedge_ids::{RegId, VcpuId};

use crate::code;

pub(crate) const RAM: u64 = 0x8000_0000;
pub(crate) const RAM_SIZE: u64 = 0x20_0000;
pub(crate) const ROM: u64 = 0x1000_0000;
pub(crate) const ROM_SIZE: u64 = 0x1_0000;
pub(crate) const VECTORS: u64 = RAM + 0x1000;
pub(crate) const MMIO: u64 = 0x0900_0000;

/// `VBAR_EL1`, and where it sends a synchronous exception of EL1 on its own stack.
pub(crate) const VBAR_EL1: RegId = RegId::system(3, 0, 12, 0, 0);
pub(crate) const SYNCHRONOUS: u64 = VECTORS + 0x200;

pub(crate) const CPU_ON: u64 = 0xc400_0003;
pub(crate) const SYSTEM_OFF: u64 = 0x8400_0008;
pub(crate) const SYSTEM_RESET: u64 = 0x8400_0009;
pub(crate) const SYSTEM_SUSPEND: u64 = 0xc400_000e;
pub(crate) const SYSTEM_RESET2: u64 = 0xc400_0012;
pub(crate) const SYSTEM_OFF2: u64 = 0xc400_0015;

pub(crate) const GIC_V3: GicConfig = GicConfig::V3 {
    distributor: GuestAddress(0x0800_0000),
    redistributors: GuestAddress(0x080a_0000),
    its: Some(GuestAddress(0x0808_0000)),
    spis: 64,
};
pub(crate) const GIC_V2: GicConfig = GicConfig::V2 {
    distributor: GuestAddress(0x0800_0000),
    cpu_interface: GuestAddress(0x0801_0000),
    spis: 64,
};

/// A machine with two vCPUs, the first of which stands at the base of RAM.
pub(crate) struct Bench {
    pub(crate) boot: Box<dyn Vcpu>,
    pub(crate) second: Box<dyn Vcpu>,
    pub(crate) gic: Option<Box<dyn Gic>>,
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) ram: Arc<RamRegion>,
}

impl Bench {
    pub(crate) fn new(code: &[u32]) -> Self {
        Self::with_features(code, VcpuFeatures::PSCI_0_2)
    }

    pub(crate) fn with_features(code: &[u32], features: VcpuFeatures) -> Self {
        let vm = new_vm();
        let ram = region(RAM, RAM_SIZE);
        vm.map_ram(0, Arc::clone(&ram), Access::ReadWrite).unwrap();
        vm.map_ram(1, region(ROM, ROM_SIZE), Access::ReadOnly).unwrap();
        let mut boot = vm.create_vcpu(VcpuId(0)).unwrap();
        let mut second = vm.create_vcpu(VcpuId(1)).unwrap();
        boot.init(features).unwrap();
        second.init(features | VcpuFeatures::POWER_OFF).unwrap();
        let bench = Self { boot, second, gic: None, vm, ram };
        bench.put(code, RAM);
        bench.put(&code::REPORT_EXCEPTION, SYNCHRONOUS);
        bench
    }

    /// With the boot vCPU ready to run. SVE is finalized by then.
    pub(crate) fn started(self) -> Self {
        self.boot.set_reg64(RegId::PC, RAM).unwrap();
        self.boot.set_reg64(VBAR_EL1, VECTORS).unwrap();
        self
    }

    pub(crate) fn running(code: &[u32]) -> Self {
        Self::new(code).started()
    }

    pub(crate) fn with_gic(code: &[u32], config: &GicConfig) -> Self {
        let mut bench = Self::running(code);
        let gic = bench.vm.create_gic(config).unwrap();
        gic.init().unwrap();
        bench.gic = Some(gic);
        bench
    }

    pub(crate) fn put(&self, code: &[u32], at: u64) {
        let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.ram.write_slice(&bytes, MemoryRegionAddress(at - RAM)).unwrap();
    }

    pub(crate) fn runs(&mut self) -> String {
        said(self.boot.run())
    }

    pub(crate) fn calls(&mut self, arguments: [u64; 4]) -> String {
        for (n, value) in (0..).zip(arguments) {
            self.boot.set_reg64(RegId::x(n), value).unwrap();
        }
        self.runs()
    }

    pub(crate) fn x(&self, n: u64) -> u64 {
        self.boot.reg64(RegId::x(n)).unwrap()
    }
}

pub(crate) fn new_vm() -> Arc<dyn Vm> {
    let kvm = Kvm::open().unwrap();
    let ipa_bits = kvm.limits().ipa_bits.min(40);
    kvm.create_vm(&VmConfig::new(ipa_bits)).unwrap()
}

pub(crate) fn region(start: u64, size: u64) -> Arc<RamRegion> {
    let memory = map_anonymous(&[GuestRange::new(start, size)]).unwrap();
    memory.remove_region(GuestAddress(start), size).unwrap().1
}

/// An exit, or the refusal to run, in one line.
pub(crate) fn said(exit: Result<Exit<'_>, HvError>) -> String {
    match exit {
        Ok(Exit::MmioRead { address, data }) => format!("load {} at {:#x}", data.len(), address.0),
        Ok(Exit::MmioWrite { address, data }) => format!("store {data:x?} at {:#x}", address.0),
        Ok(Exit::Undecoded { address, .. }) => format!("undecoded at {:#x}", address.0),
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("{error}: {}", error.source),
    }
}

/// What [`errno`] says of success.
pub(crate) const DONE: i32 = 0;

/// What a call was answered with.
pub(crate) fn errno<T>(result: Result<T, HvError>) -> i32 {
    result.err().map_or(DONE, |error| error.errno())
}

/// Each call, the errno it is to be answered with, and the one it was.
pub(crate) fn assert_answers(answers: &[(&str, i32, i32)]) {
    for (call, expected, answer) in answers {
        assert_eq!(answer, expected, "{call}");
    }
}
