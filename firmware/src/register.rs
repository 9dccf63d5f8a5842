//! What there is to say of a firmware register, and how one is found.

use std::fmt;
use std::str::FromStr;

use kedge_diag::Fix;
use kedge_ids::RegId;

use crate::hex::Hex;
use crate::table::TABLE;

/// A firmware register that kedge knows: a row of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FwReg {
    /// The PSCI version.
    PsciVersion,
    /// Spectre v2.
    Workaround1,
    /// Spectre v4.
    Workaround2,
    /// Spectre-BHB.
    Workaround3,
    /// Standard secure services.
    StdBmap,
    /// Standard hypervisor services.
    StdHypBmap,
    /// KVM's own services, functions 0 to 63.
    VendorHypBmap,
    /// KVM's own services, functions 64 to 127.
    VendorHypBmap2,
}

impl FwReg {
    /// All of them, by id.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.reg)
    }

    /// Its row.
    pub fn spec(self) -> &'static FwSpec {
        TABLE.iter().find(|row| row.reg == self).expect("every register has a row (tested)")
    }

    /// The register with this id, if kedge knows it.
    pub fn from_id(id: RegId) -> Option<Self> {
        TABLE.iter().find(|row| row.id == id).map(|row| row.reg)
    }

    /// The register with this name, if kedge knows it.
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.reg)
    }
}

impl fmt::Display for FwReg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.spec().name)
    }
}

/// All that is known of a firmware register.
#[derive(Debug)]
pub struct FwSpec {
    /// Which one.
    pub reg: FwReg,
    /// Its id in `KVM_GET_ONE_REG`.
    pub id: RegId,
    /// Its name in profiles, messages and tables.
    pub name: &'static str,
    /// What it sets, as a phrase.
    pub about: &'static str,
    /// Whose value it is.
    pub scope: Scope,
    /// Which values it can have.
    pub domain: Domain,
    /// Until when it can change.
    pub freeze: Freeze,
    /// What a guest sees on a kernel without it; nothing where every kernel that kedge
    /// runs on has it.
    pub absent: Option<Absent>,
    /// The value with which a guest is offered nothing, if there is one.
    pub neutral: Option<u64>,
    /// Whether it takes more than a new machine shows: of all other bitmaps the first
    /// value is the upper limit.
    pub opt_in: bool,
    /// The first Linux that has it.
    pub since: &'static str,
    /// Where it is defined.
    pub source: &'static str,
}

/// Whose value a register holds, although each write names a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The machine's: written through one vCPU, read through all.
    WholeVm,
    /// The host's: a write only asks whether the host is at least as good.
    Host,
}

impl Scope {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::WholeVm => "whole VM",
            Self::Host => "host",
        }
    }
}

/// Which values a register can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A version of an interface, oldest first: each has all that those before it
    /// have.
    Version(&'static [Symbol]),
    /// How good something is, worst first.
    Level(&'static [Symbol]),
    /// Any of these bits.
    Bits(&'static [Symbol]),
}

impl Domain {
    /// What kind of value it is, in a word.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Level(_) => "level",
            Self::Bits(_) => "bitmap",
        }
    }

    /// Its values or bits.
    pub const fn symbols(self) -> &'static [Symbol] {
        match self {
            Self::Version(symbols) | Self::Level(symbols) | Self::Bits(symbols) => symbols,
        }
    }

    /// The bits of a bitmap, all values' bits otherwise.
    pub fn mask(self) -> u64 {
        self.symbols().iter().fold(0, |all, symbol| all | symbol.value)
    }
}

/// A named value, or a named bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name.
    pub name: &'static str,
    /// The value; of a bit, the value with this bit only.
    pub value: u64,
    /// The ids of the functions that a guest can call with it: of a version, those
    /// that the version before does not have.
    pub opens: &'static [u32],
}

/// Until when the kernel lets a register change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// Until the first run of any vCPU; after it, only the value it has is accepted
    /// (`EBUSY`).
    FirstRun,
    /// For ever, even under a running guest. kedge does not do that: it settles the
    /// value before the first run.
    Never,
    /// It stores nothing that could change.
    NothingStored,
}

/// What a guest sees on a kernel that does not have the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// In words.
    pub shown: &'static str,
    /// The value that means the same on a kernel that has the register, where one
    /// value does on every kernel that kedge runs on.
    pub same_as: Option<u64>,
    /// Where kernels differ: what tells them apart.
    pub by_ptp: Option<ByPtp>,
}

impl Absent {
    /// The value that means the same on a kernel that has the register; `ptp` as in
    /// [`kedge_hv::Abilities::ptp`].
    pub(crate) fn means(&self, ptp: bool) -> Option<u64> {
        let told = self.by_ptp.map(|told| if ptp { told.with } else { told.without });
        told.or(self.same_as)
    }
}

/// What a kernel without a register means by that, told by whether it offers precise
/// time: those calls came together in Linux 5.13, and any back-port has all of them.
/// Linux 5.12, which nobody has kept up since 2021, is misjudged: it has TRNG alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByPtp {
    /// The value of a kernel that does.
    pub with: u64,
    /// The value of one that does not.
    pub without: u64,
}

