//! Why the host's kernel does not serve a card.

use std::io;
use std::path::{Path, PathBuf};

use kedge_diag::Fix;

/// Why the host's kernel does not serve a card.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It has no driver for it, or the driver is not loaded.
    #[error("this host has no {}: its kernel carries no frames for guests", path.display())]
    Absent {
        /// The driver's device.
        path: PathBuf,
    },
    /// Others may use it, this process may not.
    #[error("no permission to open {}", path.display())]
    Denied {
        /// The driver's device.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// Anything else that keeps the device from being opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The driver's device.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It does not do as it is asked.
    #[error("the host's kernel does not {what}")]
    Refused {
        /// What it was asked to do.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl KernelError {
    /// The device at `path` could not be opened.
    pub(super) fn opening(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match (source.kind(), source.raw_os_error()) {
            // What a node of a device without its driver says.
            (io::ErrorKind::NotFound, _) | (_, Some(libc::ENODEV | libc::ENXIO)) => {
                Self::Absent { path }
            }
            (io::ErrorKind::PermissionDenied, _) => Self::Denied { path, source },
            _ => Self::Open { path, source },
        }
    }
}

impl Fix for KernelError {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Absent { .. } => {
                "load the host's driver: `modprobe vhost_net`, or leave `vhost` out".to_owned()
            }
            Self::Denied { path, .. } => {
                format!(
                    "let this user open it: `chmod 666 {}`, or leave `vhost` out",
                    path.display()
                )
            }
            Self::Open { .. } | Self::Refused { .. } => {
                "leave `vhost` out: kedge carries the frames itself then".to_owned()
            }
        })
    }
}
