//! `PATCH /drives/{id}` and its like: a device of a running machine becomes another
//! (FIRECRACKER_API.md, 3.3 and 3.4). Which kinds have this, and with what body, is the
//! catalogue's business.

use kedge_devices::virtio::catalog::{KINDS, Kind};
use kedge_devices::virtio::change::{Change, ChangeError};
use serde_json::Value;

use super::{Call, Fault, Parsed, body};
use crate::http::{Method, Request};

/// What `request`, whose path has these `words`, asks of a device; none where it asks for
/// something else.
pub(super) fn read(request: &Request, words: &[&str]) -> Option<Result<Parsed, Fault>> {
    let [key, id, ..] = words else { return None };
    let kind = KINDS.iter().find(|kind| kind.key == *key && kind.change.is_some())?;
    (request.method == Method::Patch).then(|| read_body(kind, id, &request.body))
}

fn read_body(kind: &'static Kind, id: &str, bytes: &[u8]) -> Result<Parsed, Fault> {
    if bytes.is_empty() {
        return Err(Fault::Empty(Method::Patch));
    }
    let value: Value = body::read(bytes)?;
    let change = Change::from_json(kind, value).map_err(|error| match error {
        ChangeError::Body(error) => Fault::Json(error),
        other => Fault::Change(other),
    })?;
    if change.id() != id {
        return Err(Fault::Fields {
            wrong: "The id from the path does not match the id from the body!",
            cure: "name the same device in both",
        });
    }
    Ok(Call::Change(change).into())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

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
            &expect![
                "The id from the path does not match the id from the body!; fix: name the same device in both"
            ],
        );
        fault(
            "/drives/root",
            r#"{"drive_id": "root", "is_read_only": true}"#,
            &expect![
                "An error occurred when deserializing the json body of a request: unknown field `is_read_only`, expected one of `drive_id`, `path_on_host`, `rate_limiter`"
            ],
        );
        fault("/drives", "{}", &expect!["Invalid request method and/or path: PATCH /drives."]);
        let none = expect!["Invalid request method and/or path: PATCH /entropy/rng."];
        fault("/entropy/rng", "{}", &none);
    }
}
