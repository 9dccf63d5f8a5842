//! A vhost-user back end (QEMU's docs/interop/vhost-user.rst) that serves nothing and answers
//! as it should, but where it was told to lie: then it says anything, in any form, with file
//! descriptors or without, or nothing, or hangs up.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use arbitrary::{Result, Unstructured};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Requests (Front-end message types).
mod request {
    pub(super) const GET_FEATURES: u32 = 1;
    pub(super) const SET_MEM_TABLE: u32 = 5;
    pub(super) const SET_LOG_BASE: u32 = 6;
    pub(super) const SET_VRING_ADDR: u32 = 9;
    pub(super) const SET_VRING_BASE: u32 = 10;
    pub(super) const GET_VRING_BASE: u32 = 11;
    pub(super) const SET_VRING_CALL: u32 = 13;
    pub(super) const SET_VRING_ERR: u32 = 14;
    pub(super) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(super) const GET_QUEUE_NUM: u32 = 17;
    pub(super) const GET_CONFIG: u32 = 24;
}

/// Bytes of a header, and of the longest message that is read.
const HEADER: usize = 12;
const LONGEST: usize = 4096;
/// Flags of a header: the version with a reply, and where one is wanted.
const REPLY: u32 = 0b101;
const NEED_REPLY: u32 = 1 << 3;
/// The most queues that it is told of.
const QUEUES: usize = 64;
/// More file descriptors than a message may have.
const MOST_FILES: usize = 40;

/// What the back end has.
#[derive(Clone, Copy)]
pub(super) struct Offer {
    pub(super) features: u64,
    pub(super) protocol: u64,
    pub(super) queues: u64,
    /// Sectors of its disk.
    pub(super) sectors: u64,
}

impl Offer {
    /// All that there may be.
    pub(super) const ALL: Self =
        // VERSION_1, PROTOCOL_FEATURES, EVENT_IDX, INDIRECT_DESC, LOG_ALL, MQ, FLUSH, SEG_MAX;
        // MQ, LOG_SHMFD, REPLY_ACK, NET_MTU, CONFIG.
        Self { features: 0x1_7400_1204, protocol: 0x21b, queues: QUEUES as u64, sectors: 8 };

    /// That, or nearly so.
    pub(super) fn some(from: &mut Unstructured<'_>) -> Result<Self> {
        let mut offer = Self::ALL;
        match from.int_in_range(0..=11)? {
            0 => offer.features ^= 1 << from.int_in_range(0..=40)?,
            1 => offer.protocol ^= 1 << from.int_in_range(0..=12)?,
            2 => offer.queues = from.int_in_range(0..=4)?,
            3 => offer.sectors = from.arbitrary()?,
            4 => offer.protocol &= !(1 << 3),
            5 => offer.features = from.arbitrary()?,
            6 => offer.protocol = from.arbitrary()?,
            7 => offer.protocol &= !(1 << 1),
            _ => {}
        }
        Ok(offer)
    }
}

/// How an answer is not what it should be.
#[derive(Clone, Debug)]
pub(super) enum Lie {
    /// It does not come.
    Silence,
    /// Nothing comes any more.
    HangUp,
    /// So many bytes of it come, and then that is all, or the rest a little later.
    Part { length: usize, then: Then },
    /// A word of its header is another.
    Header { which: usize, word: u32 },
    /// Bytes of what follows are others.
    Body { at: usize, value: u64 },
    /// What follows is of another length, and the header says so, or not.
    Length { length: usize, is_told: bool },
    /// File descriptors come with it.
    Files(usize),
    /// It comes twice.
    Twice,
    /// It is something else altogether, or comes where nothing is asked for.
    Bytes(Vec<u8>),
}

/// What follows a part of an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    Silence,
    HangUp,
    Rest,
}

