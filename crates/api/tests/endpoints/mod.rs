//! The table: every request of Firecracker's interface (FIRECRACKER_API.md, 3), and kedge's
//! own.

use kedge_api::http::Method::{self, Delete, Get, Patch, Put};

/// A request.
pub(crate) struct Endpoint {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    /// Firecracker's fields.
    pub(crate) fields: &'static [&'static str],
    /// What comes of it where kedge has what it is about.
    pub(crate) answer: &'static str,
    /// The test that shows it.
    pub(crate) shown: &'static str,
}

const fn row(
    method: Method,
    path: &'static str,
    fields: &'static [&'static str],
    answer: &'static str,
    shown: &'static str,
) -> Endpoint {
    Endpoint { method, path, fields, answer, shown }
}

#[rustfmt::skip]
const BALLOON: &[&str] = &[
    "amount_mib", "deflate_on_oom", "stats_polling_interval_s", "free_page_hinting",
    "free_page_reporting",
];
const MACHINE: &[&str] =
    &["vcpu_count", "mem_size_mib", "smt", "cpu_template", "track_dirty_pages", "huge_pages"];
#[rustfmt::skip]
const DRIVE: &[&str] = &[
    "drive_id", "is_root_device", "partuuid", "cache_type", "is_read_only", "path_on_host",
    "rate_limiter", "io_engine", "socket",
];
const CARD: &[&str] =
    &["iface_id", "host_dev_name", "guest_mac", "mtu", "rx_rate_limiter", "tx_rate_limiter"];
#[rustfmt::skip]
const LOAD: &[&str] = &[
    "snapshot_path", "mem_backend", "mem_file_path", "track_dirty_pages",
    "enable_diff_snapshots", "resume_vm", "network_overrides", "vsock_override",
    "clock_realtime", "huge_pages",
];
const LOGGER: &[&str] = &["log_path", "level", "show_level", "show_log_origin", "module"];
const MMDS_CONFIG: &[&str] = &["network_interfaces", "version", "ipv4_address", "imds_compat"];
const REMOVED: &str =
    "for what came while the guest ran: it is asked, and answered once it has let go";
const SAME: &str = "the same";
const NONE: &str = "what_kedge_has_not_is_named";
const DESCRIBED: &str = "what_is_said_of_a_machine_is_shown";
const EARLY: &str = "what_is_for_machines_that_have_started_is_refused_by_its_words";
const BOOTED: &str = "door::linux_boots_by_the_api_alone";
const PLUGGED: &str = "plug::a_disk_and_a_card_come_and_go_in_use_also_after_a_move";
const METADATA: &str = "metadata::a_guest_reads_it_over_every_card_it_is_behind";
const LIFE: &str = "door::a_machine_is_described_started_saved_and_loaded";

