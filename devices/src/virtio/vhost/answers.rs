//! What a vhost-user back end says (QEMU's docs/interop/vhost-user.rst): another program's
//! words, and so input. Nothing here does anything but judge them.

use std::num::Wrapping;

use vhost::vhost_user::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

/// Something that no back end may say.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// It is older than what guests are offered.
    #[error("it does not offer the feature {name}")]
    Feature {
        /// The feature's name.
        name: &'static str,
    },
    /// It has no queue at all.
    #[error("it has {0} queues")]
    Queues(u64),
    /// It took what was never there.
    #[error("it has taken {taken} requests from queue {queue}, of which there are {size} at most")]
    Taken {
        /// The queue.
        queue: u16,
        /// How many are not given back.
        taken: u32,
        /// The queue's size.
        size: u16,
    },
    /// It answers something else than what it was asked.
    #[error("its answer to request {request} is none")]
    Answer {
        /// The request's number.
        request: u32,
    },
    /// Its configuration space is not one.
    #[error("its configuration space is none: {0}")]
    Config(&'static str),
}

/// `VHOST_USER_F_PROTOCOL_FEATURES`.
pub(super) const PROTOCOL_FEATURES: u64 = 1 << 30;
/// `VHOST_F_LOG_ALL`.
pub(super) const LOG_ALL: u64 = 1 << 26;

/// What of the protocol is used where a back end has it.
pub(super) fn wanted() -> Protocol {
    Protocol::MQ | Protocol::LOG_SHMFD | Protocol::MTU | Protocol::REPLY_ACK | Protocol::CONFIG
}

/// Judges the features that a back end offers.
///
/// # Errors
/// It lacks what every one must have.
pub(super) fn features(offered: u64) -> Result<u64, Nonsense> {
    let needed = [
        (1 << VIRTIO_F_VERSION_1, "VIRTIO_F_VERSION_1"),
        (PROTOCOL_FEATURES, "VHOST_USER_F_PROTOCOL_FEATURES"),
    ];
    match needed.into_iter().find(|(bit, _)| offered & bit == 0) {
        Some((_, name)) => Err(Nonsense::Feature { name }),
        None => Ok(offered),
    }
}

/// Judges how many queues it says that it has.
///
/// # Errors
/// There are none, or more than any device has.
pub(super) fn queues(count: u64) -> Result<u16, Nonsense> {
    u16::try_from(count).ok().filter(|&count| count > 0).ok_or(Nonsense::Queues(count))
}

/// Judges where a back end says that it stopped in the available ring of queue `queue`,
/// whose size is `size` and of which `used` chains were given back, modulo 2^16.
///
/// # Errors
/// It is nowhere that it can have come to.
pub(super) fn base(said: u32, (queue, size): (u16, u16), used: u16) -> Result<u16, Nonsense> {
    let at = u16::try_from(said).map_err(|_| Nonsense::Taken { queue, taken: said, size })?;
    let taken = (Wrapping(at) - Wrapping(used)).0;
    if taken > size {
        return Err(Nonsense::Taken { queue, taken: taken.into(), size });
    }
    Ok(at)
}

/// The header of a message.
pub(super) const HEADER: usize = 12;

/// The version of the protocol, in a header's flags.
pub(super) const VERSION: u32 = 1;
/// An answer is wanted, in a header's flags.
pub(super) const NEED_REPLY: u32 = 1 << 3;
/// A reply, in a header's flags.
const REPLY: u32 = 1 << 2;

/// Bytes of the longest message without memory.
const LONGEST: u32 = 256;

/// How many bytes follow the header of an answer to `request`.
///
/// # Errors
/// It is none.
pub(super) fn answer_length(header: [u8; HEADER], request: u32) -> Result<usize, Nonsense> {
    let (words, _) = header.as_chunks::<4>();
    let mut words = words.iter().map(|word| u32::from_ne_bytes(*word));
    let mut next = || words.next().unwrap_or_default();
    let (about, flags, length) = (next(), next(), next());
    let is_answer = about == request && flags & 0b11 == VERSION && flags & REPLY != 0;
    usize::try_from(length)
        .ok()
        .filter(|_| is_answer && length <= LONGEST)
        .ok_or(Nonsense::Answer { request })
}
