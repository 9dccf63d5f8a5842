//! Requests by `io_uring`: what the driver sees is what it sees without.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use expect_test::expect;
use kedge_bus::Stateful;
use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::tests::{
    DISCARD, FLUSH, IN, IOERR, OK, OUT, UNSUPP, config, drive, fetch, header, image, send,
};
use super::*;
use crate::virtio::catalog::DeviceConfig;
use crate::virtio::limits::{RateLimiter, TokenBucket};
use crate::virtio::testing::{Driver, wait_for};

fn by_uring(image: &NamedTempFile) -> BlockConfig {
    BlockConfig { engine: Engine::Async, ..config(image.path()) }
}

#[test]
fn sectors_are_read_written_and_flushed() {
    let image = image();
    let mut driver = drive(&by_uring(&image));
    assert_eq!(fetch(&mut driver, IN, 2, 1024).1[..512], [2; 512]);
    assert_eq!(send(&mut driver, OUT, 7, &[0x55; 512]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    assert_eq!(fs::read(image.path()).unwrap()[7 * 512..], [0x55; 512]);
    assert!(driver.wait_interrupt());
}

#[test]
fn what_the_driver_may_not_ask_for_is_an_error_as_without() {
    let image = image();
    let mut driver = drive(&by_uring(&image));
    assert_eq!(fetch(&mut driver, IN, 8, 512).0, IOERR);
    assert_eq!(fetch(&mut driver, IN, 0, 100).0, IOERR);
    assert_eq!(send(&mut driver, OUT, u64::MAX, &[0; 512]), IOERR);
    assert_eq!(send(&mut driver, 77, 0, &[]), UNSUPP);
    assert_eq!(send(&mut driver, DISCARD, 0, &[0xff; 16]), UNSUPP);
    let read_only = BlockConfig { access: Access::ReadOnly, ..by_uring(&image) };
    drop(driver);
    assert_eq!(send(&mut drive(&read_only), OUT, 0, &[0; 512]), IOERR);
}

#[test]
fn a_file_that_shrinks_is_an_error_to_the_guest() {
    let image = image();
    let mut driver = drive(&by_uring(&image));
    image.as_file().set_len(3 * 512).unwrap();
    let (offered, used) = driver.request(&[&header(IN, 2)], &[1024, 1]).unwrap();
    assert_eq!((used.length, driver.bytes(offered.writable[1], 1)), (0, vec![IOERR]));
    assert_eq!(fetch(&mut driver, IN, 2, 512), (OK, vec![2; 512]));
}

#[test]
fn more_requests_than_can_be_in_flight_are_all_done() {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    for sector in 0..2048_u16 {
        image.as_file().write_all_at(&sector.to_le_bytes(), u64::from(sector) * 512).unwrap();
    }
    let mut driver = drive(&BlockConfig { queues: 8, ..by_uring(&image) });
    let mut sector = 0;
    let mut offered = vec![Vec::new(); 8];
    for (queue, offered) in offered.iter_mut().enumerate() {
        for _ in 0..85 {
            sector += 1;
            let request = driver.offer(queue, &[&header(IN, sector)], &[512, 1]);
            offered.push((sector, request));
        }
    }
    (0..8).for_each(|queue| driver.kick(queue));
    for (queue, offered) in offered.iter().enumerate() {
        for _ in offered {
            assert_eq!(driver.wait_used(queue).unwrap().length, 513);
        }
        for (sector, request) in offered {
            let found = driver.bytes(request.writable[0], 2);
            assert_eq!(u64::from(u16::from_le_bytes([found[0], found[1]])), *sector);
            assert_eq!(driver.bytes(request.writable[1], 1), [OK]);
        }
    }
}

#[test]
fn what_is_in_flight_is_done_before_a_disk_rests() {
    let image = image();
    let config = by_uring(&image);
    let mut driver = drive(&config);
    let offered: Vec<_> =
        (0..80).map(|_| driver.offer(0, &[&header(OUT, 3), &[0x33; 512]], &[1])).collect();
    driver.kick(0);
    let saved = driver.save();
    let done = driver.used_index(0);
    let mut moved = driver.moved(config.open().unwrap(), &saved).unwrap();
    moved.transport.resume().unwrap();
    for _ in &offered {
        assert!(moved.wait_used(0).is_some());
    }
    assert!(done <= 80);
    for offered in offered {
        assert_eq!(moved.bytes(offered.writable[0], 1), [OK]);
    }
    assert_eq!(fetch(&mut moved, IN, 3, 512), (OK, vec![0x33; 512]));
}

#[test]
fn a_disk_that_does_not_answer_keeps_its_machine_from_resting_but_not_for_ever() {
    let image = image();
    let config = by_uring(&image);
    let mut disk = Disk::open(&config).unwrap();
    let (silent, mut voice) = UnixStream::pair().unwrap();
    disk.replace_file(File::from(OwnedFd::from(silent)));
    let mut driver = Driver::running(Box::new(Block::new(disk, 1, Limits::default())), 0);
    let offered = driver.offer(0, &[&header(IN, 0)], &[512, 1]);
    driver.kick(0);
    // Until the request is in flight, it rests all the same.
    let mut late = String::new();
    assert!(wait_for(|| {
        let soon = Instant::now() + Duration::from_millis(50);
        let paused = driver.transport.pause(soon).map_err(|error| late = error.to_string());
        paused.is_err() || driver.transport.resume().is_err()
    }));
    expect!["disk `root` has not finished its requests in time"].assert_eq(&late);
    voice.write_all(&[9; 512]).unwrap();
    assert_eq!(driver.wait_used(0).unwrap().length, 513);
    assert_eq!(driver.bytes(offered.writable[0], 512), [9; 512]);
    let next = driver.offer(0, &[&header(IN, 0)], &[512, 1]);
    driver.kick(0);
    voice.write_all(&[8; 512]).unwrap();
    assert!(driver.wait_used(0).is_some());
    assert_eq!(driver.bytes(next.writable[0], 512), [8; 512]);
    driver.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
}

#[test]
fn limits_hold_for_what_is_in_flight() {
    let image = image();
    let ops = TokenBucket { size: 1, refill_time: 10, one_time_burst: None };
    let limits = RateLimiter { bandwidth: None, ops: Some(ops) };
    let mut driver = drive(&BlockConfig { limits, ..by_uring(&image) });
    for _ in 0..4 {
        driver.offer(0, &[&header(IN, 0)], &[512, 1]);
    }
    driver.kick(0);
    assert!((0..4).all(|_| driver.wait_used(0).is_some()));
}

#[test]
fn direct_access_goes_by_the_cache_where_it_does_not_fit() {
    let image = NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    fs::write(image.path(), vec![0x77; 1 << 16]).unwrap();
    let mut driver = drive(&BlockConfig { caching: Caching::Direct, ..by_uring(&image) });
    assert_eq!(send(&mut driver, OUT, 8, &[1; 4096]), OK);
    let (offered, _) = driver.request(&[&header(IN, 8)], &[5, 500, 7, 1]).unwrap();
    assert_eq!(driver.bytes(offered.writable[0], 5), [1; 5]);
    assert_eq!(driver.bytes(offered.writable[3], 1), [OK]);
    assert_eq!(fetch(&mut driver, IN, 8, 4096), (OK, vec![1; 4096]));
}

/// What a driver finds after `steps`: of each, the status and what was used, and the
/// disk at the end.
fn outcome(engine: Engine, steps: &[(u32, u64, Vec<u8>)]) -> (Vec<(u8, u32)>, Vec<u8>) {
    let image = image();
    let mut driver: Driver = drive(&BlockConfig { engine, ..config(image.path()) });
    let mut seen = Vec::new();
    for (kind, sector, data) in steps {
        let header = header(*kind, *sector);
        let (readable, writable): (&[&[u8]], &[usize]) = match *kind {
            IN => (&[&header], &[data.len(), 1]),
            _ => (&[&header, data], &[1]),
        };
        let (offered, used) = driver.request(readable, writable).unwrap();
        let status = driver.bytes(*offered.writable.last().unwrap(), 1)[0];
        seen.push((status, used.length));
    }
    (seen, fs::read(image.path()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn both_engines_do_the_same(
        steps in prop::collection::vec(
            (
                prop_oneof![Just(IN), Just(OUT), Just(FLUSH), 0_u32..16],
                0_u64..10,
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 512),
                    prop::collection::vec(any::<u8>(), 1024),
                    prop::collection::vec(any::<u8>(), 1..1500),
                ],
            ),
            1..12,
        )
    ) {
        prop_assert_eq!(outcome(Engine::Sync, &steps), outcome(Engine::Async, &steps));
    }
}
