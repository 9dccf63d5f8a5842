//! The registers of an interrupt translation service, and its tables as far as a service
//! needs them that no guest has given a command.

use crate::gic::attributes::{SERVICE, sanitised};
use crate::memory::slot_at;
use crate::refusal::Refusal;
use crate::state::VmState;

/// Its two frames in bytes.
pub(crate) const ITS_SIZE: u64 = 0x2_0000;
/// What is valid.
const VALID: u64 = 1 << 63;
/// A table of tables.
const INDIRECT: u64 = 1 << 62;
/// `GITS_BASER<n>`: 58:56 type, 52:48 bytes of an entry less one.
const TABLE_KIND: u64 = 7 << 56 | 0x1f << 48;
/// A table of devices, entries of 8 bytes; a table of collections.
const KINDS: [u64; 2] = [1 << 56 | 7 << 48, 4 << 56 | 7 << 48];
/// 9:8 page size: 64 KiB.
const PAGE_SIZE: u64 = 3 << 8;
const PAGES_OF_64K: u64 = 2 << 8;
/// `GITS_CTLR`.Quiescent.
const QUIESCENT: u64 = 1 << 31;
const IIDR: u64 = 0x4b00_043b;
const TYPER: u64 = 0x1_ef71;
const PIDR2: u64 = 0x3b;
/// `GITS_CREADR` and `GITS_CWRITER`: where in the queue.
const QUEUE_OFFSET: u64 = 0xf_ffe0;

/// A translation service.
#[derive(Debug)]
pub(crate) struct Its {
    enabled: bool,
    cbaser: u64,
    creadr: u64,
    cwriter: u64,
    baser: [u64; 2],
}

impl Default for Its {
    fn default() -> Self {
        const SHARED: u64 = 1 << 10;
        let baser = KINDS.map(|kind| table(SHARED, kind));
        Self { enabled: false, cbaser: 0, creadr: 0, cwriter: 0, baser }
    }
}

/// What becomes of a table's register.
fn table(value: u64, kind: u64) -> u64 {
    sanitised(value & !(TABLE_KIND | PAGE_SIZE) | kind | PAGES_OF_64K, SERVICE)
}

/// Where a table of pages of 64 KiB is.
const fn address(baser: u64) -> u64 {
    baser & 0xffff_ffff_0000 | (baser >> 12 & 0xf) << 48
}

#[derive(Clone, Copy)]
enum Register {
    Ctlr,
    Iidr,
    Typer,
    Cbaser,
    Cwriter,
    Creadr,
    Baser(usize),
    Id(u32),
}

fn find(offset: u32) -> Result<Register, Refusal> {
    let double = (0x8..0xffd0).contains(&offset);
    if !offset.is_multiple_of(if double { 8 } else { 4 }) {
        return Err(Refusal::ItsAlignment);
    }
    Ok(match offset {
        0x0 => Register::Ctlr,
        0x4 => Register::Iidr,
        0x8 => Register::Typer,
        0x80 => Register::Cbaser,
        0x88 => Register::Cwriter,
        0x90 => Register::Creadr,
        0x100 => Register::Baser(0),
        0x108 => Register::Baser(1),
        0x110..0x140 => Register::Id(0),
        0xffd0..0x1_0000 => Register::Id(offset),
        _ => return Err(Refusal::NoGicRegister),
    })
}

impl Its {
    pub(crate) fn read(&self, offset: u32) -> Result<u64, Refusal> {
        Ok(match find(offset)? {
            Register::Ctlr => QUIESCENT | u64::from(self.enabled),
            Register::Iidr => IIDR,
            Register::Typer => TYPER,
            Register::Cbaser => self.cbaser,
            Register::Cwriter => self.cwriter,
            Register::Creadr => self.creadr,
            Register::Baser(n) => self.baser[n],
            Register::Id(0xffe8) => PIDR2,
            Register::Id(_) => 0,
        })
    }

    pub(crate) fn write(&mut self, offset: u32, value: u64) -> Result<(), Refusal> {
        match find(offset)? {
            Register::Ctlr => self.set_enabled(value & 1 != 0),
            // The revision is that of the tables: there is one.
            Register::Iidr if value >> 12 & 0xf != 0 => return Err(Refusal::GicRegisterValue),
            Register::Iidr | Register::Typer | Register::Id(_) => {}
            Register::Cbaser if !self.enabled => {
                self.cbaser = sanitised(value & !(0xf << 12), SERVICE);
                (self.creadr, self.cwriter) = (0, 0);
            }
            Register::Cwriter if value & QUEUE_OFFSET < self.queue() => {
                self.cwriter = value & QUEUE_OFFSET;
                self.work();
            }
            Register::Creadr if self.enabled => return Err(Refusal::ItsEnabled),
            Register::Creadr if value & QUEUE_OFFSET >= self.queue() => {
                return Err(Refusal::GicRegisterValue);
            }
            Register::Creadr => self.creadr = value & QUEUE_OFFSET,
            Register::Baser(0) if !self.enabled => self.baser[0] = table(value, KINDS[0]),
            Register::Baser(1) if !self.enabled => {
                self.baser[1] = table(value & !INDIRECT, KINDS[1]);
            }
            Register::Cbaser | Register::Cwriter | Register::Baser(_) => {}
        }
        Ok(())
    }

    /// Whether the guest has switched it on.
    pub(crate) const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Bytes of the queue.
    const fn queue(&self) -> u64 {
        ((self.cbaser & 0xff) + 1) << 12
    }

    fn set_enabled(&mut self, on: bool) {
        let valid = [self.cbaser, self.baser[0], self.baser[1]].iter().all(|r| r & VALID != 0);
        self.enabled = on && (self.enabled || valid);
        self.work();
    }

    /// Takes what is in the queue: no guest here has commands that mean anything.
    fn work(&mut self) {
        if self.enabled {
            self.creadr = self.cwriter;
        }
    }

    /// Forgets everything but where tables were and what they are.
    pub(crate) fn reset(&mut self) {
        let baser = self.baser.map(|baser| baser & !VALID);
        *self = Self { baser, ..Self::default() };
    }

    /// The addresses of the tables that there are: of devices, of collections.
    pub(crate) fn tables(&self) -> [Option<u64>; 2] {
        self.baser.map(|baser| (baser & VALID != 0).then_some(address(baser)))
    }
}

/// The end of a table, which is all that one without entries holds.
const NOTHING: [u8; 8] = [0; 8];

/// Writes the tables of a service that knows nothing.
pub(crate) fn save(vm: &mut VmState, [_, collections]: [Option<u64>; 2]) -> Result<(), Refusal> {
    let Some(address) = collections else { return Ok(()) };
    let slot = slot_at(vm, address, NOTHING.len()).ok_or(Refusal::TableNowhere)?;
    slot.write(address, &NOTHING).ok_or(Refusal::TableNowhere)
}

/// Reads the tables: entries that say something are not modelled.
pub(crate) fn restore(vm: &mut VmState, tables: [Option<u64>; 2]) -> Result<(), Refusal> {
    for address in tables.into_iter().flatten() {
        slot_at(vm, address, NOTHING.len()).ok_or(Refusal::TableNowhere)?;
    }
    Ok(())
}
