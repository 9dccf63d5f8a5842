//! What becomes of a machine, as a stream of lines of JSON for each client that listens.
//! Nobody waits for a client: one that reads too slowly misses lines, and learns how many.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use kedge_api::http::{Reply, Sent, Stream};
use kedge_vmm::{Ended, MachineEvent, Mishap, MishapKind, Reset};
use serde_json::{Map, Value, json};

/// A line of JSON each.
const CONTENT: &str = "application/x-ndjson";

/// Clients that listen to one machine. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The machine's name.
    id: String,
    listeners: Mutex<Vec<Listener>>,
}

#[derive(Debug)]
struct Listener {
    stream: Stream,
    /// Lines that it has not been sent.
    missed: u64,
}

impl Events {
    /// Those of the machine called `id`.
    pub(crate) fn new(id: &str) -> Self {
        Self(Arc::new(Shared { id: id.to_owned(), listeners: Mutex::default() }))
    }

    /// Has whoever waits for `reply` listen; the first line says what the machine is at.
    pub(crate) fn listen(&self, reply: Reply, state: impl FnOnce() -> &'static str) {
        let mut listeners = self.listeners();
        // Whoever has gone is noticed here, where no event comes.
        listeners.retain(|listener| !listener.stream.is_gone());
        let mut listener = Listener { stream: reply.stream(CONTENT), missed: 0 };
        // What happens from now on waits for the listeners.
        if listener.take(&self.line("state", json!({ "state": state() }))) {
            listeners.push(listener);
        }
    }

    /// Tells all of them of `event`.
    pub(crate) fn tell(&self, event: &MachineEvent) {
        let mut listeners = self.listeners();
        if listeners.is_empty() {
            return;
        }
        let (name, more) = words(event);
        let line = self.line(name, more);
        listeners.retain_mut(|listener| {
            let missed = json!({ "count": listener.missed });
            if listener.missed > 0
                && listener.stream.send(&self.line("missed", missed)) == Sent::Yes
            {
                listener.missed = 0;
            }
            listener.take(&line)
        });
    }

    /// Nothing more happens.
    pub(crate) fn end(&self) {
        self.listeners().clear();
    }

    fn line(&self, event: &str, more: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut line = Map::new();
        line.insert("utc_timestamp_ms".to_owned(), json!(now));
        line.insert("id".to_owned(), json!(self.0.id));
        line.insert("event".to_owned(), json!(event));
        if let Value::Object(more) = more {
            line.extend(more);
        }
        format!("{}\n", Value::Object(line))
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Sends it a line, or counts it; whether it is still there.
    fn take(&mut self, line: &str) -> bool {
        match self.stream.send(line) {
            Sent::Yes => true,
            Sent::TooMuch => {
                self.missed += 1;
                true
            }
            Sent::Gone => false,
        }
    }
}

/// What an event is called, and what else there is to say of it.
fn words(event: &MachineEvent) -> (&'static str, Value) {
    match event {
        MachineEvent::Started => ("started", Value::Null),
        MachineEvent::Loaded { runs } => {
            ("loaded", json!({ "state": if *runs { "Running" } else { "Paused" } }))
        }
        MachineEvent::Paused => ("paused", Value::Null),
        MachineEvent::Resumed => ("resumed", Value::Null),
        MachineEvent::Saved(state) => ("saved", json!({ "snapshot_path": shown(state) })),
        MachineEvent::Reset(reset) => ("reset", way(*reset)),
        MachineEvent::Panicked { line, times } => {
            ("guest_panic", json!({ "line": line, "times": times }))
        }
        MachineEvent::Mishap(Mishap { kind, device, why, times }) => {
            let name = match kind {
                MishapKind::NeedsReset => "device_needs_reset",
                MishapKind::HostFails => "device_error",
            };
            (name, json!({ "device": device, "why": why, "times": times }))
        }
        MachineEvent::Stopped(Ok(ended)) => ("stopped", json!({ "reason": reason(*ended) })),
        MachineEvent::Stopped(Err(why)) => ("stopped", json!({ "reason": "error", "why": why })),
    }
}

fn reason(ended: Ended) -> &'static str {
    match ended {
        Ended::Off => "off",
        Ended::Hibernated => "hibernated",
        Ended::Reset(_) => "reset",
        Ended::Stopped => "stopped",
        Ended::Panicked => "panic",
    }
}

fn way(reset: Reset) -> Value {
    match reset {
        Reset::Cold => Value::Null,
        Reset::Chosen { kind, cookie } => json!({ "kind": kind, "cookie": cookie }),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
