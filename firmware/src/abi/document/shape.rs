//! The form that documents of a kind have, as data: what a document is held against, and
//! what its schema is written from.

use std::collections::BTreeMap;
use std::fmt;

use kedge_diag::nearest;
use serde_json::Number;

use super::fault::{At, Fault};
use super::node::{Json, Member, Node};
use crate::hex::Hex;
use crate::register::{Domain, Firmware, FwReg};

/// The form of a value.
#[derive(Debug)]
pub(crate) enum Shape {
    /// An object with these keys, no others.
    Object(&'static [Key]),
    /// The same of texts and numbers, up to four, in the order of the fields of what is made
    /// of it: one of many.
    Row(&'static [Key]),
    /// A list whose entries have this form.
    List(&'static Self),
    /// A text.
    Text(&'static Text),
    /// A text that is a number of up to 64 bits in hexadecimal.
    Hex(&'static Text),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A whole number: a multiple of `step` between `from` and `to`.
    Number {
        /// The least.
        from: u64,
        /// The greatest.
        to: u64,
        /// 1, for any number between.
        step: u64,
    },
    /// True or false.
    Flag,
    /// An object of firmware registers and their values.
    Promises(Which),
}

/// A key of an object.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What it says, as a phrase.
    pub(crate) about: &'static str,
    pub(crate) presence: Presence,
    pub(crate) shape: Shape,
}

/// Whether a key has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It has.
    Needed,
    /// It has not.
    Optional,
    /// It has not, and `null` says the same.
    Nullable,
}

/// A kind of text.
#[derive(Debug)]
pub(crate) struct Text {
    /// What it is, as an object of "write".
    pub(crate) wanted: &'static str,
    /// The same as a regular expression (ECMA 262) for schemas.
    pub(crate) pattern: &'static str,
    /// The same as a program.
    pub(crate) legal: fn(&str) -> bool,
}

/// Which firmware registers a promise can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that hold a value of the machine: versions and bitmaps.
    Values,
    /// Those that tell the host's level.
    Levels,
}

/// The way from a document to one of its parts, told only when somebody asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trail<'a> {
    /// The document.
    Whole,
    /// A key of the object there.
    Key(&'a Self, &'a str),
    /// An entry of the list there, counted from 0.
    Entry(&'a Self, usize),
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => Ok(()),
            Self::Key(Self::Whole, key) => f.write_str(key),
            Self::Key(there, key) => write!(f, "{there}.{key}"),
            Self::Entry(there, entry) => write!(f, "{there}[{entry}]"),
        }
    }
}

impl Which {
    /// Whether the register is one of these; unknown ones hold values.
    pub(crate) fn has(self, firmware: Firmware) -> bool {
        let level = firmware.spec().is_some_and(|spec| matches!(spec.domain, Domain::Level(_)));
        level == (self == Self::Levels)
    }
}

impl Shape {
    /// Whether `node`, the part of a document at `path`, has this form.
    ///
    /// # Errors
    /// It has not: the first part that deviates.
    pub(crate) fn check(&self, node: &Node, path: &Trail<'_>) -> Result<(), At> {
        match (self, &node.json) {
            (Self::Object(keys) | Self::Row(keys), Json::Object(members)) => {
                object(keys, members, node, path)
            }
            (Self::List(of), Json::List(entries)) => {
                let mut numbered = entries.iter().enumerate();
                numbered.try_for_each(|(nth, entry)| of.check(entry, &Trail::Entry(path, nth)))
            }
            (Self::Promises(which), Json::Object(members)) => promises(*which, members, path),
            (Self::Text(text) | Self::Hex(text), Json::Text(found)) if (text.legal)(found) => {
                Ok(())
            }
            (Self::Choice(words), Json::Text(found)) if words.contains(&found.as_str()) => Ok(()),
            (Self::Number { from, to, step }, Json::Number(found))
                if is_within(found, *from, *to, *step) =>
            {
                Ok(())
            }
            (Self::Flag, Json::Flag(_)) => Ok(()),
            _ => Err(at(node, self.refusal(node, path))),
        }
    }

    fn refusal(&self, node: &Node, path: &Trail<'_>) -> Fault {
        let near = match (self, &node.json) {
            (Self::Choice(words), Json::Text(found)) => nearest(found, words.iter().copied()),
            _ => None,
        };
        let wanted = match (near, &node.json) {
            (Some(near), _) => format!("`{near}`"),
            (None, Json::Null) => format!("{}, or leave it out", self.wanted()),
            (None, _) => self.wanted(),
        };
        Fault::Value { path: path.to_string(), found: node.shown(), wanted }
    }

