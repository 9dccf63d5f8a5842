//! What a guest finds at a path of the document, as JSON or as the text that the metadata
//! services of clouds give.

use serde_json::Value;

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON.
    Json,
    /// A list of keys, or a string as it is.
    Text,
}

/// Why a guest finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// There is nothing.
    Missing,
    /// It has no form as text.
    Unsupported,
}

/// What is at `path` of `document`: names between slashes, of which more in a row count as
/// one, and one at the end as none (RFC 6901 for the names themselves).
///
/// # Errors
/// There is nothing that could be shown in this form.
pub(crate) fn look(document: &Value, path: &str, form: Form) -> Result<String, Nothing> {
    let mut pointer = String::with_capacity(path.len());
    for name in path.split('/').filter(|name| !name.is_empty()) {
        pointer.push('/');
        pointer.push_str(name);
    }
    let found = document.pointer(&pointer).ok_or(Nothing::Missing)?;
    match (form, found) {
        (Form::Json, found) => Ok(found.to_string()),
        (Form::Text, Value::String(text)) => Ok(text.clone()),
        (Form::Text, Value::Object(members)) => {
            let line = |(key, value): (&String, &Value)| match value {
                Value::Object(_) => format!("{key}/"),
                _ => key.clone(),
            };
            Ok(members.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        (Form::Text, _) => Err(Nothing::Unsupported),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> Value {
        json!({
            "latest": {
                "meta-data": {"ami-id": "ami-1", "tags": {"a/b": "slash"}, "count": 3},
                "user-data": "line 1\n\"line\" 2",
            },
            "list": ["zero", {"one": 1}],
        })
    }

    fn text(path: &str) -> Result<String, Nothing> {
        look(&document(), path, Form::Text)
    }

    #[test]
    fn text_lists_keys_and_marks_what_has_more_below() {
        assert_eq!(text("/").unwrap(), "latest/\nlist");
        assert_eq!(text("/latest/meta-data").unwrap(), "ami-id\ncount\ntags/");
    }

    #[test]
    fn text_is_a_string_without_its_quotes() {
        assert_eq!(text("/latest/user-data").unwrap(), "line 1\n\"line\" 2");
    }

    #[test]
    fn text_of_anything_else_is_refused() {
        assert_eq!(text("/latest/meta-data/count"), Err(Nothing::Unsupported));
        assert_eq!(text("/list"), Err(Nothing::Unsupported));
    }

    #[test]
    fn slashes_are_forgiven_and_names_are_not() {
        assert_eq!(text("//latest///meta-data/ami-id/").unwrap(), "ami-1");
        assert_eq!(text("/latest/meta-data/ami"), Err(Nothing::Missing));
        assert_eq!(text("/list/0").unwrap(), "zero");
        assert_eq!(text("/latest/meta-data/tags/a~1b").unwrap(), "slash");
    }

    #[test]
    fn json_shows_anything() {
        let json = |path| look(&document(), path, Form::Json).unwrap();
        assert_eq!(json("/latest/meta-data/count"), "3");
        assert_eq!(json("/latest/meta-data/ami-id"), "\"ami-1\"");
        assert_eq!(json("/list"), r#"["zero",{"one":1}]"#);
        assert_eq!(look(&document(), "/nothing", Form::Json), Err(Nothing::Missing));
    }
}
