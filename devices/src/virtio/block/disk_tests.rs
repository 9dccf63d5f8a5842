//! What a disk is besides a row of sectors: space that is given back, writes that
//! last, queues, and whose it is.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use expect_test::expect;
use kedge_bus::{MmioDevice, Stateful};
use kedge_diag::report;
use kedge_metrics::Counters;
use tempfile::NamedTempFile;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ,
    VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::disk::Lasting;
use super::lock::{Locked, lock};
use super::store::Store;
use super::tests::{
    DISCARD, FLUSH, IN, IOERR, OK, OUT, UNSUPP, config, drive, fetch, header, image, send,
};
use super::*;
use crate::virtio::catalog::DeviceConfig;
use crate::virtio::testing::Driver;
use crate::virtio::transport::reg;

const WRITE_ZEROES: u32 = 13;
const UNMAP: u32 = 1;

/// A disk of 1 MiB that is all 0x77 and stored as such.
fn full() -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    fs::write(image.path(), vec![0x77; 1 << 20]).unwrap();
    image.as_file().sync_all().unwrap();
    image
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

fn stored(image: &NamedTempFile) -> u64 {
    image.as_file().metadata().unwrap().blocks() * 512
}

#[test]
fn a_discard_frees_space_in_the_file() {
    let image = full();
    let mut driver = drive(&config(image.path()));
    let segments = [segment(0, 512, 0), segment(1024, 512, 0)].concat();
    assert_eq!(send(&mut driver, DISCARD, 0, &segments), OK);
    assert_eq!(stored(&image), 1 << 19);
    assert_eq!(image.as_file().metadata().unwrap().len(), 1 << 20);
    assert_eq!(fetch(&mut driver, IN, 512, 512), (OK, vec![0x77; 512]));
    assert_eq!(fetch(&mut driver, IN, 1024, 512), (OK, vec![0; 512]));
}

#[test]
fn zeroes_are_read_back_and_free_space_where_they_may() {
    let image = full();
    let mut driver = drive(&config(image.path()));
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(1, 1023, 0)), OK);
    assert_eq!(stored(&image), 1 << 20);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(1024, 1024, UNMAP)), OK);
    assert_eq!(stored(&image), 1 << 19);
    let content = fs::read(image.path()).unwrap();
    assert!(content[..512].iter().all(|byte| *byte == 0x77));
    assert!(content[512..].iter().all(|byte| *byte == 0));
}

#[test]
fn what_cannot_be_discarded_is_an_error_and_nothing_is() {
    let image = full();
    let mut driver = drive(&config(image.path()));
    let good = segment(0, 8, 0);
    let past_the_end = [good.clone(), segment(2047, 2, 0)].concat();
    let beyond_counting = [good.clone(), segment(u64::MAX, 8, 0)].concat();
    let too_many = good.repeat(17);
    for bad in [past_the_end, beyond_counting, too_many, good[..15].to_vec(), segment(0, 0, 0)] {
        assert_eq!(send(&mut driver, DISCARD, 0, &bad), IOERR);
    }
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &good.repeat(2)), IOERR);
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(0, 8, UNMAP)), UNSUPP);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(0, 8, 2)), UNSUPP);
    assert_eq!(fs::read(image.path()).unwrap(), vec![0x77; 1 << 20]);
}

#[test]
fn a_read_only_disk_discards_nothing() {
    let image = full();
    let mut driver = drive(&BlockConfig { access: Access::ReadOnly, ..config(image.path()) });
    let trim = 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
    assert_eq!(driver.offered() & trim, 0);
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(0, 8, 0)), IOERR);
    assert_eq!(stored(&image), 1 << 20);
}

#[test]
fn a_writable_disk_tells_of_all_it_can() {
    let image = image();
    let driver = drive(&config(image.path()));
    let bits = [
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_DISCARD,
        VIRTIO_BLK_F_WRITE_ZEROES,
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_CONFIG_WCE,
    ];
    let all = bits.iter().fold(0, |all, bit| all | 1_u64 << bit);
    assert_eq!(driver.offered() & all, all);
    assert_eq!(driver.offered() & 1 << VIRTIO_BLK_F_MQ, 0);
    assert_eq!(driver.read(reg::CONFIG + 36), 1 << 20);
    assert_eq!(driver.read(reg::CONFIG + 40), 16);
    assert_eq!(driver.read(reg::CONFIG + 48), 1 << 16);
    assert_eq!(driver.read(reg::CONFIG + 52), 1);
}

