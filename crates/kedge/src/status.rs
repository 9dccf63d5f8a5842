//! How the process ends: exit statuses, and the errors that lead to them.

use std::process::ExitCode;

use kedge_diag::{Fix, Trouble};

/// An exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u8);

impl Status {
    /// All went as asked.
    pub(crate) const OK: Self = Self(0);
    /// Something failed.
    pub(crate) const ERROR: Self = Self(1);
    /// `kedge run` and its kin: the command line makes no sense.
    pub(crate) const USAGE: Self = Self(2);
    /// `kedge run`: the guest's kernel panicked.
    pub(crate) const GUEST_PANIC: Self = Self(3);
    /// Firecracker's command line: the machine cannot be configured so.
    pub(crate) const BAD_CONFIGURATION: Self = Self(152);
    /// Firecracker's command line: the command line makes no sense.
    pub(crate) const BAD_ARGUMENTS: Self = Self(153);

    /// What a shell says of a process that signal `number` ended.
    pub(crate) fn from_signal(number: u8) -> Self {
        Self(number.saturating_add(128))
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.0)
    }
}

/// An error on its way to the user, with the status that follows it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to report.
    pub(crate) error: Trouble,
    /// How to end.
    pub(crate) status: Status,
}

impl Failure {
    /// `error`, then `status`.
    pub(crate) fn new(status: Status, error: impl Fix + Send + Sync + 'static) -> Self {
        Self { error: Trouble::new(error), status }
    }
}
