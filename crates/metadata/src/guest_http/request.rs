//! A guest's request, and how it is read.

use httparse::{EMPTY_HEADER, Header, Status};

use crate::view::Form;

/// What a guest wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// To read.
    Get,
    /// A token.
    Put,
    /// Something that the service does not do.
    Other,
}

/// The two names that each header of a token has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Firecracker's.
    Plain,
    /// That of Amazon's clouds.
    Aws,
}

impl Dialect {
    /// The header with a token's time to live.
    pub(crate) const fn ttl_header(self) -> &'static str {
        match self {
            Self::Plain => "X-metadata-token-ttl-seconds",
            Self::Aws => "X-aws-ec2-metadata-token-ttl-seconds",
        }
    }

    const fn token_header(self) -> &'static str {
        match self {
            Self::Plain => "X-metadata-token",
            Self::Aws => "X-aws-ec2-metadata-token",
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// As the guest wrote it.
    pub(crate) target: &'a str,
    /// The second number of its HTTP version.
    pub(crate) minor: u8,
    /// Whether the connection ends with the answer.
    pub(crate) last: bool,
    /// The form of an answer that the guest wants.
    pub(crate) form: Form,
    /// The token it shows; one that is no text is none that anybody has.
    pub(crate) token: Option<&'a str>,
    /// For how long it wants a token, to the letter.
    pub(crate) ttl: Option<(Dialect, &'a str)>,
    /// Whether it was passed on by somebody.
    pub(crate) forwarded: bool,
    /// Bytes of its body, which says nothing to the service.
    body: usize,
}

/// Bytes that are no request that the service takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    /// Not HTTP.
    #[error("this is not HTTP/1.1: {0}")]
    Syntax(httparse::Error),
    /// No length.
    #[error("the `Content-Length` is none")]
    Length,
    /// A body in pieces.
    #[error("a `Transfer-Encoding` is not understood: send `Content-Length`")]
    Coding,
}

/// More than fit into the longest request.
const HEADERS: usize = 640;

/// Reads the first request of `bytes`, and how many it takes. None where it is not all there.
///
/// # Errors
/// They begin no request that the service takes.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, BadRequest> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let Status::Complete(head) = parsed.parse(bytes).map_err(BadRequest::Syntax)? else {
        return Ok(None);
    };
    let minor = parsed.version.unwrap_or_default();
    let mut request = Request {
        method: match parsed.method {
            Some("GET") => Method::Get,
            Some("PUT") => Method::Put,
            _ => Method::Other,
        },
        target: parsed.path.unwrap_or_default(),
        minor,
        last: minor == 0,
        form: Form::Text,
        token: None,
        ttl: None,
        forwarded: false,
        body: 0,
    };
    parsed.headers.iter().try_for_each(|header| request.heed(header))?;
    let length = head.saturating_add(request.body);
    Ok((length <= bytes.len()).then_some((request, length)))
}

impl<'a> Request<'a> {
    /// Whatever a header says; most say nothing here.
    fn heed(&mut self, header: &Header<'a>) -> Result<(), BadRequest> {
        let value = header.value.trim_ascii();
        let text = std::str::from_utf8(value).ok();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            self.body = text.and_then(length).ok_or(BadRequest::Length)?;
        } else if is("transfer-encoding") {
            return Err(BadRequest::Coding);
        } else if is("connection") {
            let says = |word: &[u8]| value.eq_ignore_ascii_case(word);
            self.last = says(b"close") || (self.last && !says(b"keep-alive"));
        } else if is("accept") {
            if text.is_some_and(accepts_json) {
                self.form = Form::Json;
            }
        } else if is("x-forwarded-for") {
            self.forwarded = true;
        }
        for dialect in [Dialect::Plain, Dialect::Aws] {
            if is(dialect.token_header()) {
                self.token = self.token.or(Some(text.unwrap_or_default()));
            } else if is(dialect.ttl_header()) {
                self.ttl = self.ttl.or(Some((dialect, text.unwrap_or_default())));
            }
        }
        Ok(())
    }
}

/// RFC 9110, 8.6: digits and nothing else.
fn length(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|digit| digit.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Whether one of the media ranges is that of JSON (RFC 9110, 12.5.1).
fn accepts_json(accept: &str) -> bool {
    let mut ranges = accept.split(',').map(|range| range.split(';').next().unwrap_or_default());
    ranges.any(|range| range.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> Request<'_> {
        read(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn headers_are_known_in_any_case() {
        let request = whole(
            "PUT /latest/api/token HTTP/1.1\r\nx-METADATA-token-ttl-seconds:  60 \r\n\
             accept: text/html, application/json;q=0.9\r\n\r\n",
        );
        assert_eq!(request.method, Method::Put);
        assert_eq!(request.ttl, Some((Dialect::Plain, "60")));
        assert_eq!((request.form, request.last), (Form::Json, false));
        let request = whole("GET / HTTP/1.0\r\nX-AWS-EC2-Metadata-Token: t\r\nAccept: */*\r\n\r\n");
        assert_eq!(request.token, Some("t"));
        assert_eq!((request.form, request.last), (Form::Text, true));
    }

    #[test]
    fn a_body_belongs_to_its_request() {
        let text = "PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n";
        let (_, length) = read(text.as_bytes()).unwrap().unwrap();
        assert_eq!(&text[length..], "GET / HTTP/1.1\r\n\r\n");
        assert_eq!(read(b"PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab"), Ok(None));
    }

    #[test]
    fn what_is_no_request_is_told_why() {
        let fault = |text: &str| read(text.as_bytes()).unwrap_err();
        assert_eq!(fault("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"), BadRequest::Length);
        assert_eq!(
            fault("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            BadRequest::Coding
        );
        assert!(matches!(fault("GET / HTTP/9.1\r\n\r\n"), BadRequest::Syntax(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_an_error_or_not_enough(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(Some((_, length))) = read(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn any_length_that_a_guest_claims_is_an_error_or_not_enough(length in "[0-9]{3,40}") {
            let text = format!("GET / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            let read = read(text.as_bytes());
            prop_assert!(matches!(read, Ok(None) | Err(BadRequest::Length)) || length.trim_start_matches('0').is_empty());
        }
    }
}
