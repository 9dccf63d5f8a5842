//! Where a card's frames go: what a user calls the other end of its cable.

use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::tap::{OpenTapError, Tap};

/// What a card is on, and who carries frames between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cable {
    /// A tap, and this process carries them.
    Tap(TapSource),
    /// A tap, and the host's kernel carries them (vhost-net).
    TapByKernel(TapSource),
    /// Another process's: a vhost-user back end that listens at this socket.
    Socket(PathBuf),
}

impl Cable {
    /// On `tap`, by the kernel if that is what `vhost` says.
    pub(super) fn on_tap(tap: TapSource, vhost: bool) -> Self {
        if vhost { Self::TapByKernel(tap) } else { Self::Tap(tap) }
    }

    /// Whether all frames pass through this process, which can hold them back then.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Tap(_))
    }
}

/// How many pairs of queues a card has that is on no descriptors, where that many are asked
/// for.
pub(super) fn pairs(asked: Option<u64>) -> Option<u16> {
    u16::try_from(asked.unwrap_or(1)).ok().filter(|pairs| (1..=MOST_PAIRS).contains(pairs))
}

/// The most pairs of queues of a card.
const MOST_PAIRS: u16 = 8;

/// What stands before descriptors where an interface's name could be. No name has
/// a colon.
const DESCRIPTORS: &str = "fd:";

/// The tap that a card is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapSource {
    /// An interface of the host, which must exist.
    Interface(String),
    /// Descriptors that kedge has from the program that started it: one for each
    /// pair of queues.
    Descriptors(Vec<RawFd>),
}

impl TapSource {
    /// An interface's name, or `fd:3`, or `fd:3:4`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name.strip_prefix(DESCRIPTORS) {
            None => Some(Self::Interface(name.to_owned())),
            Some(numbers) => Self::descriptors(numbers),
        }
    }

    /// `3`, or `3:4`.
    pub(super) fn descriptors(numbers: &str) -> Option<Self> {
        let numbers = numbers.split(':').map(|number| number.parse().ok());
        let fds = numbers.collect::<Option<Vec<RawFd>>>()?;
        let right = fds.len() <= usize::from(MOST_PAIRS) && fds.iter().all(|&fd| fd >= 0);
        right.then_some(Self::Descriptors(fds))
    }

    /// How many pairs of queues a card on it has, where that many are asked for.
    pub(super) fn pairs(&self, asked: Option<u64>) -> Option<u16> {
        let given = match self {
            Self::Interface(_) => None,
            Self::Descriptors(fds) => u64::try_from(fds.len()).ok(),
        };
        let pairs = match (given, asked) {
            (Some(given), Some(asked)) if given != asked => return None,
            (given, asked) => given.or(asked),
        };
        self::pairs(pairs)
    }

    pub(super) fn open(&self, pairs: u16) -> Result<Vec<Tap>, OpenTapError> {
        match self {
            Self::Interface(name) => Tap::open_queues(name, pairs),
            Self::Descriptors(fds) => Tap::from_descriptors(fds),
        }
    }
}

impl fmt::Display for TapSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => f.write_str(name),
            Self::Descriptors(fds) => {
                let numbers: Vec<_> = fds.iter().map(ToString::to_string).collect();
                write!(f, "{DESCRIPTORS}{}", numbers.join(":"))
            }
        }
    }
}
