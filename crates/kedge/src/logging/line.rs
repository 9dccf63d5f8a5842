//! A line of the log.

use std::fmt::{self, Write};
use std::thread;
use std::time::SystemTime;

use kedge_api::call::LogFormat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::json;
use super::local_time::LocalTime;

/// What a log's lines look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `warn: text`.
    Plain,
    /// `TIME [ID:THREAD:LEVEL:FILE:LINE] text`, as Firecracker's, or the same as JSON.
    Firecracker {
        /// The instance's id.
        id: String,
        /// Whether lines have a level.
        show_level: bool,
        /// Whether lines have a file and a line number.
        show_origin: bool,
        /// Whether it is all that, or as an object.
        format: LogFormat,
    },
}

impl Form {
    /// Shows more or less of where an event comes from, and in another format.
    pub(super) fn change(
        &mut self,
        level: Option<bool>,
        origin: Option<bool>,
        wanted: Option<LogFormat>,
    ) {
        if let Self::Firecracker { show_level, show_origin, format, .. } = self {
            *show_level = level.unwrap_or(*show_level);
            *show_origin = origin.unwrap_or(*show_origin);
            *format = wanted.unwrap_or(*format);
        }
    }

    /// The line of `event`, newline included, after `left_out` others of its place.
    pub(super) fn line(&self, event: &Event<'_>, left_out: u32) -> String {
        if let Self::Firecracker { id, show_origin, format: LogFormat::Json, .. } = self {
            return json::line(event, id, *show_origin, left_out);
        }
        let mut line = String::with_capacity(ROOM);
        self.begin(&mut line, event).expect("writing to a string cannot fail");
        event.record(&mut Fields(&mut line));
        if left_out > 0 {
            write!(line, " ({left_out} more like this left out)")
                .expect("writing to a string cannot fail");
        }
        line.push('\n');
        line
    }

    fn begin(&self, line: &mut String, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let Self::Firecracker { id, show_level, show_origin, .. } = self else {
            return write!(line, "{}:", name_in_report(*metadata.level()));
        };
        let thread = thread::current();
        let time = LocalTime::of(SystemTime::now());
        write!(line, "{time} [{id}:{}", thread.name().unwrap_or("-"))?;
        if *show_level {
            write!(line, ":{}", metadata.level())?;
        }
        if *show_origin {
            let (file, number) = (metadata.file(), metadata.line());
            write!(line, ":{}:{}", file.unwrap_or("-"), number.unwrap_or_default())?;
        }
        line.write_str("]")
    }
}

/// Bytes that most lines fit into.
const ROOM: usize = 256;

/// Levels as kedge's reports on stderr have them.
fn name_in_report(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Appends fields to a line: the message as it is, others with their names.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn append(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let written = match field.name() {
            "message" => write!(self.0, " {value}"),
            name => write!(self.0, " {name}={value}"),
        };
        written.expect("writing to a string cannot fail");
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.append(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.append(field, format_args!("{value:?}"));
    }
}
