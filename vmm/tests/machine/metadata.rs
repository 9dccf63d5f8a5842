//! A machine with a metadata service, as far as it goes without a network.

use expect_test::expect;
use kedge_devices::virtio::rng;
use kedge_diag::report;
use kedge_vmm::metadata::Config;
use serde_json::json;

use crate::guest::Guest;
use crate::pause::letters;

#[test]
fn a_machine_without_the_card_cannot_have_metadata_behind_it() {
    let config: Config = serde_json::from_value(json!({"network_interfaces": ["rng"]})).unwrap();
    let guest = Guest::new(&[letters()]).with(|spec| {
        spec.devices.push((rng::KIND.from_flag)("", 0).unwrap());
        spec.metadata = Some(config);
    });
    expect![[r#"
        error: there is no network interface `rng` for the metadata service
          fix: name network interfaces that the machine has by then"#]]
    .assert_eq(&report(&guest.build().err().unwrap()));
}
