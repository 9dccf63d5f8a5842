//! The cases, by what they are about.

pub mod counters;
pub mod events;
pub mod firmware;
pub mod gic;
pub mod gic_moved;
pub mod gic_registers;
pub mod guest;
pub mod identity;
pub mod init;
pub mod irqs;
pub mod memory;
pub mod moved;
pub mod msi;
pub mod power;
pub mod registers;
pub mod seen;
pub mod serror;
pub mod smccc;
pub mod stolen_time;
pub mod sve;
pub mod taken;
pub mod written;

use crate::Case;

/// All of them.
pub const GROUPS: &[&[Case]] = &[
    counters::CASES,
    events::CASES,
    firmware::CASES,
    gic::CASES,
    gic_moved::CASES,
    gic_registers::CASES,
    guest::CASES,
    identity::CASES,
    init::CASES,
    irqs::CASES,
    memory::CASES,
    moved::CASES,
    msi::CASES,
    power::CASES,
    registers::CASES,
    seen::CASES,
    serror::CASES,
    smccc::CASES,
    stolen_time::CASES,
    sve::CASES,
    taken::CASES,
    written::CASES,
];