/// A register of the firmware banks, known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Firmware {
    /// One of the table.
    Known(FwReg),
    /// One that this release does not know: an id of bank 0x14 or 0x16.
    Unknown(RegId),
}

impl Firmware {
    /// `KVM_REG_ARM_FW`: versions and levels.
    pub const FW: u64 = 0x14;
    /// `KVM_REG_ARM_FW_FEAT_BMAP`: bitmaps of services.
    pub const FEAT_BMAP: u64 = 0x16;

    /// The firmware register with this id, unless it is no firmware register.
    pub fn of(id: RegId) -> Option<Self> {
        let is_firmware = [Self::FW, Self::FEAT_BMAP].contains(&id.coprocessor());
        is_firmware.then(|| FwReg::from_id(id).map_or(Self::Unknown(id), Self::Known))
    }

    /// Its id.
    pub fn id(self) -> RegId {
        match self {
            Self::Known(reg) => reg.spec().id,
            Self::Unknown(id) => id,
        }
    }

    /// Its row, if it has one.
    pub fn spec(self) -> Option<&'static FwSpec> {
        match self {
            Self::Known(reg) => Some(reg.spec()),
            Self::Unknown(_) => None,
        }
    }

    /// Whether it is a set of services, of which the empty one is always legal: true
    /// of everything in bank 0x16, by that bank's construction.
    pub fn is_bitmap(self) -> bool {
        match self.spec() {
            Some(spec) => matches!(spec.domain, Domain::Bits(_)),
            None => self.id().coprocessor() == Self::FEAT_BMAP,
        }
    }

    /// The value with which it offers a guest nothing, if there is one.
    pub fn neutral(self) -> Option<u64> {
        match self.spec() {
            Some(spec) => spec.neutral,
            None => self.is_bitmap().then_some(0),
        }
    }
}

/// The name, or the id where there is no name.
impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(reg) => reg.fmt(f),
            Self::Unknown(id) => f.pad(&id.to_string()),
        }
    }
}

/// A text that names no firmware register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no firmware register `{text}`")]
pub struct NoFirmwareRegister {
    /// The text.
    pub text: String,
}

impl Fix for NoFirmwareRegister {
    fn fix(&self) -> Option<String> {
        let names: Vec<_> = TABLE.iter().map(|row| row.name).collect();
        Some(format!("name one of: {}; or give an id of bank 0x14 or 0x16", names.join(", ")))
    }
}

/// A name of the table, or the id of any register of the banks in hexadecimal.
impl FromStr for Firmware {
    type Err = NoFirmwareRegister;

    fn from_str(text: &str) -> Result<Self, NoFirmwareRegister> {
        let by_id = || Hex::parse(text).and_then(|id| Self::of(RegId(id.0)));
        let found = FwReg::from_name(text).map(Self::Known).or_else(by_id);
        found.ok_or_else(|| NoFirmwareRegister { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kedge_diag::report;

    use super::*;

    const UNKNOWN: RegId = RegId(0x6030_0000_0016_0004);

    #[test]
    fn a_register_is_found_by_name_and_by_id() {
        for reg in FwReg::all() {
            assert_eq!(reg.to_string().parse(), Ok(Firmware::Known(reg)));
            assert_eq!(reg.spec().id.to_string().parse(), Ok(Firmware::Known(reg)));
        }
    }

    #[test]
    fn an_unknown_register_of_the_banks_keeps_its_id() {
        let firmware: Firmware = UNKNOWN.to_string().parse().unwrap();
        assert_eq!(firmware, Firmware::Unknown(UNKNOWN));
        assert_eq!(firmware.id(), UNKNOWN);
        assert_eq!(firmware.to_string(), "0x6030000000160004");
    }

    #[test]
    fn any_bitmap_can_be_emptied_but_no_unknown_version() {
        assert_eq!(Firmware::Unknown(UNKNOWN).neutral(), Some(0));
        assert_eq!(Firmware::Unknown(RegId(0x6030_0000_0014_0004)).neutral(), None);
        assert_eq!(Firmware::Known(FwReg::StdBmap).neutral(), Some(0));
        assert_eq!(Firmware::Known(FwReg::PsciVersion).neutral(), None);
    }

    #[test]
    fn a_register_of_another_bank_is_no_firmware() {
        assert_eq!(Firmware::of(RegId::PC), None);
        let error = RegId::PC.to_string().parse::<Firmware>().unwrap_err();
        expect![[r#"
            error: there is no firmware register `0x6030000000100040`
              fix: name one of: psci_version, smccc_arch_workaround_1, smccc_arch_workaround_2, smccc_arch_workaround_3, std_bmap, std_hyp_bmap, vendor_hyp_bmap, vendor_hyp_bmap_2; or give an id of bank 0x14 or 0x16"#]]
        .assert_eq(&report(&error));
    }
}
