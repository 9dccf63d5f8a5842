//! The entropy device under a driver, well-behaved and not.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use expect_test::expect;
use kedge_diag::report;
use serde_json::json;

use super::*;
use crate::virtio::limits::TokenBucket;
use crate::virtio::testing::{Driver, TestLoop, Used, WRITE, wait_for};

fn sevens(buffer: &mut [u8]) -> io::Result<usize> {
    buffer.fill(7);
    Ok(buffer.len())
}

fn device(
    source: impl Fn(&mut [u8]) -> io::Result<usize> + Send + Sync + 'static,
) -> Box<dyn VirtioDevice> {
    Box::new(Rng::from_source(Arc::new(source)))
}

#[test]
fn a_buffer_is_filled_and_the_driver_told() {
    let mut driver = Driver::running(device(sevens), 0);
    let (offered, used) = driver.request(&[], &[10, 300]).unwrap();
    assert_eq!(used, Used { head: 0, length: 310 });
    assert_eq!(driver.bytes(offered.writable[0], 10), [7; 10]);
    assert_eq!(driver.bytes(offered.writable[1], 300), [7; 300]);
    assert!(driver.wait_interrupt());
}

#[test]
fn the_hosts_bytes_are_not_all_alike() {
    let mut driver = Driver::running(Box::new(Rng::new()), 0);
    let (offered, _) = driver.request(&[], &[64]).unwrap();
    let bytes = driver.bytes(offered.writable[0], 64);
    assert_ne!(bytes, [0xaa; 64]);
    assert_ne!(bytes[..32], bytes[32..]);
}

#[test]
fn a_huge_buffer_gets_64_kib_at_a_time() {
    let mut driver = Driver::running(device(sevens), 0);
    let (offered, used) = driver.request(&[], &[100_000]).unwrap();
    assert_eq!(used.length, 65536);
    assert_eq!(driver.bytes(offered.writable[0] + 65535, 2), [7, 0xaa]);
}

#[test]
fn what_the_host_has_not_is_not_made_up_but_comes_later() {
    let seeded = AtomicBool::new(false);
    let late = move |buffer: &mut [u8]| {
        let seeded = seeded.swap(true, Ordering::SeqCst);
        seeded.then_some(()).ok_or(io::ErrorKind::WouldBlock)?;
        sevens(buffer)
    };
    let mut driver = Driver::running(device(late), 0);
    let (offered, used) = driver.request(&[], &[16]).unwrap();
    assert_eq!(used.length, 16);
    assert_eq!(driver.bytes(offered.writable[0], 16), [7; 16]);
}

#[test]
fn many_buffers_are_filled_in_order() {
    let mut driver = Driver::running(device(sevens), 0);
    let heads: Vec<u16> = (0..256).map(|_| driver.offer(0, &[], &[8]).head).collect();
    driver.kick(0);
    let used: Vec<u32> = heads.iter().map(|_| driver.wait_used(0).unwrap().head).collect();
    assert_eq!(used, heads.iter().copied().map(u32::from).collect::<Vec<_>>());
}

#[test]
fn a_buffer_to_read_is_the_drivers_fault() {
    let mut driver = Driver::running(device(sevens), 0);
    driver.offer(0, &[b"question"], &[8]);
    driver.kick(0);
    assert!(driver.wait_broken());
    assert_eq!(driver.used_index(0), 0);
}

#[test]
fn one_corrupt_device_leaves_its_neighbours_alone() {
    let event_loop = TestLoop::start();
    let mut hostile = Driver::on(&event_loop, device(sevens));
    let mut neighbour = Driver::on(&event_loop, device(sevens));
    hostile.run(0);
    neighbour.run(0);
    let head = hostile.chain(0, &[(0xdead_0000_0000, 64, WRITE)]);
    hostile.make_available(0, head);
    hostile.kick(0);
    assert!(hostile.wait_broken());
    assert_eq!(neighbour.request(&[], &[8]).unwrap().1.length, 8);
}

#[test]
fn a_reset_device_works_again() {
    let mut driver = Driver::running(device(sevens), 0);
    driver.set_available_index(0, 12345);
    driver.kick(0);
    assert!(driver.wait_broken());
    driver.run(0);
    assert_eq!(driver.request(&[], &[8]).unwrap().1.length, 8);
}

/// A bucket that does not fill while a test runs.
fn slow(size: u64) -> TokenBucket {
    TokenBucket { size, refill_time: 1_000_000_000, one_time_burst: None }
}

#[test]
fn a_limit_on_bytes_holds_requests_back() {
    let limits = RateLimiter { bandwidth: Some(slow(100)), ops: None };
    let rng = Rng::from_source(Arc::new(sevens)).limited(limits);
    let metrics = Arc::clone(rng.metrics());
    let mut driver = Driver::running(Box::new(rng), 0);
    (0..3).for_each(|_| drop(driver.offer(0, &[], &[40])));
    driver.kick(0);
    assert!(driver.wait_used(0).is_some() && driver.wait_used(0).is_some());
    let throttled = || metrics.entropy_rate_limiter_throttled.load(Ordering::Relaxed) > 0;
    assert!(wait_for(throttled));
    assert_eq!(driver.used_index(0), 2);
    assert_eq!(metrics.entropy_bytes.load(Ordering::Relaxed), 80);
    let left: crate::virtio::transport::saved::TransportV1 = driver.save().read().unwrap();
    let left = left.device.read::<saved::RngV1>().unwrap().limits.unwrap();
    assert_eq!(left.bandwidth.unwrap().budget, 20);
}

#[test]
fn a_request_held_back_is_served_when_its_time_comes() {
    let soon = TokenBucket { size: 1, refill_time: 10, one_time_burst: None };
    let limits = RateLimiter { bandwidth: None, ops: Some(soon) };
    let rng = Rng::from_source(Arc::new(sevens)).limited(limits);
    let mut driver = Driver::running(Box::new(rng), 0);
    (0..3).for_each(|_| drop(driver.offer(0, &[], &[40])));
    driver.kick(0);
    (0..3).for_each(|_| assert_eq!(driver.wait_used(0).unwrap().length, 40));
}

#[test]
fn limits_are_given_by_flag_and_by_body() {
    let json = json!({"rate_limiter": {
        "bandwidth": {"size": 65536, "refill_time": 1000, "one_time_burst": null},
        "ops": {"size": 5, "refill_time": 100, "one_time_burst": null},
    }});
    let config = (KIND.from_flag)("bandwidth=64K,ops=5/100ms", 0).unwrap();
    assert_eq!(config.to_json(), json);
    assert_eq!((KIND.from_json)(json.clone()).unwrap().to_json(), json);
    assert_eq!((KIND.from_flag)("", 0).unwrap().to_json(), json!({}));
}

#[test]
fn a_rate_limit_that_limits_nothing_is_fine() {
    assert!((KIND.from_json)(json!({"rate_limiter": null})).is_ok());
    assert!((KIND.from_json)(json!({"rate_limiter": {}})).is_ok());
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let error = (KIND.from_json)(json!({"colour": "red"})).unwrap_err();
    expect![[r#"
        error: `entropy` in the configuration file is not right
          because: unknown field `colour`, expected `rate_limiter`
          fix: correct the field named above: they are those of Firecracker's API"#]]
    .assert_eq(&report(&error));
}

#[test]
fn an_unknown_option_of_the_flag_is_refused_by_name() {
    let error = (KIND.from_flag)("fast", 0).unwrap_err();
    expect![[r#"
        error: --rng has no option `fast`
          fix: write `bandwidth=fast`"#]]
    .assert_eq(&report(&error));
}
