//! Which processors a guest may find itself on (Linux,
//! Documentation/virt/kvm/arm/hypercalls.rst,
//! `ARM_SMCCC_VENDOR_HYP_KVM_DISCOVER_IMPL_VER_FUNC_ID` and `_CPUS_`).
//!
//! KVM tells a guest of these calls (`vendor_hyp_bmap_2`) and leaves the answers to
//! its user. A guest asks once, at boot, and from then on works around the errata of
//! all of these processors instead of its own.

use kedge_firmware::{FwReg, ImplementationIds};

use super::{Call, Functions, NOT_SUPPORTED, Results, Service, only};

const VERSION: u32 = 0xc600_0040;
const CPUS: u32 = 0xc600_0041;

/// Version 1.0 of the interface.
const VERSION_1_0: u64 = 0x1_0000;
const SUCCESS: u64 = 0;
const INVALID_PARAMETER: i64 = -3;

/// The processors that the machine's guest is told of.
#[derive(Clone, Debug)]
pub struct Implementations {
    functions: Vec<Functions>,
    processors: Vec<ImplementationIds>,
}

impl Implementations {
    /// The functions that the bits of `vendor_hyp_bmap_2` open tell of `processors`, in
    /// this order.
    pub fn new(bitmap: u64, processors: impl IntoIterator<Item = ImplementationIds>) -> Self {
        let bits = FwReg::VendorHypBmap2.spec().domain.symbols().iter();
        let open = bits.filter(|bit| bitmap & bit.value != 0).flat_map(|bit| bit.opens);
        let functions = open.map(|function| *function..=*function).collect();
        Self { functions, processors: processors.into_iter().collect() }
    }
}

impl Service for Implementations {
    fn name(&self) -> &str {
        "implementation discovery"
    }

    fn functions(&self) -> &[Functions] {
        &self.functions
    }

    fn call(&self, call: &Call) -> Results {
        match call.function() {
            VERSION => [SUCCESS, VERSION_1_0, kedge_ids::u64_from(self.processors.len()), 0],
            CPUS => {
                let index = usize::try_from(call.argument(1)).ok();
                match index.and_then(|index| self.processors.get(index)) {
                    Some(ImplementationIds { midr, revidr, aidr }) => {
                        [SUCCESS, midr.0, revidr.0, aidr.0]
                    }
                    None => only(INVALID_PARAMETER),
                }
            }
            _ => only(NOT_SUPPORTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use kedge_firmware::Hex;
    use kedge_hv::Conduit;
    use kedge_ids::VcpuId;

    use super::*;

    const N1: ImplementationIds =
        ImplementationIds { midr: Hex(0x413f_d0c1), revidr: Hex(0), aidr: Hex(1) };
    const V2: ImplementationIds =
        ImplementationIds { midr: Hex(0x410f_d4f0), revidr: Hex(2), aidr: Hex(3) };

    fn ask(function: u32, index: u64) -> Results {
        let call = Call::new(function, Conduit::Hvc, VcpuId(0), &[index]);
        Implementations::new(0x3, [N1, V2]).call(&call)
    }

    #[test]
    fn each_bit_of_the_bitmap_opens_a_function() {
        let functions = |bitmap| Implementations::new(bitmap, []).functions().to_vec();
        assert_eq!(functions(0x3), [VERSION..=VERSION, CPUS..=CPUS]);
        assert_eq!(functions(0x2), [CPUS..=CPUS]);
        assert_eq!(functions(0), []);
    }

    #[test]
    fn the_version_comes_with_the_number_of_processors() {
        assert_eq!(ask(VERSION, 0), [0, 0x1_0000, 2, 0]);
    }

    #[test]
    fn each_processor_is_told_by_its_index() {
        assert_eq!(ask(CPUS, 0), [0, 0x413f_d0c1, 0, 1]);
        assert_eq!(ask(CPUS, 1), [0, 0x410f_d4f0, 2, 3]);
    }

    #[test]
    fn an_index_past_the_last_is_invalid() {
        assert_eq!([2, u64::MAX, 1 << 32].map(|index| ask(CPUS, index)), [only(-3); 3]);
    }
}
