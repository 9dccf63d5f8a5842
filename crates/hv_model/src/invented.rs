//! Kernels that there are not, to test what has to get along with them: a release with
//! a few things changed.
//!
//! What is built here lives as long as the process, as the releases themselves do: a
//! test builds a handful.

use kedge_ids::RegId;

use crate::release::{BitmapOrder, Ids, Release, Row, Rule, Scope, Service};
use crate::releases::V7_2;

/// A register of so many bytes, a power of two up to 256, in a bank (the coprocessor
/// field of its id: 0x14 and 0x16 are the firmware's, 0x17 and up nobody's yet).
///
/// ```
/// use kedge_hv_model::register;
///
/// assert_eq!(register(0x16, 9, 8).to_string(), "0x6030000000160009");
/// ```
pub const fn register(bank: u64, index: u64, bytes: u64) -> RegId {
    let mut size = 0;
    while 1 << size < bytes {
        size += 1;
    }
    RegId(0x6 << 60 | size << 52 | bank << 16 | index)
}

/// A release in the making.
///
/// ```
/// use kedge_hv::{Hypervisor, VcpuFeatures, VmConfig};
/// use kedge_hv_model::{Invented, ModelHypervisor, V7_2, register};
/// use kedge_ids::VcpuId;
///
/// let kernel = Invented::after(&V7_2, "9.0").with_state(register(0x17, 0, 256), &[]).release();
/// let vm = ModelHypervisor::new(&kernel)?.create_vm(&VmConfig::new(40))?;
/// let mut vcpu = vm.create_vcpu(VcpuId(0))?;
/// vcpu.init(VcpuFeatures::PSCI_0_2)?;
/// assert_eq!(vcpu.reg(register(0x17, 0, 256))?, [0; 256]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Invented {
    release: Release,
    rows: Vec<Row>,
    services: Vec<Service>,
    unlisted: Vec<Ids>,
    hidden: Vec<(Ids, RegId, u32)>,
}

impl Invented {
    /// All that `release` is, under another name.
    pub fn after(release: &Release, name: &'static str) -> Self {
        Self {
            release: Release { name, ..release.clone() },
            rows: Vec::new(),
            services: release.services.to_vec(),
            unlisted: release.unlisted.to_vec(),
            hidden: release.hidden.to_vec(),
        }
    }

    /// With this rule instead of what the release has for the register.
    #[must_use]
    pub fn with_row(mut self, row: Row) -> Self {
        self.rows.insert(0, row);
        self
    }

    /// With a register that each vCPU has of its own and that takes anything.
    #[must_use]
    pub fn with_state(self, id: RegId, born: &'static [u8]) -> Self {
        self.with_row(Row::of(Ids::One(id), Rule::Stored).born(born))
    }

    /// With a register that the machine holds and that takes anything, at any time.
    #[must_use]
    pub fn with_shared_state(self, id: RegId, born: &'static [u8]) -> Self {
        self.with_row(Row::of(Ids::One(id), Rule::Stored).whole_vm().born(born))
    }

    /// With a bitmap of firmware services, as those of Linux 5.19 are: 64 bits in bank
    /// 0x16, held by the machine, frozen by the first run. It knows the bits `known`.
    #[must_use]
    pub fn with_bitmap(self, index: u64, known: u64, born: &'static [u8]) -> Self {
        let rule = Rule::Bitmap { known, order: BitmapOrder::UnknownFirst };
        let id = register(0x16, index, 8);
        self.with_row(Row::of(Ids::One(id), rule).whole_vm().frozen_by_run().born(born))
    }

    /// With another firmware call.
    #[must_use]
    pub fn with_service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// With a register that the release has, held by somebody else.
    #[must_use]
    pub fn with_scope(self, id: RegId, scope: Scope) -> Self {
        let row = Row { ids: Ids::One(id), scope, ..*self.release.row(id) };
        self.with_row(row)
    }

    /// With these PSCI versions, the newest last.
    #[must_use]
    pub fn with_psci(mut self, versions: &[u64]) -> Self {
        self.release.psci = versions.to_vec().leak();
        self
    }

    /// Without these registers.
    #[must_use]
    pub fn without(mut self, ids: Ids) -> Self {
        self.unlisted.push(ids);
        self
    }

    /// Without the registers of a bank.
    #[must_use]
    pub fn without_bank(self, bank: u64) -> Self {
        (1..=256).filter(|bytes: &u64| bytes.is_power_of_two()).fold(self, |kernel, bytes| {
            let (first, last) = (register(bank, 0, bytes), register(bank, 0xffff, bytes));
            kernel.without(Ids::Range(first, last))
        })
    }

