//! The log of which pages of memory were written.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use kedge_guest_memory::GuestMemoryRegion;
use kedge_guest_memory::{Bytes, RamRegion};
use kedge_hv::{Access, DirtyLog};
use kedge_hv_model::{Program, Step, Width};
use kedge_ids::{u64_from, usize_from};
use libc::ENOENT;

use crate::case::cases;
use crate::ctx::{Ctx, DEVICE, Machine, Seen, equal, expect, ram, refused};

cases![
    Kvm exactly_the_pages_that_a_guest_wrote_are_noted,
    Kvm what_was_taken_is_not_told_again,
    Kvm what_is_written_while_the_log_is_off_is_not_noted,
    Kvm switching_the_log_on_again_forgets_nothing,
    Kvm what_this_process_writes_is_not_noted,
    Kvm a_slot_without_a_log_has_none_to_take,
    Kvm a_slot_that_is_not_there_has_no_log,
];

/// Where the memory is that is watched, and which slot.
const WATCHED: u64 = 0x9000_0000;
const SLOT: u32 = 2;
/// Pages of it: three elements of the log, the last of them in part.
const PAGES: u64 = 130;
const NONE: [u64; 0] = [];

fn page() -> u64 {
    u64_from(rustix::param::page_size())
}

/// A guest that writes to these pages of the watched memory, a group between two exits.
struct Writer {
    machine: Machine,
    memory: Arc<RamRegion>,
}

impl Writer {
    fn new(ctx: &Ctx<'_>, groups: &[&[u64]]) -> anyhow::Result<Self> {
        let store = |page_number: &u64| {
            Step::store(WATCHED + page_number * page() + 8, Width::Word, 0xfeed)
        };
        let steps = groups.iter().flat_map(|pages| {
            pages.iter().flat_map(store).chain(Step::store(DEVICE, Width::Byte, 1))
        });
        let machine = ctx.guest(&[Program::new(steps)])?;
        let memory = ram(WATCHED, PAGES * page())?;
        machine.vm.map_ram(SLOT, Arc::clone(&memory), Access::ReadWrite)?;
        Ok(Self { machine, memory })
    }

    /// Lets it write its next group.
    fn go_on(&mut self) -> anyhow::Result<()> {
        expect(&mut self.machine[0], &Seen::Store(DEVICE, vec![1]))
    }

    fn log(&self, log: DirtyLog) -> anyhow::Result<()> {
        Ok(self.machine.vm.set_dirty_log(SLOT, log)?)
    }

    /// The pages of the log are these.
    fn wrote(&self, pages: &[u64]) -> anyhow::Result<()> {
        let log = self.machine.vm.take_dirty_log(SLOT)?;
        equal(&log.len(), &usize_from(PAGES.div_ceil(64)))?;
        let noted = |page_number: &u64| log[usize_from(page_number / 64)] >> (page_number % 64) & 1;
        let beyond = (0..u64_from(log.len()) * 64).filter(|n| noted(n) == 1);
        equal(&beyond.collect::<BTreeSet<_>>(), &pages.iter().copied().collect())
    }
}

fn exactly_the_pages_that_a_guest_wrote_are_noted(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut writer = Writer::new(ctx, &[&[5], &[0, 63, 64, PAGES - 1, 64]])?;
    writer.go_on()?;
    writer.log(DirtyLog::On)?;
    writer.wrote(&NONE)?;
    writer.go_on()?;
    writer.wrote(&[0, 63, 64, PAGES - 1])
}

fn what_was_taken_is_not_told_again(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut writer = Writer::new(ctx, &[&[1, 2], &[2, 3]])?;
    writer.log(DirtyLog::On)?;
    writer.go_on()?;
    writer.wrote(&[1, 2])?;
    writer.wrote(&NONE)?;
    writer.go_on()?;
    writer.wrote(&[2, 3])
}

fn what_is_written_while_the_log_is_off_is_not_noted(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut writer = Writer::new(ctx, &[&[1], &[2], &[3]])?;
    writer.log(DirtyLog::On)?;
    writer.go_on()?;
    writer.log(DirtyLog::Off)?;
    writer.go_on()?;
    writer.log(DirtyLog::On)?;
    writer.wrote(&NONE)?;
    writer.go_on()?;
    writer.wrote(&[3])
}

fn switching_the_log_on_again_forgets_nothing(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut writer = Writer::new(ctx, &[&[1]])?;
    writer.log(DirtyLog::On)?;
    writer.go_on()?;
    writer.log(DirtyLog::On)?;
    writer.wrote(&[1])
}

fn what_this_process_writes_is_not_noted(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let mut writer = Writer::new(ctx, &[&[1]])?;
    writer.log(DirtyLog::On)?;
    let memory = writer.memory.as_volatile_slice()?;
    memory.write_obj(7_u64, usize_from(4 * page())).context("write")?;
    writer.go_on()?;
    writer.wrote(&[1])
}

fn a_slot_without_a_log_has_none_to_take(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let writer = Writer::new(ctx, &[])?;
    refused(writer.machine.vm.take_dirty_log(SLOT), ENOENT)?;
    writer.log(DirtyLog::Off)?;
    refused(writer.machine.vm.take_dirty_log(SLOT), ENOENT)?;
    writer.log(DirtyLog::On)?;
    writer.log(DirtyLog::Off)?;
    refused(writer.machine.vm.take_dirty_log(SLOT), ENOENT)
}

fn a_slot_that_is_not_there_has_no_log(ctx: &Ctx<'_>) -> anyhow::Result<()> {
    let vm = ctx.vm()?;
    refused(vm.set_dirty_log(SLOT, DirtyLog::On), ENOENT)?;
    refused(vm.set_dirty_log(SLOT, DirtyLog::Off), ENOENT)?;
    refused(vm.take_dirty_log(SLOT), ENOENT)
}
