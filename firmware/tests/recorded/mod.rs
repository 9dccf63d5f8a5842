//! What `cargo xtask record` found on real kernels: `resources/hosts`.

#![allow(dead_code, reason = "each test uses some of these")]

pub(crate) mod changes;

use std::path::Path;

use kedge_firmware::HostAbi;

/// The CPUs and kernels that there is a recording of.
pub(crate) const CPUS: [&str; 4] = ["a64fx", "cortex-a57", "max", "neoverse-n1"];
/// See [`CPUS`].
pub(crate) const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

/// The recording `<cpu>-<kernel>`, with its name.
pub(crate) fn host(name: &str) -> (String, HostAbi) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/hosts");
    let text = std::fs::read(folder.join(format!("{name}.json"))).unwrap();
    (name.to_owned(), serde_json::from_slice(&text).unwrap())
}

/// Recordings of `cpu` on each of `kernels`.
pub(crate) fn hosts(cpu: &str, kernels: &[&str]) -> Vec<(String, HostAbi)> {
    kernels.iter().map(|kernel| host(&format!("{cpu}-{kernel}"))).collect()
}