    /// With registers that are there only while the four bits of `by` from `shift` on
    /// are not zero.
    #[must_use]
    pub fn hiding(mut self, ids: Ids, by: RegId, shift: u32) -> Self {
        self.hidden.push((ids, by, shift));
        self
    }

    /// The release. It stays in memory for good.
    pub fn release(self) -> Release {
        let first: &'static [Row] = self.rows.leak();
        let rows = std::iter::once(first).chain(self.release.rows.iter().copied());
        Release {
            rows: rows.collect::<Vec<_>>().leak(),
            services: self.services.leak(),
            unlisted: self.unlisted.leak(),
            hidden: self.hidden.leak(),
            ..self.release
        }
    }
}

/// A bank of registers that no kernel has.
pub const NEW_BANK: u64 = 0x17;
/// The bitmap that the kernels below have and no other.
pub const NEXT_BITMAP: RegId = register(0x16, 9, 8);
/// The level of some mitigation that [`unknown_level`] has and no other kernel.
pub const NEXT_LEVEL: RegId = register(0x14, 9, 8);
/// A firmware call behind bit 0 of [`NEXT_BITMAP`]: it answers 9 in x0.
pub const NEXT_CALL: u32 = 0xc600_ff09;

const NEXT_SERVICE: Service = Service {
    function: NEXT_CALL,
    gate: Some((NEXT_BITMAP, 1)),
    answer: crate::release::Answer::Values([9, 0, 0, 0]),
};
/// The register sizes that ids can name, in bytes.
pub const SIZES: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// A kernel with a register of every size in a new bank, and one of every size in
/// each bank of the firmware's (0x14 and 0x16): all are state, a vCPU's in the new
/// bank and the machine's in the others.
pub fn every_size() -> Release {
    SIZES
        .into_iter()
        .fold(Invented::after(&V7_2, "of every size"), |kernel, bytes| {
            kernel
                .with_state(register(NEW_BANK, 0, bytes), &[1])
                .with_shared_state(register(0x14, 0x20, bytes), &[1])
                .with_shared_state(register(0x16, 0x20, bytes), &[1])
        })
        .release()
}

/// A kernel with a new bitmap of eight services that are all on by default.
pub fn on_by_default() -> Release {
    Invented::after(&V7_2, "on by default")
        .with_bitmap(9, 0xff, &[0xff])
        .with_service(NEXT_SERVICE)
        .release()
}

/// A kernel with a new bitmap of eight services that are all off by default.
pub fn off_by_default() -> Release {
    Invented::after(&V7_2, "off by default")
        .with_bitmap(9, 0xff, &[0])
        .with_service(NEXT_SERVICE)
        .release()
}

/// A kernel with a new register of the bank 0x14: what it means, nobody knows. It is
/// the machine's, born as 3, and takes anything up to that.
pub fn unknown_level() -> Release {
    let row = Row::of(Ids::One(NEXT_LEVEL), Rule::Masked(3)).whole_vm().born(&[3]);
    Invented::after(&V7_2, "an unknown level").with_row(row).release()
}

/// A kernel where every vCPU has a PSCI version of its own.
pub fn own_psci_versions() -> Release {
    Invented::after(&V7_2, "own psci versions")
        .with_scope(RegId::PSCI_VERSION, Scope::Vcpu)
        .release()
}

/// A kernel without bitmaps of firmware services: whatever they opened stays shut.
pub fn without_bitmaps() -> Release {
    Invented::after(&V7_2, "without bitmaps").without_bank(0x16).release()
}

/// A kernel that lists more than a thousand registers.
pub fn long_list() -> Release {
    (0..800)
        .fold(Invented::after(&V7_2, "a long list"), |kernel, index| {
            kernel.with_state(register(NEW_BANK, index, 8), &[])
        })
        .release()
}

/// The register of [`hiding`] that comes and goes.
pub const HIDDEN: RegId = register(NEW_BANK, 1, 8);
/// `ID_AA64MMFR1_EL1`, whose field HAFDBS decides over it.
pub const HIDDEN_BY: RegId = RegId::system(3, 0, 0, 7, 1);

/// A kernel with a register that is there only while `ID_AA64MMFR1_EL1`.HAFDBS (bits
/// 3:0, which can be lowered to 0) is not zero.
pub fn hiding() -> Release {
    Invented::after(&V7_2, "hiding")
        .with_state(HIDDEN, &[7])
        .hiding(Ids::One(HIDDEN), HIDDEN_BY, 0)
        .release()
}

/// All of them.
pub fn all() -> Vec<Release> {
    vec![
        every_size(),
        on_by_default(),
        off_by_default(),
        unknown_level(),
        own_psci_versions(),
        without_bitmaps(),
        long_list(),
        hiding(),
    ]
}
