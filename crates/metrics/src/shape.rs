//! The groups and keys of Firecracker's metrics (FIRECRACKER_API.md, 13). Clients check that
//! they are all there and that there are no others.

/// A group of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its own key.
    pub name: &'static str,
    /// Whether there is one more for each device: `net` and `net_eth0`.
    pub each: bool,
    /// Its keys. Those that end in `_agg` hold three times.
    pub keys: &'static [&'static str],
}

/// How keys end whose value is an object of times: the least, the most, and the sum, in
/// microseconds.
pub(crate) const AGGREGATE: &str = "_agg";

/// Groups whose values are as last measured, and not what has been counted since the last line.
const MEASURED: [&str; 2] = ["api_server", "latencies_us"];

impl Group {
    /// Its key for how long things of `kind` took, where Firecracker has one.
    pub(crate) fn aggregate(&self, kind: &str) -> Option<&'static str> {
        let is_it = |key: &&&'static str| key.strip_suffix(AGGREGATE) == Some(kind);
        self.keys.iter().find(is_it).copied()
    }

    /// Whether its values are as last measured.
    pub(crate) fn is_measured(&self) -> bool {
        MEASURED.contains(&self.name)
    }
}

/// The group of this name.
pub(crate) fn group(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}

const fn one(name: &'static str, keys: &'static [&'static str]) -> Group {
    Group { name, each: false, keys }
}

const fn each(name: &'static str, keys: &'static [&'static str]) -> Group {
    Group { name, each: true, keys }
}

/// Every group.
#[rustfmt::skip]
pub const GROUPS: &[Group] = &[
    one("api_server", &[
        "process_startup_time_us", "process_startup_time_cpu_us",
    ]),
    one("balloon", &[
        "activate_fails", "inflate_count", "stats_updates_count", "stats_update_fails",
        "deflate_count", "event_fails", "free_page_report_count", "free_page_report_freed",
        "free_page_report_fails", "free_page_hint_count", "free_page_hint_freed",
        "free_page_hint_fails",
    ]),
    each("block", &[
        "activate_fails", "cfg_fails", "no_avail_buffer", "event_fails", "execute_fails",
        "invalid_reqs_count", "flush_count", "queue_event_count", "rate_limiter_event_count",
        "update_count", "update_fails", "read_bytes", "write_bytes", "read_count", "write_count",
        "rate_limiter_throttled_events", "io_engine_throttled_events", "remaining_reqs_count",
        "read_agg", "write_agg",
    ]),
    one("deprecated_api", &[
        "deprecated_http_api_calls",
    ]),
    one("entropy", &[
        "activate_fails", "entropy_event_fails", "entropy_event_count", "entropy_bytes",
        "host_rng_fails", "entropy_rate_limiter_throttled", "rate_limiter_event_count",
    ]),
    one("get_api_requests", &[
        "instance_info_count", "machine_cfg_count", "mmds_count", "vmm_version_count",
        "hotplug_memory_count",
    ]),
    one("i8042", &[
        "error_count", "missed_read_count", "missed_write_count", "read_count", "reset_count",
        "write_count",
    ]),
    one("interrupts", &[
        "triggers", "config_updates",
    ]),
    one("latencies_us", &[
        "full_create_snapshot", "diff_create_snapshot", "load_snapshot", "pause_vm", "resume_vm",
        "vmm_full_create_snapshot", "vmm_diff_create_snapshot", "vmm_load_snapshot", "vmm_pause_vm",
        "vmm_resume_vm",
    ]),
    one("logger", &[
        "missed_metrics_count", "metrics_fails", "missed_log_count", "rate_limited_log_count",
    ]),
    one("memory_hotplug", &[
        "activate_fails", "queue_event_fails", "queue_event_count", "plug_count", "plug_bytes",
        "plug_fails", "plug_agg", "unplug_count", "unplug_bytes", "unplug_fails",
        "unplug_discard_fails", "unplug_agg", "state_count", "state_fails", "state_agg",
        "unplug_all_count", "unplug_all_fails", "unplug_all_agg",
    ]),
    one("mmds", &[
        "rx_accepted", "rx_accepted_err", "rx_accepted_unusual", "rx_bad_eth", "rx_invalid_token",
        "rx_no_token", "rx_count", "tx_bytes", "tx_count", "tx_errors", "tx_frames",
        "connections_created", "connections_destroyed",
    ]),
    each("net", &[
        "activate_fails", "cfg_fails", "no_rx_avail_buffer", "no_tx_avail_buffer", "event_fails",
        "rx_queue_event_count", "rx_event_rate_limiter_count", "rx_rate_limiter_throttled",
        "rx_tap_event_count", "rx_bytes_count", "rx_packets_count", "rx_fails", "rx_count",
        "tap_read_fails", "tap_write_fails", "tx_bytes_count", "tx_malformed_frames", "tx_fails",
        "tx_count", "tx_packets_count", "tx_queue_event_count", "tx_rate_limiter_event_count",
        "tx_rate_limiter_throttled", "tx_spoofed_mac_count", "tx_remaining_reqs_count",
        "tap_write_agg",
    ]),
    one("patch_api_requests", &[
        "drive_count", "drive_fails", "network_count", "network_fails", "machine_cfg_count",
        "machine_cfg_fails", "mmds_count", "mmds_fails", "hotplug_memory_count",
        "hotplug_memory_fails", "pmem_count", "pmem_fails",
    ]),
    each("pmem", &[
        "activate_fails", "cfg_fails", "event_fails", "queue_event_count",
        "rate_limiter_throttled_events", "rate_limiter_event_count",
    ]),
    one("put_api_requests", &[
        "actions_count", "actions_fails", "boot_source_count", "boot_source_fails", "drive_count",
        "drive_fails", "logger_count", "logger_fails", "machine_cfg_count", "machine_cfg_fails",
        "cpu_cfg_count", "cpu_cfg_fails", "metrics_count", "metrics_fails", "network_count",
        "network_fails", "mmds_count", "mmds_fails", "vsock_count", "vsock_fails", "pmem_count",
        "pmem_fails", "serial_count", "serial_fails", "hotplug_memory_count",
        "hotplug_memory_fails",
    ]),
    one("rtc", &[
        "error_count", "missed_read_count", "missed_write_count",
    ]),
    one("seccomp", &[
        "num_faults",
    ]),
    one("signals", &[
        "sigbus", "sigsegv", "sigxfsz", "sigxcpu", "sigpipe", "sighup", "sigill",
    ]),
    one("uart", &[
        "error_count", "flush_count", "missed_read_count", "missed_write_count", "read_count",
        "write_count", "rate_limiter_dropped_bytes",
    ]),
    one("vcpu", &[
        "exit_io_in", "exit_io_out", "exit_mmio_read", "exit_mmio_write", "failures",
        "kvmclock_ctrl_fails", "exit_io_in_agg", "exit_io_out_agg", "exit_mmio_read_agg",
        "exit_mmio_write_agg",
    ]),
    one("vmm", &[
        "panic_count",
    ]),
    one("vsock", &[
        "activate_fails", "cfg_fails", "rx_queue_event_fails", "tx_queue_event_fails",
        "ev_queue_event_fails", "muxer_event_fails", "conn_event_fails", "rx_queue_event_count",
        "tx_queue_event_count", "rx_bytes_count", "tx_bytes_count", "rx_packets_count",
        "tx_packets_count", "conns_added", "conns_killed", "conns_removed", "killq_resync",
        "tx_flush_fails", "tx_write_fails", "rx_read_fails",
    ]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What Firecracker's own check of its metrics requires, and nothing else allows.
    const REQUIRED: &str = include_str!("keys.txt");

    #[test]
    fn the_keys_are_those_that_clients_require() {
        let sorted = |mut keys: Vec<&'static str>| {
            keys.sort_unstable();
            keys
        };
        let required: BTreeMap<_, _> = REQUIRED
            .lines()
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, keys)| (name, sorted(keys.split(' ').collect())))
            .collect();
        let here = GROUPS.iter().map(|group| (group.name, sorted(group.keys.to_vec())));
        assert_eq!(here.collect::<BTreeMap<_, _>>(), required);
    }
}
