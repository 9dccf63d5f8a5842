//! Where in an object's text what is wrong with it stands, where only the object's reader
//! knows what is wrong, and it has not seen the text.

use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Deserializer, Map, Value};

/// A place in a text: lines and columns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    line: usize,
    column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column } = self;
        write!(f, "line {line} column {column}")
    }
}

/// More fields than any object has, and few enough to do without each in turn.
const MOST: usize = 64;

/// Where in `text` that is which `wrong` complains of, who is given the object `fields`
/// that the text is: the value without which its complaint is another one, or the object's
/// end where something is missing.
pub(super) fn of(
    text: &[u8],
    fields: &Map<String, Value>,
    wrong: impl Fn(Map<String, Value>) -> Option<String>,
) -> Option<Place> {
    let complaint = wrong(fields.clone())?;
    let end = || text.trim_ascii_end().len().checked_sub(1);
    if complaint.starts_with("missing field") {
        return Some(at(text, end()?));
    }
    if fields.len() > MOST {
        return None;
    }
    let innocent = |field: &&String| {
        let mut rest = fields.clone();
        rest.remove(*field);
        wrong(rest).as_ref() == Some(&complaint)
    };
    let field = fields.keys().find(|field| !innocent(field))?;
    let offset = Deserializer::from_slice(text).deserialize_map(Offset { text, field }).ok()??;
    Some(at(text, offset))
}

fn at(text: &[u8], offset: usize) -> Place {
    let before = text.get(..offset).unwrap_or(text);
    let line_begin = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    Place { line, column: 1 + before.len() - line_begin }
}

/// Finds a field's value.
struct Offset<'t> {
    text: &'t [u8],
    field: &'t str,
}

impl<'de> Visitor<'de> for Offset<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<usize>, A::Error> {
        let mut found = None;
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            if key == self.field {
                let start = self.text.as_ptr().addr();
                found = value.get().as_ptr().addr().checked_sub(start);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[serde(rename = "name")]
        _name: String,
        #[serde(rename = "size")]
        _size: u8,
    }

    fn place(text: &str) -> String {
        let fields: Map<String, Value> = serde_json::from_str(text).unwrap();
        let wrong = |fields| {
            let read = serde_json::from_value::<Body>(Value::Object(fields));
            read.err().map(|error| error.to_string())
        };
        of(text.as_bytes(), &fields, wrong).map_or_else(String::new, |place| place.to_string())
    }

    #[test]
    fn the_value_that_is_wrong_is_found_whatever_is_wrong_with_it() {
        assert_eq!(place(r#"{"name": "a", "size": 300}"#), "line 1 column 23");
        assert_eq!(place("{\n  \"name\": 1,\n  \"size\": 3\n}"), "line 2 column 11");
        assert_eq!(place("{\"name\": \"a\", \"size\": 3,\n\"colour\": {}}"), "line 2 column 11");
    }

    #[test]
    fn what_is_missing_is_missing_at_the_end() {
        assert_eq!(place(r#"{"name": "a"} "#), "line 1 column 13");
    }

    #[test]
    fn an_object_with_far_too_many_fields_is_not_worth_a_search() {
        let fields: Vec<_> = (0..=MOST).map(|number| format!("\"f{number}\": 1")).collect();
        assert_eq!(place(&format!("{{{}}}", fields.join(", "))), "");
    }

    #[test]
    fn what_is_right_has_no_place() {
        assert_eq!(place(r#"{"name": "a", "size": 3}"#), "");
    }
}
