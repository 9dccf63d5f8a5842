//! ID registers, field by field: the safest value that every host takes.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use kedge_ids::{RegId, usize_from};

use super::cpu::IMPLEMENTATION;
use super::error::{Conflict, takes};
use super::{Findings, Fleet, varying};
use crate::abi::{IdPromise, Varying};
use crate::fields::{Block, Rule, blocks, is_there};
use crate::hex::{Hex, RegValue};
use crate::host::{FoundCpu, FoundIdReg};
use crate::probe::cache;

/// What the ID registers of vCPUs with certain features can promise on all hosts.
#[derive(Debug, Default)]
pub(super) struct Identity {
    pub(super) promises: Vec<IdPromise>,
    pub(super) varying: Vec<Varying>,
    pub(super) findings: Findings,
    /// A feature that brings fields of which there is no common value, and one of them.
    pub(super) clash: Option<(&'static str, Conflict)>,
}

impl Identity {
    /// What vCPUs with `features` can be promised.
    pub(super) fn new(fleet: &Fleet<'_>, features: &[String]) -> Self {
        let mut registers = registers(fleet, features);
        keep_described_caches(&mut registers);
        let no_aarch32 = registers
            .iter()
            .filter(|register| register.id == varying::ID_AA64PFR0_EL1)
            .any(|register| register.hosts.iter().all(|(_, host)| host.value & 0xf == 1));
        let mut identity = Self::default();
        for register in &registers {
            identity.register(register, features, no_aarch32);
        }
        identity
    }

    fn register(&mut self, register: &Register<'_>, features: &[String], no_aarch32: bool) {
        let (mut value, mut mask) = (0, 0);
        for block in blocks(register.id) {
            match register.chosen(&block) {
                Choice::Value(bits) => {
                    value |= bits;
                    mask |= block.mask();
                    self.lost(register, &block, bits);
                }
                Choice::OfTheMachine => {}
                Choice::None => match register.may_vary(&block, features, no_aarch32) {
                    Some(reason) => self.varies(register, &block, reason),
                    None => self.conflict(register, &block, features),
                },
            }
        }
        let (id, name) = (register.id, register.name.clone());
        mask &= RegValue::sized(id, u64::MAX).number();
        if mask != 0 {
            self.promises.push(IdPromise { id, name, value: Hex(value), mask: Hex(mask) });
        }
    }

    /// Names the hosts that keep a better value than `chosen` from being promised.
    fn lost(&mut self, register: &Register<'_>, block: &Block, chosen: u64) {
        let best = register.own(block).max_by_key(|value| (block.places(*value), Reverse(*value)));
        let Some(best) = best.filter(|best| block.places(*best) > block.places(chosen)) else {
            return;
        };
        let subject = format!("{} {}", register.title(block), Hex(best >> block.shift));
        for (name, host) in register.hosts.iter().filter(|(_, host)| !host.takes(block, best)) {
            self.findings.lose(&subject, name, host.words(block));
        }
    }

    fn varies(&mut self, register: &Register<'_>, block: &Block, reason: &str) {
        for (name, host) in &register.hosts {
            let words = format!("{}, and so it varies", host.words(block));
            self.findings.lose(&register.title(block), name, words);
        }
        self.varying.push(Varying {
            id: register.id,
            name: register.name.clone(),
            mask: Hex(block.mask()),
            reason: format!("{}: {reason}", block.title()),
        });
    }

    fn conflict(&mut self, register: &Register<'_>, block: &Block, features: &[String]) {
        let hosts = register.hosts.iter();
        let hosts = hosts.map(|(name, host)| ((*name).to_owned(), host.words(block))).collect();
        let conflict = Conflict { subject: register.title(block), hosts };
        let by = block.fields.iter().filter_map(|field| varying::feature(register.id, field.name));
        match by.into_iter().find(|feature| features.iter().any(|name| name == feature)) {
            Some(feature) => self.clash = self.clash.take().or(Some((feature, conflict))),
            None => self.findings.conflicts.push(conflict),
        }
    }
}

/// What becomes of a block.
enum Choice {
    /// All hosts take this.
    Value(u64),
    /// A device of the machine decides, alike on all hosts.
    OfTheMachine,
    /// There is no value that all hosts take.
    None,
}

/// An ID register on all hosts.
#[derive(Debug)]
struct Register<'a> {
    id: RegId,
    name: String,
    hosts: Vec<(&'a str, Taken)>,
}

impl Register<'_> {
    /// The hosts' own values of a block.
    fn own(&self, block: &Block) -> impl Iterator<Item = u64> {
        let mask = block.mask();
        self.hosts.iter().map(move |(_, host)| host.value & mask)
    }

