//! The threads on which devices do their work: one for all of them, or several that they
//! share out, so that one that keeps its thread waiting is in the way of fewer.
//!
//! A thread waits for nobody but its own events, so that vCPU threads and the
//! machine's own thread may wait for it: a guest that resets a device waits until
//! its worker has retired. It starts with its first worker: a machine without
//! busy devices goes without it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use event_manager::EventManager;
use kedge_devices::virtio::worker::{Endpoint, EventLoop, Subscriber};

/// A machine's event loops. Dropping them ends their threads.
pub(crate) struct LoopThreads {
    shared: LoopThread,
    /// Those that virtio devices share out; without any, they are on the shared one.
    own: Vec<LoopThread>,
}

impl LoopThreads {
    /// Loops without work, hence without threads: the shared one, and so many for virtio
    /// devices.
    pub(crate) fn new(own: u8) -> Self {
        let own = (0..own).map(|index| LoopThread::new(format!("io {index}"))).collect();
        Self { shared: LoopThread::new("devices".to_owned()), own }
    }

    /// A handle on the loop of what is no virtio device.
    pub(crate) fn shared(&self) -> EventLoop {
        self.shared.handle()
    }

    /// Handles on those of virtio devices, in turn; there is one at least.
    pub(crate) fn of_devices(&self) -> Vec<EventLoop> {
        match self.own.as_slice() {
            [] => vec![self.shared()],
            own => own.iter().map(LoopThread::handle).collect(),
        }
    }
}

/// An event loop. Dropping it ends its thread.
struct LoopThread {
    running: Arc<Mutex<Option<Running>>>,
    name: String,
}

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
    fn new(name: String) -> Self {
        Self { running: Arc::default(), name }
    }

    /// A handle for devices to start their workers with.
    fn handle(&self) -> EventLoop {
        let (running, name) = (Arc::clone(&self.running), self.name.clone());
        EventLoop::on_demand(move || {
            let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(running) = &*running {
                return Ok(running.endpoint.clone());
            }
            let started = Running::start(&name)?;
            let endpoint = started.endpoint.clone();
            *running = Some(started);
            Ok(endpoint)
        })
    }
}

impl Drop for LoopThread {
    fn drop(&mut self) {
        if let Some(running) = self.running.lock().unwrap_or_else(PoisonError::into_inner).take() {
            running.end();
        }
    }
}

impl Running {
    fn start(name: &str) -> io::Result<Self> {
        let mut manager = EventManager::<Subscriber>::new().map_err(io::Error::other)?;
        let endpoint = manager.remote_endpoint();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name(name.to_owned());
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
