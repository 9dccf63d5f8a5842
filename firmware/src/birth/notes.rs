//! What a host has shown machines before, so that the next one need not ask again: what
//! ID registers hold at birth, and what guests read that no register tells. Neither
//! changes while a kernel runs, and to ask costs more than the rest of a birth.

use std::cell::{Cell, RefCell};
use std::fmt;

use kedge_hv::{Gic, GicVersion, VcpuFeatures};
use kedge_ids::RegId;

use super::{BirthError, Newborn, number};
use crate::hex::Hex;
use crate::pmu::PmuEventSet;
use crate::probe::Seen;

/// Keeps notes on this host for the programs that start machines on it, for as long as
/// its kernel runs and no longer.
pub trait Notes: Send + Sync {
    /// What was kept under `name` since the host was started, if anything: nothing that
    /// somebody else could have written.
    fn recall(&self, name: &str) -> Option<Vec<u8>>;

    /// Keeps `note` under `name` in place of what was there. Where that cannot be, the
    /// next machine asks the host as this one did.
    fn keep(&self, name: &str, note: &[u8]);
}

/// Notes on machines with these features: with others, ID registers hold other values.
#[derive(Clone, Copy)]
pub struct NotesOf<'a> {
    /// Where they are.
    pub notes: &'a dyn Notes,
    /// The features that all vCPUs of the machine were initialised with.
    pub features: VcpuFeatures,
}

/// A register and what it holds.
pub(super) type Value = (RegId, u64);

impl fmt::Debug for NotesOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotesOf").field("features", &self.features).finish_non_exhaustive()
    }
}

/// What is known of the host of a machine being born; what is not known is asked for, of
/// the machine itself or a guest of another one.
pub(super) struct KnownHost<'a> {
    newborn: &'a Newborn<'a>,
    note: RefCell<Option<Note>>,
    /// Whether there is more in it than was kept.
    grown: Cell<bool>,
}

impl<'a> KnownHost<'a> {
    pub(super) fn of(newborn: &'a Newborn<'a>) -> Self {
        Self { newborn, note: RefCell::new(None), grown: Cell::new(false) }
    }

    /// What a guest reads that no register tells.
    pub(super) fn seen(&self) -> Result<Seen, BirthError> {
        if let Some(seen) = self.noted(|note| note.seen) {
            return Ok(seen);
        }
        let seen = Seen::of_a_guest(self.newborn.hypervisor)?;
        self.note(|note| note.seen = Some(seen));
        Ok(seen)
    }

    /// What an ID register holds before anything is written to the machine.
    pub(super) fn born(&self, id: RegId) -> Result<u64, BirthError> {
        if let Some(born) = self.noted(|note| note.born(id)) {
            return Ok(born);
        }
        let born = number(self.newborn.first()?, id)?;
        self.note(|note| note.born.push((id, born)));
        Ok(born)
    }

    /// What ID registers hold after `written`, if not what they held before; `ask` finds it.
    pub(super) fn changed_by(
        &self,
        written: &[Value],
        ask: impl FnOnce() -> Result<Vec<Value>, BirthError>,
    ) -> Result<Vec<Value>, BirthError> {
        if let Some(changed) = self.noted(|note| note.changed_by(written)) {
            return Ok(changed);
        }
        let changed = ask()?;
        // One that is not noted is asked for again, which is cheaper than to change notes.
        if self.noted(|note| (note.changes.len() < Note::CHANGES).then_some(())).is_some() {
            let written = written.to_vec();
            self.note(|note| note.changes.push(Change { written, changed: changed.clone() }));
        }
        Ok(changed)
    }

    /// Keeps what had to be asked for.
    pub(super) fn keep(&self) {
        if let (true, Some(NotesOf { notes, features })) = (self.grown.get(), self.newborn.notes) {
            let note = self.note.borrow_mut().take().unwrap_or_default();
            notes.keep(&self.name(features), &note.encode());
            self.grown.set(false);
        }
    }

    fn noted<T>(&self, part: impl FnOnce(&Note) -> Option<T>) -> Option<T> {
        let mut note = self.note.borrow_mut();
        part(note.get_or_insert_with(|| self.recall().unwrap_or_default()))
    }

    fn note(&self, add: impl FnOnce(&mut Note)) {
        add(self.note.borrow_mut().get_or_insert_default());
        self.grown.set(true);
    }

    fn recall(&self) -> Option<Note> {
        let NotesOf { notes, features } = self.newborn.notes?;
        Note::decode(&notes.recall(&self.name(features))?)
    }

    /// What the values depend on, besides the kernel and the processor.
    fn name(&self, features: VcpuFeatures) -> String {
        let gic = self.newborn.gic.map(Gic::version);
        format!(
            "features-{:x}-gic-{}",
            features.0,
            gic.map_or("none", |version| match version {
                GicVersion::V2 => "v2",
                GicVersion::V3 => "v3",
            })
        )
    }
}

