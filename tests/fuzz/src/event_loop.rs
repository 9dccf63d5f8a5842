//! The loop on which fuzzed devices work: a thread that whoever feeds it waits for, so that
//! the same bytes do the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender, SyncSender};
use std::thread::{self, JoinHandle};

use event_manager::EventManager;
use kedge_devices::virtio::mishap::MishapListener;
use kedge_devices::virtio::worker::{Endpoint, EventLoop, Subscriber};

/// A loop on a thread of its own: a device that panics there ends the program, as one that
/// panics here does.
pub(crate) struct Loop {
    endpoint: Endpoint,
    asks: Sender<SyncSender<()>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Loop {
    pub(crate) fn start() -> Self {
        let mut manager = EventManager::<Subscriber>::new().expect("an epoll");
        let endpoint = manager.remote_endpoint();
        let (asks, asked) = mpsc::channel::<SyncSender<()>>();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                manager.run().expect("an epoll that waits");
                let Ok(answer) = asked.try_recv() else { continue };
                while manager.run_with_timeout(0).expect("an epoll") > 0 {}
                let _ = answer.send(());
            }
        });
        Self { endpoint, asks, stop, thread: Some(thread) }
    }

    pub(crate) fn handle(&self) -> EventLoop {
        let listener = MishapListener::new(|mishap| drop(format!("{mishap:?}")));
        EventLoop::new(self.endpoint.clone()).heard_by(listener)
    }

    /// Returns once the loop has nothing more to do.
    pub(crate) fn settle(&self) {
        let (answer, answered) = mpsc::sync_channel(1);
        self.asks.send(answer).expect("a loop whose thread has not panicked");
        self.endpoint.kick().expect("a loop that can be woken");
        answered.recv().expect("a loop whose thread has not panicked");
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
