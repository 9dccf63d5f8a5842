//! A client for one request: how kedge's own commands speak to a machine that runs.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use httparse::{EMPTY_HEADER, Status};
use kedge_diag::Fix;
use serde_json::Value;

use super::Method;

/// Why a request got no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("no machine answers at `{path}`")]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the machine at `{path}` ended before it answered")]
    Broken {
        /// The socket's path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It says nothing.
    #[error("the machine at `{path}` does not answer")]
    Silent {
        /// The socket's path.
        path: PathBuf,
    },
    /// What came back is no answer.
    #[error("what answers at `{path}` does not speak HTTP")]
    NoAnswer {
        /// The socket's path.
        path: PathBuf,
    },
    /// The machine says no.
    #[error("{0}")]
    Fault(String),
}

impl Fix for CallError {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Connect { .. } | Self::NoAnswer { .. } => {
                Some("name the socket of a machine that runs (--api-sock)".to_owned())
            }
            Self::Silent { .. } => Some("see whether its process is stopped".to_owned()),
            // The machine's words have its cure in them.
            Self::Broken { .. } | Self::Fault(_) => None,
        }
    }
}

/// Makes one request of the machine at `socket` and waits for its answer: a JSON value, a
/// string where it is a text, null where it has nothing to say.
///
/// # Errors
/// Nobody answers, or the machine says no.
pub fn call(
    socket: &Path,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, CallError> {
    exchange(socket, None, &request(method, path, body))
}

/// What the machine at `socket` says at `path`, which it has to within `patience`.
///
/// # Errors
/// Nobody answers, or the machine says no.
pub fn show(socket: &Path, path: &str, patience: Duration) -> Result<Value, CallError> {
    exchange(socket, Some(patience), &request(Method::Get, path, None))
}

fn request(method: Method, path: &str, body: Option<&Value>) -> String {
    let body = body.map(Value::to_string).unwrap_or_default();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends `request` and waits for its answer.
fn exchange(socket: &Path, patience: Option<Duration>, request: &str) -> Result<Value, CallError> {
    let connect = |source| CallError::Connect { path: socket.to_owned(), source };
    let broken = |source: io::Error| match source.kind() {
        ErrorKind::WouldBlock => CallError::Silent { path: socket.to_owned() },
        _ => CallError::Broken { path: socket.to_owned(), source },
    };
    let mut stream = UnixStream::connect(socket).map_err(connect)?;
    stream.set_read_timeout(patience).map_err(broken)?;
    stream.write_all(request.as_bytes()).map_err(broken)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(broken)?;
    if answer.is_empty() {
        return Err(broken(ErrorKind::UnexpectedEof.into()));
    }
    read(&answer).ok_or_else(|| CallError::NoAnswer { path: socket.to_owned() })?
}

/// Has `each` take the pieces of an answer without an end, until that ends or `each` fails.
///
/// # Errors
/// Nobody answers, or the machine says no.
pub fn listen(
    socket: &Path,
    path: &str,
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), CallError> {
    let no_answer = || CallError::NoAnswer { path: socket.to_owned() };
    let broken = |source| CallError::Broken { path: socket.to_owned(), source };
    let stream = UnixStream::connect(socket);
    let mut stream =
        stream.map_err(|source| CallError::Connect { path: socket.to_owned(), source })?;
    stream.write_all(request(Method::Get, path, None).as_bytes()).map_err(broken)?;
    let mut answer = BufReader::new(stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if answer.read_until(b'\n', &mut head).map_err(broken)? == 0 {
            return Err(broken(ErrorKind::UnexpectedEof.into()));
        }
    }
    if !is_chunked(&head) {
        // It is an answer with an end: why there is none without.
        answer.read_to_end(&mut head).map_err(broken)?;
        return read(&head).ok_or_else(no_answer)?.map(drop);
    }
    loop {
        let mut size = String::new();
        answer.read_line(&mut size).map_err(broken)?;
        let size = usize::from_str_radix(size.trim_end(), 16).ok();
        let Some(size) = size.filter(|size| *size <= LARGEST) else { return Err(no_answer()) };
        let mut piece = vec![0; size + 2];
        answer.read_exact(&mut piece).map_err(broken)?;
        if size == 0 || each(piece.get(..size).unwrap_or_default()).is_err() {
            return Ok(());
        }
    }
}

/// The largest piece of an answer without an end that is taken, in bytes.
const LARGEST: usize = 1 << 20;

/// Whether an answer with this head comes in pieces.
fn is_chunked(head: &[u8]) -> bool {
    let mut headers = [EMPTY_HEADER; 16];
    let mut parsed = httparse::Response::new(&mut headers);
    let whole = parsed.parse(head).is_ok_and(|status| status.is_complete());
    whole
        && parsed.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("Transfer-Encoding") && header.value == b"chunked"
        })
}

/// The answer in `bytes`, if it is one.
fn read(bytes: &[u8]) -> Option<Result<Value, CallError>> {
    let mut headers = [EMPTY_HEADER; 16];
    let mut parsed = httparse::Response::new(&mut headers);
    let Ok(Status::Complete(head)) = parsed.parse(bytes) else { return None };
    let body = bytes.get(head..).unwrap_or_default();
    let is_text = parsed.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("Content-Type") && header.value.starts_with(b"text/")
    });
    let body = match body {
        [] => Value::Null,
        body if is_text => Value::String(str::from_utf8(body).ok()?.to_owned()),
        body => serde_json::from_slice(body).ok()?,
    };
    if matches!(parsed.code, Some(200..=299)) {
        return Some(Ok(body));
    }
    let says = |key| body.get(key).and_then(Value::as_str).map(str::to_owned);
    let fault = says("fault_message").or_else(|| says("error"));
    Some(Err(CallError::Fault(fault.unwrap_or_else(|| body.to_string()))))
}
