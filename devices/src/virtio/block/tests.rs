//! The block device under a driver, well-behaved and not, and its configuration.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use expect_test::{Expect, expect};
use kedge_diag::{Trouble, report};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO};

use super::*;
use crate::virtio::catalog::DeviceConfig;
use crate::virtio::mishap::{Mishap, MishapKind};
use crate::virtio::testing::{Driver, NEEDS_RESET};
use crate::virtio::transport::reg;

pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
pub(super) const DISCARD: u32 = 11;
const SECURE_ERASE: u32 = 14;

pub(super) const OK: u8 = 0;
pub(super) const IOERR: u8 = 1;
pub(super) const UNSUPP: u8 = 2;

/// A disk of 8 sectors, each filled with its number.
pub(super) fn image() -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    for sector in 0..8 {
        image.as_file().write_all_at(&[sector; 512], 512 * u64::from(sector)).unwrap();
    }
    image
}

pub(super) fn config(path: &Path) -> BlockConfig {
    BlockConfig::new("root", path)
}

pub(super) fn drive(config: &BlockConfig) -> Driver {
    Driver::running(config.open().unwrap(), 0)
}

pub(super) fn header(kind: u32, sector: u64) -> [u8; 16] {
    let mut header = [0; 16];
    header[..4].copy_from_slice(&kind.to_le_bytes());
    header[8..].copy_from_slice(&sector.to_le_bytes());
    header
}

/// The status of a request that carries `data` to the device.
pub(super) fn send(driver: &mut Driver, kind: u32, sector: u64, data: &[u8]) -> u8 {
    let readable: &[&[u8]] = &[&header(kind, sector), data];
    let parts = if data.is_empty() { &readable[..1] } else { readable };
    let (offered, _) = driver.request(parts, &[1]).unwrap();
    driver.bytes(offered.writable[0], 1)[0]
}

/// The status of a request for `length` bytes, and the bytes.
pub(super) fn fetch(driver: &mut Driver, kind: u32, sector: u64, length: usize) -> (u8, Vec<u8>) {
    let (offered, _) = driver.request(&[&header(kind, sector)], &[length, 1]).unwrap();
    let status = driver.bytes(offered.writable[1], 1)[0];
    (status, driver.bytes(offered.writable[0], length))
}

#[test]
fn sectors_are_read() {
    let image = image();
    let (status, data) = fetch(&mut drive(&config(image.path())), IN, 2, 1024);
    assert_eq!(status, OK);
    assert_eq!((&data[..512], &data[512..]), (&[2; 512][..], &[3; 512][..]));
}

#[test]
fn sectors_are_written() {
    let image = image();
    assert_eq!(send(&mut drive(&config(image.path())), OUT, 7, &[0x55; 512]), OK);
    assert_eq!(fs::read(image.path()).unwrap()[7 * 512 - 1..], [&[6][..], &[0x55; 512]].concat());
}

#[test]
fn a_request_is_cut_into_buffers_as_the_driver_pleases() {
    let image = image();
    let mut driver = drive(&config(image.path()));
    let header = header(IN, 1);
    let (offered, used) = driver.request(&[&header[..3], &header[3..]], &[5, 500, 8]).unwrap();
    assert_eq!(used.length, 513);
    assert_eq!(driver.bytes(offered.writable[0], 5), [1; 5]);
    assert_eq!(driver.bytes(offered.writable[2], 8), [1, 1, 1, 1, 1, 1, 1, OK]);
}

#[test]
fn a_failed_read_does_not_claim_to_have_filled_its_buffers() {
    let image = image();
    let mut driver = drive(&config(image.path()));
    let (_, used) = driver.request(&[&header(IN, 8)], &[512, 1]).unwrap();
    assert_eq!(used.length, 0);
}

#[test]
fn a_flush_is_done() {
    let image = image();
    assert_eq!(send(&mut drive(&config(image.path())), FLUSH, 0, &[]), OK);
}

#[test]
fn without_write_back_there_is_no_flush() {
    let image = image();
    let config = BlockConfig { cache: Cache::Unsafe, ..config(image.path()) };
    let mut driver = drive(&config);
    assert_eq!(driver.offered() & 1 << VIRTIO_BLK_F_FLUSH, 0);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), UNSUPP);
}

#[test]
fn the_serial_number_is_made_of_the_files_numbers() {
    let image = image();
    let (status, serial) = fetch(&mut drive(&config(image.path())), GET_ID, 0, 20);
    let metadata = image.as_file().metadata().unwrap();
    let digits = format!("{}{}{}", metadata.dev(), metadata.rdev(), metadata.ino());
    assert_eq!(status, OK);
    assert_eq!(String::from_utf8(serial).unwrap().trim_end_matches('\0'), digits);
}

