//! A line of the log as a JSON object, for who reads logs by program.

use std::fmt;
use std::thread;
use std::time::SystemTime;

use serde_json::{Map, Value};
use tracing::Event;
use tracing::field::{Field, Visit};

use super::local_time::LocalTime;

/// The line of `event` of the instance `id`, newline included, after `left_out` others of its
/// place. What an event has besides its message is in `fields`.
pub(super) fn line(event: &Event<'_>, id: &str, show_origin: bool, left_out: u32) -> String {
    let metadata = event.metadata();
    let mut read = Fields::default();
    event.record(&mut read);
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
    put("time", LocalTime::of(SystemTime::now()).to_string().into());
    put("id", id.into());
    put("thread", thread::current().name().unwrap_or("-").into());
    put("level", metadata.level().as_str().into());
    put("module", metadata.module_path().into());
    if show_origin {
        put("file", metadata.file().into());
        put("line", metadata.line().into());
    }
    put("message", read.message.into());
    if !read.others.is_empty() {
        put("fields", read.others.into());
    }
    if left_out > 0 {
        put("left_out", left_out.into());
    }
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    line
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        self.others.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            _ => self.put(field, text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, RwLock};
    use std::{fs, io};

    use kedge_api::call::LogFormat;
    use tempfile::NamedTempFile;
    use tracing::level_filters::LevelFilter;
    use tracing::{subscriber, warn};

    use super::super::{Form, Habits, Log, Sink};
    use super::*;

    #[test]
    fn a_line_is_an_object_with_what_an_event_says_beside_its_message() {
        let file = NamedTempFile::new().unwrap();
        let id = "web".to_owned();
        let format = LogFormat::Json;
        let form = Form::Firecracker { id, show_level: false, show_origin: false, format };
        let sink = Sink::File(file.reopen().unwrap());
        let habits = RwLock::new(Habits { sink, level: LevelFilter::WARN, module: None, form });
        let (limiter, missed, limited) = Default::default();
        let log = Arc::new(Log { habits, limiter, missed, limited });
        subscriber::with_default(log, || {
            let error = io::Error::other("a \"quoted\" word");
            (0..2).for_each(|times| warn!(times, %error, up = true, "disk `a`:\nlate"));
        });
        let text = fs::read_to_string(file.path()).unwrap();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [first, second] = lines.as_slice() else { panic!("{text}") };
        assert_eq!((&first["id"], &first["level"]), (&"web".into(), &"WARN".into()));
        assert_eq!(first["message"], "disk `a`:\nlate");
        let fields = serde_json::json!({"times": 1, "error": "a \"quoted\" word", "up": true});
        assert_eq!(second["fields"], fields);
        assert_eq!((first.get("file"), first.get("left_out")), (None, None));
    }
}
