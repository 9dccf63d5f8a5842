//! A JSON text as a tree whose parts know where they stand.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::fault::{At, Fault, Place};

/// Documents are five deep; deeper ones are an attack on the stack.
const DEEPEST: usize = 32;

/// A value and the byte at which it begins.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) offset: usize,
    pub(crate) json: Json,
}

/// A value of which all parts know where they stand.
#[derive(Debug)]
pub(crate) enum Json {
    Null,
    Flag(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Object(Vec<Member>),
}

/// A key, the byte at which it begins, and its value.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) offset: usize,
    pub(crate) key: String,
    pub(crate) value: Node,
}

impl Node {
    /// The value of `key`, if this is an object that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        let Json::Object(members) = &self.json else { return None };
        members.iter().find(|member| member.key == key).map(|member| &member.value)
    }

    /// The part at `path`, or the last on the way to it that is there.
    pub(crate) fn find(&self, path: &Path) -> &Self {
        let mut here = self;
        for step in &path.0 {
            let next = match (step, &here.json) {
                (Step::Key(key), Json::Object(_)) => here.get(key),
                (Step::Entry(entry), Json::List(entries)) => entries.get(*entry),
                _ => None,
            };
            match next {
                Some(next) => here = next,
                None => return here,
            }
        }
        here
    }

    /// The value for a reader: texts and numbers as they are, others by their kind.
    pub(crate) fn shown(&self) -> String {
        match &self.json {
            Json::Null => "null".to_owned(),
            Json::Flag(flag) => flag.to_string(),
            Json::Number(number) => number.to_string(),
            Json::Text(text) => format!("`{}`", start(text)),
            Json::List(_) => "a list".to_owned(),
            Json::Object(_) => "an object".to_owned(),
        }
    }
}

/// As much of a text as helps to recognise it.
fn start(text: &str) -> String {
    const MOST: usize = 60;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// The way from a document to one of its parts: `cpu.id_registers[2].value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Entry(usize),
}

impl Path {
    /// The path to `key` of the object here.
    pub(crate) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    /// The path to an entry of the list here, counted from 0.
    pub(crate) fn entry(&self, entry: usize) -> Self {
        self.with(Step::Entry(entry))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if nth == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Entry(entry) => write!(f, "[{entry}]")?,
            }
        }
        Ok(())
    }
}

/// Reads `text`.
///
/// # Errors
/// It is no JSON, an object has a key twice, or it is nested absurdly deep.
pub(super) fn parse(text: &str) -> Result<Node, At> {
    let whole: &RawValue = serde_json::from_str(text).map_err(|error| json(0, text, &error))?;
    Reader { text }.node(whole, 0)
}

/// What serde says of the part of `text` that begins at `offset`, without its place.
pub(super) fn json(offset: usize, text: &str, error: &serde_json::Error) -> At {
    let message = error.to_string();
    let wrong = message.split(" at line ").next().unwrap_or(&message).to_owned();
    let part = text.get(offset..).unwrap_or_default();
    let within = Place { line: error.line(), column: error.column() }.offset_in(part);
    At { offset: offset + within, fault: Fault::Json(wrong) }
}

struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    /// Where `part`, a part of the text, begins.
    fn offset(&self, part: &RawValue) -> usize {
        part.get().as_ptr().addr().saturating_sub(self.text.as_ptr().addr())
    }

    fn part<T: Deserialize<'a>>(&self, part: &'a RawValue) -> Result<T, At> {
        let failed = |error| json(self.offset(part), self.text, &error);
        serde_json::from_str(part.get()).map_err(failed)
    }

    fn node(&self, raw: &'a RawValue, depth: usize) -> Result<Node, At> {
        let offset = self.offset(raw);
        if depth == DEEPEST {
            return Err(At { offset, fault: Fault::TooDeep });
        }
        let json = match raw.get().as_bytes().first() {
            Some(b'{') => {
                let members: Members<'a> = self.part(raw)?;
                Json::Object(self.members(members, depth)?)
            }
            Some(b'[') => {
                let entries: Vec<&'a RawValue> = self.part(raw)?;
                let entries = entries.into_iter().map(|entry| self.node(entry, depth + 1));
                Json::List(entries.collect::<Result<_, _>>()?)
            }
            _ => match self.part(raw)? {
                Value::Bool(flag) => Json::Flag(flag),
                Value::Number(number) => Json::Number(number),
                Value::String(text) => Json::Text(text),
                Value::Null | Value::Array(_) | Value::Object(_) => Json::Null,
            },
        };
        Ok(Node { offset, json })
    }

    fn members(&self, members: Members<'a>, depth: usize) -> Result<Vec<Member>, At> {
        let mut read: Vec<Member> = Vec::with_capacity(members.0.len());
        let mut seen = HashSet::new();
        for (key, value) in members.0 {
            let offset = self.offset(key);
            let key: String = self.part(key)?;
            if !seen.insert(key.clone()) {
                return Err(At { offset, fault: Fault::Twice { key } });
            }
            read.push(Member { offset, key, value: self.node(value, depth + 1)? });
        }
        Ok(read)
    }
}

/// The keys and values of an object, as they are written.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "{\n  \"one\": [1, {\"t\\u0077o\": \"x\"}],\n  \"three\": null\n}";

    #[test]
    fn every_part_knows_where_it_stands() {
        let tree = parse(TEXT).unwrap();
        let path = Path::default().key("one").entry(1).key("two");
        assert_eq!(path.to_string(), "one[1].two");
        let part = tree.find(&path);
        assert_eq!(part.shown(), "`x`");
        assert!(TEXT[part.offset..].starts_with("\"x\""));
        let three = tree.find(&Path::default().key("three").key("four"));
        assert!(TEXT[three.offset..].starts_with("null"));
    }

    #[test]
    fn a_text_nested_deep_is_refused_before_the_stack_ends() {
        let text = "[".repeat(100_000) + &"]".repeat(100_000);
        assert!(matches!(parse(&text).unwrap_err().fault, Fault::TooDeep));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}:,\"\\\\a1e.u \n-]{0,40}") {
            if let Err(at) = parse(&text) {
                prop_assert!(at.offset <= text.len());
            }
        }
    }
}
