//! Firecracker's form: a line of JSON, with what was counted since the last one.

use serde_json::{Map, Value, json};

use crate::registry::{Entry, Registry};
use crate::shape::{AGGREGATE, GROUPS, Group};
use crate::timings::Timing;

/// What stands beside the counters on every line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// The machine's name.
    pub id: Option<String>,
    /// More, as its user likes.
    pub properties: Map<String, Value>,
}

/// Makes line after line.
#[derive(Debug)]
pub struct Lines {
    registry: Registry,
    tags: Tags,
    /// What all counters had at the last line.
    last: Vec<Counted>,
}

/// What the counters of a group and device had at some time.
#[derive(Debug)]
struct Counted {
    group: &'static str,
    id: Option<String>,
    values: Vec<(&'static str, u64)>,
}

impl Counted {
    fn value(&self, name: &str) -> Option<u64> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

/// A line, until it is known whether somebody has got it.
#[derive(Debug)]
pub struct Line {
    text: String,
    read: Vec<Counted>,
}

impl Line {
    /// The line itself, without an end.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Lines {
    /// Lines of what `registry` has.
    pub fn new(registry: Registry, tags: Tags) -> Self {
        Self { registry, tags, last: Vec::new() }
    }

    /// The next line, at `now` in milliseconds since 1970. It counts for the one after it
    /// once [`Lines::sent`] has it.
    pub fn next(&self, now: u64) -> Line {
        let entries = self.registry.entries();
        let mut read = Vec::with_capacity(entries.len());
        let mut line = Map::new();
        let mut groups: Vec<Values> = GROUPS.iter().map(Values::new).collect();
        for entry in &entries {
            let Some(whole) = groups.iter_mut().find(|whole| whole.group.name == entry.group)
            else {
                continue;
            };
            let values = self.since(entry, whole.group, &mut read);
            if let Some(id) = entry.id.as_ref().filter(|_| whole.group.each) {
                line.insert(format!("{}_{id}", entry.group), values.to_json());
            }
            whole.add_all(&values);
        }
        line.extend(groups.iter().map(|whole| (whole.group.name.to_owned(), whole.to_json())));
        line.insert("utc_timestamp_ms".to_owned(), json!(now));
        let Tags { id, properties } = &self.tags;
        if let Some(id) = id {
            line.insert("id".to_owned(), json!(id));
        }
        if !properties.is_empty() {
            line.insert("properties".to_owned(), Value::Object(properties.clone()));
        }
        Line { text: Value::Object(line).to_string(), read }
    }

    /// Somebody has got `line`: the next one is from there on.
    pub fn sent(&mut self, line: Line) {
        self.last = line.read;
    }

    /// What an entry has counted since the last line.
    fn since(&self, entry: &Entry, group: &'static Group, read: &mut Vec<Counted>) -> Values {
        let mut values = Values::new(group);
        let mut counted = Counted { group: entry.group, id: entry.id.clone(), values: Vec::new() };
        let is_same = |last: &&Counted| last.group == entry.group && last.id == entry.id;
        let last = self.last.iter().find(is_same);
        entry.counters.each(&mut |name, now| {
            let before = last.and_then(|last| last.value(name)).unwrap_or_default();
            // Counters that have begun anew have counted all of it since then.
            let since =
                if group.is_measured() { now } else { now.checked_sub(before).unwrap_or(now) };
            values.add(name, since);
            counted.values.push((name, now));
        });
        entry.counters.each_timing(&mut |kind, timing| {
            let Some(key) = group.aggregate(kind) else { return };
            let before = last.and_then(|last| last.value(key)).unwrap_or_default();
            let sum_us = timing.sum_us.checked_sub(before).unwrap_or(timing.sum_us);
            values.add_timing(key, Timing { sum_us, ..*timing });
            counted.values.push((key, timing.sum_us));
        });
        read.push(counted);
        values
    }
}

/// The values of a group.
struct Values {
    group: &'static Group,
    /// In the order of its keys.
    counts: Vec<u64>,
    /// As well; what is counted alone has none.
    timings: Vec<Timing>,
}

impl Values {
    fn new(group: &'static Group) -> Self {
        let count = group.keys.len();
        Self { group, counts: vec![0; count], timings: vec![Timing::default(); count] }
    }

    /// Adds to a key; what Firecracker does not have is left out.
    fn add(&mut self, name: &str, more: u64) {
        let place = self.group.keys.iter().position(|key| *key == name);
        if let Some(value) = place.and_then(|place| self.counts.get_mut(place)) {
            *value = value.saturating_add(more);
        }
    }

    /// The same for how long something took.
    fn add_timing(&mut self, name: &str, more: Timing) {
        let place = self.group.keys.iter().position(|key| *key == name);
        if let Some(timing) = place.and_then(|place| self.timings.get_mut(place)) {
            *timing = *timing + more;
        }
    }

    /// Adds those of a device to those of all.
    fn add_all(&mut self, more: &Self) {
        for (sum, more) in self.counts.iter_mut().zip(&more.counts) {
            *sum = sum.saturating_add(*more);
        }
        for (sum, more) in self.timings.iter_mut().zip(&more.timings) {
            *sum = *sum + *more;
        }
    }

