//! The log: where it goes and what its lines look like.
//!
//! A subscriber of our own: it keeps no spans, since thread names say which vCPU
//! speaks, and costs a start next to nothing. tracing-subscriber's would be a
//! fifth of all instructions between `exec` and the machine.

mod json;
mod limit;
mod line;
mod local_time;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use kedge_api::call::Logger;
use kedge_diag::Fix;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, subscriber};

use crate::status::{Failure, Status};
use limit::Limiter;

pub(crate) use line::Form;

/// A log.
#[derive(Debug)]
pub(crate) struct Logging {
    /// Where it goes.
    pub(crate) destination: Destination,
    /// How much it says.
    pub(crate) level: LevelFilter,
    /// The path of the module that alone is heard, with those within.
    pub(crate) module: Option<String>,
    /// What its lines look like.
    pub(crate) form: Form,
}

impl Logging {
    /// The log of `kedge run`.
    pub(crate) fn to_stderr(level: LevelFilter) -> Self {
        Self { destination: Destination::Stderr, level, module: None, form: Form::Plain }
    }
}

/// Where a log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To standard error.
    Stderr,
    /// To standard output, among what the guest prints.
    Stdout,
    /// To the end of a file, or into a FIFO.
    File(PathBuf),
}

/// The log's file cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the log to `{}`", path.display())]
pub(crate) struct NoLog {
    path: PathBuf,
    source: io::Error,
}

impl Fix for NoLog {
    fn fix(&self) -> Option<String> {
        Some("name a file or FIFO that can be written".to_owned())
    }
}

/// Starts the process's log, of which the first call's stays; a process has one.
///
/// # Errors
/// The log's file cannot be opened.
pub(crate) fn start(logging: Logging) -> Result<Control, Failure> {
    let Logging { destination, level, module, form } = logging;
    let sink = match destination {
        Destination::Stderr => Sink::Stderr,
        Destination::Stdout => Sink::Stdout,
        Destination::File(path) => {
            Sink::File(open(path).map_err(|error| Failure::new(Status::ERROR, error))?)
        }
    };
    let habits = RwLock::new(Habits { sink, level, module, form });
    let (limiter, missed, limited) = Default::default();
    let log = Arc::new(Log { habits, limiter, missed, limited });
    // Only where there is none.
    let _ = subscriber::set_global_default(Arc::clone(&log));
    Ok(Control(log))
}

/// Changes the log while the process runs.
#[derive(Clone, Debug)]
pub(crate) struct Control(Arc<Log>);

impl Control {
    /// Makes it what `logger` says: what that leaves out stays, but for the level.
    ///
    /// # Errors
    /// Its file cannot be opened; nothing changes then.
    pub(crate) fn change(&self, logger: &Logger) -> Result<(), NoLog> {
        let Logger { log_path, level, show_level, show_log_origin, module, log_format } = logger;
        let file = log_path.clone().map(open).transpose()?;
        let mut habits = self.0.habits.write().unwrap_or_else(PoisonError::into_inner);
        habits.level = level.unwrap_or(LevelFilter::INFO);
        habits.module = module.clone().or(habits.module.take());
        if let Some(file) = file {
            habits.sink = Sink::File(file);
        }
        habits.form.change(*show_level, *show_log_origin, *log_format);
        drop(habits);
        // Who speaks has noted who listens.
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// How many lines could not be written, and how many were too many.
    pub(crate) fn left_out(&self) -> [u64; 2] {
        [&self.0.missed, &self.0.limited].map(|count| count.load(Ordering::Relaxed))
    }
}

/// Reading and writing, so that a FIFO opens before anybody reads it; and never
/// waiting for whoever does.
fn open(path: PathBuf) -> Result<File, NoLog> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).custom_flags(libc::O_NONBLOCK);
    options.open(&path).map_err(|source| NoLog { path, source })
}

/// The process's log.
#[derive(Debug)]
struct Log {
    habits: RwLock<Habits>,
    limiter: Mutex<Limiter>,
    /// Lines that could not be written.
    missed: AtomicU64,
    /// Lines that were too many.
    limited: AtomicU64,
}

/// What of a log can change.
#[derive(Debug)]
struct Habits {
    sink: Sink,
    level: LevelFilter,
    module: Option<String>,
    form: Form,
}

#[derive(Debug)]
enum Sink {
    Stderr,
    Stdout,
    File(File),
}

impl Sink {
    /// Writes a line at once, so that lines of several threads do not mix.
    fn write(&self, line: &str) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().write_all(line.as_bytes()),
            Self::Stdout => io::stdout().write_all(line.as_bytes()),
            Self::File(file) => { file }.write_all(line.as_bytes()),
        }
    }
}

impl Log {
    /// Whether `event` may be logged now, and how many like it were left out.
    fn allow(&self, event: &Metadata<'_>) -> Option<u32> {
        if *event.level() > Level::INFO {
            return Some(0);
        }
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.allow(event.callsite(), Instant::now())
    }

    fn habits(&self) -> RwLockReadGuard<'_, Habits> {
        self.habits.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Log {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.habits().level)
    }

    fn enabled(&self, event: &Metadata<'_>) -> bool {
        let is_heard = |module: &String| {
            event.module_path().is_some_and(|path| path.starts_with(module.as_str()))
        };
        let habits = self.habits();
        *event.level() <= habits.level && habits.module.as_ref().is_none_or(is_heard)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(left_out) = self.allow(event.metadata()) else {
            self.limited.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let habits = self.habits();
        if habits.sink.write(&habits.form.line(event, left_out)).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}
