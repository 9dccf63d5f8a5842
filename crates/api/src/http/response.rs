//! An answer, and how it is written.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// An answer to a request (FIRECRACKER_API.md, 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    body: Option<String>,
    content: &'static str,
    deprecated: bool,
}

const JSON: &str = "application/json";

impl Response {
    /// Done, and nothing to say: 204.
    pub const fn done() -> Self {
        Self { status: 204, body: None, content: JSON, deprecated: false }
    }

    /// What was asked for: 200.
    pub fn with(body: &Value) -> Self {
        Self::json(200, body)
    }

    /// What was asked for, and it is no JSON but `content` (RFC 9110, 8.3): 200.
    pub const fn text(content: &'static str, body: String) -> Self {
        Self { status: 200, body: Some(body), content, deprecated: false }
    }

    fn json(status: u16, body: &Value) -> Self {
        Self { status, body: Some(body.to_string()), content: JSON, deprecated: false }
    }

    /// It cannot be done, for this reason: 400.
    pub fn fault(message: &str) -> Self {
        Self::json(400, &json!({ "fault_message": message }))
    }

    /// It takes more room than there is, as this says: 413.
    pub fn too_large(message: &str) -> Self {
        Self { status: 413, ..Self::fault(message) }
    }

    /// The answer to a request that made use of something that will go away.
    #[must_use]
    pub fn deprecated(self) -> Self {
        Self { deprecated: true, ..self }
    }

    /// What was sent is no request: 400, under a key of its own.
    pub(super) fn no_request(why: &str) -> Self {
        let error = format!("{why}\nAll previous unanswered requests will be dropped.");
        Self::json(400, &json!({ "error": error }))
    }

    /// There are too many connections: 503.
    pub(super) fn too_many() -> Self {
        Self::json(503, &json!({ "error": "Too many open connections" }))
    }

    /// Its status code (RFC 9110, 15).
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Its body.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// Appends it to what a connection has to send. `close`: it is the last there.
    pub(super) fn write(&self, closing: Closing, to: &mut Vec<u8>) {
        let Self { status, body, content, deprecated } = self;
        let connection = match closing {
            Closing::No => "keep-alive",
            Closing::Yes => "close",
        };
        let mut head = format!(
            "HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: {connection}\r\n"
        );
        if *deprecated {
            head.push_str("Deprecation: true\r\n");
        }
        if let Some(body) = body {
            write!(head, "Content-Type: {content}\r\nContent-Length: {}\r\n", body.len())
                .expect("writing to a string cannot fail");
        }
        head.push_str("\r\n");
        to.extend_from_slice(head.as_bytes());
        to.extend_from_slice(body.as_deref().unwrap_or_default().as_bytes());
    }
}

/// Whether a connection ends with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// It stays.
    No,
    /// It ends.
    Yes,
}

/// Leave to send the body (RFC 9110, 10.1.1).
pub(super) const CONTINUE: &[u8] = b"HTTP/1.1 100 \r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(response: &Response) -> String {
        let mut bytes = Vec::new();
        response.write(Closing::No, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_answer_without_a_body_has_no_length() {
        assert_eq!(
            text(&Response::done()),
            "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn a_fault_is_json_whatever_it_says() {
        let response = Response::fault("no \"such\"\nthing").deprecated();
        let text = text(&response);
        assert!(text.starts_with("HTTP/1.1 400 \r\n") && text.contains("Deprecation: true\r\n"));
        assert!(text.ends_with(r#"{"fault_message":"no \"such\"\nthing"}"#));
    }
}