    fn to_json(&self) -> Value {
        let values = self.counts.iter().zip(&self.timings);
        let row = |(key, (count, timing)): (&&str, (&u64, &Timing))| {
            let Timing { min_us, max_us, sum_us, .. } = timing;
            let value = match key.ends_with(AGGREGATE) {
                true => json!({"min_us": min_us, "max_us": max_us, "sum_us": sum_us}),
                false => json!(count),
            };
            ((*key).to_owned(), value)
        };
        Value::Object(self.group.keys.iter().zip(values).map(row).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::{Counters, Latency, Tally};

    fn lines() -> (Lines, Registry) {
        let registry = Registry::default();
        (Lines::new(registry.clone(), Tags::default()), registry)
    }

    fn next(lines: &mut Lines) -> Value {
        let line = lines.next(5);
        let value = serde_json::from_str(line.text()).unwrap();
        lines.sent(line);
        value
    }

    #[test]
    fn every_key_is_there_before_anybody_counts() {
        let (mut lines, _registry) = lines();
        let line = next(&mut lines);
        let Value::Object(groups) = &line else { panic!("{line}") };
        assert_eq!(groups.len(), GROUPS.len() + 1);
        for group in GROUPS {
            let Value::Object(keys) = &line[group.name] else { panic!("{}", group.name) };
            assert_eq!(keys.len(), group.keys.len());
            for key in group.keys {
                let expected = match key.ends_with("_agg") {
                    true => json!({"min_us": 0, "max_us": 0, "sum_us": 0}),
                    false => json!(0),
                };
                assert_eq!(keys[*key], expected);
            }
        }
        assert_eq!(line["utc_timestamp_ms"], 5);
    }

    #[test]
    fn a_line_has_what_came_since_the_last_that_was_sent() {
        let (mut lines, registry) = lines();
        let tally = Arc::new(Tally::of(&["panic_count"]));
        registry.add("vmm", None, Arc::<Tally>::clone(&tally));
        tally.count("panic_count");
        assert_eq!(next(&mut lines)["vmm"]["panic_count"], 1);
        assert_eq!(next(&mut lines)["vmm"]["panic_count"], 0);
        tally.add("panic_count", 2);
        // Nobody gets this one.
        drop(lines.next(6));
        assert_eq!(next(&mut lines)["vmm"]["panic_count"], 2);
    }

    #[test]
    fn counters_that_begin_anew_lose_nothing() {
        let (mut lines, registry) = lines();
        let count = |value| {
            let tally = Tally::of(&["panic_count"]);
            tally.add("panic_count", value);
            registry.add("vmm", None, Arc::new(tally));
        };
        count(10);
        assert_eq!(next(&mut lines)["vmm"]["panic_count"], 10);
        count(3);
        assert_eq!(next(&mut lines)["vmm"]["panic_count"], 3);
    }

    #[test]
    fn what_is_measured_stays_as_it_was_measured() {
        let (mut lines, registry) = lines();
        let tally = Tally::of(&["pause_vm"]);
        tally.set("pause_vm", 140);
        registry.add("latencies_us", None, Arc::new(tally));
        assert_eq!(next(&mut lines)["latencies_us"]["pause_vm"], 140);
        assert_eq!(next(&mut lines)["latencies_us"]["pause_vm"], 140);
    }

    #[test]
    fn devices_have_a_group_each_and_one_of_all() {
        let (mut lines, registry) = lines();
        for (id, count) in [("eth0", 3), ("eth1", 4)] {
            let tally = Tally::of(&["rx_count", "kedges_own"]);
            tally.add("rx_count", count);
            tally.add("kedges_own", count);
            registry.add("net", Some(id), Arc::new(tally));
        }
        let line = next(&mut lines);
        let counts = ["net", "net_eth0", "net_eth1"].map(|group| &line[group]["rx_count"]);
        assert_eq!(counts, [7, 3, 4]);
        assert_eq!(
            line["net_eth0"].as_object().unwrap().len(),
            line["net"].as_object().unwrap().len()
        );
        registry.remove("net", Some("eth1"));
        assert_eq!(next(&mut lines).get("net_eth1"), None);
    }

    #[test]
    fn tags_are_on_every_line() {
        let properties = [("zone".to_owned(), json!("a"))].into_iter().collect();
        let tags = Tags { id: Some("web".to_owned()), properties };
        let mut lines = Lines::new(Registry::default(), tags);
        let line = next(&mut lines);
        assert_eq!((&line["id"], &line["properties"]["zone"]), (&json!("web"), &json!("a")));
    }

    #[test]
    fn how_long_things_took_has_the_extremes_of_all_time_and_the_sum_since_the_last_line() {
        struct Exits(Latency);
        impl Counters for Exits {
            fn each(&self, _to: &mut dyn FnMut(&'static str, u64)) {}
            fn each_timing(&self, to: &mut dyn FnMut(&str, &Timing)) {
                to("exit_mmio_read", &self.0.timing());
                to("exit_hypercall", &self.0.timing());
            }
        }
        let (mut lines, registry) = lines();
        let exits = Arc::new(Exits(Latency::default()));
        registry.add("vcpu", None, Arc::<Exits>::clone(&exits));
        for (micros, expected) in [(20, (20, 20, 20)), (5, (5, 20, 5)), (9, (5, 20, 9))] {
            exits.0.record(Duration::from_micros(micros));
            let (min_us, max_us, sum_us) = expected;
            let line = next(&mut lines);
            let expected = json!({"min_us": min_us, "max_us": max_us, "sum_us": sum_us});
            assert_eq!(line["vcpu"]["exit_mmio_read_agg"], expected);
        }
    }
}