#[test]
fn a_serial_number_needs_room() {
    let image = image();
    let (status, _) = fetch(&mut drive(&config(image.path())), GET_ID, 0, 19);
    assert_eq!(status, IOERR);
}

#[test]
fn requests_that_the_device_does_not_have_are_unsupported() {
    let image = image();
    let mut driver = drive(&config(image.path()));
    assert_eq!(send(&mut driver, SECURE_ERASE, 0, &[0; 16]), UNSUPP);
    assert_eq!(send(&mut driver, u32::MAX, 0, &[]), UNSUPP);
}

#[test]
fn what_lies_past_the_end_is_an_error() {
    let image = image();
    let mut driver = drive(&config(image.path()));
    assert_eq!(fetch(&mut driver, IN, 7, 1024).0, IOERR);
    assert_eq!(send(&mut driver, OUT, 8, &[0; 512]), IOERR);
    assert_eq!(send(&mut driver, OUT, u64::MAX, &[0; 512]), IOERR);
    assert_eq!(send(&mut driver, OUT, u64::MAX / 512, &[0; 1024]), IOERR);
    assert_eq!(send(&mut driver, OUT, u64::MAX / 2, &[0; 512]), IOERR);
    assert_eq!(image.as_file().metadata().unwrap().len(), 8 * 512);
}

#[test]
fn half_a_sector_is_an_error() {
    let image = image();
    let mut driver = drive(&config(image.path()));
    assert_eq!(fetch(&mut driver, IN, 0, 256).0, IOERR);
    assert_eq!(send(&mut driver, OUT, 0, &[9; 513]), IOERR);
}

#[test]
fn a_read_only_disk_is_not_written_to() {
    let image = image();
    let config = BlockConfig { access: Access::ReadOnly, ..config(image.path()) };
    let mut driver = drive(&config);
    assert_ne!(driver.offered() & 1 << VIRTIO_BLK_F_RO, 0);
    assert_eq!(send(&mut driver, OUT, 0, &[9; 512]), IOERR);
    assert_eq!(fs::read(image.path()).unwrap()[0], 0);
}

#[test]
fn a_file_that_shrinks_under_the_guest_is_an_error_to_it() {
    let image = image();
    let mut driver = drive(&config(image.path()));
    image.as_file().set_len(512).unwrap();
    assert_eq!(fetch(&mut driver, IN, 0, 512).0, OK);
    assert_eq!(fetch(&mut driver, IN, 0, 1024).0, IOERR);
}

#[test]
fn a_full_host_is_an_error_to_the_guest() {
    // Takes every write and fails it with ENOSPC.
    let full = File::options().read(true).write(true).open("/dev/full").unwrap();
    let image = image();
    let config = config(image.path());
    let mut disk = Disk::open(&config).unwrap();
    disk.replace_file(full);
    let mut driver = Driver::running(Box::new(Block::new(disk, 1, Limits::default())), 0);
    for _ in 0..5 {
        assert_eq!(send(&mut driver, OUT, 0, &[9; 512]), IOERR);
    }
    assert_eq!(driver.read(reg::STATUS) & NEEDS_RESET, 0);
    let why = "the host cannot write: No space left on device (os error 28)".to_owned();
    let (kind, device) = (MishapKind::HostFails, "disk `root`".to_owned());
    let mishap = Mishap { kind, device, why, times: 1 };
    let told = [1, 2, 4].map(|times| Mishap { times, ..mishap.clone() });
    assert_eq!(driver.mishaps(), told);
}

#[test]
fn a_chain_that_is_no_request_breaks_the_ring() {
    let image = image();
    for (readable, writable) in
        [(&[&[0_u8; 15][..]][..], &[513][..]), (&[], &[513]), (&[&[0; 16]], &[])]
    {
        let mut driver = drive(&config(image.path()));
        driver.offer(0, readable, writable);
        driver.kick(0);
        assert!(driver.wait_broken());
    }
}

#[test]
fn the_configuration_tells_size_and_limits() {
    let image = image();
    let driver = drive(&config(image.path()));
    assert_eq!(driver.read(reg::CONFIG), 8);
    assert_eq!(driver.read(reg::CONFIG + 4), 0);
    assert_eq!(driver.read(reg::CONFIG + 12), 254);
    assert_eq!(driver.read(reg::CONFIG + 20), 512);
    let stored = image.as_file().metadata().unwrap().blksize();
    assert_eq!(u64::from(driver.read(reg::CONFIG + 24) >> 16), stored / 512);
    assert_eq!(512 << (driver.read(reg::CONFIG + 24) & 0xff), stored);
    assert_eq!(driver.read(reg::CONFIG + 60), 0);
}

