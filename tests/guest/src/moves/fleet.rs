//! Fleets that were recorded: hosts with one processor and four kernels.

use crate::host::{Host, Need};

/// The hosts of a fleet: name and probe of each.
type Hosts = [(&'static str, &'static str); 4];

macro_rules! fleet {
    ($cpu:literal) => {
        (
            $cpu,
            [
                recorded!($cpu, "5.10"),
                recorded!($cpu, "6.1"),
                recorded!($cpu, "6.12"),
                recorded!($cpu, "7.2"),
            ],
        )
    };
}

macro_rules! recorded {
    ($cpu:literal, $kernel:literal) => {
        (
            concat!($cpu, "-", $kernel),
            include_str!(concat!("../../../../resources/hosts/", $cpu, "-", $kernel, ".json")),
        )
    };
}

/// By processor.
const FLEETS: [(&str, Hosts); 4] =
    [fleet!("neoverse-n1"), fleet!("max"), fleet!("cortex-a57"), fleet!("a64fx")];

/// The fleet that the host is one of: recorded are hosts with pages of 4 KiB and a GICv3.
pub(super) fn of(host: &Host) -> Option<Hosts> {
    let needs = [Need::GicV3, Need::SmallPages];
    let fleet = FLEETS.into_iter().find(|(cpu, _)| host.lacks(Need::Cpu(cpu)).is_none());
    fleet
        .filter(|_| needs.into_iter().all(|need| host.lacks(need).is_none()))
        .map(|(_, hosts)| hosts)
}