#[rustfmt::skip]
pub(crate) const ENDPOINTS: &[Endpoint] = &[
    row(Get, "/", &[], SAME, "it_says_who_it_is_and_ends_with_its_socket"),
    row(Get, "/version", &[], SAME, "it_says_who_it_is_and_ends_with_its_socket"),
    row(Get, "/vm/config", &[], SAME, "a_machine_of_which_nothing_is_said_has_firecrackers_defaults"),
    row(Put, "/actions", &["action_type"], SAME, "door::a_start_that_fails_can_be_mended_and_tried_again"),
    row(Patch, "/vm", &["state"], SAME, LIFE),
    row(Get, "/machine-config", &[], SAME, DESCRIBED),
    row(Put, "/machine-config", MACHINE, "the same; no huge pages, no template V1N1", DESCRIBED),
    row(Patch, "/machine-config", MACHINE, "the same; no huge pages, no template V1N1", DESCRIBED),
    row(Put, "/cpu-config", &["kvm_capabilities", "vcpu_features", "reg_modifiers"], "promises on top of the guest's profile; what contradicts it is refused", "what_no_guest_can_be_promised_is_refused"),
    row(Put, "/boot-source", &["kernel_image_path", "initrd_path", "boot_args"], SAME, BOOTED),
    row(Put, "/drives/{drive_id}", DRIVE, SAME, BOOTED),
    row(Patch, "/drives/{drive_id}", &["drive_id", "path_on_host", "rate_limiter"], SAME, "a_change_to_a_disk_is_read"),
    row(Delete, "/drives/{drive_id}", &[], REMOVED, PLUGGED),
    row(Put, "/pmem/{id}", &["id", "path_on_host", "root_device", "read_only", "rate_limiter"], SAME, NONE),
    row(Patch, "/pmem/{id}", &["id", "rate_limiter"], SAME, NONE),
    row(Delete, "/pmem/{id}", &[], SAME, NONE),
    row(Put, "/network-interfaces/{iface_id}", CARD, SAME, BOOTED),
    row(Patch, "/network-interfaces/{iface_id}", &["iface_id", "rx_rate_limiter", "tx_rate_limiter"], SAME, EARLY),
    row(Delete, "/network-interfaces/{iface_id}", &[], REMOVED, PLUGGED),
    row(Put, "/vsock", &["guest_cid", "uds_path", "vsock_id"], SAME, "a_vsock_device_listens_as_soon_as_it_is_described"),
    row(Get, "/mmds", &[], SAME, "metadata_is_put_merged_and_shown"),
    row(Put, "/mmds", &[], SAME, METADATA),
    row(Patch, "/mmds", &[], SAME, METADATA),
    row(Put, "/mmds/config", MMDS_CONFIG, SAME, "a_service_is_behind_cards_that_there_are"),
    row(Put, "/entropy", &["rate_limiter"], SAME, BOOTED),
    row(Put, "/serial", &["serial_out_path", "rate_limiter"], "the same; no rate limit", LIFE),
    row(Get, "/balloon", &[], SAME, NONE),
    row(Put, "/balloon", BALLOON, SAME, NONE),
    row(Patch, "/balloon", &["amount_mib"], SAME, NONE),
    row(Get, "/balloon/statistics", &[], SAME, NONE),
    row(Patch, "/balloon/statistics", &["stats_polling_interval_s"], SAME, NONE),
    row(Patch, "/balloon/hinting/start", &["acknowledge_on_stop"], SAME, NONE),
    row(Get, "/balloon/hinting/status", &[], SAME, NONE),
    row(Patch, "/balloon/hinting/stop", &[], SAME, NONE),
    row(Put, "/hotplug/memory", &["total_size_mib", "block_size_mib", "slot_size_mib"], SAME, NONE),
    row(Get, "/hotplug/memory", &[], SAME, NONE),
    row(Patch, "/hotplug/memory", &["requested_size_mib"], SAME, NONE),
    row(Put, "/logger", LOGGER, "the same, at any time", "the_log_can_be_changed_at_any_time"),
    row(Put, "/metrics", &["metrics_path", "emit_id", "properties"], SAME, "metrics_go_to_one_place_and_no_other"),
    row(Put, "/snapshot/create", &["snapshot_path", "mem_file_path", "snapshot_type"], SAME, LIFE),
    row(Put, "/snapshot/load", LOAD, "the same; `clock_realtime` is refused, as there on arm64; a load that fails can be tried again", LIFE),
];

/// kedge's own.
#[rustfmt::skip]
pub(crate) const OWN: &[Endpoint] = &[
    row(Put, "/guest-abi", &[], "what the guest is promised: a profile's name, or the document itself", DESCRIBED),
    row(Get, "/metrics", &[], "all that is counted, as Prometheus reads it: see `metrics.md`", LIFE),
    row(Get, "/events", &[], "what becomes of the machine, as it happens, in lines of JSON: see `events.md`", LIFE),
    row(Get, "/openapi.json", &[], "what can be asked for, as OpenAPI 3.1: `resources/api/openapi.yaml`", "it_says_what_can_be_asked_for"),
    row(Put, "/snapshot/check", &[], "what a load would do, register by register, as `kedge abi check --snapshot STATE --json` prints it", "a_snapshot_is_not_loaded_over_a_machine_that_is_described"),
    row(Put, "/clone", &[], "machines like itself: see `clone.md`", "clones_stand_still_and_are_counted_from_one_unless_it_is_said"),
];
