//! The thread on which devices do their work.
//!
//! It waits for nobody but its own events, so that vCPU threads and the
//! machine's own thread may wait for it: a guest that resets a device waits until
//! its worker has retired.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use event_manager::{EventManager, RemoteEndpoint};
use kedge_devices::virtio::worker::{EventLoop, Subscriber};

/// A running event loop. Dropping it ends the thread.
pub(crate) struct LoopThread {
    endpoint: RemoteEndpoint<Subscriber>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LoopThread {
    /// Starts a loop on a thread of its own.
    ///
    /// # Errors
    /// The host has no more file descriptors or threads.
    pub(crate) fn start() -> io::Result<Self> {
        let mut manager = EventManager::<Subscriber>::new().map_err(io::Error::other)?;
        let endpoint = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("devices".to_owned()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                // A signal may interrupt the wait; the workers handle their own errors.
                let _ = manager.run();
            }
        })?;
        Ok(Self { endpoint, stop, thread: Some(thread) })
    }

    /// A handle for devices to start their workers with.
    pub(crate) fn handle(&self) -> EventLoop {
        EventLoop::new(self.endpoint.clone())
    }
}

impl Drop for LoopThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // If the kick fails the loop is gone already.
        let _ = self.endpoint.kick();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