#[test]
fn a_size_that_is_not_whole_sectors_is_rounded_down() {
    let image = image();
    image.as_file().set_len(1023).unwrap();
    assert_eq!(drive(&config(image.path())).read(reg::CONFIG), 1);
}

proptest! {
    #[test]
    fn no_request_upsets_the_device(
        kind in prop_oneof![0_u32..16, any::<u32>()],
        sector in prop_oneof![0_u64..10, any::<u64>()],
        data in prop::collection::vec(any::<u8>(), 1..1500),
        room in prop::collection::vec(1_usize..1500, 1..4),
    ) {
        let image = image();
        let mut driver = drive(&config(image.path()));
        prop_assert!(driver.request(&[&header(kind, sector), &data], &room).is_some());
        prop_assert_eq!(fetch(&mut driver, IN, 7, 512).0, OK);
        prop_assert_eq!(image.as_file().metadata().unwrap().len(), 8 * 512);
    }
}

// Opening.

/// The error of opening `config`, with `folder` written as DIR.
fn cannot_open(config: &BlockConfig, folder: &Path, expected: &Expect) {
    let text = report(&config.open().map(|_| ()).unwrap_err());
    expected.assert_eq(&text.replace(folder.to_str().unwrap(), "DIR"));
}

#[test]
fn a_missing_disk_is_said_to_be() {
    let dir = TempDir::new().unwrap();
    cannot_open(
        &config(&dir.path().join("root.ext4")),
        dir.path(),
        &expect![[r#"
            error: disk `root`: there is no file DIR/root.ext4
              fix: correct the path, or make a disk: truncate -s 1G DIR/root.ext4"#]],
    );
}

#[test]
fn a_read_only_file_is_not_opened_for_writing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("root.ext4");
    fs::write(&path, [0; 512]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    cannot_open(
        &config(&path),
        dir.path(),
        &expect![[r#"
            error: disk `root`: DIR/root.ext4 is read-only
              fix: add `readonly` to --disk (`is_read_only` in a configuration file), or make it writable: chmod u+w DIR/root.ext4"#]],
    );
    assert!(BlockConfig { access: Access::ReadOnly, ..config(&path) }.open().is_ok());
}

#[test]
fn a_directory_is_no_disk() {
    let dir = TempDir::new().unwrap();
    let expected = expect![[r#"
        error: disk `root`: DIR is a directory, not a file or a block device
          fix: give the path of a disk image"#]];
    cannot_open(&config(dir.path()), dir.path(), &expected);
    let read_only = BlockConfig { access: Access::ReadOnly, ..config(dir.path()) };
    cannot_open(&read_only, dir.path(), &expected);
}

#[test]
fn a_terminal_is_no_disk() {
    cannot_open(
        &config(Path::new("/dev/null")),
        Path::new("/nowhere"),
        &expect![[r#"
            error: disk `root`: /dev/null is a character device, not a file or a block device
              fix: give the path of a disk image"#]],
    );
}

#[test]
fn a_file_without_a_whole_sector_is_no_disk() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("root.ext4");
    fs::write(&path, [0; 511]).unwrap();
    cannot_open(
        &config(&path),
        dir.path(),
        &expect![[r#"
            error: disk `root`: DIR/root.ext4 has 511 bytes, and a disk at least 512
              fix: make it larger: truncate -s 1G DIR/root.ext4"#]],
    );
}

#[test]
fn an_empty_file_is_a_disk_without_sectors() {
    let empty = NamedTempFile::new().unwrap();
    let mut driver = drive(&config(empty.path()));
    assert_eq!(fetch(&mut driver, IN, 0, 512).0, IOERR);
    assert_eq!(send(&mut driver, OUT, 0, &[1; 512]), IOERR);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    assert_eq!(empty.as_file().metadata().unwrap().len(), 0);
}

#[test]
fn a_file_without_permission_says_so() {
    let error = OpenError::Denied { id: "root".to_owned(), path: "root.ext4".into() };
    expect![[r#"
        error: disk `root`: no permission to open root.ext4
          fix: give this user access to it, for example: sudo chown $USER root.ext4"#]]
    .assert_eq(&report(&error));
}

// Configuration.

fn flag(value: &str) -> Result<Box<dyn DeviceConfig>, Trouble> {
    (KIND.from_flag)(value, 3)
}

fn body(value: Value) -> Result<Box<dyn DeviceConfig>, Trouble> {
    (KIND.from_json)(value)
}

fn refused(parsed: Result<Box<dyn DeviceConfig>, Trouble>, expected: &Expect) {
    expected.assert_eq(&report(&parsed.unwrap_err()));
}

#[test]
fn a_flag_of_nothing_but_a_path_is_a_durable_disk() {
    expect![[r#"{"cache_type":"Writeback","drive_id":"disk3","io_engine":"Sync","is_read_only":false,"is_root_device":false,"partuuid":null,"path_on_host":"a.img","rate_limiter":null,"socket":null}"#]]
    .assert_eq(&flag("path=a.img").unwrap().to_json().to_string());
}

#[test]
fn a_flag_says_all_about_a_disk() {
    let config = flag("path=a.img,readonly,id=data,cache=unsafe").unwrap().to_json();
    assert_eq!(config["drive_id"], "data");
    assert_eq!(config["is_read_only"], true);
    assert_eq!(config["cache_type"], "Unsafe");
    assert_eq!(config["rate_limiter"], Value::Null);
}

#[test]
fn a_flag_names_the_cache_modes_there_are() {
    refused(
        flag("path=a.img,cache=none"),
        &expect![[r#"
            error: --disk cannot have `cache=none`
              fix: give `writeback`, `writethrough` or `unsafe`"#]],
    );
}

#[test]
fn a_name_is_made_of_letters_digits_and_underscores() {
    refused(
        flag("path=a.img,id=a b"),
        &expect![[r#"
            error: --disk cannot have `id=a b`
              fix: give letters, digits and underscores"#]],
    );
    refused(
        body(json!({"drive_id": "a/b", "is_root_device": false, "path_on_host": "a.img"})),
        &expect![[r#"
            error: `drive_id` of `drives` cannot be `a/b`
              fix: give letters, digits and underscores"#]],
    );
}

#[test]
fn a_body_goes_in_and_out_unchanged() {
    let text = json!({
        "drive_id": "rootfs", "is_root_device": true, "partuuid": "0eaa91a0-01",
        "cache_type": "Writeback", "is_read_only": true, "path_on_host": "/root.ext4",
        "rate_limiter": {
            "bandwidth": {"size": 1048576, "refill_time": 100, "one_time_burst": 7}, "ops": null,
        },
        "io_engine": "Async", "socket": null,
    });
    assert_eq!(body(text.clone()).unwrap().to_json(), text);
}

#[test]
fn a_body_has_firecrackers_defaults() {
    let text = json!({"drive_id": "d", "is_root_device": false, "path_on_host": "a.img"});
    let config = body(text).unwrap().to_json();
    assert_eq!(config["cache_type"], "Unsafe");
    assert_eq!(config["is_read_only"], false);
    assert_eq!(config["io_engine"], "Sync");
}

#[test]
fn a_body_with_an_unknown_field_is_refused_by_name() {
    refused(
        body(json!({"drive_id": "d", "is_root_device": false, "colour": "red"})),
        &expect![[r#"
            error: `drives` in the configuration file is not right
              because: unknown field `colour`, expected one of `drive_id`, `is_root_device`, `partuuid`, `cache_type`, `is_read_only`, `path_on_host`, `rate_limiter`, `io_engine`, `socket`, `direct`, `num_queues`, `format`
              fix: correct the field named above: they are those of Firecracker's API"#]],
    );
}

#[test]
fn a_body_needs_a_path() {
    refused(
        body(json!({"drive_id": "d", "is_root_device": false})),
        &expect![[r#"
            error: `drives` needs `path_on_host`
              fix: add `path_on_host`"#]],
    );
}

#[test]
fn the_root_device_is_named_on_the_command_line() {
    let root = |extra: Value| {
        let mut text = json!({"drive_id": "d", "is_root_device": true, "path_on_host": "a.img"});
        text.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body(text).unwrap().cmdline(0).unwrap()
    };
    assert_eq!(root(json!({})), "root=/dev/vda rw");
    assert_eq!(root(json!({"is_read_only": true})), "root=/dev/vda ro");
    assert_eq!(root(json!({"partuuid": "0eaa91a0-01"})), "root=PARTUUID=0eaa91a0-01 rw");
    assert_eq!(flag("path=a.img").unwrap().cmdline(0), None);
}

#[test]
fn linux_counts_disks_by_letters() {
    let names = [0, 25, 26, 701, 702].map(config::linux_name);
    assert_eq!(names, ["vda", "vdz", "vdaa", "vdzz", "vdaaa"]);
}
