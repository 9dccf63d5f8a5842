//! A disk that moves with its guest, and one that is not what the guest knows.

use std::fs::File;

use expect_test::{Expect, expect};
use kedge_bus::Stateful;
use kedge_diag::report;
use kedge_saved_state::Part;
use proptest::prelude::*;

use super::saved::BlockV1;
use super::tests::{IN, OK, OUT, config, drive, fetch, image, send};
use super::*;
use crate::virtio::catalog::DeviceConfig;
use crate::virtio::testing::Driver;
use crate::virtio::transport::reg;
use crate::virtio::transport::saved::TransportV1;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO};

const GET_ID: u32 = 8;
const READ_ONLY: u32 = 1 << VIRTIO_BLK_F_RO;
const FLUSH: u32 = 1 << VIRTIO_BLK_F_FLUSH;

/// The guest of `driver` on the disk of `config`, which the old one has let go of.
fn moved(driver: &Driver, config: &BlockConfig) -> Driver {
    let saved = driver.save();
    let moved = driver.moved(config.open().unwrap(), &saved).unwrap();
    moved.transport.resume().unwrap();
    moved
}

/// What becomes of a disk whose saved state is `damaged`, on the configuration that
/// `change` makes of its own.
fn refused(
    damage: impl FnOnce(&mut BlockV1),
    change: impl FnOnce(&mut BlockConfig),
    expected: &Expect,
) {
    let image = image();
    let mut config = config(image.path());
    let part = Block::new(Disk::open(&config).unwrap(), 1, Limits::default()).save();
    let mut saved: BlockV1 = part.read().unwrap();
    damage(&mut saved);
    change(&mut config);
    let error = config.open().unwrap().restore(&Part::of(&saved)).unwrap_err();
    expected.assert_eq(&report(&error));
}

#[test]
fn a_disk_moves_with_what_was_written_and_what_was_asked_for() {
    let image = image();
    let config = config(image.path());
    let mut driver = drive(&config);
    assert_eq!(send(&mut driver, OUT, 3, &[0x33; 512]), OK);
    let header = [IN.to_le_bytes(), [0; 4], 3_u32.to_le_bytes(), [0; 4]].concat();
    let waiting = driver.offer(0, &[&header], &[512, 1]);
    let mut moved = moved(&driver, &config);
    assert_eq!(moved.wait_used(0).unwrap().length, 513);
    assert_eq!(moved.bytes(waiting.writable[0], 512), [0x33; 512]);
    assert_eq!(fetch(&mut moved, IN, 4, 512), (OK, vec![4; 512]));
}

#[test]
fn a_disk_keeps_its_serial_number_on_another_file() {
    let (mine, copy) = (image(), image());
    let mut driver = drive(&config(mine.path()));
    let serial = fetch(&mut driver, GET_ID, 0, 20);
    let mut moved = moved(&driver, &config(copy.path()));
    assert_eq!(fetch(&mut moved, GET_ID, 0, 20), serial);
}

#[test]
fn what_the_guest_was_offered_comes_before_what_is_configured() {
    let image = image();
    let mut config = config(image.path());
    config.cache = Cache::Unsafe;
    config.access = Access::ReadOnly;
    let driver = drive(&config);
    config.cache = Cache::Writeback;
    config.access = Access::ReadWrite;
    let mut moved = moved(&driver, &config);
    assert_eq!(moved.read(reg::DEVICE_FEATURES) & (READ_ONLY | FLUSH), READ_ONLY);
    assert_ne!(send(&mut moved, OUT, 3, &[0x33; 512]), OK);
}

#[test]
fn a_disk_of_another_size_is_refused() {
    refused(
        |saved| saved.sectors = 9,
        |_| {},
        &expect![[r#"
            error: the disk had 9 sectors of 512 bytes and now has 8
              fix: give the disk that belongs to the snapshot, or a copy of it"#]],
    );
}

#[test]
fn a_disk_that_can_no_longer_be_written_to_is_refused() {
    refused(
        |_| {},
        |config| config.access = Access::ReadOnly,
        &expect![[r#"
            error: the guest was given a disk to write to, and this one is opened to be read only
              fix: give a disk that can be written to"#]],
    );
}

#[test]
fn the_transport_says_which_disk_it_is() {
    let image = image();
    let config = config(image.path());
    let driver = drive(&config);
    let part = driver.save();
    File::options().write(true).open(image.path()).unwrap().set_len(512).unwrap();
    let error = driver.moved(config.open().unwrap(), &part).map(drop).unwrap_err();
    expect![[r#"
        error: disk `root` cannot be restored
          because: the disk had 8 sectors of 512 bytes and now has 1
          fix: give the disk that belongs to the snapshot, or a copy of it"#]]
    .assert_eq(&report(&error));
}

#[test]
fn sizes_that_no_disk_has_are_refused() {
    refused(
        |saved| saved.block_size = 1000,
        |_| {},
        &expect![[r#"
            error: the saved `virtio-block` is not plausible: `block_size` is 1000, and not a power of two from 512 to 65536
              fix: take another snapshot: this one is damaged"#]],
    );
    refused(
        |saved| saved.seg_max = 255,
        |_| {},
        &expect![[r#"
            error: the saved `virtio-block` is not plausible: `seg_max` is 255, and not 1 to 254
              fix: take another snapshot: this one is damaged"#]],
    );
    refused(
        |saved| saved.physical_exp = Some(8),
        |_| {},
        &expect![[r#"
            error: the saved `virtio-block` is not plausible: `physical_exp` is above 7
              fix: take another snapshot: this one is damaged"#]],
    );
    refused(
        |saved| saved.serial.0.truncate(19),
        |_| {},
        &expect![[r#"
            error: the saved `virtio-block` is not plausible: `serial` is 19 bytes long, and not 20
              fix: take another snapshot: this one is damaged"#]],
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_a_guest_writes_is_there_wherever_it_goes(
        steps in prop::collection::vec((0_u8..8, any::<u8>(), any::<bool>()), 1..24)
    ) {
        let image = image();
        let config = config(image.path());
        let mut driver = drive(&config);
        let mut expected: Vec<u8> = (0..8).collect();
        for (sector, content, moves) in steps {
            let header = [OUT.to_le_bytes(), [0; 4], u32::from(sector).to_le_bytes(), [0; 4]];
            driver.offer(0, &[&header.concat(), &[content; 512]], &[1]);
            if moves {
                driver = moved(&driver, &config);
            } else {
                driver.kick(0);
            }
            prop_assert_eq!(driver.wait_used(0).map(|used| used.length), Some(1));
            expected[usize::from(sector)] = content;
        }
        let found: Vec<u8> = (0..8).map(|at| fetch(&mut driver, IN, at, 512).1[0]).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn damage_is_refused_or_does_no_harm(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let image = image();
        let config = config(image.path());
        let driver = drive(&config);
        let mut saved: TransportV1 = driver.save().read().unwrap();
        for (at, byte) in damage {
            let at = at.index(saved.device.body.len());
            saved.device.body[at] = byte;
        }
        if let Ok(mut moved) = driver.moved(config.open().unwrap(), &Part::of(&saved)) {
            moved.transport.resume().unwrap();
            prop_assert_eq!(fetch(&mut moved, IN, 4, 512), (OK, vec![4; 512]));
        }
    }
}