impl Lie {
    pub(super) fn some(from: &mut Unstructured<'_>) -> Result<Self> {
        Ok(match from.int_in_range(0..=15)? {
            0 => Self::Silence,
            1 => Self::HangUp,
            2..=3 => {
                let then = [Then::Rest, Then::Rest, Then::HangUp, Then::Silence];
                let then = then[from.int_in_range(0..=3_usize)?];
                Self::Part { length: from.int_in_range(0..=40)?, then }
            }
            4..=5 => {
                let word = match from.int_in_range(0..=2)? {
                    0 => from.int_in_range(0..=44)?,
                    1 => 1 << from.int_in_range(0..=31)?,
                    _ => from.arbitrary()?,
                };
                Self::Header { which: from.int_in_range(0..=2)?, word }
            }
            6..=9 => {
                let value = match from.int_in_range(0..=3)? {
                    0 => 1 << from.int_in_range(0..=63)?,
                    1 => from.arbitrary::<u16>()?.into(),
                    2 => from.int_in_range(0..=20)?,
                    _ => from.arbitrary()?,
                };
                Self::Body { at: from.int_in_range(0..=18)?, value }
            }
            10..=11 => {
                let length = match from.ratio(3, 4)? {
                    true => from.int_in_range(0..=80_usize)?,
                    false => from.arbitrary::<u16>()?.into(),
                };
                Self::Length { length, is_told: from.ratio(3, 4)? }
            }
            12 => Self::Files(from.int_in_range(1..=MOST_FILES)?),
            13 => Self::Twice,
            _ => {
                let length = from.int_in_range(0..=80_usize)?.min(from.len());
                Self::Bytes(from.bytes(length)?.to_vec())
            }
        })
    }
}

/// What the back end was told, and what it will say.
pub(super) struct Told {
    offer: Offer,
    /// After how many answers it tells which lie.
    lies: Vec<(u8, Lie)>,
    /// The connection, once there is one.
    socket: Option<UnixStream>,
    /// What the guest's memory is in.
    memory: Option<File>,
    rings: Vec<Ring>,
}

/// One of the rings that it was told of.
#[derive(Default)]
struct Ring {
    /// Rung for the driver: buffers were used, and the ring is broken.
    bells: [Option<File>; 2],
    /// The used ring's address.
    used: u64,
    available: u64,
    /// How far it has come.
    base: u16,
}

impl Told {
    pub(super) fn new(offer: Offer, lies: Vec<(u8, Lie)>) -> Self {
        let rings = (0..QUEUES).map(|_| Ring::default()).collect();
        Self { offer, lies, socket: None, memory: None, rings }
    }

    /// Has it tell a lie after so many answers.
    pub(super) fn lie(&mut self, after: u8, lie: Lie) {
        self.lies.push((after, lie));
    }

    /// Another size of its disk.
    pub(super) fn resize(&mut self, sectors: u64) {
        self.offer.sectors = sectors;
    }

    pub(super) fn hang_up(&self) {
        self.socket.iter().for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
    }

