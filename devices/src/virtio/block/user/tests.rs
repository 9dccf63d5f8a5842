//! A disk that another thread of the test has, under a driver; back ends that end, lie or
//! are silent; what a user says about such disks.

use std::io::{Read, Write};
use std::time::Duration;

use expect_test::{Expect, expect};
use kedge_bus::{MmioDevice, Stateful};
use kedge_diag::report;
use kedge_guest_memory::dirty;
use serde_json::{Map, Value, json};

use super::super::KIND;
use super::super::tests::{FLUSH, IN, OK, OUT, fetch, send};
use super::*;
use crate::virtio::change::{ChangeError, Target};
use crate::virtio::mishap::MishapKind;
use crate::virtio::testing::{Driver, NEEDS_RESET, wait_for};
use crate::virtio::transport::reg;
use crate::virtio::vhost::testing::{ALL, Offer, TestBackEnd, by_hand, nowhere};

fn config(socket: std::path::PathBuf) -> UserDiskConfig {
    UserDiskConfig { id: "root".to_owned(), socket, cache: Cache::Writeback, queues: 1, root: None }
}

/// A back end whose disk has 8 sectors, each filled with its number.
fn back_end(offer: Offer) -> TestBackEnd {
    TestBackEnd::start((0..8_u8).flat_map(|sector| [sector; 512]).collect(), offer)
}

fn open(socket: std::path::PathBuf) -> Box<dyn VirtioDevice> {
    use crate::virtio::catalog::DeviceConfig as _;
    config(socket).open().unwrap()
}

pub(super) fn running(device: Box<dyn VirtioDevice>, features: u64) -> Driver {
    let mut driver = Driver::sharing(device);
    driver.run(features);
    driver
}

fn change(driver: &Driver, mut body: Value) -> Result<(), ChangeError> {
    body["drive_id"] = json!("root");
    let change = Change::from_json(&KIND, body).unwrap();
    driver.transport.change(&change, Instant::now() + Duration::from_secs(10))
}

pub(super) fn sectors(driver: &Driver) -> u64 {
    let mut sectors = [0; 8];
    driver.transport.read(reg::CONFIG, &mut sectors).unwrap();
    u64::from_le_bytes(sectors)
}

fn refused<T>(opened: Result<T, Trouble>, expected: &Expect) {
    expected.assert_eq(&report(&opened.err().unwrap()));
}

#[test]
fn a_driver_reads_and_writes_through_the_back_end_and_is_interrupted() {
    let back_end = back_end(ALL);
    let mut driver = running(open(back_end.socket()), 0);
    assert_eq!(sectors(&driver), 8);
    assert_eq!(fetch(&mut driver, IN, 3, 512), (OK, vec![3; 512]));
    assert!(driver.wait_interrupt());
    assert_eq!(driver.read(reg::INTERRUPT_STATUS), 1);
    assert_eq!(send(&mut driver, OUT, 5, &[0x77; 1024]), OK);
    assert_eq!(back_end.disk()[5 * 512..7 * 512], [0x77; 1024]);
}

#[test]
fn the_driver_is_offered_what_the_back_end_has_and_kedge_knows() {
    const FLUSH_BIT: u64 = 1 << VIRTIO_BLK_F_FLUSH;
    const EVENT_IDX: u64 = 1 << 29;
    // SECURE_ERASE, ZONED and CONFIG_WCE among them.
    let strange = 1 << 11 | 1 << 16 | 1 << 17 | 1 << 40;
    let back_end = back_end(Offer { features: ALL.features & !EVENT_IDX | strange, ..ALL });
    let driver = Driver::sharing(open(back_end.socket()));
    // VERSION_1, RING_RESET, INDIRECT_DESC, FLUSH, SEG_MAX.
    assert_eq!(driver.offered(), 1 << 32 | 1 << 40 | 1 << 28 | FLUSH_BIT | 1 << 2);
    let mut queues = [0; 2];
    driver.transport.read(reg::CONFIG + 34, &mut queues).unwrap();
    assert_eq!(u16::from_le_bytes(queues), 1, "as many as were asked for");
    drop(driver);

    let config = UserDiskConfig { cache: Cache::Unsafe, ..config(back_end.socket()) };
    let unsafe_disk = UserBlock::open(&config).unwrap();
    assert_eq!(unsafe_disk.features() & FLUSH_BIT, 0);
}

#[test]
fn each_queue_is_served() {
    let back_end = back_end(ALL);
    let config = UserDiskConfig { queues: 2, ..config(back_end.socket()) };
    let mut driver = running(Box::new(UserBlock::open(&config).unwrap()), 1 << VIRTIO_BLK_F_MQ);
    let header = super::super::tests::header(IN, 2);
    let offered = driver.offer(1, &[&header], &[512, 1]);
    driver.kick(1);
    assert!(driver.wait_used(1).is_some());
    assert_eq!(driver.bytes(offered.writable[0], 512), [2; 512]);
}