#[test]
fn writes_last_at_once_where_nobody_flushes() {
    let image = image();
    let lasting = |cache, features: u64| {
        Disk::open(&BlockConfig { cache, ..config(image.path()) }).unwrap().lasting(features)
    };
    let flush = 1 << VIRTIO_BLK_F_FLUSH;
    assert_eq!(lasting(Cache::Unsafe, 0), Lasting::Later);
    assert_eq!(lasting(Cache::Writethrough, 0), Lasting::AtOnce);
    assert_eq!(lasting(Cache::Writeback, 0), Lasting::AtOnce);
    assert_eq!(lasting(Cache::Writeback, flush), Lasting::Later);
    assert_eq!(lasting(Cache::Writeback, flush | 1 << VIRTIO_BLK_F_CONFIG_WCE), Lasting::Later);
}

fn writeback(driver: &Driver) -> u8 {
    let mut byte = [9];
    driver.transport.read(reg::CONFIG + 32, &mut byte).unwrap();
    byte[0]
}

#[test]
fn a_driver_turns_its_cache_off_and_a_reset_turns_it_on() {
    let image = image();
    let mut driver = drive(&config(image.path()));
    assert_eq!(writeback(&driver), 1);
    driver.transport.write(reg::CONFIG + 32, &[0]).unwrap();
    assert_eq!(writeback(&driver), 0);
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), OK);
    let saved = driver.save();
    let mut moved = driver.moved(config(image.path()).open().unwrap(), &saved).unwrap();
    assert_eq!(writeback(&moved), 0);
    moved.run(0);
    assert_eq!(writeback(&moved), 1);
}

#[test]
fn a_disk_without_a_cache_has_no_flush_and_cannot_get_one() {
    let image = image();
    let config = BlockConfig { cache: Cache::Writethrough, ..config(image.path()) };
    let mut driver = drive(&config);
    let cache = 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_CONFIG_WCE;
    assert_eq!(driver.offered() & cache, 0);
    driver.transport.write(reg::CONFIG + 32, &[1]).unwrap();
    assert_eq!(writeback(&driver), 0);
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), UNSUPP);
    let saved = driver.save();
    drop(driver);
    let mut there = Disk::open(&config).unwrap();
    let transport: crate::virtio::transport::saved::TransportV1 = saved.read().unwrap();
    restore::restore(&mut there, &transport.device.read().unwrap()).unwrap();
    assert_eq!(there.lasting(0), Lasting::AtOnce);
}

#[test]
fn eight_queues_are_served() {
    let image = image();
    let mut driver = drive(&BlockConfig { queues: 8, ..config(image.path()) });
    assert_ne!(driver.offered() & 1 << VIRTIO_BLK_F_MQ, 0);
    assert_eq!(driver.read(reg::CONFIG + 32) >> 16, 8);
    assert_eq!(driver.queues.len(), 8);
    let mut offered = Vec::new();
    for sector in 0..8_u32 {
        let queue = usize::try_from(sector).unwrap();
        offered.push(driver.offer(queue, &[&header(IN, sector.into())], &[512, 1]));
    }
    (0..8).rev().for_each(|queue| driver.kick(queue));
    for (queue, offered) in offered.iter().enumerate() {
        assert_eq!(driver.wait_used(queue).unwrap().length, 513);
        assert_eq!(usize::from(driver.bytes(offered.writable[0], 1)[0]), queue);
    }
}

#[test]
fn direct_access_reads_and_writes_what_fits_it_and_what_does_not() {
    // Not on a file system in memory, which may have no direct access.
    let image = NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    fs::write(image.path(), vec![0x77; 1 << 16]).unwrap();
    let config = BlockConfig { caching: Caching::Direct, ..config(image.path()) };
    let mut driver = drive(&config);
    assert_eq!(send(&mut driver, OUT, 8, &[1; 4096]), OK);
    assert_eq!(fetch(&mut driver, IN, 8, 4096), (OK, vec![1; 4096]));
    let odd = header(IN, 8);
    let (offered, _) = driver.request(&[&odd], &[5, 500, 7, 1]).unwrap();
    assert_eq!(driver.bytes(offered.writable[0], 5), [1; 5]);
    assert_eq!(driver.bytes(offered.writable[3], 1), [OK]);
    assert_eq!(fs::read(image.path()).unwrap()[8 * 512..16 * 512], [1; 4096]);
}

