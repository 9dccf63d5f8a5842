//! Who watches a save: told how far it is, and free to end it.

use std::fmt;
use std::io;
use std::ops::ControlFlow;

/// How far a save is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveProgress {
    /// Bytes of the guest's memory that have been gone through. What was never touched, and
    /// in a difference what has not changed, is passed over in no time.
    pub done: u64,
    /// Bytes of the guest's memory.
    pub total: u64,
}

/// Whoever watches.
type Watcher = Box<dyn FnMut(SaveProgress) -> ControlFlow<()> + Send>;

/// A save that may be watched.
#[derive(Default)]
pub(crate) struct Watched {
    watcher: Option<Watcher>,
    total: u64,
    over: bool,
}

impl Watched {
    /// By `watcher`.
    pub(crate) fn by(
        watcher: impl FnMut(SaveProgress) -> ControlFlow<()> + Send + 'static,
    ) -> Self {
        Self { watcher: Some(Box::new(watcher)), total: 0, over: false }
    }

    /// It begins, with `total` bytes of memory before it.
    ///
    /// # Errors
    /// The watcher wants no more of it.
    pub(super) fn begin(&mut self, total: u64) -> io::Result<()> {
        self.total = total;
        self.reach(0)
    }

    /// It has come to `done`.
    ///
    /// # Errors
    /// The watcher wants no more of it.
    pub(super) fn reach(&mut self, done: u64) -> io::Result<()> {
        let Some(watcher) = &mut self.watcher else { return Ok(()) };
        match watcher(SaveProgress { done, total: self.total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                self.over = true;
                Err(io::ErrorKind::Interrupted.into())
            }
        }
    }

    /// Whether the watcher has ended it.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("total", &self.total).finish_non_exhaustive()
    }
}
