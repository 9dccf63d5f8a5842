//! The cases, by what they are about.

pub mod counters;
pub mod events;
pub mod firmware;
pub mod gic;
pub mod guest;
pub mod identity;
pub mod init;
pub mod memory;
pub mod power;
pub mod registers;
pub mod sve;

use crate::Case;

/// All of them.
pub const GROUPS: &[&[Case]] = &[
    counters::CASES,
    events::CASES,
    firmware::CASES,
    gic::CASES,
    guest::CASES,
    identity::CASES,
    init::CASES,
    memory::CASES,
    power::CASES,
    registers::CASES,
    sve::CASES,
];
