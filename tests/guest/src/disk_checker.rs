//! What runs in a guest to hold a disk to its word: threads write all over it, past the
//! guest's own cache, and read back what they wrote.
//!
//! `disk_checker DEVICE SEED` ends with a line `CHECKED <requests>`, or with one `WRONG ...`
//! that says what was found where. Each thread has a part of the disk to itself and knows
//! of each of its blocks what it last wrote there: a number, zeroes, or nothing in
//! particular, after a discard.
//!
//! `disk_checker DEVICE rate` says how long requests take, one after the other: lines
//! `RATE <name> <microseconds>`.

// UNSAFETY: buffers for direct access are aligned, and block devices have calls of their own.
#![expect(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use kedge_ids::u64_from;

/// Bytes in a block, by which threads count.
const BLOCK: usize = 4096;
/// The most blocks in a request.
const MOST: usize = 32;
const THREADS: u64 = 4;
const ROUNDS: u64 = 250;

/// `_IO(0x12, 119)` and `_IO(0x12, 127)` of linux/fs.h.
const BLKDISCARD: libc::Ioctl = 0x1277;
const BLKZEROOUT: libc::Ioctl = 0x127f;

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Number(u64),
    Zeroes,
    Unknown,
}

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().collect();
    let [_, path, seed] = words.as_slice() else { bail!("disk_checker DEVICE SEED") };
    if seed == "rate" {
        return rates(&open(path)?);
    }
    let seed: u64 = seed.parse()?;
    match check(path, seed) {
        Ok(requests) => println!("CHECKED {requests}"),
        Err(error) => println!("WRONG on {path} with seed {seed}: {error:#}"),
    }
    Ok(())
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path)
}

/// Measures requests at one place after another.
fn rates(file: &File) -> anyhow::Result<()> {
    let mut buffer = Buffer::new();
    let mut rate =
        |name: &str, blocks: usize, count: u64, act: &dyn Fn(&mut [u8], u64) -> io::Result<()>| {
            let begin = Instant::now();
            for index in 0..count {
                let data = buffer.blocks(blocks);
                let offset = index * u64_from(data.len());
                act(data, offset)?;
            }
            let each = begin.elapsed().as_micros() / u128::from(count);
            println!("RATE {name} {each}");
            anyhow::Ok(())
        };
    let read = |data: &mut [u8], at| file.read_exact_at(data, at);
    let write = |data: &mut [u8], at| file.write_all_at(data, at);
    rate("read-4k", 1, 2000, &read)?;
    rate("write-4k", 1, 2000, &write)?;
    rate("read-128k", MOST, 200, &read)
}

fn check(path: &str, seed: u64) -> anyhow::Result<u64> {
    let file = open(path)?;
    let blocks = io::Seek::seek(&mut &file, io::SeekFrom::End(0))? / u64_from(BLOCK);
    let each = blocks / THREADS;
    thread::scope(|scope| {
        let file = &file;
        let start = |number| {
            let mut part = Part::new(file, number * each, each, seed * THREADS + number);
            scope.spawn(move || part.work())
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        let mut requests = 0;
        for thread in threads {
            requests += thread.join().ok().context("a thread panicked")??;
        }
        Ok(requests)
    })
}

/// A thread's part of the disk.
struct Part<'a> {
    file: &'a File,
    first: u64,
    content: Vec<Content>,
    random: u64,
    requests: u64,
    buffer: Buffer,
}

impl<'a> Part<'a> {
    fn new(file: &'a File, first: u64, blocks: u64, seed: u64) -> Self {
        Self {
            file,
            first,
            content: vec![Content::Unknown; usize::try_from(blocks).unwrap_or(0)],
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            requests: 0,
            buffer: Buffer::new(),
        }
    }

    /// One of so many (xorshift64).
    fn pick(&mut self, of: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 16).unwrap_or(0) % of
    }

    fn work(&mut self) -> anyhow::Result<u64> {
        for _ in 0..ROUNDS {
            let count = 1 + self.pick(MOST);
            let at = self.pick(self.content.len() - count);
            match self.pick(20) {
                0..9 => self.write(at, count)?,
                9..17 => self.read(at, count)?,
                17 => self.ask(BLKZEROOUT, at, count, Content::Zeroes)?,
                18 => self.ask(BLKDISCARD, at, count, Content::Unknown)?,
                _ => self.file.sync_data().context("a flush")?,
            }
            self.requests += 1;
        }
        let mut at = 0;
        while at < self.content.len() {
            let count = MOST.min(self.content.len() - at);
            self.read(at, count)?;
            at += count;
        }
        Ok(self.requests)
    }

    fn offset(&self, at: usize) -> u64 {
        (self.first + u64_from(at)) * u64_from(BLOCK)
    }

    fn write(&mut self, at: usize, count: usize) -> anyhow::Result<()> {
        for index in 0..count {
            let number = self.random ^ self.requests << 32 ^ self.offset(at + index);
            self.content[at + index] = Content::Number(number);
            self.buffer.fill(index, number);
        }
        let offset = self.offset(at);
        self.file.write_all_at(self.buffer.blocks(count), offset).context("a write")
    }

    fn read(&mut self, at: usize, count: usize) -> anyhow::Result<()> {
        let offset = self.offset(at);
        self.file.read_exact_at(self.buffer.blocks(count), offset).context("a read")?;
        for index in 0..count {
            let found = self.buffer.words(index);
            let wanted = match self.content[at + index] {
                Content::Number(number) => number,
                Content::Zeroes => 0,
                Content::Unknown => continue,
            };
            let block = self.first + u64_from(at + index);
            ensure!(
                found.iter().all(|word| *word == wanted),
                "block {block} has {:#x?}, not {wanted:#x}",
                found.iter().find(|word| **word != wanted)
            );
        }
        Ok(())
    }

    fn ask(
        &mut self,
        what: libc::Ioctl,
        at: usize,
        count: usize,
        left: Content,
    ) -> anyhow::Result<()> {
        let range = [self.offset(at), u64_from(count * BLOCK)];
        // SAFETY: both calls read two u64 at the address they are given.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), what, range.as_ptr()) };
        ensure!(done == 0, "call {what:#x}: {}", io::Error::last_os_error());
        self.content[at..at + count].fill(left);
        Ok(())
    }
}

/// Blocks of memory at a multiple of their size.
struct Buffer(Vec<u64>);

/// Words in a block.
const WORDS: usize = BLOCK / 8;

impl Buffer {
    fn new() -> Self {
        Self(vec![0; (MOST + 1) * WORDS])
    }

    /// The first word at a multiple of a block's size.
    fn start(&self) -> usize {
        self.0.as_ptr().align_offset(BLOCK)
    }

    fn fill(&mut self, index: usize, number: u64) {
        let start = self.start() + index * WORDS;
        self.0[start..start + WORDS].fill(number);
    }

    fn words(&self, index: usize) -> &[u64] {
        let start = self.start() + index * WORDS;
        &self.0[start..start + WORDS]
    }

    fn blocks(&mut self, count: usize) -> &mut [u8] {
        let start = self.start();
        let words = &mut self.0[start..start + count * WORDS];
        // SAFETY: the words are `count` blocks of bytes, borrowed as long as the result.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), count * BLOCK) }
    }
}
