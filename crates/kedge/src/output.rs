//! Answers on standard output.

use std::io::{self, Write};

use kedge_diag::Fix;

use crate::status::{Failure, Status};

/// Standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct NoOutput(#[source] io::Error);

impl Fix for NoOutput {
    fn fix(&self) -> Option<String> {
        None
    }
}

/// Prints `text`, which brings its own newlines, and is done.
///
/// # Errors
/// Standard output is full.
pub(crate) fn answer(text: &str) -> Result<Status, Failure> {
    print(text).map_err(|source| Failure::new(Status::ERROR, NoOutput(source)))?;
    Ok(Status::OK)
}

/// Prints `text`. A reader that has seen enough, as `head` has, is no error.
///
/// # Errors
/// Standard output is full.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