    /// Says something unasked.
    pub(super) fn say(&self, bytes: &[u8]) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if let Some(socket) = &self.socket {
            let _ = rustix::net::send(socket, bytes, flags);
        }
    }

    /// Rings for `ring`, or says that it is broken.
    pub(super) fn ring(&self, ring: usize, bell: usize) {
        if let Some(mut bell) = self.rings[ring].bells[bell].as_ref() {
            let _ = bell.write(&1_u64.to_ne_bytes());
        }
    }

    /// Says that it has taken so many buffers of `ring`.
    pub(super) fn take(&mut self, ring: usize, count: u16) {
        let base = &mut self.rings[ring].base;
        *base = base.wrapping_add(count);
    }

    /// Gives back what is available in `ring`, and `more`, which it never had.
    pub(super) fn give_back(&mut self, ring: usize, more: u16) {
        let (Some(memory), Ring { used, available, base, .. }) =
            (&self.memory, &mut self.rings[ring])
        else {
            return;
        };
        let at = |address: u64| address.checked_sub(crate::driver::RAM).map(|at| at + 2);
        let (Some(available), Some(used)) = (at(*available), at(*used)) else { return };
        let mut index = [0; 2];
        if memory.read_exact_at(&mut index, available).is_ok() {
            *base = u16::from_le_bytes(index);
            let _ = memory.write_at(&base.wrapping_add(more).to_le_bytes(), used);
        }
    }

    /// Notes what a message says.
    fn note(&mut self, about: u32, body: &[u8], mut files: Vec<OwnedFd>) {
        let half = |at: usize| u32_at(body, at);
        let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 4)) << 32;
        let of_files = matches!(about, request::SET_VRING_CALL | request::SET_VRING_ERR);
        if about == request::SET_MEM_TABLE {
            self.memory = files.pop().map(File::from);
        }
        let Some(ring) = self.rings.get_mut(half(0) as usize & 0xff) else { return };
        match about {
            request::SET_VRING_ADDR => (ring.used, ring.available) = (word(16), word(24)),
            request::SET_VRING_BASE => ring.base = half(4) as u16,
            _ if of_files => {
                let bell = usize::from(about == request::SET_VRING_ERR);
                ring.bells[bell] = files.pop().map(File::from);
            }
            _ => {}
        }
    }

    /// What follows the header of an answer to `about`; none where nothing is to be said.
    fn answer(&self, about: u32, flags: u32, body: &[u8]) -> Option<Vec<u8>> {
        let Offer { features, protocol, queues, sectors } = self.offer;
        Some(match about {
            request::GET_FEATURES => features.to_ne_bytes().to_vec(),
            request::GET_PROTOCOL_FEATURES => protocol.to_ne_bytes().to_vec(),
            request::GET_QUEUE_NUM => queues.to_ne_bytes().to_vec(),
            request::SET_LOG_BASE => vec![0; 8],
            request::GET_VRING_BASE => {
                let ring = u32_at(body, 0);
                let base = self.rings.get(ring as usize).map_or(0, |ring| ring.base);
                [ring.to_ne_bytes(), u32::from(base).to_ne_bytes()].concat()
            }
            request::GET_CONFIG => {
                let mut config = body.to_vec();
                config.resize(config.len().max(20), 0);
                config[12..20].copy_from_slice(&sectors.to_le_bytes());
                config
            }
            _ if flags & NEED_REPLY != 0 => vec![0; 8],
            _ => return None,
        })
    }

    /// The lie to be told now.
    fn next_lie(&mut self) -> Option<Lie> {
        let (after, _) = self.lies.first_mut()?;
        if *after > 0 {
            *after -= 1;
            return None;
        }
        Some(self.lies.remove(0).1)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// Answers what comes in at `socket`, until nothing more does.
pub(super) fn serve(mut socket: UnixStream, told: &Mutex<Told>) {
    let connection = socket.try_clone().expect("file descriptors");
    told.lock().expect("nobody panicked").socket = Some(connection);
    while let Some((header, files)) = header(&socket) {
        let (about, flags) = (u32_at(&header, 0), u32_at(&header, 4));
        let mut body = vec![0; (u32_at(&header, 8) as usize).min(LONGEST)];
        if socket.read_exact(&mut body).is_err() {
            return;
        }
        let (answer, lie) = {
            let mut told = told.lock().expect("nobody panicked");
            told.note(about, &body, files);
            let Some(answer) = told.answer(about, flags, &body) else { continue };
            (answer, told.next_lie())
        };
        if !say(&socket, about, answer, lie) {
            // Both ends see it.
            let _ = socket.shutdown(Shutdown::Both);
            return;
        }
    }
}

/// The next header, with the file descriptors that come with it.
fn header(socket: &UnixStream) -> Option<([u8; HEADER], Vec<OwnedFd>)> {
    let mut header = [0; HEADER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let into = &mut [IoSliceMut::new(&mut header)];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let came = recvmsg(socket, into, &mut control, flags).ok()?;
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            files.extend(more);
        }
    }
    (came.bytes == HEADER).then_some((header, files))
}

/// Answers `about` with `body`, or lies. Whether to go on.
fn say(socket: &UnixStream, about: u32, mut body: Vec<u8>, lie: Option<Lie>) -> bool {
    let mut words = [about, REPLY, body.len() as u32];
    let (mut files, mut times, mut cut) = (0, 1, None);
    match lie {
        None => {}
        Some(Lie::Silence) => return true,
        Some(Lie::HangUp) => return false,
        Some(Lie::Part { length, then }) => cut = Some((length, then)),
        Some(Lie::Header { which, word }) => words[which] = word,
        Some(Lie::Body { at, value }) => {
            let into = body.iter_mut().skip(at);
            into.zip(value.to_ne_bytes()).for_each(|(to, from)| *to = from);
        }
        Some(Lie::Length { length, is_told }) => {
            body.resize(length, 0);
            words[2] = if is_told { length as u32 } else { words[2] };
        }
        Some(Lie::Files(count)) => files = count,
        Some(Lie::Twice) => times = 2,
        Some(Lie::Bytes(bytes)) => return send(socket, &bytes, 0),
    }
    let message = [words.map(u32::to_ne_bytes).concat(), body].concat();
    match cut {
        None => (0..times).all(|_| send(socket, &message, files)),
        Some((length, then)) => {
            let (first, rest) = message.split_at(length.min(message.len()));
            send(socket, first, 0)
                && match then {
                    Then::Silence => true,
                    Then::HangUp => false,
                    Then::Rest => send(socket, rest, 0),
                }
        }
    }
}

/// Sends `bytes` with so many file descriptors. Whether they were taken.
fn send(socket: &UnixStream, bytes: &[u8], files: usize) -> bool {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = vec![socket.as_fd(); files];
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&files));
    }
    let from = &[IoSlice::new(bytes)];
    // Who does not read it all may wait for the rest.
    bytes.is_empty()
        || sendmsg(socket, from, &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok()
}
