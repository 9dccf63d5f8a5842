//! A disk that may only go so fast.

use std::time::Instant;

use kedge_bus::Stateful;

use super::saved::BlockV1;
use super::tests::{IN, config, drive, header, image};
use super::*;
use crate::virtio::catalog::DeviceConfig;
use crate::virtio::limits::saved::BucketV1;
use crate::virtio::limits::{RateLimiter, TokenBucket};
use crate::virtio::testing::Driver;
use crate::virtio::transport::saved::TransportV1;

/// A bucket that does not fill while a test runs.
fn slow(size: u64) -> TokenBucket {
    TokenBucket { size, refill_time: 1_000_000_000, one_time_burst: None }
}

fn offer_reads(driver: &mut Driver, count: u16) {
    for _ in 0..count {
        driver.offer(0, &[&header(IN, 0)], &[512, 1]);
    }
    driver.kick(0);
}

/// How many requests are done once the device has nothing more to do for now.
fn done_at_rest(driver: &Driver) -> u16 {
    driver.transport.pause(Instant::now() + std::time::Duration::from_secs(10)).unwrap();
    driver.transport.resume().unwrap();
    driver.transport.pause(Instant::now() + std::time::Duration::from_secs(10)).unwrap();
    driver.used_index(0)
}

#[test]
fn what_is_held_back_is_done_when_its_time_comes() {
    let image = image();
    let ops = TokenBucket { size: 1, refill_time: 10, one_time_burst: None };
    let limits = RateLimiter { bandwidth: None, ops: Some(ops) };
    let mut driver = drive(&BlockConfig { limits, ..config(image.path()) });
    offer_reads(&mut driver, 4);
    for _ in 0..4 {
        assert_eq!(driver.wait_used(0).unwrap().length, 513);
    }
}

#[test]
fn bytes_and_operations_are_limited() {
    let image = image();
    let ops = RateLimiter { bandwidth: None, ops: Some(slow(3)) };
    let bytes = RateLimiter { bandwidth: Some(slow(1024)), ops: None };
    for (limits, most) in [(ops, 3), (bytes, 2)] {
        let mut driver = drive(&BlockConfig { limits, ..config(image.path()) });
        offer_reads(&mut driver, 5);
        for _ in 0..most {
            assert!(driver.wait_used(0).is_some());
        }
        assert_eq!(done_at_rest(&driver), most);
    }
}

#[test]
fn what_is_left_of_a_limit_goes_with_the_guest() {
    let image = image();
    let limits = RateLimiter { bandwidth: None, ops: Some(slow(3)) };
    let limited = BlockConfig { limits, ..config(image.path()) };
    let mut driver = drive(&limited);
    offer_reads(&mut driver, 2);
    assert!(driver.wait_used(0).is_some() && driver.wait_used(0).is_some());
    let saved = driver.save();
    let transport: TransportV1 = saved.read().unwrap();
    let left = transport.device.read::<BlockV1>().unwrap().limits.unwrap();
    assert_eq!(left.ops, Some(BucketV1 { budget: 1, burst: 0 }));

    let mut moved = driver.moved(limited.open().unwrap(), &saved).unwrap();
    moved.transport.resume().unwrap();
    offer_reads(&mut moved, 2);
    assert!(moved.wait_used(0).is_some());
    assert_eq!(done_at_rest(&moved), 3);
}
