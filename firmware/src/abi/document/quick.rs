//! A JSON text read once, into a tree that knows no places: enough to see that a document
//! is right, at a fraction of the cost. What is wrong with one that is not, and where, is
//! [`super::node`]'s to say.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::node::{DEEPEST, Json, Member, Node};

/// Reads `text`, if it is JSON, no object has a key twice, and nothing is nested absurdly
/// deep.
pub(crate) fn quick(text: &str) -> Option<Node> {
    let mut json = serde_json::Deserializer::from_str(text);
    let node = Part { depth: 0 }.deserialize(&mut json).ok()?;
    json.end().ok()?;
    Some(node)
}

/// A value so deep in a document.
struct Part {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        if self.depth == DEEPEST {
            return Err(D::Error::custom("too deep"));
        }
        Ok(Node { offset: 0, json: deserializer.deserialize_any(self)? })
    }
}

impl<'de> Visitor<'de> for Part {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Flag(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
        Number::from_f64(number).map(Json::Number).ok_or_else(|| E::custom("no number"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element_seed(Self { depth: self.depth + 1 })? {
            entries.push(entry);
        }
        Ok(Json::List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key()? {
            let value = map.next_value_seed(Self { depth: self.depth + 1 })?;
            members.push(Member { offset: 0, key, value });
        }
        match has_twins(&members) {
            true => Err(A::Error::custom("a key is there twice")),
            false => Ok(Json::Object(members)),
        }
    }
}

/// Whether two keys are the same. Most objects have a handful: to look is less than to
/// hash.
fn has_twins(members: &[Member]) -> bool {
    const HANDFUL: usize = 8;
    let key = |member: &Member| member.key.clone();
    if members.len() > HANDFUL {
        return members.iter().map(key).collect::<HashSet<_>>().len() < members.len();
    }
    let mut rest = members;
    while let Some((first, others)) = rest.split_first() {
        if others.iter().any(|other| other.key == first.key) {
            return true;
        }
        rest = others;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::node::parse;
    use super::*;

    /// The tree as text, without places.
    fn shown(node: &Node) -> String {
        match &node.json {
            Json::List(entries) => format!("{:?}", entries.iter().map(shown).collect::<Vec<_>>()),
            Json::Object(members) => {
                let member = |member: &Member| (member.key.clone(), shown(&member.value));
                format!("{:?}", members.iter().map(member).collect::<Vec<_>>())
            }
            _ => node.shown(),
        }
    }

    #[test]
    fn a_key_is_there_once_however_many_there_are() {
        let object = |keys: std::ops::Range<usize>, more: &str| {
            let keys: Vec<_> = keys.map(|key| format!("\"{key}\": 0")).collect();
            format!("{{{}{more}}}", keys.join(","))
        };
        assert!(quick(&object(0..20, "")).is_some());
        assert!(quick(&object(0..20, ", \"3\": 1")).is_none());
        assert!(quick(&object(0..4, ", \"3\": 1")).is_none());
    }

    #[test]
    fn a_text_nested_deep_is_none() {
        assert!(quick(&("[".repeat(40) + &"]".repeat(40))).is_none());
        assert!(quick(&("[".repeat(100_000) + &"]".repeat(100_000))).is_none());
    }

    proptest! {
        #[test]
        fn it_reads_what_the_reader_with_places_reads(
            text in "[\\[\\]{}:,\"\\\\a1e.u \n-]{0,40}",
        ) {
            let with_places = parse(&text).ok().map(|node| shown(&node));
            prop_assert_eq!(quick(&text).map(|node| shown(&node)), with_places);
        }
    }
}
