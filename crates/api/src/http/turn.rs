//! What a connection shares with whoever works on its request: whether the client is still
//! there, and who looks at the connection next once it is answered.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Nothing more of the client is known than its request: the server looks when it says more.
const QUIET: u8 = 0;
/// The server waits for the answer to go on.
const AWAITED: u8 = 1;
/// The answer is sent, and the server has not been told.
const ANSWERED: u8 = 2;

/// A connection whose request is worked on. A client that makes one request after another
/// and waits for each answer keeps the server from being told of any.
#[derive(Debug, Default)]
pub(super) struct Turn {
    gone: AtomicBool,
    stage: AtomicU8,
}

impl Turn {
    /// The work begins; whether the server `waits` for its end.
    pub(super) fn begin(&self, waits: bool) {
        self.stage.store(if waits { AWAITED } else { QUIET }, Ordering::Release);
    }

    /// The server waits from now on. False where the answer is sent already.
    pub(super) fn wait(&self) -> bool {
        self.go(AWAITED) != ANSWERED
    }

    /// The answer is sent. Whether the server is to be told.
    pub(super) fn end(&self) -> bool {
        self.go(ANSWERED) == AWAITED
    }

    /// From quiet to `stage`, unless the other side was first. What it was before.
    fn go(&self, stage: u8) -> u8 {
        match self.stage.compare_exchange(QUIET, stage, Ordering::AcqRel, Ordering::Acquire) {
            Ok(before) | Err(before) => before,
        }
    }

    /// The client has gone.
    pub(super) fn leave(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_wait_is_not_told() {
        let turn = Turn::default();
        turn.begin(false);
        assert!(!turn.end());
        assert!(!turn.wait());
    }

    #[test]
    fn a_server_that_waits_is_told() {
        let turn = Turn::default();
        turn.begin(false);
        assert!(turn.wait());
        assert!(turn.wait());
        assert!(turn.end());
        turn.begin(true);
        assert!(turn.end());
    }
}
