//! The loop on which a fuzzed device works: a thread that whoever feeds it waits for, so
//! that the same bytes do the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use event_manager::EventManager;
use kedge_devices::virtio::worker::{Endpoint, EventLoop, Subscriber};

/// A loop on a thread of its own.
pub(crate) struct Loop {
    endpoint: Endpoint,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    pub(crate) fn start() -> Self {
        let mut manager = EventManager::<Subscriber>::new().expect("an epoll");
        let endpoint = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                manager.run().expect("an epoll that waits");
            }
        });
        Self { endpoint, stop, thread: Some(thread) }
    }

    pub(crate) fn handle(&self) -> EventLoop {
        EventLoop::new(self.endpoint.clone())
    }

    /// Returns once the loop has done what it had to do. One call may be answered before
    /// events of the same turn are; what they lead to comes one turn later.
    pub(crate) fn settle(&self) {
        for _ in 0..3 {
            self.endpoint
                .call_blocking(|_| Ok::<_, event_manager::Error>(()))
                .expect("a loop whose thread has not panicked");
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.endpoint.kick();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))), "a device panicked on its loop");
    }
}
