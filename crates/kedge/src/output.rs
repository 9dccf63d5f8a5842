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

/// Prints `text`, which brings its own newlines.
///
/// # Errors
/// Standard output is closed or full.
pub(crate) fn print(text: &str) -> Result<Status, Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|source| Failure::new(Status::ERROR, NoOutput(source)))?;
    Ok(Status::OK)
}
