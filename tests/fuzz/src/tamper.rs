//! Saved state in which something was changed by who knows its form: a field of it, however
//! deep, with another value.

use arbitrary::{Result, Unstructured};
use ciborium::Value;
use kedge_saved_state::Part;

/// Changes a field of `part`, or a byte.
pub(crate) fn tamper(part: &mut Part, from: &mut Unstructured<'_>) -> Result<()> {
    if from.ratio(1, 4)? && !part.body.is_empty() {
        let at = usize::from(from.arbitrary::<u16>()?) % part.body.len();
        part.body[at] = from.arbitrary()?;
        return Ok(());
    }
    if from.ratio(1, 32)? {
        part.version = from.arbitrary()?;
        part.kind.push('x');
    }
    part.body = changed(&part.body, from)?;
    Ok(())
}

/// The one item that `bytes` are, with a field changed.
pub(crate) fn changed(bytes: &[u8], from: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let Ok(mut item) = ciborium::from_reader::<Value, _>(bytes) else { return Ok(bytes.to_vec()) };
    change(&mut item, from)?;
    let mut changed = Vec::new();
    ciborium::into_writer(&item, &mut changed).expect("a vector takes all that is written");
    Ok(changed)
}

fn change(item: &mut Value, from: &mut Unstructured<'_>) -> Result<()> {
    let which = usize::from(from.arbitrary::<u8>()?);
    match item {
        Value::Map(fields) if !fields.is_empty() => {
            let count = fields.len();
            if which > 250 {
                drop(fields.remove(which % count));
                return Ok(());
            }
            change(&mut fields[which % count].1, from)
        }
        Value::Array(items) if !items.is_empty() && which < 240 => {
            let count = items.len();
            change(&mut items[which % count], from)
        }
        Value::Array(items) => {
            match items.first().cloned() {
                Some(first) if which % 2 == 0 => items.push(first),
                _ => drop(items.pop()),
            }
            Ok(())
        }
        // A part within a part.
        Value::Bytes(bytes) if bytes.len() > 8 && which < 200 => {
            *bytes = changed(bytes, from)?;
            Ok(())
        }
        other => {
            *other = value(from)?;
            Ok(())
        }
    }
}

fn value(from: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match from.int_in_range(0..=9)? {
        0 => Value::Null,
        1 => Value::Bool(from.arbitrary()?),
        2 => Value::Bytes(vec![7; usize::from(from.arbitrary::<u8>()?)]),
        3 => Value::Text("x".to_owned()),
        4 => Value::from(from.arbitrary::<u64>()?),
        5 => Value::from(from.arbitrary::<u32>()?),
        6 => Value::from(from.arbitrary::<u16>()?),
        7 => Value::from(1_u64 << from.int_in_range(0..=63)?),
        _ => Value::from(from.arbitrary::<u8>()?),
    })
}
