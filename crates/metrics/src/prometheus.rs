//! The text form of Prometheus (its exposition format, version 0.0.4): everything that is
//! counted, since it is counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::registry::Registry;
use crate::shape::group;

/// A metric: whether it is as last measured, and its values with whose they are.
type Metric = (bool, Vec<(Option<String>, u64)>);

/// What all of `registry` has counted. Names are `kedge_GROUP_NAME`; of devices of which
/// there can be several, the label `id` says which.
pub fn prometheus(registry: &Registry) -> String {
    let mut samples: BTreeMap<String, Metric> = BTreeMap::new();
    for entry in registry.entries() {
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
    text
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

    use expect_test::expect;

    use super::*;
    use crate::Tally;

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
}
