//! What a hypervisor refuses, and why it could not be opened.

use std::io;

use kedge_diag::Fix;

/// The hypervisor refused a call.
#[derive(Debug, thiserror::Error)]
#[error("the hypervisor refused to {call}")]
pub struct HvError {
    /// What was asked for, as a verb and its object.
    pub call: &'static str,
    /// The errno it answered with.
    pub source: io::Error,
}

impl HvError {
    /// The refusal of `call` with an errno of the kernel's.
    pub fn new(call: &'static str, errno: i32) -> Self {
        Self { call, source: io::Error::from_raw_os_error(errno) }
    }

    /// The errno, or 0 where the refusal was not the kernel's.
    pub fn errno(&self) -> i32 {
        self.source.raw_os_error().unwrap_or(0)
    }
}

impl Fix for HvError {
    fn fix(&self) -> Option<String> {
        None
    }
}

/// Why there is no hypervisor to run on.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// kedge was built for another architecture.
    #[error("this host is not arm64: kedge runs guests on arm64 Linux with KVM")]
    NotArm64,
    /// The device is not there.
    #[error("there is no `{path}` on this host")]
    NoDevice {
        /// The device's path.
        path: String,
    },
    /// The device is there, but not for this user.
    #[error("no permission to open `{path}`")]
    NoPermission {
        /// The device's path.
        path: String,
    },
    /// The device cannot be opened for another reason.
    #[error("cannot open `{path}`")]
    Open {
        /// The device's path.
        path: String,
        /// What the host said.
        source: io::Error,
    },
    /// What was opened does not answer KVM's calls.
    #[error("`{path}` is not KVM: it does not know its calls")]
    NotKvm {
        /// Its path.
        path: String,
    },
    /// KVM speaks another version of its API.
    #[error("`{path}` speaks version {found} of the KVM API, not {wanted}")]
    Version {
        /// The device's path.
        path: String,
        /// The version it speaks.
        found: i32,
        /// The version kedge speaks.
        wanted: i32,
    },
    /// A capability that every host kedge runs on has is missing.
    #[error("this kernel's KVM lacks `{capability}`")]
    Lacks {
        /// The name of the capability.
        capability: &'static str,
    },
}

impl Fix for OpenError {
    fn fix(&self) -> Option<String> {
        let cure = match self {
            Self::NotArm64 => {
                "run it on an arm64 machine; on any other, `cargo xtask boot` brings an emulated one"
            }
            Self::NoDevice { .. } => {
                "load the kvm module or boot the host at EL2; inside a virtual machine, \
                 nested virtualization must be on"
            }
            Self::NoPermission { .. } => {
                "add the user to the group that owns the device (often `kvm`)"
            }
            Self::Lacks { .. } => "run a newer host kernel (5.10 or later)",
            Self::Open { .. } | Self::NotKvm { .. } | Self::Version { .. } => return None,
        };
        Some(cure.to_owned())
    }
}