    /// The value of a block that promises most of those that all hosts take.
    fn chosen(&self, block: &Block) -> Choice {
        /// Wider blocks have more values than can be looked at; what one host shows
        /// is the most that another can be asked for.
        const WIDEST: u32 = 12;
        let all = |value: &u64| self.hosts.iter().all(|(_, host)| host.takes(block, *value));
        if block.fields.iter().any(|field| field.rule == Rule::Machine) {
            let mut own = self.own(block);
            let first = own.next();
            let alike = own.all(|value| Some(value) == first);
            return if alike { Choice::OfTheMachine } else { Choice::None };
        }
        let best = |value: &u64| (block.places(*value), Reverse(*value));
        let describes = block.fields.iter().any(|field| field.rule == Rule::Description);
        let chosen = if block.width > WIDEST || describes {
            self.own(block).filter(all).max_by_key(best)
        } else {
            let values = (0..1_u64 << block.width).map(|value| value << block.shift);
            values.filter(all).max_by_key(best)
        };
        chosen.map_or(Choice::None, Choice::Value)
    }

    /// Why a guest can live with different values of a block, if it can.
    fn may_vary(
        &self,
        block: &Block,
        features: &[String],
        no_aarch32: bool,
    ) -> Option<&'static str> {
        if cache(self.id).is_some() {
            return Some(varying::CACHE_SIZE);
        }
        if no_aarch32 && varying::is_aarch32(self.id) {
            return Some(varying::NO_AARCH32);
        }
        let [field] = block.fields.as_slice() else { return None };
        let values: Vec<_> = self.own(block).map(|value| field.of(value)).collect();
        varying::reason((self.id, field.name), features, &values)
    }

    /// `ID_AA64DFR0_EL1.DebugVer`.
    fn title(&self, block: &Block) -> String {
        format!("{}.{}", self.name, block.title())
    }
}

/// What a host makes of a register.
#[derive(Debug)]
struct Taken {
    /// What it shows by itself.
    value: u64,
    /// By groups of four bits: bit v, it takes the value v.
    takes: [u64; 16],
}

impl Taken {
    /// Of a host that has the register, or not.
    fn new(id: RegId, found: Option<&FoundIdReg>) -> Self {
        let absent = u64::from(varying::reads_as_zero(id));
        let Some(found) = found else { return Self { value: 0, takes: [absent; 16] } };
        let mut takes = [0; 16];
        for (takes, shift) in takes.iter_mut().zip((0..).step_by(4)) {
            *takes = found.shows(shift);
        }
        Self { value: found.shown(), takes }
    }

    /// Whether it takes the bits of `block` in `value`.
    fn takes(&self, block: &Block, value: u64) -> bool {
        let groups = (block.shift..block.shift + block.width).step_by(4);
        let mut takes = groups.map(|shift| (self.takes[usize_from(u64::from(shift) / 4)], shift));
        takes.all(|(takes, shift)| takes >> (value >> shift & 0xf) & 1 != 0)
    }

    /// What it takes of a block, as a phrase.
    fn words(&self, block: &Block) -> String {
        if block.width > 8 {
            let value = Hex((self.value & block.mask()) >> block.shift);
            return format!("takes {value} and what is like it");
        }
        let values = 0..1_u64 << block.width;
        takes(values.filter(|value| self.takes(block, value << block.shift)))
    }
}

/// Of the sizes of caches, leaves those of the caches that guests are told of: there is
/// nothing to be said of others, and not every host says it.
fn keep_described_caches(registers: &mut Vec<Register<'_>>) {
    let clidr = registers.iter().find(|register| register.id == CLIDR_EL1).and_then(|register| {
        match register.chosen(&blocks(register.id).pop()?) {
            Choice::Value(clidr) => Some(clidr),
            Choice::OfTheMachine | Choice::None => None,
        }
    });
    let described = |selected: u64| clidr.is_some_and(|clidr| is_there(clidr, selected));
    registers.retain(|register| cache(register.id).is_none_or(described));
}

const CLIDR_EL1: RegId = RegId::system(3, 1, 0, 0, 1);

/// All ID registers of vCPUs with `features` that any host has, without those that name
/// the CPU.
fn registers<'a>(fleet: &Fleet<'a>, features: &[String]) -> Vec<Register<'a>> {
    let cpus = fleet.hosts.iter().map(|(name, host)| (*name, host.cpu_with(features)));
    let cpus: Vec<(&str, FoundCpu)> = cpus.collect();
    let all = cpus.iter().flat_map(|(_, cpu)| &cpu.id_registers);
    let mut names: BTreeMap<RegId, &str> =
        all.map(|found| (found.id, found.name.as_str())).collect();
    names.retain(|id, _| IMPLEMENTATION.iter().all(|(named, _)| named != id));
    let register = |(id, name): (RegId, &str)| {
        let hosts = cpus.iter().map(|(host, cpu)| (*host, Taken::new(id, cpu.id_register(id))));
        Register { id, name: name.to_owned(), hosts: hosts.collect() }
    };
    names.into_iter().map(register).collect()
}
