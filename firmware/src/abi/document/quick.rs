//! A document read in one pass, its form in hand: what the form lets through is taken
//! straight into the value that it stands for. Of one that is not right nothing is said,
//! and of a few that are right neither (a text with a `\` in it, say): what is wrong with
//! one, and where, is [`super::node`]'s and [`super::shape`]'s to tell.

use std::fmt;

use kedge_ids::usize_from;
use serde::de::value::{BorrowedStrDeserializer, BytesDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::shape::{Key, Presence, Shape, Which, register};
use crate::hex::Hex;
use crate::register::Firmware;

/// What `text` stands for, if it is a document of the form `shape`.
pub(crate) fn quick<'de, T: Deserialize<'de>>(text: &'de str, shape: &Shape) -> Option<T> {
    let mut cursor = Cursor { text, at: 0 };
    let value = T::deserialize(Part { cursor: &mut cursor, shape }).ok()?;
    cursor.peek().is_none().then_some(value)
}

/// Something is not as it should be, or not as simple as it could be.
#[derive(Debug)]
struct Not;

impl fmt::Display for Not {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a document of this form")
    }
}

impl std::error::Error for Not {}

impl serde::de::Error for Not {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// A place in a JSON text (RFC 8259).
struct Cursor<'de> {
    text: &'de str,
    at: usize,
}

impl<'de> Cursor<'de> {
    /// The next byte that is not blank.
    fn peek(&mut self) -> Option<u8> {
        match self.text.as_bytes().get(self.at) {
            Some(byte) if *byte > b' ' => Some(*byte),
            _ => self.peek_behind_blanks(),
        }
    }

    fn peek_behind_blanks(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        if bytes.get(at) == Some(&b'\n') {
            at += 1;
            // Lines are indented by eight, most of them.
            while bytes.get(at..at + 8) == Some(b"        ") {
                at += 8;
            }
        }
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
            at += 1;
        }
        self.at = at;
        bytes.get(at).copied()
    }

    fn take(&mut self, byte: u8) -> Result<(), Not> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(Not)
    }

    /// A text that stands for itself.
    fn text(&mut self) -> Result<&'de str, Not> {
        self.take(b'"')?;
        let (start, rest) = (self.at, self.text.as_bytes().get(self.at..).ok_or(Not)?);
        self.at += plain(rest);
        let text = self.text.get(start..self.at).ok_or(Not)?;
        self.end_of_text()?;
        Ok(text)
    }

    /// Passes over the quote that ends a text. Within one, blanks are not between things.
    fn end_of_text(&mut self) -> Result<(), Not> {
        if self.text.as_bytes().get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(());
        }
        Err(Not)
    }

    /// Passes over `expected` as a text, and tells whether it was next.
    fn is_text(&mut self, expected: &str) -> bool {
        if self.peek() != Some(b'"') {
            return false;
        }
        let rest = self.text.as_bytes().get(self.at + 1..).unwrap_or_default();
        let (found, behind) = rest.split_at_checked(expected.len()).unwrap_or_default();
        let is_next = found == expected.as_bytes() && behind.first() == Some(&b'"');
        if is_next {
            self.at += expected.len() + 2;
        }
        is_next
    }

    /// Passes over `name` as a key, and tells whether it was next.
    fn is_key(&mut self, name: &str) -> bool {
        // As a row of a list of an object of the document is written.
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let behind = rest.strip_prefix(b"\n        \"").and_then(|rest| {
            let (found, behind) = rest.split_at_checked(name.len())?;
            behind.strip_prefix(b"\": ").filter(|_| found == name.as_bytes())
        });
        match behind {
            Some(behind) => self.at = self.text.len() - behind.len(),
            None => return self.is_text(name) && self.take(b':').is_ok(),
        }
        true
    }

    /// A text that is a number in hexadecimal, as [`Hex::parse`] reads it.
    fn hex(&mut self) -> Result<u64, Not> {
        self.take(b'"')?;
        let rest = self.text.as_bytes().get(self.at..).ok_or(Not)?;
        let (number, length) = Hex::parse_front(rest).ok_or(Not)?;
        self.at += length;
        self.end_of_text()?;
        Ok(number.0)
    }

    /// A whole number that is not negative. What may follow one, a fraction say, is no
    /// part of it, and so nothing that could come next.
    fn number(&mut self) -> Result<u64, Not> {
        self.peek();
        let rest = self.text.get(self.at..).ok_or(Not)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let digits = rest.get(..digits).ok_or(Not)?;
        self.at += digits.len();
        let padded = digits.len() > 1 && digits.starts_with('0');
        digits.parse().ok().filter(|_| !padded).ok_or(Not)
    }

    fn flag(&mut self) -> Result<bool, Not> {
        self.peek();
        let rest = self.text.get(self.at..).ok_or(Not)?;
        let flag = rest.starts_with("true");
        let word = if flag { "true" } else { "false" };
        self.at += rest.starts_with(word).then_some(word.len()).ok_or(Not)?;
        Ok(flag)
    }

    /// Whether there is one more in a list or object that ends with `end`.
    fn more(&mut self, any: &mut bool, end: u8) -> Result<bool, Not> {
        if self.peek() == Some(end) {
            self.at += 1;
            return Ok(false);
        }
        if std::mem::replace(any, true) {
            self.take(b',')?;
        }
        Ok(true)
    }
}

