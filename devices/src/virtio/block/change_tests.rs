//! A disk that becomes another while its guest runs.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use expect_test::expect;
use kedge_bus::{MmioDevice, Stateful};
use kedge_diag::report;
use serde_json::{Value, json};

use super::tests::{IN, OK, OUT, config, drive, fetch, header, image, send};
use super::*;
use crate::virtio::catalog::DeviceConfig;
use crate::virtio::change::{ChangeError, Target};
use crate::virtio::limits::{RateLimiter, TokenBucket};
use crate::virtio::testing::Driver;
use crate::virtio::transport::reg;

const GET_ID: u32 = 8;
const CONFIG_CHANGE: u32 = 2;

fn change(driver: &Driver, mut body: Value) -> Result<(), ChangeError> {
    body["drive_id"] = json!("root");
    let change = Change::from_json(&KIND, body).unwrap();
    driver.transport.change(&change, Instant::now() + Duration::from_secs(10))
}

fn sectors(driver: &Driver) -> u64 {
    let mut sectors = [0; 8];
    driver.transport.read(reg::CONFIG, &mut sectors).unwrap();
    u64::from_le_bytes(sectors)
}

/// A disk of 16 sectors of this byte.
fn other(byte: u8) -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().write_all_at(&[byte; 16 * 512], 0).unwrap();
    image
}

#[test]
fn another_file_takes_the_place_of_the_disk_and_the_driver_is_told() {
    let (old, new) = (image(), other(0x77));
    let mut driver = drive(&config(old.path()));
    let serial = fetch(&mut driver, GET_ID, 0, 20);
    let generation = driver.read(reg::CONFIG_GENERATION);
    change(&driver, json!({"path_on_host": new.path()})).unwrap();
    assert_eq!(sectors(&driver), 16);
    assert_ne!(driver.read(reg::CONFIG_GENERATION), generation);
    assert_eq!(driver.read(reg::INTERRUPT_STATUS) & CONFIG_CHANGE, CONFIG_CHANGE);
    assert_eq!(fetch(&mut driver, IN, 15, 512), (OK, vec![0x77; 512]));
    assert_ne!(fetch(&mut driver, GET_ID, 0, 20), serial);
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), OK);
    assert_eq!(fs::read(old.path()).unwrap()[..512], [0; 512]);
}

#[test]
fn a_file_that_has_grown_is_seen_when_it_is_named_again() {
    let image = image();
    let driver = drive(&config(image.path()));
    image.as_file().set_len(32 * 512).unwrap();
    assert_eq!(sectors(&driver), 8);
    change(&driver, json!({"path_on_host": image.path()})).unwrap();
    assert_eq!(sectors(&driver), 32);
}

#[test]
fn a_file_that_cannot_be_opened_leaves_the_disk_as_it_was() {
    let image = image();
    let mut driver = drive(&config(image.path()));
    let error = change(&driver, json!({"path_on_host": "/nowhere/b.img"})).unwrap_err();
    expect![[r#"
        error: the disk `root` cannot be changed so
          because: disk `root`: there is no file /nowhere/b.img
          fix: correct the path, or make a disk: truncate -s 1G /nowhere/b.img"#]]
    .assert_eq(&report(&error));
    assert_eq!(driver.read(reg::INTERRUPT_STATUS) & CONFIG_CHANGE, 0);
    assert_eq!(fetch(&mut driver, IN, 2, 512), (OK, vec![2; 512]));
}

#[test]
fn no_request_is_lost_over_a_change() {
    let (old, new) = (image(), other(0x77));
    let mut driver = drive(&config(old.path()));
    let offered: Vec<_> =
        (0..80).map(|_| driver.offer(0, &[&header(OUT, 1), &[5; 512]], &[1])).collect();
    driver.kick(0);
    change(&driver, json!({"path_on_host": new.path()})).unwrap();
    for offered in offered {
        assert!(driver.wait_used(0).is_some());
        assert_eq!(driver.bytes(offered.writable[0], 1), [OK]);
    }
}

#[test]
fn a_limit_is_set_and_lifted() {
    let image = image();
    let slow = TokenBucket { size: 1, refill_time: 1_000_000_000, one_time_burst: None };
    let limits = RateLimiter { bandwidth: None, ops: Some(slow) };
    let mut driver = drive(&BlockConfig { limits, ..config(image.path()) });
    for _ in 0..3 {
        driver.offer(0, &[&header(IN, 0)], &[512, 1]);
    }
    driver.kick(0);
    assert!(driver.wait_used(0).is_some());
    change(&driver, json!({"rate_limiter": {"bandwidth": {"size": 512, "refill_time": 10}}}))
        .unwrap();
    assert_eq!(driver.used_index(0), 1);
    change(&driver, json!({"rate_limiter": {"ops": {"size": 0, "refill_time": 0}}})).unwrap();
    assert!(driver.wait_used(0).is_some() && driver.wait_used(0).is_some());
    assert_eq!(driver.read(reg::INTERRUPT_STATUS) & CONFIG_CHANGE, 0);
}

#[test]
fn a_disk_that_rests_changes_and_stays_at_rest() {
    let (old, new) = (image(), other(0x77));
    let mut driver = drive(&config(old.path()));
    driver.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
    let waiting = driver.offer(0, &[&header(IN, 0)], &[512, 1]);
    driver.kick(0);
    change(&driver, json!({"path_on_host": new.path()})).unwrap();
    assert_eq!(driver.used_index(0), 0);
    driver.transport.resume().unwrap();
    assert!(driver.wait_used(0).is_some());
    assert_eq!(driver.bytes(waiting.writable[0], 512), [0x77; 512]);
}

#[test]
fn a_driver_that_is_not_ready_is_told_nothing() {
    let (old, new) = (image(), other(0x77));
    let driver = Driver::new(config(old.path()).open().unwrap());
    let generation = driver.read(reg::CONFIG_GENERATION);
    change(&driver, json!({"path_on_host": new.path()})).unwrap();
    assert_ne!(driver.read(reg::CONFIG_GENERATION), generation);
    assert_eq!(driver.read(reg::INTERRUPT_STATUS), 0);
}

#[test]
fn a_disk_that_is_read_only_stays_so() {
    let (old, new) = (image(), other(0x77));
    let read_only = BlockConfig { access: Access::ReadOnly, ..config(old.path()) };
    let mut driver = drive(&read_only);
    change(&driver, json!({"path_on_host": new.path()})).unwrap();
    assert_ne!(send(&mut driver, OUT, 0, &[1; 512]), OK);
    assert_eq!(File::open(new.path()).unwrap().metadata().unwrap().len(), 16 * 512);
}
