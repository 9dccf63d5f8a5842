//! JSON schemas (draft 2020-12), written from the form of documents.

use serde_json::{Map, Value, json};

use super::shape::{Key, Presence, Shape, Text, Which};
use crate::register::{Domain, Firmware, FwSpec};
use crate::table::TABLE;

/// The schema of documents of this form.
pub(crate) fn schema(id: &str, title: &str, shape: &Shape) -> Value {
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("$id".to_owned(), json!(id));
    schema.insert("title".to_owned(), json!(title));
    schema.extend(of(shape));
    Value::Object(schema)
}

fn of(shape: &Shape) -> Map<String, Value> {
    let schema = match shape {
        Shape::Object(keys) | Shape::Row(keys) => return object(keys),
        Shape::Promises(which) => return promises(*which),
        Shape::List(of_entries) => json!({ "type": "array", "items": of(of_entries) }),
        Shape::Text(Text { pattern, .. }) | Shape::Hex(Text { pattern, .. }) => {
            json!({ "type": "string", "pattern": pattern })
        }
        Shape::Choice(words) => json!({ "enum": words }),
        Shape::Number { from, to, .. } if from == to => json!({ "const": from }),
        Shape::Number { from, to, step: 1 } => {
            json!({ "type": "integer", "minimum": from, "maximum": to })
        }
        Shape::Number { from, to, step } => {
            json!({ "type": "integer", "minimum": from, "maximum": to, "multipleOf": step })
        }
        Shape::Flag => json!({ "type": "boolean" }),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn object(keys: &[Key]) -> Map<String, Value> {
    let mut properties = Map::new();
    for Key { name, about, presence, shape } in keys {
        let mut schema = Map::new();
        schema.insert("description".to_owned(), json!(about));
        match presence {
            Presence::Needed | Presence::Optional => schema.extend(of(shape)),
            Presence::Nullable => {
                schema.insert("anyOf".to_owned(), json!([{ "type": "null" }, of(shape)]));
            }
        }
        properties.insert((*name).to_owned(), Value::Object(schema));
    }
    let needed: Vec<_> =
        keys.iter().filter(|key| key.presence == Presence::Needed).map(|key| key.name).collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("required".to_owned(), json!(needed));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema
}

const HEX: &str = "0x[0-9A-Fa-f]{1,16}";

fn promises(which: Which) -> Map<String, Value> {
    let rows = || TABLE.iter().filter(|row| which.has(Firmware::Known(row.reg)));
    let properties: Map<_, _> =
        rows().map(|row| (row.name.to_owned(), Value::Object(register(row)))).collect();
    let ids = match which {
        Which::Values => "0x60300000001[46][0-9A-Fa-f]{4}".to_owned(),
        Which::Levels => rows().map(|row| row.id.to_string()).collect::<Vec<_>>().join("|"),
    };
    let by_id = json!({ "description": "a register by its id", "type": "string" });
    let patterns: Map<_, _> = [(format!("^({ids})$"), by_id)].into_iter().collect();
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    schema.insert("patternProperties".to_owned(), Value::Object(patterns));
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema
}

/// The values of a register as texts. A number is legal where it is that of a name,
/// which a schema does not tell.
fn register(row: &FwSpec) -> Map<String, Value> {
    let names: Vec<_> = row.domain.symbols().iter().map(|symbol| symbol.name).collect();
    let names = names.join("|").replace('.', "\\.");
    let pattern = match row.domain {
        Domain::Version(_) | Domain::Level(_) => format!("^({names}|{HEX})$"),
        Domain::Bits(_) => format!("^(none|({names}|{HEX})( *, *({names}|{HEX}))*)$"),
    };
    let mut schema = Map::new();
    schema.insert("description".to_owned(), json!(row.about));
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("pattern".to_owned(), json!(pattern));
    schema
}
