//! What can be wrong with a back end.

use std::io;
use std::path::PathBuf;

use kedge_diag::Fix;

use super::answers::Nonsense;
use super::kernel::KernelError;

/// Why a back end cannot serve a device.
#[derive(Debug, thiserror::Error)]
pub enum BackEndError {
    /// There is nothing there.
    #[error("there is no socket {}", path.display())]
    Missing {
        /// The socket's path.
        path: PathBuf,
    },
    /// Its process has ended.
    #[error("nobody listens at the socket {}", path.display())]
    Deserted {
        /// The socket's path.
        path: PathBuf,
    },
    /// Anything else that keeps a connection from being made.
    #[error("cannot connect to the back end at {}", path.display())]
    Connect {
        /// The socket's path.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It has something else to do, or has stopped.
    #[error("the back end at {} has not answered within {seconds} seconds", path.display())]
    Silent {
        /// The socket's path.
        path: PathBuf,
        /// How long it had.
        seconds: u64,
    },
    /// The connection is gone, or something came that is no answer.
    #[error("the back end at {} does not do as it is asked: {why}", path.display())]
    Refused {
        /// The socket's path.
        path: PathBuf,
        /// What went wrong.
        why: String,
    },
    /// The connection was given up before.
    #[error("the connection to the back end at {} is lost", path.display())]
    Lost {
        /// The socket's path.
        path: PathBuf,
    },
    /// What it said cannot be.
    #[error("the back end at {} makes no sense", path.display())]
    Nonsense {
        /// The socket's path.
        path: PathBuf,
        /// What it said.
        source: Nonsense,
    },
    /// It has fewer queues.
    #[error("the back end at {} has {most} queues, and the device {wanted}", path.display())]
    Queues {
        /// The socket's path.
        path: PathBuf,
        /// How many the device is to have.
        wanted: u16,
        /// How many the back end has.
        most: u16,
    },
    /// Nobody else can have the guest's memory.
    #[error("guest memory is not shared, and the back end at {} needs it", path.display())]
    Private {
        /// The socket's path.
        path: PathBuf,
    },
    /// It is the host's kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The host is out of something.
    #[error("the host has no {what} for a back end")]
    Host {
        /// What it has not.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl Fix for BackEndError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Kernel(source) => return source.fix(),
            Self::Missing { .. } => {
                "start the back end first, and have it make the socket there".to_owned()
            }
            Self::Deserted { path } => {
                format!("start the back end again, and remove {} before", path.display())
            }
            Self::Connect { .. } => {
                "give this user access to the socket, which is a stream's".to_owned()
            }
            Self::Silent { .. } => {
                "look at what the back end does; most serve one machine at a time".to_owned()
            }
            Self::Refused { .. } | Self::Nonsense { .. } => {
                "look at the back end's log: is it one for such devices?".to_owned()
            }
            Self::Lost { .. } => "start the back end and the machine again".to_owned(),
            Self::Queues { most, .. } => {
                format!("ask for {most} queues, or start the back end with more")
            }
            Self::Private { .. } => {
                "start the machine with such a device: its memory is shared from then on".to_owned()
            }
            Self::Host { .. } => "raise the limits of the process (ulimit -a)".to_owned(),
        })
    }
}
