//! A request, and how it is read.

use std::fmt;

use httparse::{EMPTY_HEADER, Header, Status};

use super::Limits;

/// What a client wants done with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Tell.
    Get,
    /// Make it so.
    Put,
    /// Change some of it.
    Patch,
    /// Take it away.
    Delete,
}

impl Method {
    const ALL: [Self; 4] = [Self::Get, Self::Put, Self::Patch, Self::Delete];

    /// As it stands in the first line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is wanted.
    pub method: Method,
    /// Of what: as the client wrote it.
    pub path: String,
    /// Its body, empty where it has none.
    pub body: Vec<u8>,
    /// Whether the connection closes once it is answered.
    pub last: bool,
}

/// Bytes that are no request that this server takes. The connection is of no use then:
/// nobody knows where the next request begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Not HTTP.
    #[error("this is not HTTP/1.1: {0}")]
    Syntax(httparse::Error),
    /// The first line and the headers are too long.
    #[error("the request's first line and headers take more than {0} bytes")]
    Head(usize),
    /// A method that the API does not have.
    #[error("the method `{0}` is none of GET, PUT, PATCH and DELETE")]
    Method(String),
    /// Not a length.
    #[error("`Content-Length: {0}` is no length")]
    Length(String),
    /// Two lengths.
    #[error("there is more than one `Content-Length`")]
    Lengths,
    /// A body in pieces.
    #[error("`Transfer-Encoding: {0}` is not understood; send `Content-Length`")]
    Coding(String),
    /// Too large a body.
    #[error("the body of {length} bytes is larger than {limit} (--http-api-max-payload-size)")]
    Body {
        /// Its length in bytes.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
}

/// What a connection has received so far.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Not all of a request.
    Partial {
        /// Whether the client waits to be told that it may send the body.
        wants_to_go_on: bool,
    },
    /// All of one, that took so many bytes.
    Whole(Request, usize),
}

/// Headers of a request that are looked at, at most.
const HEADERS: usize = 64;

/// Reads the first request of `bytes`.
///
/// # Errors
/// They are no request, or one that goes past the limits.
pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Progress, BadRequest> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(bytes).map_err(BadRequest::Syntax)? {
        Status::Complete(length) if length <= limits.head => length,
        Status::Partial if bytes.len() < limits.head => {
            return Ok(Progress::Partial { wants_to_go_on: false });
        }
        Status::Complete(_) | Status::Partial => return Err(BadRequest::Head(limits.head)),
    };
    let method = parsed.method.unwrap_or_default();
    let known = Method::ALL.into_iter().find(|known| known.name() == method);
    let method = known.ok_or_else(|| BadRequest::Method(shown(method.as_bytes())))?;
    let meaning = Meaning::of(parsed.headers, limits)?;
    let body = &bytes[head..];
    let Some(body) = body.get(..meaning.length) else {
        let wants_to_go_on = meaning.expects_continue && body.is_empty();
        return Ok(Progress::Partial { wants_to_go_on });
    };
    let path = parsed.path.unwrap_or_default().to_owned();
    let request = Request { method, path, body: body.to_vec(), last: meaning.close };
    Ok(Progress::Whole(request, head + meaning.length))
}

/// What the headers say. Those that say nothing here are nobody's business.
#[derive(Default)]
struct Meaning {
    length: usize,
    expects_continue: bool,
    /// Whether the client says that it is done. One of HTTP/1.0 that does not is not taken
    /// to be (RFC 9112, 9.3): Firecracker's clients rely on that.
    close: bool,
}

impl Meaning {
    fn of(headers: &[Header<'_>], limits: &Limits) -> Result<Self, BadRequest> {
        let mut meaning = Self::default();
        let mut length = None;
        for header in headers {
            let value = header.value.trim_ascii();
            match header.name {
                name if name.eq_ignore_ascii_case("content-length") => {
                    let value = length_of(value)?;
                    if length.replace(value).is_some_and(|before| before != value) {
                        return Err(BadRequest::Lengths);
                    }
                }
                name if name.eq_ignore_ascii_case("transfer-encoding") => {
                    return Err(BadRequest::Coding(shown(value)));
                }
                name if name.eq_ignore_ascii_case("expect") => {
                    meaning.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
                }
                name if name.eq_ignore_ascii_case("connection") => {
                    meaning.close = value.eq_ignore_ascii_case(b"close");
                }
                _ => {}
            }
        }
        meaning.length = length.unwrap_or(0);
        match meaning.length > limits.body {
            true => Err(BadRequest::Body { length: meaning.length, limit: limits.body }),
            false => Ok(meaning),
        }
    }
}

/// RFC 9110, 8.6: digits and nothing else.
fn length_of(value: &[u8]) -> Result<usize, BadRequest> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| BadRequest::Length(shown(value)))
}

