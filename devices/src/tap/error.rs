//! What is wrong with a tap that cannot be opened, and how to get one.

use std::io;
use std::os::fd::RawFd;

use kedge_diag::Fix;
use rustix::io::Errno;

use super::TUN;

/// Why a tap could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenTapError {
    /// No interface can be called so.
    #[error("`{name}` cannot be the name of a network interface")]
    Name {
        /// The name asked for.
        name: String,
    },
    /// The host cannot have taps.
    #[error("this host has no /dev/net/tun")]
    NoTun(#[source] io::Error),
    /// The device that hands out taps is for others.
    #[error("no permission to open /dev/net/tun")]
    TunDenied(#[source] io::Error),
    /// There is no such interface.
    #[error("the tap interface `{name}` does not exist")]
    Missing {
        /// The name asked for.
        name: String,
    },
    /// Somebody else has it open.
    #[error("the tap interface `{name}` is in use by another process")]
    Busy {
        /// The interface.
        name: String,
    },
    /// It is another user's.
    #[error("no permission to use the tap interface `{name}`")]
    Denied {
        /// The interface.
        name: String,
    },
    /// It is a card, a bridge, a tun, or a tap with several queues.
    #[error("the network interface `{name}` is not a tap with a single queue")]
    NotSingle {
        /// The interface.
        name: String,
    },
    /// It is a card, a bridge, a tun, or a tap with a single queue.
    #[error("the network interface `{name}` is not a tap with several queues")]
    NotSeveral {
        /// The interface.
        name: String,
    },
    /// The descriptor is closed, or of something else.
    #[error("file descriptor {fd} is not that of a tap interface")]
    NotATap {
        /// The descriptor.
        fd: RawFd,
        /// What the host said.
        source: io::Error,
    },
    /// The descriptor's frames come in another form.
    #[error("file descriptor {fd} is a {what}")]
    Form {
        /// The descriptor.
        fd: RawFd,
        /// What it is instead of what it should be.
        what: &'static str,
    },
    /// Something else.
    #[error("the host does not open the tap interface `{name}`")]
    Refused {
        /// The interface.
        name: String,
        /// What the host said.
        source: io::Error,
    },
}

/// How many queues are asked of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queues {
    /// The tap has one.
    Single,
    /// The tap can have several, of which one more is opened.
    Several,
}

impl OpenTapError {
    pub(super) fn tun(error: Errno) -> Self {
        match error {
            // Not there, or there without its driver.
            Errno::NOENT | Errno::NODEV | Errno::NXIO => Self::NoTun(error.into()),
            Errno::ACCESS | Errno::PERM => Self::TunDenied(error.into()),
            _ => Self::Refused { name: TUN.to_owned(), source: error.into() },
        }
    }

    pub(super) fn interface(name: &str, queues: Queues, error: Errno) -> Self {
        let name = name.to_owned();
        match (error, queues) {
            (Errno::NODEV, _) => Self::Missing { name },
            (Errno::BUSY, _) => Self::Busy { name },
            (Errno::PERM | Errno::ACCESS, _) => Self::Denied { name },
            (Errno::INVAL, Queues::Single) => Self::NotSingle { name },
            (Errno::INVAL, Queues::Several) => Self::NotSeveral { name },
            _ => Self::Refused { name, source: error.into() },
        }
    }
}

impl Fix for OpenTapError {
    fn fix(&self) -> Option<String> {
        let create = |name: &str| format!("ip tuntap add dev {name} mode tap");
        match self {
            Self::Name { .. } => Some(
                "give the name of a tap interface: 1 to 15 characters, no spaces, slashes or colons"
                    .to_owned(),
            ),
            Self::NoTun(_) => Some("load the host's driver: `modprobe tun`".to_owned()),
            Self::TunDenied(_) => {
                Some("let this user open it: `chmod 666 /dev/net/tun`".to_owned())
            }
            Self::Missing { name } => Some(format!("create it: `{}`", create(name))),
            Self::Busy { .. } => {
                Some("give each machine a tap of its own, or stop the other process".to_owned())
            }
            Self::Denied { name } => Some(format!(
                "create it for this user: `{} user USER`, or run with CAP_NET_ADMIN",
                create(name)
            )),
            Self::NotSingle { .. } => {
                Some(format!("create one, without `multi_queue`: `{}`", create("NAME")))
            }
            Self::NotSeveral { .. } => {
                Some(format!("create one: `{} multi_queue`", create("NAME")))
            }
            Self::NotATap { .. } => {
                Some("open a tap in the program that starts kedge, and pass it on".to_owned())
            }
            Self::Form { .. } => Some(
                "open it with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR, and with IFF_MULTI_QUEUE where there are several"
                    .to_owned(),
            ),
            Self::Refused { .. } => None,
        }
    }
}
