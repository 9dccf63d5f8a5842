//! What a machine counts.

use kedge_vmm::metrics::{Lines, Registry, Tags, prometheus};
use serde_json::Value;

use crate::guest::{Guest, off, print, program, reset};

fn line(lines: &mut Lines) -> Value {
    let line = lines.next(0);
    let value = serde_json::from_str(line.text()).unwrap();
    lines.sent(line);
    value
}

#[test]
fn exits_are_counted_by_their_reason_and_over_resets() {
    let registry = Registry::default();
    let mut lines = Lines::new(registry.clone(), Tags::default());
    let handed = registry.clone();
    let guest = Guest::new(&[program(&[print("four"), reset()])])
        .then(program(&[print("fifteen signs..."), off()]))
        .with(|spec| spec.on_reset = kedge_vmm::spec::OnReset::Restart)
        .around(move |around| around.with_metrics(&handed));
    guest.run();
    // A line looks at the second life alone: the first one's counters went with it.
    let counted = line(&mut lines);
    assert_eq!(counted["vcpu"]["exit_mmio_write"], 16);
    assert_eq!(counted["vcpu"]["failures"], 0);
    let times = |key: &str| {
        ["min_us", "max_us", "sum_us"].map(|of| counted["vcpu"][key][of].as_u64().unwrap())
    };
    let [shortest, longest, sum] = times("exit_mmio_write_agg");
    assert!(shortest <= longest && longest <= sum, "{counted}");
    assert_eq!(times("exit_mmio_read_agg"), [0; 3]);
    let all = prometheus(&registry);
    assert!(all.contains("kedge_vcpu_seconds_count{kind=\"exit_mmio_write\"} 16\n"), "{all}");
    assert!(all.contains("kedge_vcpu_seconds_count{kind=\"exit_system\"} 1\n"), "{all}");
    assert_eq!(counted["uart"]["write_count"], 16);
    assert_eq!(line(&mut lines)["vcpu"]["exit_mmio_write"], 0);
}