/// A client's words in an error: some of them, in letters that can be shown.
fn shown(value: &[u8]) -> String {
    const SOME: usize = 40;
    value[..value.len().min(SOME)].escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { body: 10, head: 200, connections: 1 };

    fn whole(text: &str) -> (Request, usize) {
        match read(text.as_bytes(), &LIMITS) {
            Ok(Progress::Whole(request, length)) => (request, length),
            other => panic!("{other:?}"),
        }
    }

    fn fault(text: &str) -> String {
        read(text.as_bytes(), &LIMITS).unwrap_err().to_string()
    }

    #[test]
    fn a_request_is_read_to_the_end_of_its_body() {
        let (request, length) =
            whole("PUT /vm HTTP/1.1\r\nhost: x\r\nContent-Length: 2\r\n\r\n{}GET");
        let body = b"{}".to_vec();
        let path = "/vm".to_owned();
        assert_eq!(request, Request { method: Method::Put, path, body, last: false });
        assert_eq!(length, "PUT /vm HTTP/1.1\r\nhost: x\r\nContent-Length: 2\r\n\r\n{}".len());
    }

    /// Of `curl -d` without more, as Firecracker's clients send it.
    #[test]
    fn whatever_its_type_is_said_to_be_a_body_is_read() {
        let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 2";
        assert_eq!(whole(&format!("PUT /vm HTTP/1.1\r\n{form}\r\n\r\n{{}}")).0.body, b"{}");
    }

    #[test]
    fn a_client_says_when_it_is_done() {
        assert!(whole("GET / HTTP/1.0\r\nConnection: close\r\n\r\n").0.last);
        assert!(!whole("GET / HTTP/1.0\r\n\r\n").0.last);
        assert!(whole("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").0.last);
        assert!(!whole("GET / HTTP/1.1\r\n\r\n").0.last);
    }

    #[test]
    fn a_client_that_waits_for_leave_is_given_it() {
        let head = "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let waits = Ok(Progress::Partial { wants_to_go_on: true });
        assert_eq!(read(head.as_bytes(), &LIMITS), waits);
        let went_on = Ok(Progress::Partial { wants_to_go_on: false });
        assert_eq!(read(format!("{head}{{").as_bytes(), &LIMITS), went_on);
    }

    #[test]
    fn what_is_no_request_is_told_why() {
        expect!["the method `POST` is none of GET, PUT, PATCH and DELETE"]
            .assert_eq(&fault("POST / HTTP/1.1\r\n\r\n"));
        expect!["this is not HTTP/1.1: invalid HTTP version"]
            .assert_eq(&fault("GET / HTTP/2.0\r\n\r\n"));
        expect!["`Content-Length: -1` is no length"]
            .assert_eq(&fault("PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"));
        expect!["there is more than one `Content-Length`"]
            .assert_eq(&fault("PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"));
        expect!["the body of 11 bytes is larger than 10 (--http-api-max-payload-size)"]
            .assert_eq(&fault("PUT / HTTP/1.1\r\nContent-Length: 11\r\n\r\n"));
        expect!["`Transfer-Encoding: chunked` is not understood; send `Content-Length`"]
            .assert_eq(&fault("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(LIMITS.head));
        expect!["the request's first line and headers take more than 200 bytes"]
            .assert_eq(&fault(&long));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_an_error_or_not_enough(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Ok(Progress::Whole(request, length)) = read(&bytes, &LIMITS) {
                prop_assert!(length <= bytes.len());
                prop_assert!(request.body.len() <= LIMITS.body);
            }
        }

        #[test]
        fn a_request_that_comes_in_pieces_is_the_same(cut in 0_usize..56) {
            let text = "PATCH /vm HTTP/1.1\r\nContent-Length: 9\r\n\r\n{\"a\": 12}";
            let part = read(&text.as_bytes()[..cut.min(text.len() - 1)], &LIMITS);
            prop_assert_eq!(part, Ok(Progress::Partial { wants_to_go_on: false }));
            prop_assert_eq!(whole(text).0.body.len(), 9);
        }
    }
}
