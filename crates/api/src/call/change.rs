//! `PATCH /drives/{id}` and its like: a device of a running machine becomes another
//! (FIRECRACKER_API.md, 3.3 and 3.4). Which kinds have this, and with what body, is the
//! catalogue's business.

use kedge_devices::virtio::catalog::Kind;
use kedge_devices::virtio::change::{Change, ChangeError};
use serde_json::Value;

use super::{Call, Fault, Parsed, body, device, place};

/// What a body asks of the device `id` of `kind`.
pub(super) fn read(kind: &'static Kind, id: &str, bytes: &[u8]) -> Result<Parsed, Fault> {
    let Value::Object(fields) = body::read(bytes)? else { return Err(Fault::NoObject) };
    let read = |fields| Change::from_json(kind, Value::Object(fields));
    let change = read(fields.clone()).map_err(|error| match error {
        ChangeError::Body(error) => {
            let wrong = |fields| match read(fields) {
                Err(ChangeError::Body(error)) => Some(error.to_string()),
                _ => None,
            };
            Fault::Form { wrong: error.to_string(), place: place::of(bytes, &fields, wrong) }
        }
        other => Fault::Change(other),
    })?;
    device::check_same(id, change.id())?;
    Ok(Call::Change(change).into())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::http::{Method, Request};

    fn patch(path: &str, body: &str) -> Result<Call, Fault> {
        let body = body.as_bytes().to_vec();
        let request = Request { method: Method::Patch, path: path.to_owned(), body, last: false };
        Parsed::read(&request).map(|parsed| parsed.call)
    }

    fn fault(path: &str, body: &str, expected: &Expect) {
        expected.assert_eq(&patch(path, body).unwrap_err().message());
    }

    #[test]
    fn a_change_to_a_disk_is_read() {
        let body = r#"{"drive_id": "root", "path_on_host": "b.img"}"#;
        let Ok(Call::Change(change)) = patch("/drives/root", body) else { panic!("no change") };
        assert_eq!((change.kind().key, change.id()), ("drives", "root"));
    }

    #[test]
    fn what_is_wrong_with_a_change_is_said() {
        fault("/drives/root", "", &expect!["Empty PATCH request."]);
        fault(
            "/drives/root",
            r#"{"drive_id": "data"}"#,
            &expect!["The id from the path [root] does not match the id from the body [data]!"],
        );
        fault(
            "/drives/root",
            r#"{"drive_id": "root", "is_read_only": true}"#,
            &expect![
                "An error occurred when deserializing the json body of a request: unknown field `is_read_only`, expected one of `drive_id`, `path_on_host`, `rate_limiter` at line 1 column 38"
            ],
        );
        fault("/drives", "{}", &expect!["The ID cannot be empty."]);
        let none = expect!["Invalid request method and/or path: PATCH /entropy/rng. There is: PUT"];
        fault("/entropy/rng", "{}", &none);
    }
}