/// What is known of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Note {
    seen: Option<Seen>,
    /// What ID registers hold at birth, in the order in which a profile asks for them.
    born: Vec<Value>,
    /// One for each of the profiles that are in use, not too many.
    changes: Vec<Change>,
}

/// What came of what was written at a birth.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    written: Vec<Value>,
    /// All that ID registers held then that had held something else before.
    changed: Vec<Value>,
}

impl Note {
    /// The first word: this form of notes, as a text.
    const FORM: u64 = u64::from_le_bytes(*b"knote-1\n");
    /// The most changes that are noted.
    const CHANGES: usize = 8;
    /// What the second word says is there.
    const SEEN: u64 = 1;
    const CTR: u64 = 2;
    const EVENTS: u64 = 4;

    fn born(&self, id: RegId) -> Option<u64> {
        self.born.iter().find(|register| register.0 == id).map(|register| register.1)
    }

    fn changed_by(&self, written: &[Value]) -> Option<Vec<Value>> {
        let known = self.changes.iter().find(|change| change.written == written);
        known.map(|change| change.changed.clone())
    }

    /// Words of 64 bits, little endian; the last is a CRC-32 of those before it.
    fn encode(&self) -> Vec<u8> {
        let Seen { ctr, events } = self.seen.unwrap_or_default();
        let there = |is_there, flag| if is_there { flag } else { 0 };
        let flags = there(self.seen.is_some(), Self::SEEN)
            | there(ctr.is_some(), Self::CTR)
            | there(events.is_some(), Self::EVENTS);
        let PmuEventSet { pmceid0, pmceid1 } = events.unwrap_or_default();
        let mut words = vec![Self::FORM, flags, ctr.unwrap_or(0), pmceid0.0, pmceid1.0];
        let changes = self.changes.iter().flat_map(|change| [&change.written, &change.changed]);
        for values in std::iter::once(&self.born).chain(changes) {
            words.push(u64::try_from(values.len()).unwrap_or(u64::MAX));
            words.extend(values.iter().flat_map(|(id, value)| [id.0, *value]));
        }
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
        let sum = u64::from(crc32fast::hash(&bytes));
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// None, where it is no such note: what it said is asked for again.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (before, sum) = bytes.split_last_chunk()?;
        if u64::from_le_bytes(*sum) != u64::from(crc32fast::hash(before)) {
            return None;
        }
        let (words, rest) = before.as_chunks();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let mut next = || words.next();
        let [form, flags, ctr, pmceid0, pmceid1] = [next()?, next()?, next()?, next()?, next()?];
        let has = |flag: u64| flags & flag != 0;
        let events = PmuEventSet { pmceid0: Hex(pmceid0), pmceid1: Hex(pmceid1) };
        let seen = Seen {
            ctr: has(Self::CTR).then_some(ctr),
            events: has(Self::EVENTS).then_some(events),
        };
        let seen = has(Self::SEEN).then_some(seen);
        let born = values(&mut words)?;
        let mut changes = Vec::new();
        while words.len() > 0 {
            changes.push(Change { written: values(&mut words)?, changed: values(&mut words)? });
        }
        (form == Self::FORM && rest.is_empty()).then_some(Self { seen, born, changes })
    }
}

/// As many values as the next word says.
fn values(words: &mut impl ExactSizeIterator<Item = u64>) -> Option<Vec<Value>> {
    let count = words.next()?;
    let rest = u64::try_from(words.len()).ok()?;
    (count <= rest / 2).then_some(())?;
    (0..count).map(|_| Some((RegId(words.next()?), words.next()?))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn note() -> impl Strategy<Value = Note> {
        let events = any::<(u64, u64)>()
            .prop_map(|(one, two)| PmuEventSet { pmceid0: Hex(one), pmceid1: Hex(two) });
        let seen = (any::<Option<u64>>(), prop::option::of(events))
            .prop_map(|(ctr, events)| Seen { ctr, events });
        let values = || prop::collection::vec((any::<u64>().prop_map(RegId), any::<u64>()), 0..9);
        let change =
            (values(), values()).prop_map(|(written, changed)| Change { written, changed });
        (prop::option::of(seen), values(), prop::collection::vec(change, 0..4))
            .prop_map(|(seen, born, changes)| Note { seen, born, changes })
    }

    proptest! {
        #[test]
        fn a_note_survives_being_written(note in note()) {
            prop_assert_eq!(Note::decode(&note.encode()), Some(note));
        }

        #[test]
        fn a_note_that_was_changed_is_none(note in note(), at: prop::sample::Index, bit in 0..8_u32) {
            let mut bytes = note.encode();
            let length = bytes.len();
            bytes[at.index(length)] ^= 1 << bit;
            prop_assert_eq!(Note::decode(&bytes), None);
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Note::decode(&bytes);
        }
    }
}
