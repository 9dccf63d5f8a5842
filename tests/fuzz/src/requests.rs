//! Requests whose bodies are as the OpenAPI document says, or nearly so, or anything: every
//! one that there is, since they are read from the document and from the table of routes.

use arbitrary::{Result, Unstructured};
use kedge_api::call::{Route, routes};
use kedge_api::http::Limits;
use serde_json::{Map, Value, json};

use crate::http::ask;
use crate::log;

/// The document, which is JSON.
const DOCUMENT: &str = include_str!("../../../resources/api/openapi.yaml");

/// How deep a schema is followed.
const DEEPEST: usize = 12;

/// One request: the first bytes say which.
pub fn requests(data: &[u8]) {
    log::begin();
    let from = &mut Unstructured::new(data);
    if let Ok(request) = request(from) {
        ask(Limits::default(), &[request]);
    }
}

fn request(from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let document: Value = serde_json::from_str(DOCUMENT).expect("the document is JSON");
    let count = routes().count();
    let which = usize::from(from.arbitrary::<u8>()?) % count;
    let route = routes().nth(which).expect("there are so many");
    let body = match (schema(&document, &route), from.int_in_range(0..=3)?) {
        (Some(schema), 1..) => {
            Schemas(&document).value(schema, DEEPEST, from)?.to_string().into_bytes()
        }
        _ => from.take_rest_of_it(),
    };
    let line = route.to_string().replace(['{', '}'], "");
    let head = format!("{line} HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    Ok([head.as_bytes(), &body].concat())
}

/// What the document says of the body of a request, where it has one.
fn schema<'d>(document: &'d Value, route: &Route) -> Option<&'d Value> {
    let (method, path) = (route.method.name().to_lowercase(), route.path.as_str());
    let operation = &document["paths"][path][method];
    operation.pointer("/requestBody/content/application~1json/schema")
}

/// All that is left of an input.
trait Rest {
    fn take_rest_of_it(&mut self) -> Vec<u8>;
}

impl Rest for Unstructured<'_> {
    fn take_rest_of_it(&mut self) -> Vec<u8> {
        self.bytes(self.len()).unwrap_or_default().to_vec()
    }
}

/// The schemas of the document.
struct Schemas<'d>(&'d Value);

impl Schemas<'_> {
    /// A value of `schema`, or nearly one.
    fn value(&self, schema: &Value, depth: usize, from: &mut Unstructured<'_>) -> Result<Value> {
        let choice = usize::from(from.arbitrary::<u8>()?);
        if depth == 0 || choice > 250 {
            return Ok(odd(choice));
        }
        if let Some(name) = schema["$ref"].as_str() {
            let named =
                self.0.pointer(name.trim_start_matches('#')).expect("the document is whole");
            return self.value(named, depth - 1, from);
        }
        let lists = ["oneOf", "anyOf", "enum"].map(|key| schema[key].as_array());
        if let Some(list) = lists[0].or(lists[1]).filter(|list| !list.is_empty()) {
            return self.value(&list[choice % list.len()], depth - 1, from);
        }
        if let Some(list) = lists[2].filter(|list| !list.is_empty()) {
            return Ok(list[choice % list.len()].clone());
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) if !kinds.is_empty() => &kinds[choice % kinds.len()],
            kind => kind,
        };
        match kind.as_str() {
            Some("object") => self.object(schema, depth - 1, from),
            Some("array") => {
                let items = (0..choice % 4).map(|_| self.value(&schema["items"], depth - 1, from));
                Ok(Value::Array(items.collect::<Result<_>>()?))
            }
            Some("integer" | "number") => number(schema, from),
            Some("boolean") => Ok((choice % 2 == 0).into()),
            Some("null") => Ok(Value::Null),
            Some("string") => Ok(word(schema, choice, from)?.into()),
            _ => Ok(odd(choice)),
        }
    }

    /// Those fields of an object that have to be there, most of the others, and one that may not.
    fn object(&self, schema: &Value, depth: usize, from: &mut Unstructured<'_>) -> Result<Value> {
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        let mut object = Map::new();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.iter().any(|other| other.as_str() == Some(name));
            if from.ratio(if is_required { 31 } else { 16 }, 32)? {
                object.insert(name.clone(), self.value(field, depth, from)?);
            }
        }
        if from.ratio(1, 16)? {
            object.insert("colour".to_owned(), Value::Null);
        }
        Ok(object.into())
    }
}

fn number(schema: &Value, from: &mut Unstructured<'_>) -> Result<Value> {
    let bound = |key: &str| schema[key].as_i64();
    Ok(match from.int_in_range(0..=7)? {
        0 => from.arbitrary::<u64>()?.into(),
        1 => from.arbitrary::<i64>()?.into(),
        2 => json!(0.5),
        3 => bound("minimum").map_or(0, |bound| bound.wrapping_sub(1)).into(),
        4 => bound("maximum").map_or(-1, |bound| bound.wrapping_add(1)).into(),
        5 => bound("minimum").unwrap_or(1).into(),
        _ => bound("minimum").unwrap_or(0).wrapping_add(from.arbitrary::<u8>()?.into()).into(),
    })
}

/// A string: one that some field takes, or any.
fn word(schema: &Value, choice: usize, from: &mut Unstructured<'_>) -> Result<String> {
    const WORDS: &[&str] = &[
        "a",
        "drive_id",
        "iface_id",
        "/nowhere",
        "06:00:ac:10:00:02",
        "169.254.169.254",
        "console=ttyAMA0",
        "0x603000000013c020",
        "0b1xx0",
        "arm64-v1",
        "",
    ];
    if let Some(format) = schema["pattern"].as_str().filter(|_| choice % 4 == 0) {
        return Ok(format.to_owned());
    }
    match WORDS.get(choice % (WORDS.len() + 2)) {
        Some(word) => Ok((*word).to_owned()),
        None => {
            let length = from.int_in_range(0..=20_usize)?.min(from.len());
            Ok(String::from_utf8_lossy(from.bytes(length)?).into_owned())
        }
    }
}

/// A value that nobody asked for.
fn odd(choice: usize) -> Value {
    match choice % 6 {
        0 => Value::Null,
        1 => json!({}),
        2 => json!([]),
        3 => json!("x"),
        4 => json!({"a": [1, {"b": "c"}]}),
        _ => json!(7),
    }
}
