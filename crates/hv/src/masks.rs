//! Which bits of ID registers the hypervisor's user can change.

use kedge_ids::RegId;

/// The ID registers: op0 3, op1 0, 1 or 3, CRn 0, CRm 0 to 7, op2 0 to 7.
const REGISTERS: usize = 3 * 8 * 8;
const OP1: [u64; 3] = [0, 1, 3];

/// For each ID register the bits that can be changed before the first run (Linux,
/// Documentation/virt/kvm/api.rst, `KVM_ARM_GET_REG_WRITABLE_MASKS`). A mask says
/// which bits, not which values: those the host decides field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritableMasks(Box<[u64; REGISTERS]>);

impl WritableMasks {
    /// The masks as the kernel writes them: by op1, then CRm, then op2.
    pub fn new(masks: Box<[u64; REGISTERS]>) -> Self {
        Self(masks)
    }

    /// The masks that `mask` gives of each ID register.
    pub fn of(mask: impl Fn(RegId) -> u64) -> Self {
        let mut masks = Box::new([0; REGISTERS]);
        for (id, slot) in Self::ids().zip(masks.iter_mut()) {
            *slot = mask(id);
        }
        Self(masks)
    }

    /// The bits of `id` that can be changed: none where it is no ID register.
    pub fn mask(&self, id: RegId) -> u64 {
        Self::ids().position(|other| other == id).map_or(0, |index| self.0[index])
    }

    /// The ID registers of which any bit can be changed, each with those bits.
    pub fn iter(&self) -> impl Iterator<Item = (RegId, u64)> + '_ {
        Self::ids().zip(self.0.iter().copied()).filter(|(_, mask)| *mask != 0)
    }

    fn ids() -> impl Iterator<Item = RegId> {
        OP1.into_iter()
            .flat_map(|op1| (0..64).map(move |at| RegId::system(3, op1, 0, at >> 3, at & 7)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `CTR_EL0`.
    const CTR: RegId = RegId::system(3, 3, 0, 0, 1);

    #[test]
    fn masks_lie_where_the_kernel_puts_them() {
        // ARM64_FEATURE_ID_RANGE_IDX(3, 3, 0, 0, 1)
        let mut masks = Box::new([0; REGISTERS]);
        masks[2 << 6 | 1] = 0xff;
        let masks = WritableMasks::new(masks);
        assert_eq!(masks.mask(CTR), 0xff);
        assert_eq!(masks.iter().collect::<Vec<_>>(), [(CTR, 0xff)]);
    }

    #[test]
    fn no_other_register_has_a_mask() {
        let masks = WritableMasks::of(|_| u64::MAX);
        assert_eq!(masks.mask(RegId::PC), 0);
        assert_eq!(masks.mask(RegId::system(3, 2, 0, 0, 0)), 0);
        assert_eq!(masks.mask(RegId::MPIDR_EL1), u64::MAX);
    }
}