#[test]
fn a_guest_goes_on_with_the_same_back_end_and_with_another_machine() {
    let back_end = back_end(ALL);
    let mut driver = running(open(back_end.socket()), 1 << VIRTIO_BLK_F_FLUSH);
    assert_eq!(send(&mut driver, OUT, 1, &[0x11; 512]), OK);
    driver.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
    driver.transport.resume().unwrap();
    assert_eq!(fetch(&mut driver, IN, 1, 512), (OK, vec![0x11; 512]));

    // It serves one connection at a time.
    let saved = driver.save();
    back_end.hang_up();
    let mut moved = driver.moved(open(back_end.socket()), &saved).unwrap();
    moved.transport.resume().unwrap();
    assert_eq!(fetch(&mut moved, IN, 1, 512), (OK, vec![0x11; 512]));
    assert_eq!(send(&mut moved, FLUSH, 0, &[]), OK);
}

#[test]
fn a_disk_of_another_size_is_not_the_one_that_was_saved() {
    let (back_end, smaller) = (back_end(ALL), TestBackEnd::start(vec![0; 7 * 512], ALL));
    let driver = running(open(back_end.socket()), 0);
    let saved = driver.save();
    let error = driver.moved(open(smaller.socket()), &saved).err().unwrap();
    expect![[r#"
        error: disk `root` cannot be restored
          because: the disk had 8 sectors of 512 bytes and now has 7
          fix: give the disk that belongs to the snapshot, or a copy of it"#]]
    .assert_eq(&report(&error));
}

#[test]
fn a_patch_reads_the_size_again_and_changes_nothing_else() {
    let back_end = back_end(ALL);
    let mut driver = running(open(back_end.socket()), 0);
    let generation = driver.read(reg::CONFIG_GENERATION);
    back_end.resize(16 * 512);
    assert_eq!(sectors(&driver), 8);
    change(&driver, json!({})).unwrap();
    assert_eq!(sectors(&driver), 16);
    assert_ne!(driver.read(reg::CONFIG_GENERATION), generation);
    assert_eq!(fetch(&mut driver, IN, 15, 512), (OK, vec![0; 512]));

    let error = change(&driver, json!({"path_on_host": "b.img"})).unwrap_err();
    expect![[r#"
        error: the disk `root` cannot be changed so
          because: `path_on_host` does not go with `socket`: the disk is another program's
          fix: leave `path_on_host` out, or tell the back end"#]]
    .assert_eq(&report(&error));
    assert_eq!(fetch(&mut driver, IN, 3, 512), (OK, vec![3; 512]));
}

#[test]
fn what_the_back_end_writes_is_noted_where_changes_are() {
    let back_end = back_end(ALL);
    let mut driver = Driver::sharing(open(back_end.socket()));
    dirty::track(&driver.memory);
    driver.run(0);
    dirty::take(&driver.memory);
    let (offered, _) = driver.request(&[&super::super::tests::header(IN, 3)], &[512, 1]).unwrap();
    driver.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
    let noted = dirty::take(&driver.memory);
    let noted: Vec<_> = noted.regions()[0].extents().collect();
    let is_noted = |address: u64| {
        let at = address - crate::virtio::testing::RAM;
        noted.iter().any(|extent| extent.start <= at && at < extent.end())
    };
    assert!(is_noted(offered.writable[0]), "the data");
    assert!(is_noted(offered.writable[1]), "the status");
    assert!(is_noted(driver.queues[0].used), "the used ring");
    assert!(!is_noted(crate::virtio::testing::RAM + crate::virtio::testing::RAM_SIZE - 1));
}

#[test]
fn of_a_back_end_without_a_log_all_memory_counts_as_written() {
    let protocol = ALL.protocol.difference(VhostUserProtocolFeatures::LOG_SHMFD);
    let back_end = back_end(Offer { protocol, ..ALL });
    let mut driver = Driver::sharing(open(back_end.socket()));
    dirty::track(&driver.memory);
    driver.run(0);
    assert_eq!(fetch(&mut driver, IN, 3, 512), (OK, vec![3; 512]));
    driver.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
    assert_eq!(dirty::take(&driver.memory).bytes(), crate::virtio::testing::RAM_SIZE);
}

#[test]
fn a_back_end_that_ends_is_told_of_and_the_device_needs_a_reset() {
    let back_end = back_end(ALL);
    let mut driver = running(open(back_end.socket()), 0);
    assert_eq!(fetch(&mut driver, IN, 3, 512), (OK, vec![3; 512]));
    back_end.hang_up();
    assert!(driver.wait_broken());
    assert!(wait_for(|| driver.mishaps().len() == 2));
    let mishaps = driver.mishaps();
    let [ended, reset] = mishaps.as_slice() else { unreachable!() };
    assert_eq!((ended.kind, reset.kind), (MishapKind::HostFails, MishapKind::NeedsReset));
    assert_eq!(
        (ended.device.as_str(), ended.why.as_str()),
        ("disk `root`", "its back end has ended")
    );
    // It can be paused and saved, and a reset does not help.
    driver.transport.pause(Instant::now() + Duration::from_secs(10)).unwrap();
    driver.transport.resume().unwrap();
    driver.run(0);
    assert_ne!(driver.read(reg::STATUS) & NEEDS_RESET, 0);
}

#[test]
fn memory_of_one_process_alone_is_refused() {
    let back_end = back_end(ALL);
    let driver = Driver::running(open(back_end.socket()), 0);
    assert_ne!(driver.read(reg::STATUS) & NEEDS_RESET, 0);
    assert!(driver.mishaps()[0].why.contains("guest memory is not shared"));
}

#[test]
fn who_is_no_back_end_is_refused_by_name() {
    use crate::virtio::catalog::DeviceConfig as _;
    refused(
        config(nowhere().to_owned()).open(),
        &expect![[r#"
            error: disk `root` has no back end
              because: there is no socket /nowhere/back-end
              fix: start the back end first, and have it make the socket there"#]],
    );
    let opened = |offer: Offer| {
        let back_end = back_end(offer);
        let opened = config(back_end.socket()).open().err().unwrap();
        report(&opened).replace(back_end.socket().to_str().unwrap(), "SOCKET")
    };
    let protocol = ALL.protocol.difference(VhostUserProtocolFeatures::CONFIG);
    expect![[r#"
        error: disk `root` has no back end
          because: the back end at SOCKET makes no sense
          because: it does not offer the feature VHOST_USER_PROTOCOL_F_CONFIG
          fix: look at the back end's log: is it one for such devices?"#]]
    .assert_eq(&opened(Offer { protocol, ..ALL }));
    expect![[r#"
        error: disk `root` has no back end
          because: the back end at SOCKET makes no sense
          because: it does not offer the feature VIRTIO_F_VERSION_1
          fix: look at the back end's log: is it one for such devices?"#]]
    .assert_eq(&opened(Offer { features: ALL.features & !(1 << 32), ..ALL }));
}

#[test]
fn more_queues_than_the_back_end_has_are_refused() {
    let back_end = back_end(ALL);
    let error = UserBlock::open(&UserDiskConfig { queues: 3, ..config(back_end.socket()) });
    let error = report(&error.unwrap_err());
    assert!(error.contains("has 2 queues, and the device 3"), "{error}");
}

#[test]
fn an_answer_that_is_none_is_an_error() {
    let (directory, socket) = by_hand(|mut stream| {
        // SET_OWNER and GET_FEATURES.
        stream.read_exact(&mut [0; 24]).unwrap();
        stream.write_all(&[0xff; 4096]).unwrap();
    });
    let error = report(&UserBlock::open(&config(socket.clone())).unwrap_err());
    assert!(error.contains("does not do as it is asked: vhost-user: invalid message"), "{error}");
    drop(directory);
}

#[test]
fn a_back_end_that_hangs_up_at_once_is_an_error() {
    let (directory, socket) = by_hand(drop);
    let error = report(&UserBlock::open(&config(socket.clone())).unwrap_err());
    assert!(error.contains("it has hung up"), "{error}");
    drop(directory);
}

#[test]
fn a_back_end_that_says_nothing_is_not_waited_for_for_ever() {
    let (directory, socket) = by_hand(|stream| {
        let mut stream = stream;
        // Until it is cut.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = report(&UserBlock::open(&config(socket.clone())).unwrap_err());
    assert!(error.contains("has not answered within 5 seconds"), "{error}");
    drop(directory);
}

fn flag(value: &str) -> crate::virtio::catalog::Parsed {
    (KIND.from_flag)(value, 3)
}

fn body(extra: Value) -> crate::virtio::catalog::Parsed {
    let mut body = json!({"drive_id": "root", "is_root_device": false, "socket": "/s"});
    body.as_object_mut().unwrap().extend(serde_json::from_value::<Map<_, _>>(extra).unwrap());
    (KIND.from_json)(body)
}

#[test]
fn a_user_names_the_socket_of_a_disk() {
    let disk = flag("socket=/s,queues=2,cache=unsafe").unwrap();
    assert!(disk.shares_memory());
    let expected = json!({
        "drive_id": "disk3", "is_root_device": false, "partuuid": null, "cache_type": "Unsafe",
        "is_read_only": null, "path_on_host": null, "rate_limiter": null, "socket": "/s",
        "num_queues": 2,
    });
    assert_eq!(disk.to_json(), expected);
    assert_eq!((KIND.from_json)(disk.to_json()).unwrap().to_json(), expected);
    let root = body(json!({"is_root_device": true})).unwrap();
    assert_eq!(root.cmdline(0).unwrap(), "root=/dev/vda rw");
}

#[test]
fn what_is_the_back_ends_to_say_is_refused_beside_a_socket() {
    refused(
        flag("socket=/s,readonly"),
        &expect![[r#"
            error: --disk cannot have `readonly=`
              fix: give it to the back end: such a disk has `socket`, `id`, `cache` and `queues`"#]],
    );
    refused(
        body(json!({"path_on_host": "a.img"})),
        &expect![[r#"
            error: `path_on_host` of `drives` does not go with `socket`
              fix: leave `path_on_host` or `socket` out"#]],
    );
    for field in ["is_read_only", "direct"] {
        assert!(body(json!({ field: true })).is_err());
    }
    assert!(body(json!({"io_engine": "Sync"})).is_err());
    assert!(body(json!({"cache_type": "Writethrough"})).is_err());
}
