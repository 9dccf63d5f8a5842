//! Metrics in a file or a FIFO: a line when the machine starts, one every minute, one
//! whenever a client asks for it, and a last one. Where a line cannot be written, what it
//! would have said is in the next one.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kedge_api::call::Metrics;
use kedge_diag::Fix;
use kedge_vmm::metrics::{Lines, Output, Tags};
use serde_json::Value;
use tracing::warn;

use super::{MISSED, Metering};

/// The time between two lines.
const PERIOD: Duration = Duration::from_secs(60);

/// It keeps the whole of a line, but not on its stack.
const STACK_BYTES: usize = 64 * 1024;

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    path: PathBuf,
    output: Output,
    lines: Lines,
    timer: Option<Timer>,
}

/// Who writes a line now and then. It ends when the sender goes.
#[derive(Debug)]
struct Timer {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// Why metrics cannot go where they are to go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadMetrics {
    /// They have a place.
    #[error("metrics go to `{}` already", path.display())]
    Again {
        /// Their file.
        path: PathBuf,
    },
    /// Their file cannot be had.
    #[error("metrics cannot be written to `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
}

impl BadMetrics {
    /// What messages about it begin with, behind what they are about (FIRECRACKER_API.md,
    /// 6).
    pub(crate) fn prefix(&self) -> &'static str {
        match self {
            Self::Again { .. } => "Reinitialization of metrics not allowed. ",
            Self::Open { .. } => "",
        }
    }
}

impl Fix for BadMetrics {
    fn fix(&self) -> Option<String> {
        match self {
            Self::Again { .. } => Some("say once where they go, before it starts".to_owned()),
            Self::Open { .. } => Some("name a file or FIFO that can be written".to_owned()),
        }
    }
}

/// A line of metrics that is not written.
#[derive(Debug, thiserror::Error)]
#[error("no line can be written to `{}`", path.display())]
pub(crate) struct Unwritten {
    path: PathBuf,
    source: io::Error,
}

impl Fix for Unwritten {
    fn fix(&self) -> Option<String> {
        Some(match self.source.kind() {
            io::ErrorKind::WouldBlock => "have somebody read the FIFO".to_owned(),
            _ => "see that there is room for more".to_owned(),
        })
    }
}

impl Metering {
    /// Has lines written to where `wanted` says.
    ///
    /// # Errors
    /// They go elsewhere already, or it cannot be opened.
    pub(crate) fn open(&self, wanted: &Metrics) -> Result<(), BadMetrics> {
        let mut sink = self.sink();
        if let Some(Sink { path, .. }) = &*sink {
            return Err(BadMetrics::Again { path: path.clone() });
        }
        let path = wanted.metrics_path.clone();
        let output = match Output::open(&path) {
            Ok(output) => output,
            Err(source) => return Err(BadMetrics::Open { path, source }),
        };
        let properties = wanted.properties.iter().flatten();
        let tags = Tags {
            id: wanted.emit_id.then(|| self.0.id.clone()),
            properties: properties
                .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
                .collect(),
        };
        let lines = Lines::new(self.registry().clone(), tags);
        *sink = Some(Sink { path, output, lines, timer: None });
        Ok(())
    }

    /// There is a machine: from now on, lines are written, where anybody asked for them.
    pub(crate) fn begin(&self) {
        self.begin_every(PERIOD);
    }

    pub(super) fn begin_every(&self, period: Duration) {
        let mut sink = self.sink();
        let Some(Sink { timer: timer @ None, .. }) = &mut *sink else { return };
        let (stop, stopped) = channel();
        let metering = self.clone();
        let builder = Builder::new().name("metrics".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || {
            loop {
                // It is counted, and there is nobody to tell.
                let _ = metering.write();
                if stopped.recv_timeout(period) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        match thread {
            Ok(thread) => *timer = Some(Timer { stop, thread }),
            Err(error) => warn!("metrics are written only when asked for: {error}"),
        }
    }

    /// Writes a line, where anybody asked for them.
    ///
    /// # Errors
    /// It cannot be written; what it would have said is in the next one.
    pub(crate) fn write(&self) -> Result<(), Unwritten> {
        let mut sink = self.sink();
        let Some(Sink { path, output, lines, .. }) = &mut *sink else { return Ok(()) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = lines.next(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        match output.write(line.text()) {
            Ok(()) => {
                lines.sent(line);
                Ok(())
            }
            Err(source) => {
                self.0.misses.count(MISSED);
                Err(Unwritten { path: path.clone(), source })
            }
        }
    }

    /// The process ends: writes the last line.
    pub(crate) fn finish(&self) {
        let timer = self.sink().as_mut().and_then(|sink| sink.timer.take());
        if let Some(Timer { stop, thread }) = timer {
            drop(stop);
            // A panic there has been reported by its hook.
            let _ = thread.join();
        }
        // There is nobody to tell.
        let _ = self.write();
    }
}
