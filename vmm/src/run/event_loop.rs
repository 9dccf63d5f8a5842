//! The thread on which devices do their work.
//!
//! It waits for nobody but its own events, so that vCPU threads and the
//! machine's own thread may wait for it: a guest that resets a device waits until
//! its worker has retired. It starts with the first worker: a machine without
//! busy devices goes without it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use event_manager::EventManager;
use kedge_devices::virtio::worker::{Endpoint, EventLoop, Subscriber};

/// A machine's event loop. Dropping it ends its thread.
pub(crate) struct LoopThread(Arc<Mutex<Option<Running>>>);

/// A loop that has work.
struct Running {
    endpoint: Endpoint,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Workers keep little on their stack, and a large one could end up on a huge page.
const STACK_BYTES: usize = 128 * 1024;

impl LoopThread {
    /// A loop without work, hence without a thread.
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// A handle for devices to start their workers with.
    pub(crate) fn handle(&self) -> EventLoop {
        let running = Arc::clone(&self.0);
        EventLoop::on_demand(move || {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(running) = &*running {
                return Ok(running.endpoint.clone());
            }
            let started = Running::start()?;
            let endpoint = started.endpoint.clone();
            *running = Some(started);
            Ok(endpoint)
        })
    }
}

impl Drop for LoopThread {
    fn drop(&mut self) {
        if let Some(running) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            running.end();
        }
    }
}

impl Running {
    fn start() -> io::Result<Self> {
        let mut manager = EventManager::<Subscriber>::new().map_err(io::Error::other)?;
        let endpoint = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("devices".to_owned());
        let thread = builder.stack_size(STACK_BYTES).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                // A signal may interrupt the wait; the workers handle their own errors.
                let _ = manager.run();
            }
        })?;
        Ok(Self { endpoint, stop, thread })
    }

    fn end(self) {
        self.stop.store(true, Ordering::Release);
        // If the kick fails the loop is gone already.
        let _ = self.endpoint.kick();
        let _ = self.thread.join();
    }
}
