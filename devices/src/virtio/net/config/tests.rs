//! Cards as users describe them: by flag, in a body, and what is refused.

use expect_test::{Expect, expect};
use kedge_diag::report;
use serde_json::json;

use super::*;

fn flag_refused(value: &str, expected: &Expect) {
    expected.assert_eq(&report(&(KIND.from_flag)(value, 0).unwrap_err()));
}

fn body_refused(value: Value, expected: &Expect) {
    expected.assert_eq(&report(&(KIND.from_json)(value).unwrap_err()));
}

#[test]
fn a_flag_says_all_there_is_to_say() {
    let config = (KIND.from_flag)("tap=tap0,mac=06:00:AC:10:00:02,mtu=9000,id=wan", 3).unwrap();
    assert_eq!(
        config.to_json(),
        json!({
            "iface_id": "wan", "host_dev_name": "tap0",
            "guest_mac": "06:00:ac:10:00:02", "mtu": 9000,
        })
    );
}

#[test]
fn a_flag_needs_only_the_tap_and_cards_are_counted() {
    let config = (KIND.from_flag)("tap=tap7", 3).unwrap();
    assert_eq!(config.to_json(), json!({"iface_id": "eth3", "host_dev_name": "tap7"}));
    assert_eq!(config.id(), "eth3");
}

#[test]
fn a_body_of_firecrackers_comes_out_as_it_went_in() {
    let body = json!({
        "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:ac:10:00:02",
        "mtu": 1400,
    });
    assert_eq!((KIND.from_json)(body.clone()).unwrap().to_json(), body);
}

