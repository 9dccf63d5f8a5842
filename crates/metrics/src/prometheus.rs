//! The text form of Prometheus (its exposition format, version 0.0.4): everything that is
//! counted, since it is counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::registry::{Entry, Registry};
use crate::shape::group;
use crate::timings::{STEPS, Timing};

/// A metric: whether it is as last measured, and its values with whose they are.
type Metric = (bool, Vec<(Option<String>, u64)>);

/// What all of `registry` has counted. Names are `kedge_GROUP_NAME`; of devices of which
/// there can be several, the label `id` says which. How long things took is a histogram
/// `kedge_GROUP_seconds` with a label `kind`.
pub fn prometheus(registry: &Registry) -> String {
    let mut samples: BTreeMap<String, Metric> = BTreeMap::new();
    let entries = registry.entries();
    for entry in &entries {
        let measured = group(entry.group).is_some_and(|group| group.is_measured());
        entry.counters.each(&mut |name, value| {
            let name = format!("kedge_{}_{}", word(entry.group), word(name));
            let (_, values) = samples.entry(name).or_insert((measured, Vec::new()));
            values.push((entry.id.clone(), value));
        });
    }
    let mut text = String::new();
    for (name, (measured, values)) in samples {
        let (kind, end) = if measured { ("gauge", "") } else { ("counter", "_total") };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE {name}{end} {kind}");
        for (id, value) in values {
            let label = id.map(|id| format!("{{id=\"{}\"}}", escape(&id))).unwrap_or_default();
            let _ = writeln!(text, "{name}{end}{label} {value}");
        }
    }
    write_timings(&entries, &mut text);
    text
}

/// How long something took, with the labels that say what it was.
type Timed = (String, Timing);

fn write_timings(entries: &[Entry], text: &mut String) {
    let mut groups: BTreeMap<String, Vec<Timed>> = BTreeMap::new();
    for entry in entries {
        let of_device = entry.id.iter().map(|id| format!("id=\"{}\",", escape(id)));
        let of_device: String = of_device.collect();
        entry.counters.each_timing(&mut |kind, timing| {
            let timings = groups.entry(format!("kedge_{}", word(entry.group))).or_default();
            timings.push((format!("{of_device}kind=\"{}\"", escape(kind)), *timing));
        });
    }
    for (name, mut timings) in groups {
        timings.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        write_failures(&name, &timings, text);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE {name}_seconds histogram");
        for (labels, timing) in &timings {
            write_histogram(&format!("{name}_seconds"), labels, timing, text);
        }
    }
}

fn write_failures(name: &str, timings: &[Timed], text: &mut String) {
    let failures = timings.iter().filter_map(|(labels, timing)| Some((labels, timing.failed?)));
    let mut failures = failures.peekable();
    if failures.peek().is_some() {
        let _ = writeln!(text, "# TYPE {name}_failed_total counter");
    }
    for (labels, failed) in failures {
        let _ = writeln!(text, "{name}_failed_total{{{labels}}} {failed}");
    }
}

fn write_histogram(name: &str, labels: &str, timing: &Timing, text: &mut String) {
    let Timing { count, sum_us, within, .. } = timing;
    for (step, within) in STEPS.into_iter().zip(within) {
        let step = seconds(step);
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{step}\"}} {within}");
    }
    let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "{name}_sum{{{labels}}} {}", seconds(*sum_us));
    let _ = writeln!(text, "{name}_count{{{labels}}} {count}");
}

fn seconds(microseconds: u64) -> String {
    format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000)
}

/// A part of a name: letters, digits and underscores.
fn word(text: &str) -> String {
    let sign = |sign: char| if sign.is_ascii_alphanumeric() { sign } else { '_' };
    text.chars().map(sign).collect()
}

fn escape(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use expect_test::expect;

    use super::*;
    use crate::{Counters, Latency, Outcome, Tally, Timings};

    #[test]
    fn everything_is_there_with_its_type_and_its_device() {
        let registry = Registry::default();
        let add = |group, id, name, value| {
            let tally = Tally::of(&[name]);
            tally.add(name, value);
            registry.add(group, id, Arc::new(tally));
        };
        add("net", Some("eth1"), "rx_count", 4);
        add("net", Some("eth\"0"), "rx_count", 3);
        add("latencies_us", None, "pause_vm", 140);
        add("exits", None, "kedges-own", 9);
        expect![[r#"
            # TYPE kedge_exits_kedges_own_total counter
            kedge_exits_kedges_own_total 9
            # TYPE kedge_latencies_us_pause_vm gauge
            kedge_latencies_us_pause_vm 140
            # TYPE kedge_net_rx_count_total counter
            kedge_net_rx_count_total{id="eth1"} 4
            kedge_net_rx_count_total{id="eth\"0"} 3
        "#]]
        .assert_eq(&prometheus(&registry));
    }

    #[test]
    fn how_long_things_took_is_a_histogram() {
        let registry = Registry::default();
        let timings = Arc::new(Timings::default());
        registry.add("api_request", None, Arc::<Timings>::clone(&timings));
        assert_eq!(prometheus(&registry), "");
        timings.record("GET /".to_owned(), Duration::from_micros(99), Outcome::Done);
        timings.record("GET /".to_owned(), Duration::from_micros(2_000_001), Outcome::Failed);
        expect![[r##"
            # TYPE kedge_api_request_failed_total counter
            kedge_api_request_failed_total{kind="GET /"} 1
            # TYPE kedge_api_request_seconds histogram
            kedge_api_request_seconds_bucket{kind="GET /",le="0.000010"} 0
            kedge_api_request_seconds_bucket{kind="GET /",le="0.000100"} 1
            kedge_api_request_seconds_bucket{kind="GET /",le="0.001000"} 1
            kedge_api_request_seconds_bucket{kind="GET /",le="0.010000"} 1
            kedge_api_request_seconds_bucket{kind="GET /",le="0.100000"} 1
            kedge_api_request_seconds_bucket{kind="GET /",le="1.000000"} 1
            kedge_api_request_seconds_bucket{kind="GET /",le="10.000000"} 2
            kedge_api_request_seconds_bucket{kind="GET /",le="+Inf"} 2
            kedge_api_request_seconds_sum{kind="GET /"} 2.000100
            kedge_api_request_seconds_count{kind="GET /"} 2
        "##]]
        .assert_eq(&prometheus(&registry));
    }

    #[test]
    fn devices_of_one_kind_share_a_histogram() {
        struct Reads(Latency);
        impl Counters for Reads {
            fn each(&self, _to: &mut dyn FnMut(&'static str, u64)) {}
            fn each_timing(&self, to: &mut dyn FnMut(&str, &Timing)) {
                to("read", &self.0.timing());
            }
        }
        let registry = Registry::default();
        for id in ["root", "data"] {
            registry.add("block", Some(id), Arc::new(Reads(Latency::default())));
        }
        let text = prometheus(&registry);
        assert_eq!(text.matches("# TYPE kedge_block_seconds histogram").count(), 1);
        assert!(!text.contains("failed"), "{text}");
        for id in ["root", "data"] {
            assert!(
                text.contains(&format!("kedge_block_seconds_count{{id=\"{id}\",kind=\"read\"}} 0"))
            );
        }
    }
}
