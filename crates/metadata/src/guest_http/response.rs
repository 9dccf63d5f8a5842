//! An answer to a guest, and how it is written.

use std::fmt::Write as _;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    status: u16,
    media_type: &'static str,
    /// A header of its own.
    extra: Option<(&'static str, String)>,
    body: String,
}

impl Response {
    /// Plain text.
    pub(crate) fn text(status: u16, body: impl Into<String>) -> Self {
        Self { status, media_type: "text/plain", extra: None, body: body.into() }
    }

    /// JSON.
    pub(crate) fn json(body: String) -> Self {
        Self { status: 200, media_type: "application/json", extra: None, body }
    }

    /// With one more header.
    pub(crate) fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        Self { extra: Some((name, value.into())), ..self }
    }

    /// The answer as it is sent, in HTTP/1.`minor`; the connection ends with the `last`.
    pub(crate) fn write(&self, minor: u8, last: bool) -> Vec<u8> {
        let Self { status, media_type, extra, body } = self;
        let connection = if last { "close" } else { "keep-alive" };
        let mut text = format!(
            "HTTP/1.{minor} {status} \r\nServer: Firecracker API\r\nConnection: {connection}\r\n"
        );
        if let Some((name, value)) = extra {
            write!(text, "{name}: {value}\r\n").expect("writing to a string cannot fail");
        }
        let length = body.len();
        write!(text, "Content-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n{body}")
            .expect("writing to a string cannot fail");
        text.into_bytes()
    }
}
