//! Streams that carry much: whoever waits for the host hears now and then that it does
//! something.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kedge_ids::u64_from;

/// Bytes that come before it is said again.
const STEP: u64 = 128 << 20;

/// A stream that says how much has come over it.
pub(crate) struct Told {
    stream: UnixStream,
    came: AtomicU64,
    begin: Instant,
}

impl Told {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream, came: AtomicU64::new(0), begin: Instant::now() }
    }
}

impl Read for &Told {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = (&self.stream).read(bytes)?;
        let before = self.came.fetch_add(u64_from(length), Ordering::Relaxed);
        let now = before + u64_from(length);
        if now / STEP > before / STEP {
            eprintln!("{} MiB came within {} s", now >> 20, self.begin.elapsed().as_secs());
        }
        Ok(length)
    }
}

impl Write for &Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&self.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.stream).flush()
    }
}
