//! Requests by Firecracker's keys (FIRECRACKER_API.md, 13): those of each method are a
//! group, in which some resources have a name. What has none is counted all the same, by
//! its path.

use std::sync::Arc;

use kedge_vmm::metrics::{Counters, Timings};

/// A request by its method and path, and the keys of how many there were, and of how many
/// were refused, if anybody asks for the latter.
type Key = (&'static str, &'static str, Option<&'static str>);

/// The groups.
#[rustfmt::skip]
pub(super) const METHODS: [(&str, &[Key]); 3] = [
    ("get_api_requests", &[
        ("GET /", "instance_info_count", None),
        ("GET /machine-config", "machine_cfg_count", None),
        ("GET /mmds", "mmds_count", None),
        ("GET /version", "vmm_version_count", None),
        ("GET /hotplug/memory", "hotplug_memory_count", None),
    ]),
    ("put_api_requests", &[
        ("PUT /actions", "actions_count", Some("actions_fails")),
        ("PUT /boot-source", "boot_source_count", Some("boot_source_fails")),
        ("PUT /drives/{drive_id}", "drive_count", Some("drive_fails")),
        ("PUT /logger", "logger_count", Some("logger_fails")),
        ("PUT /machine-config", "machine_cfg_count", Some("machine_cfg_fails")),
        ("PUT /cpu-config", "cpu_cfg_count", Some("cpu_cfg_fails")),
        ("PUT /metrics", "metrics_count", Some("metrics_fails")),
        ("PUT /network-interfaces/{iface_id}", "network_count", Some("network_fails")),
        ("PUT /mmds", "mmds_count", Some("mmds_fails")),
        ("PUT /mmds/config", "mmds_count", Some("mmds_fails")),
        ("PUT /vsock", "vsock_count", Some("vsock_fails")),
        ("PUT /pmem/{id}", "pmem_count", Some("pmem_fails")),
        ("PUT /serial", "serial_count", Some("serial_fails")),
        ("PUT /hotplug/memory", "hotplug_memory_count", Some("hotplug_memory_fails")),
    ]),
    ("patch_api_requests", &[
        ("PATCH /drives/{drive_id}", "drive_count", Some("drive_fails")),
        ("PATCH /network-interfaces/{iface_id}", "network_count", Some("network_fails")),
        ("PATCH /machine-config", "machine_cfg_count", Some("machine_cfg_fails")),
        ("PATCH /mmds", "mmds_count", Some("mmds_fails")),
        ("PATCH /hotplug/memory", "hotplug_memory_count", Some("hotplug_memory_fails")),
        ("PATCH /pmem/{id}", "pmem_count", Some("pmem_fails")),
    ]),
];

/// The requests of one method.
#[derive(Debug)]
pub(super) struct OfMethod {
    pub(super) requests: Arc<Timings>,
    pub(super) keys: &'static [Key],
}

impl Counters for OfMethod {
    fn each(&self, to: &mut dyn FnMut(&'static str, u64)) {
        let mut sums: Vec<(&'static str, u64)> = Vec::new();
        let mut add = |key, more| match sums.iter_mut().find(|(other, _)| *other == key) {
            Some((_, sum)) => *sum += more,
            None => sums.push((key, more)),
        };
        for (kind, count, fails) in self.keys {
            let timing = self.requests.of(kind);
            add(count, timing.count);
            fails.iter().for_each(|fails| add(fails, timing.failed.unwrap_or(0)));
        }
        sums.into_iter().for_each(|(key, sum)| to(key, sum));
    }
}

#[cfg(test)]
mod tests {
    use kedge_api::call::routes;
    use kedge_vmm::metrics::GROUPS;

    use super::*;

    #[test]
    fn every_request_and_every_key_is_one_that_there_is() {
        for (group, keys) in METHODS {
            let group = GROUPS.iter().find(|known| known.name == group).unwrap();
            for (kind, count, fails) in keys {
                assert!(routes().any(|route| route.to_string() == *kind), "{kind}");
                let keys = fails.iter().chain([count]);
                keys.for_each(|key| assert!(group.keys.contains(key), "{key}"));
            }
        }
    }
}