/// `byte` in every byte of a word.
const fn every(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// How many bytes come before the first that ends a text or stands for another: `"`, `\`,
/// or a control character. Eight at a time, as zlib and others look for bytes: a borrow
/// reaches the highest bit of the first byte that is zero, or less than what is taken
/// away; what it does to later ones does not matter.
fn plain(bytes: &[u8]) -> usize {
    const HIGH: u64 = every(0x80);
    let zero = |word: u64| word.wrapping_sub(every(1)) & !word;
    let mut before = 0;
    let (words, rest) = bytes.as_chunks();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(every(b' ')) & !word;
        let ends = zero(word ^ every(b'"')) | zero(word ^ every(b'\\')) | control;
        if ends & HIGH != 0 {
            return before + usize_from(u64::from((ends & HIGH).trailing_zeros() / u8::BITS));
        }
        before += size_of::<u64>();
    }
    let end = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    before + rest.iter().position(end).unwrap_or(rest.len())
}

/// A part of a document that is to have this form.
struct Part<'c, 'de> {
    cursor: &'c mut Cursor<'de>,
    shape: &'c Shape,
}

impl<'de> Part<'_, 'de> {
    /// A text or one of some words.
    fn text(self) -> Result<&'de str, Not> {
        let text = self.cursor.text()?;
        let legal = match self.shape {
            Shape::Text(kind) => (kind.legal)(text),
            Shape::Choice(words) => words.contains(&text),
            _ => false,
        };
        if legal { Ok(text) } else { Err(Not) }
    }
}