#[test]
fn a_second_writer_is_refused_and_so_is_a_reader_beside_one() {
    let image = image();
    let read_write = config(image.path());
    let read_only = BlockConfig { access: Access::ReadOnly, ..config(image.path()) };
    let first = read_write.open().unwrap();
    let error = report(&read_write.open().map(drop).unwrap_err());
    expect![[r#"
        error: disk `root`: IMAGE is in use by another program
          fix: stop the machine that has it (a paused one lets go), give each a copy, or open it `readonly` everywhere"#]]
    .assert_eq(&error.replace(&image.path().display().to_string(), "IMAGE"));
    assert!(read_only.open().is_err());
    drop(first);
    let reader = read_only.open().unwrap();
    assert!(read_only.open().is_ok());
    assert!(read_write.open().is_err());
    drop(reader);
    assert!(read_write.open().is_ok());
}

#[test]
fn a_disk_is_free_once_it_is_dropped_whoever_has_a_copy_of_its_descriptor() {
    let image = image();
    let config = config(image.path());
    let file = File::options().read(true).write(true).open(image.path()).unwrap();
    assert_eq!(lock(&file, Access::ReadWrite).unwrap(), Locked::Yes);
    // As a process has that was forked, until it calls `execve`.
    let _copy = file.try_clone().unwrap();
    let store = Store::Raw { file, direct: None };
    assert!(config.open().is_err());
    drop(store);
    assert!(config.open().is_ok());
}

#[test]
fn a_disk_at_rest_is_let_go_of_and_taken_back_if_it_is_free() {
    let image = image();
    let config = config(image.path());
    let mut driver = drive(&config);
    driver.save();
    let other = config.open().unwrap();
    let error = report(&driver.transport.resume().unwrap_err());
    expect![[r#"
        error: disk `root` cannot go on
          because: disk `root`: IMAGE is in use by another program
          fix: stop the machine that has it (a paused one lets go), give each a copy, or open it `readonly` everywhere"#]]
    .assert_eq(&error.replace(&image.path().display().to_string(), "IMAGE"));
    drop(other);
    driver.transport.resume().unwrap();
    assert_eq!(fetch(&mut driver, IN, 4, 512), (OK, vec![4; 512]));
    assert!(config.open().is_err());
}

#[test]
fn a_file_that_is_removed_is_there_until_the_machine_ends() {
    let image = image();
    let mut driver = drive(&config(image.path()));
    let path = image.into_temp_path();
    fs::remove_file(&path).unwrap();
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), OK);
    assert_eq!(fetch(&mut driver, IN, 0, 512), (OK, vec![1; 512]));
    assert!(File::open(&path).is_err());
}

#[test]
fn what_was_done_is_counted_by_either_engine() {
    for engine in [Engine::Sync, Engine::Async] {
        let image = image();
        let config = BlockConfig { engine, ..config(image.path()) };
        let device = Block::new(Disk::open(&config).unwrap(), 1, Limits::default());
        let metrics = Arc::clone(device.metrics());
        let mut driver = Driver::running(Box::new(device), 1 << VIRTIO_BLK_F_FLUSH);
        assert_eq!(fetch(&mut driver, IN, 0, 1024).0, OK);
        assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), OK);
        assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
        assert_eq!(fetch(&mut driver, IN, 8, 512).0, IOERR);
        image.as_file().set_len(512).unwrap();
        assert_eq!(fetch(&mut driver, IN, 1, 512).0, IOERR);
        let mut seen = std::collections::BTreeMap::new();
        metrics.each(&mut |name, value| {
            seen.insert(name, value);
        });
        let of = |name| seen[name];
        assert_eq!([of("read_count"), of("read_bytes")], [1, 1024]);
        assert_eq!([of("write_count"), of("write_bytes"), of("flush_count")], [1, 512, 1]);
        assert_eq!([of("execute_fails"), of("invalid_reqs_count")], [1, 1]);
    }
}
