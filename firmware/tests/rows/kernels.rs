//! Kernels that there are not.

use kedge_hv_model::{BitmapOrder, Ids, Release, Row, Rule, V7_2};
use kedge_ids::RegId;

/// A bitmap that offers services by default.
pub(crate) const NEXT_BMAP: RegId = RegId(0x6030_0000_0016_0009);
/// A level to come.
pub(crate) const NEXT_FW: RegId = RegId(0x6030_0000_0014_0009);
/// A bank to come, with a register of each size from 8 to 2048 bits.
pub(crate) const NEXT_BANK: [RegId; 9] = [
    RegId(0x6000_0000_0077_0000),
    RegId(0x6010_0000_0077_0001),
    RegId(0x6020_0000_0077_0002),
    RegId(0x6030_0000_0077_0003),
    RegId(0x6040_0000_0077_0004),
    RegId(0x6050_0000_0077_0005),
    RegId(0x6060_0000_0077_0006),
    RegId(0x6070_0000_0077_0007),
    RegId(0x6080_0000_0077_0008),
];

const fn stored(id: RegId) -> Row {
    Row::of(Ids::One(id), Rule::Stored).born(&[0x5a])
}

const fn bitmap(id: RegId, born: &'static [u8]) -> Row {
    Row::of(Ids::One(id), Rule::Bitmap { known: 0xff, order: BitmapOrder::UnknownFirst })
        .whole_vm()
        .frozen_by_run()
        .born(born)
}

const BANK: &[Row] = &[
    stored(NEXT_BANK[0]),
    stored(NEXT_BANK[1]),
    stored(NEXT_BANK[2]),
    stored(NEXT_BANK[3]),
    stored(NEXT_BANK[4]),
    stored(NEXT_BANK[5]),
    stored(NEXT_BANK[6]),
    stored(NEXT_BANK[7]),
    stored(NEXT_BANK[8]),
];

/// Linux 7.2 with a bitmap more, all on by default.
pub(crate) const ON_BY_DEFAULT: Release = Release {
    name: "with a bitmap more",
    rows: &[
        &[bitmap(NEXT_BMAP, &[0xff])],
        V7_2.rows[0],
        V7_2.rows[1],
        V7_2.rows[2],
        V7_2.rows[3],
        V7_2.rows[4],
        V7_2.rows[5],
    ],
    ..V7_2
};

/// Linux 7.2 with a level more.
pub(crate) const LEVEL_MORE: Release = Release {
    name: "with a level more",
    rows: &[
        &[Row::of(Ids::One(NEXT_FW), Rule::Stored).born(&[0x2])],
        V7_2.rows[0],
        V7_2.rows[1],
        V7_2.rows[2],
        V7_2.rows[3],
        V7_2.rows[4],
        V7_2.rows[5],
    ],
    ..V7_2
};

/// Linux 7.2 with a bank more.
pub(crate) const BANK_MORE: Release = Release {
    name: "with a bank more",
    rows: &[
        BANK,
        V7_2.rows[0],
        V7_2.rows[1],
        V7_2.rows[2],
        V7_2.rows[3],
        V7_2.rows[4],
        V7_2.rows[5],
    ],
    ..V7_2
};

/// Linux 7.2 whose PSCI version is each vCPU's own.
pub(crate) const PSCI_PER_VCPU: Release = Release {
    name: "with PSCI per vCPU",
    rows: &[
        &[Row::of(Ids::One(RegId::PSCI_VERSION), Rule::PsciVersion).born(&[0])],
        V7_2.rows[0],
        V7_2.rows[1],
        V7_2.rows[2],
        V7_2.rows[3],
        V7_2.rows[4],
        V7_2.rows[5],
    ],
    ..V7_2
};