impl<'de> Deserializer<'de> for Part<'_, 'de> {
    type Error = Not;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Not> {
        let Self { cursor, shape } = self;
        match shape {
            Shape::Object(keys) | Shape::Row(keys) => {
                cursor.take(b'{')?;
                visitor.visit_map(Members::new(cursor, keys))
            }
            Shape::Promises(which) => {
                cursor.take(b'{')?;
                visitor.visit_map(Registers { cursor, which: *which, seen: Vec::new() })
            }
            Shape::List(of) => {
                cursor.take(b'[')?;
                visitor.visit_seq(Entries { cursor, of, any: false })
            }
            Shape::Number { from, to, step } => match cursor.number()? {
                number if (*from..=*to).contains(&number) && number.is_multiple_of(*step) => {
                    visitor.visit_u64(number)
                }
                _ => Err(Not),
            },
            Shape::Flag => visitor.visit_bool(cursor.flag()?),
            Shape::Hex(_) => visitor.visit_bytes(&cursor.hex()?.to_le_bytes()),
            Shape::Text(_) | Shape::Choice(_) => {
                visitor.visit_borrowed_str(Part { cursor, shape }.text()?)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Not> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Not> {
        visitor.visit_enum(BorrowedStrDeserializer::new(self.text()?))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Not> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Not> {
        let Self { cursor, shape } = self;
        let start = cursor.at;
        if let Shape::Row(keys) = shape
            && let Some(values) = in_order(cursor, keys)
        {
            return visitor.visit_seq(values);
        }
        cursor.at = start;
        let (Shape::Object(keys) | Shape::Row(keys)) = shape else {
            return Part { cursor, shape }.deserialize_any(visitor);
        };
        cursor.take(b'{')?;
        visitor.visit_map(Members { fields, ..Members::new(cursor, keys) })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The entries of a list.
struct Entries<'c, 'de> {
    cursor: &'c mut Cursor<'de>,
    of: &'c Shape,
    any: bool,
}

impl<'de> SeqAccess<'de> for Entries<'_, 'de> {
    type Error = Not;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Not> {
        if !self.cursor.more(&mut self.any, b']')? {
            return Ok(None);
        }
        seed.deserialize(Part { cursor: self.cursor, shape: self.of }).map(Some)
    }
}

/// The values of a row with all its keys in order: a profile consists of them.
fn in_order<'de>(cursor: &mut Cursor<'de>, keys: &[Key]) -> Option<Values<'de>> {
    let mut values = Values { values: [Value::None; MANY], next: 0 };
    cursor.take(b'{').ok()?;
    for (nth, (key, value)) in keys.iter().zip(&mut values.values).enumerate() {
        if nth > 0 {
            cursor.take(b',').ok()?;
        }
        cursor.is_key(key.name).then_some(())?;
        *value = match key.shape {
            Shape::Hex(_) => Value::Number(cursor.hex().ok()?.to_le_bytes()),
            Shape::Text(kind) => {
                Value::Text(Some(cursor.text().ok()?).filter(|text| (kind.legal)(text))?)
            }
            _ => return None,
        };
    }
    cursor.take(b'}').ok()?;
    (keys.len() <= MANY).then_some(values)
}

/// The most that [`in_order`] takes.
const MANY: usize = 4;

/// Values that have been read.
struct Values<'de> {
    values: [Value<'de>; MANY],
    next: usize,
}

/// One of them.
#[derive(Clone, Copy)]
enum Value<'de> {
    Number([u8; 8]),
    Text(&'de str),
    None,
}

impl<'de> SeqAccess<'de> for Values<'de> {
    type Error = Not;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Not> {
        let value = self.values.get(self.next).copied().unwrap_or(Value::None);
        self.next += 1;
        match value {
            Value::Number(bytes) => seed.deserialize(BytesDeserializer::new(&bytes)).map(Some),
            Value::Text(text) => seed.deserialize(BorrowedStrDeserializer::new(text)).map(Some),
            Value::None => Ok(None),
        }
    }
}

/// The members of an object with these keys, each of which a bit of `seen` stands for.
struct Members<'c, 'de> {
    cursor: &'c mut Cursor<'de>,
    keys: &'c [Key],
    /// The same by the order of what is made of them, where that is known.
    fields: &'static [&'static str],
    /// The key that is probably next: documents have them in order.
    next: usize,
    seen: u64,
    any: bool,
}

impl<'c, 'de> Members<'c, 'de> {
    fn new(cursor: &'c mut Cursor<'de>, keys: &'c [Key]) -> Self {
        Self { cursor, keys, fields: &[], next: 0, seen: 0, any: false }
    }

    /// Whether all are there that have to be.
    fn is_complete(&self) -> bool {
        let mut keys = self.keys.iter().enumerate();
        keys.all(|(nth, key)| key.presence != Presence::Needed || self.seen >> nth & 1 == 1)
    }

    /// The next key, by its number.
    fn key(&mut self) -> Result<usize, Not> {
        let probable = self.keys.get(self.next);
        if probable.is_some_and(|key| self.cursor.is_text(key.name)) {
            return Ok(self.next);
        }
        let name = self.cursor.text()?;
        self.keys.iter().position(|key| key.name == name).ok_or(Not)
    }
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = Not;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Not> {
        if !self.cursor.more(&mut self.any, b'}')? {
            return if self.is_complete() { Ok(None) } else { Err(Not) };
        }
        let nth = self.key()?;
        let bit = 1_u64.checked_shl(u32::try_from(nth).map_err(|_| Not)?).ok_or(Not)?;
        if self.seen & bit != 0 {
            return Err(Not);
        }
        self.seen |= bit;
        self.next = nth + 1;
        self.cursor.take(b':')?;
        let name = self.keys.get(nth).ok_or(Not)?.name;
        // To go by the number of a field is cheaper than to compare names.
        match (u64::try_from(nth), self.fields.get(nth)) {
            (Ok(number), Some(field)) if *field == name => {
                seed.deserialize(number.into_deserializer())
            }
            _ => seed.deserialize(BorrowedStrDeserializer::new(name)),
        }
        .map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Not> {
        let key = self.next.checked_sub(1).and_then(|nth| self.keys.get(nth)).ok_or(Not)?;
        seed.deserialize(Part { cursor: self.cursor, shape: &key.shape })
    }
}

/// The firmware registers of an object, and their values.
struct Registers<'c, 'de> {
    cursor: &'c mut Cursor<'de>,
    which: Which,
    seen: Vec<Firmware>,
}

impl<'de> MapAccess<'de> for Registers<'_, 'de> {
    type Error = Not;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Not> {
        if !self.cursor.more(&mut !self.seen.is_empty(), b'}')? {
            return Ok(None);
        }
        let name = self.cursor.text()?;
        let firmware = register(self.which, name, &super::Trail::Whole).map_err(|_| Not)?;
        if self.seen.contains(&firmware) {
            return Err(Not);
        }
        self.seen.push(firmware);
        self.cursor.take(b':')?;
        seed.deserialize(BorrowedStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Not> {
        let text = self.cursor.text()?;
        let legal = match self.seen.last() {
            Some(Firmware::Known(reg)) => reg.parse(text).is_ok(),
            _ => Hex::parse(text).is_some(),
        };
        if !legal {
            return Err(Not);
        }
        seed.deserialize(BorrowedStrDeserializer::new(text))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_ends_where_it_ends(text in "[a \"\\\\\u{1f}\u{7f}é€]{0,40}") {
            let end = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
            let expected = text.bytes().position(|byte| end(&byte)).unwrap_or(text.len());
            prop_assert_eq!(plain(text.as_bytes()), expected);
        }

        #[test]
        fn blanks_are_passed_over(before in "[ \n\t]{0,40}", rest in "[a ]{0,3}") {
            let text = format!("{before}{rest}");
            let mut cursor = Cursor { text: &text, at: 0 };
            prop_assert_eq!(cursor.peek(), text.trim_start().bytes().next());
        }
    }
}