#[test]
fn a_flag_without_a_tap_shows_its_usage() {
    flag_refused(
        "mtu=1500",
        &expect![[r#"
            error: --net needs `tap=`
              fix: write --net tap=NAME[,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,vhost=on|off][,id=NAME][,rx_bandwidth=RATE][,rx_ops=RATE][,tx_bandwidth=RATE][,tx_ops=RATE] or socket=PATH[,mac=ADDRESS][,mtu=BYTES][,queues=PAIRS][,id=NAME]"#]],
    );
}

#[test]
fn an_address_that_is_none_or_a_groups_is_refused() {
    flag_refused(
        "tap=tap0,mac=01:00:5e:00:00:01",
        &expect![[r#"
            error: --net cannot have `mac=01:00:5e:00:00:01`
              fix: give six pairs of hex digits, such as 06:00:ac:10:00:02, of which the first is even and not all are 0"#]],
    );
    for text in ["", "06:00:ac:10:00", "06:00:ac:10:00:02:03", "6:0:ac:10:0:2", "+6:00:ac:10:00:02"]
    {
        assert_eq!(text.parse::<MacAddress>(), Err(NotAMacAddress), "{text}");
    }
}

#[test]
fn an_mtu_out_of_range_is_refused() {
    flag_refused(
        "tap=tap0,mtu=67",
        &expect![[r#"
            error: --net cannot have `mtu=67`
              fix: give a number of bytes from 68 to 65535"#]],
    );
    body_refused(
        json!({"iface_id": "eth0", "host_dev_name": "tap0", "mtu": 65536}),
        &expect![[r#"
            error: `mtu` of `network-interfaces` cannot be `65536`
              fix: give a number of bytes from 68 to 65535"#]],
    );
}

#[test]
fn a_card_has_as_many_pairs_as_asked_for() {
    let config = (KIND.from_flag)("tap=tap0,queues=8", 0).unwrap();
    let json = json!({"iface_id": "eth0", "host_dev_name": "tap0", "queues": 8});
    assert_eq!(config.to_json(), json);
    assert_eq!((KIND.from_json)(json.clone()).unwrap().to_json(), json);
    let one = (KIND.from_flag)("tap=tap0,queues=1", 0).unwrap();
    assert_eq!(one.to_json(), json!({"iface_id": "eth0", "host_dev_name": "tap0"}));
}

#[test]
fn no_pairs_and_too_many_are_refused() {
    for flag in ["tap=tap0,queues=0", "tap=tap0,queues=9", "fd=3:4,queues=3", "tap=t,queues="] {
        let error = (KIND.from_flag)(flag, 0).unwrap_err();
        assert!(error.to_string().starts_with("--net cannot have `queues="), "{error}");
    }
    body_refused(
        json!({"iface_id": "eth0", "host_dev_name": "tap0", "queues": 9}),
        &expect![[r#"
            error: `queues` of `network-interfaces` cannot be `9`
              fix: give a number of pairs from 1 to 8, as many as descriptors where these are given"#]],
    );
}

#[test]
fn descriptors_stand_where_a_name_could() {
    let config = (KIND.from_flag)("fd=7:8,id=lan", 0).unwrap();
    let json = json!({"iface_id": "lan", "host_dev_name": "fd:7:8", "queues": 2});
    assert_eq!(config.to_json(), json);
    assert_eq!((KIND.from_json)(json.clone()).unwrap().to_json(), json);
    assert_eq!((KIND.from_flag)("tap=fd:7:8,id=lan", 0).unwrap().to_json(), json);
}

#[test]
fn what_is_no_descriptor_is_refused() {
    flag_refused(
        "fd=-1",
        &expect![[r#"
            error: --net cannot have `fd=-1`
              fix: give the number of an open descriptor, or several with colons between, up to 8"#]],
    );
    flag_refused(
        "fd=3,tap=tap0",
        &expect![[r#"
            error: --net cannot have `fd=3`
              fix: give either `tap` or `fd`"#]],
    );
    body_refused(
        json!({"iface_id": "eth0", "host_dev_name": "fd:"}),
        &expect![[r#"
            error: `host_dev_name` of `network-interfaces` cannot be `fd:`
              fix: give the name of a tap interface, or `fd:` and the number of an open descriptor"#]],
    );
}

#[test]
fn a_name_with_other_signs_is_refused() {
    flag_refused(
        "tap=tap0,id=my-net",
        &expect![[r#"
            error: --net cannot have `id=my-net`
              fix: give letters, digits and underscores"#]],
    );
}

#[test]
fn limits_are_given_by_flag_and_by_body() {
    let flag = "tap=tap0,rx_bandwidth=1M,tx_ops=500/100ms+20";
    let json = json!({
        "iface_id": "eth0", "host_dev_name": "tap0",
        "rx_rate_limiter": {
            "bandwidth": {"size": 1_048_576, "refill_time": 1000, "one_time_burst": null},
            "ops": null,
        },
        "tx_rate_limiter": {
            "bandwidth": null,
            "ops": {"size": 500, "refill_time": 100, "one_time_burst": 20},
        },
    });
    assert_eq!((KIND.from_flag)(flag, 0).unwrap().to_json(), json);
    assert_eq!((KIND.from_json)(json.clone()).unwrap().to_json(), json);
}

#[test]
fn frames_are_the_kernels_where_that_is_asked_for() {
    let json = json!({"iface_id": "eth0", "host_dev_name": "tap0", "vhost": true});
    for flag in ["tap=tap0,vhost=on", "tap=tap0,vhost"] {
        let config = (KIND.from_flag)(flag, 0).unwrap();
        assert_eq!(config.to_json(), json);
        assert!(config.is_in_kernel());
    }
    assert_eq!((KIND.from_json)(json.clone()).unwrap().to_json(), json);
    let none = (KIND.from_flag)("tap=tap0,vhost=off", 0).unwrap();
    assert_eq!(none.to_json(), json!({"iface_id": "eth0", "host_dev_name": "tap0"}));
    assert!(!none.is_in_kernel());
}

#[test]
fn limits_are_refused_where_frames_are_the_kernels() {
    flag_refused(
        "tap=tap0,vhost=on,tx_ops=20",
        &expect![[r#"
        error: --net cannot have `tx_ops=20`
          fix: give no limit beside `vhost`: it is the host's kernel that carries the frames then"#]],
    );
    let limits = json!({"ops": {"size": 1, "refill_time": 1}});
    let mut body = json!({"iface_id": "eth0", "host_dev_name": "tap0", "vhost": true});
    body["tx_rate_limiter"] = limits;
    body_refused(
        body,
        &expect![[r#"
        error: `tx_rate_limiter` of `network-interfaces` does not go with `vhost`
          fix: leave `tx_rate_limiter` or `vhost` out"#]],
    );
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    body_refused(
        json!({"iface_id": "eth0", "host_dev_name": "tap0", "speed": 2}),
        &expect![[r#"
            error: `network-interfaces` in the configuration file is not right
              because: unknown field `speed`, expected one of `iface_id`, `host_dev_name`, `socket`, `guest_mac`, `mtu`, `queues`, `vhost`, `rx_rate_limiter`, `tx_rate_limiter`
              fix: correct the field named above: they are those of Firecracker's API"#]],
    );
}

#[test]
fn a_tap_that_does_not_exist_is_an_error_of_opening() {
    let config = (KIND.from_flag)("tap=a/b", 0).unwrap();
    let error = config.open().map(|_| ()).unwrap_err();
    expect!["`a/b` cannot be the name of a network interface"].assert_eq(&error.to_string());
}
