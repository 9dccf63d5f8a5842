//! What a machine is at for a client that waits: how far it is, which `GET /` shows, and
//! whether the client still wants it.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kedge_api::call::Operation;
use kedge_api::http::Client;
use kedge_vmm::SaveProgress;

/// The place of what a machine is at. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Task(Arc<Mutex<Option<Operation>>>);

/// Something that the machine is at, until it is dropped.
#[derive(Debug)]
pub(super) struct Begun(Task);

impl Task {
    /// What it is at.
    pub(super) fn look(&self) -> Option<Operation> {
        *self.lock()
    }

    /// From now on it is at `request`.
    pub(super) fn begin(&self, request: &'static str) -> Begun {
        *self.lock() = Some(Operation { request, done_bytes: 0, total_bytes: 0 });
        Begun(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Operation>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Begun {
    /// Hears how far a save is, and ends it once `client` has gone, where that is who alone
    /// wants it: the machine would stand still for nobody.
    pub(super) fn watch(
        &self,
        client: Option<Client>,
    ) -> impl FnMut(SaveProgress) -> ControlFlow<()> + Send + 'static {
        let task = self.0.clone();
        move |SaveProgress { done, total }| {
            if client.as_ref().is_some_and(Client::is_gone) {
                return ControlFlow::Break(());
            }
            if let Some(operation) = &mut *task.lock() {
                (operation.done_bytes, operation.total_bytes) = (done, total);
            }
            ControlFlow::Continue(())
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}
