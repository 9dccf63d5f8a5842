//! A writer that tells when a line with a certain text passes through it: how a
//! machine notices its guest's `Kernel panic`.

use std::fmt;
use std::io::{self, Write};

/// The bytes of a line that are looked at; the rest of it passes unseen.
const LINE_LIMIT: usize = 1024;

/// Passes bytes on to `inner` and calls `observe` with each line that contains
/// `text`, when the line ends. Costs a byte store per byte and one search per
/// line.
///
/// The line comes without its end, with characters that could do something to a
/// terminal replaced: a guest wrote it.
pub struct LineWatch<W, F> {
    inner: W,
    text: &'static str,
    observe: F,
    line: Vec<u8>,
}

impl<W: Write, F: FnMut(&str)> LineWatch<W, F> {
    /// A watch for `text` on what is written to `inner`.
    pub fn new(inner: W, text: &'static str, observe: F) -> Self {
        Self { inner, text, observe, line: Vec::new() }
    }

    fn see(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line();
            } else if self.line.len() < LINE_LIMIT {
                self.line.push(byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if line.contains(self.text) {
            (self.observe)(&harmless(line.trim_end()));
        }
        self.line.clear();
    }
}

fn harmless(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

impl<W: Write, F: FnMut(&str)> Write for LineWatch<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.inner.write(bytes)?;
        self.see(&bytes[..taken.min(bytes.len())]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    /// Sees all of `bytes`, also those that `inner` does not take: a full pipe
    /// hides no panic.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.see(bytes);
        self.inner.write_all(bytes)
    }
}

impl<W, F> fmt::Debug for LineWatch<W, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineWatch").field("text", &self.text).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a watch for `panic` makes of `bytes` that arrive one by one.
    fn lines_seen(bytes: &[u8]) -> Vec<String> {
        let mut seen = Vec::new();
        let mut watch =
            LineWatch::new(io::sink(), "panic", |line: &str| seen.push(line.to_owned()));
        for byte in bytes.chunks(1) {
            watch.write_all(byte).unwrap();
        }
        drop(watch);
        seen
    }

    #[test]
    fn a_line_with_the_text_is_observed_when_it_ends() {
        assert_eq!(
            lines_seen(b"boot\r\n[ 0.1] Kernel panic - not syncing\r\nbye\r\npanic"),
            ["[ 0.1] Kernel panic - not syncing"]
        );
    }

    #[test]
    fn a_line_is_looked_at_up_to_its_limit() {
        let mut long = vec![b'x'; LINE_LIMIT];
        long.extend_from_slice(b"panic\npanic\n");
        assert_eq!(lines_seen(&long), ["panic"]);
    }

    #[test]
    fn an_observed_line_cannot_drive_a_terminal() {
        assert_eq!(lines_seen(b"\x1b[2Jpanic\xff\n"), ["\u{fffd}[2Jpanic\u{fffd}"]);
    }

    #[test]
    fn bytes_pass_through_unchanged() {
        let mut out = Vec::new();
        LineWatch::new(&mut out, "panic", |_: &str| ()).write_all(b"a\r\n\xff").unwrap();
        assert_eq!(out, b"a\r\n\xff");
    }

    #[test]
    fn a_line_is_observed_although_the_output_is_closed() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut seen = 0;
        LineWatch::new(Closed, "panic", |_: &str| seen += 1).write_all(b"panic\n").unwrap_err();
        assert_eq!(seen, 1);
    }
}
