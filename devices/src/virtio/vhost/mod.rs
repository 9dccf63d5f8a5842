//! Devices whose queues others serve: another process, over a socket (vhost-user), or the
//! host's kernel (vhost). Guest memory and rings are theirs to read and write while the
//! device works; no thread of this process sees a request.
//!
//! | file | |
//! |---|---|
//! | `back_end` | what kernel and processes are asked for alike |
//! | `user` | another process behind a socket |
//! | `kernel` | the host's kernel, at the queues of a network card |
//! | `answers` | what that process says: input, and judged as such |
//! | `rings` | queues lent to a back end, and taken home again |
//! | `worker` | interrupts of the back end, passed on to the driver, and its end |
//! | `alarm` | who hears of a back end that is of no more use |

mod alarm;
pub(crate) mod answers;
mod back_end;
mod error;
mod kernel;
mod rings;
mod user;
mod worker;

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

pub(super) use back_end::{BackEnd, Session};
pub use error::BackEndError;
pub use kernel::KernelError;
pub(super) use kernel::KernelNet;
pub(super) use rings::{AtWork, lend, take_home};
pub(super) use user::{Needs, UserBackEnd};