    /// What is wanted, as an object of "write".
    fn wanted(&self) -> String {
        match self {
            Self::Object(_) | Self::Row(_) => "an object, `{ ... }`".to_owned(),
            Self::Promises(_) => {
                "an object of registers and values, such as `{ \"psci_version\": \"1.1\" }`"
                    .to_owned()
            }
            Self::List(_) => "a list, `[ ... ]`".to_owned(),
            Self::Text(text) | Self::Hex(text) => text.wanted.to_owned(),
            Self::Choice(words) => format!("one of: {}", words.join(", ")),
            Self::Number { from, to, .. } if from == to => from.to_string(),
            Self::Number { from, to, step: 1 } => format!("a whole number from {from} to {to}"),
            Self::Number { from, to, step } => format!("a multiple of {step} from {from} to {to}"),
            Self::Flag => "true or false".to_owned(),
        }
    }
}

fn at(node: &Node, fault: impl Into<Fault>) -> At {
    At { offset: node.offset, fault: fault.into() }
}

fn is_within(number: &Number, from: u64, to: u64, step: u64) -> bool {
    number
        .as_u64()
        .is_some_and(|number| (from..=to).contains(&number) && number.is_multiple_of(step))
}

fn object(keys: &[Key], members: &[Member], node: &Node, path: &Trail<'_>) -> Result<(), At> {
    for Member { offset, key, value } in members {
        let here = Trail::Key(path, key);
        let Some(known) = keys.iter().find(|known| known.name == key) else {
            return Err(At { offset: *offset, fault: no_key(keys, key, &here) });
        };
        let absent = known.presence == Presence::Nullable && matches!(value.json, Json::Null);
        if !absent {
            known.shape.check(value, &here)?;
        }
    }
    let needed = keys.iter().filter(|key| key.presence == Presence::Needed);
    for &Key { name, about, .. } in needed {
        if node.get(name).is_none() {
            let path = Trail::Key(path, name).to_string();
            return Err(at(node, Fault::Missing { path, about }));
        }
    }
    Ok(())
}

fn no_key(keys: &[Key], key: &str, path: &Trail<'_>) -> Fault {
    let names = || keys.iter().map(|key| key.name);
    Fault::NoKey {
        path: path.to_string(),
        near: nearest(key, names()).map(str::to_owned),
        known: names().collect::<Vec<_>>().join(", "),
    }
}

fn promises(which: Which, members: &[Member], path: &Trail<'_>) -> Result<(), At> {
    let mut seen: BTreeMap<Firmware, &str> = BTreeMap::new();
    for Member { offset, key, value } in members {
        let here = Trail::Key(path, key);
        let at_key = |fault| At { offset: *offset, fault };
        let firmware = register(which, key, &here).map_err(at_key)?;
        if let Some(before) = seen.insert(firmware, key) {
            let (key, before) = (key.clone(), before.to_owned());
            return Err(at_key(Fault::Again { key, before }));
        }
        let refuse = |wanted: String| {
            let path = here.to_string();
            Fault::Value { path, found: value.shown(), wanted }
        };
        let Json::Text(text) = &value.json else {
            return Err(at(
                value,
                refuse("a text, such as \"1.1\", \"trng\" or \"0x1\"".to_owned()),
            ));
        };
        match firmware {
            Firmware::Known(reg) => {
                reg.parse(text).map_err(|error| at(value, error))?;
            }
            Firmware::Unknown(_) if Hex::parse(text).is_none() => {
                return Err(at(value, refuse("a number such as \"0x1f\"".to_owned())));
            }
            Firmware::Unknown(_) => {}
        }
    }
    Ok(())
}

/// The id of a 64-bit register of arm64: all but the bank and the number in it.
const ARM64_U64: u64 = 0x6030_0000_0000_0000;

/// The firmware register that `key` names, if it can be promised there.
pub(super) fn register(which: Which, key: &str, path: &Trail<'_>) -> Result<Firmware, Fault> {
    let refuse = |wanted: &str| Fault::Value {
        path: path.to_string(),
        found: "promised there".to_owned(),
        wanted: wanted.to_owned(),
    };
    let firmware: Firmware = key.parse().map_err(|error| {
        let near = nearest(key, FwReg::all().map(|reg| reg.spec().name));
        near.map_or(Fault::NoRegister(error), |near| Fault::NoKey {
            path: path.to_string(),
            near: Some(near.to_owned()),
            known: String::new(),
        })
    })?;
    if firmware.id().0 & !0xfff_ffff != ARM64_U64 {
        return Err(refuse("the id of a 64-bit register, `0x6030000000160009`"));
    }
    match (which, which.has(firmware)) {
        (_, true) => Ok(firmware),
        (Which::Values, false) => {
            Err(refuse("it among `levels`: hosts have a level, and cannot be given one"))
        }
        (Which::Levels, false) => Err(refuse("it among `firmware`: it has values, not levels")),
    }
}
