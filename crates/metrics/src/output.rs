//! Where lines go: a file or a FIFO that nobody waits for.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// `O_NONBLOCK` of Linux on every architecture that kedge is for.
const NONBLOCK: i32 = 0o4000;

/// A file or a FIFO.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// The rest of a line that a FIFO had no room for.
    rest: Vec<u8>,
}

impl Output {
    /// Opens `path`, which is made if it is not there. A FIFO is open with nobody at its
    /// other end, too.
    ///
    /// # Errors
    /// The host's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).custom_flags(NONBLOCK);
        Ok(Self { file: options.open(path)?, rest: Vec::new() })
    }

    /// Writes a line, to which it adds the end.
    ///
    /// # Errors
    /// It cannot be written, or nobody has read the one before it. Nothing of it is written
    /// then.
    pub fn write(&mut self, line: &str) -> io::Result<()> {
        self.flush()?;
        self.rest = format!("{line}\n").into_bytes();
        let whole = self.rest.len();
        match self.flush() {
            Err(error) if self.rest.len() == whole => {
                self.rest.clear();
                Err(error)
            }
            // The rest is written before the next line.
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.rest.is_empty() {
            match self.file.write(&self.rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_fifo_that_nobody_reads_costs_lines_and_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut output = Output::open(&path).unwrap();
        let line = "x".repeat(9999);
        let written = (0..20).take_while(|_| output.write(&line).is_ok()).count();
        assert!((1..20).contains(&written), "{written}");
        let mut reader = File::open(&path).unwrap();
        let mut read = vec![0; (written - 1) * 10_000];
        reader.read_exact(&mut read).unwrap();
        assert!(read.chunks(10_000).all(|line| line.ends_with(b"x\n")));
        output.write("next").unwrap();
        let mut last = vec![0; 10_005];
        reader.read_exact(&mut last).unwrap();
        assert!(last.ends_with(b"x\nnext\n"));
    }

    #[test]
    fn lines_are_added_to_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "before\n").unwrap();
        Output::open(&path).unwrap().write("one").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\none\n");
        Output::open(&path.join("none")).unwrap_err();
    }
}
