//! A disk whose data a program keeps itself.

use std::io;
use std::sync::{Arc, Mutex};

use expect_test::expect;
use kedge_bus::Stateful;
use kedge_diag::report;
use serde_json::json;
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;

use super::tests::{DISCARD, FLUSH, IN, IOERR, OK, OUT, fetch, header, image, send};
use super::*;
use crate::virtio::catalog::DeviceConfig;
use crate::virtio::overrides::{Override, apply};
use crate::virtio::testing::{Driver, TestLoop};

const GET_ID: u32 = 8;
const WRITE_ZEROES: u32 = 13;

/// A disk of so many bytes in memory, which does as it is told with the byte that a write
/// begins with.
#[derive(Debug)]
struct Memory {
    bytes: Mutex<Vec<u8>>,
    calls: Mutex<Vec<String>>,
}

/// What a write begins with that fails.
const FAILS: u8 = 0xee;
/// What a write begins with over which the back end panics.
const PANICS: u8 = 0xff;

impl Memory {
    fn of(sectors: u64) -> Arc<Self> {
        let bytes = (0..sectors * 512).map(|n| (n / 512).to_le_bytes()[0]).collect();
        Arc::new(Self { bytes: Mutex::new(bytes), calls: Mutex::default() })
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn calls(&self) -> String {
        std::mem::take(&mut *self.calls.lock().unwrap()).join(", ")
    }
}

impl BlockBackEnd for Memory {
    fn size(&self) -> u64 {
        kedge_ids::u64_from(self.bytes.lock().unwrap().len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.note(format!("read {} at {offset}", into.len()));
        let at = kedge_ids::usize_from(offset);
        into.copy_from_slice(&self.bytes.lock().unwrap()[at..at + into.len()]);
        Ok(())
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        match from[0] {
            FAILS => return Err(io::Error::other("the network is down")),
            PANICS => panic!("as it was told to"),
            _ => self.note(format!("write {} at {offset}", from.len())),
        }
        let at = kedge_ids::usize_from(offset);
        self.bytes.lock().unwrap()[at..at + from.len()].copy_from_slice(from);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.note("flush".to_owned());
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.note(format!("discard {length} at {offset}"));
        Ok(())
    }

    fn serial(&self) -> [u8; 20] {
        *b"memory-disk-00000001"
    }
}

fn on(disk: &Arc<Memory>) -> BackEndDisk {
    BlockConfig::new("root", "a disk in memory").on(Arc::<Memory>::clone(disk))
}

fn driver(disk: &Arc<Memory>) -> Driver {
    // A program may make other system calls than disks do, and its panics are told.
    let mut driver = Driver::on(&TestLoop::start(), on(disk).open().unwrap());
    driver.run(1 << VIRTIO_BLK_F_FLUSH);
    driver
}

/// The one segment of a discard or of zeroes: its first sector, how many, its flags.
fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn a_program_keeps_what_the_guest_writes_and_hands_it_out() {
    let disk = Memory::of(8);
    let mut driver = driver(&disk);
    assert_eq!(fetch(&mut driver, IN, 7, 512), (OK, vec![7; 512]));
    assert_eq!(send(&mut driver, OUT, 3, &[0x33; 1024]), OK);
    assert_eq!(send(&mut driver, FLUSH, 0, &[]), OK);
    assert_eq!(fetch(&mut driver, GET_ID, 0, 20), (OK, b"memory-disk-00000001".to_vec()));
    expect!["read 512 at 3584, write 1024 at 1536, flush"].assert_eq(&disk.calls());
    assert_eq!(disk.bytes.lock().unwrap()[3 * 512..5 * 512], [0x33; 1024]);
}

#[test]
fn it_is_asked_for_a_large_request_in_pieces() {
    let disk = Memory::of(2048);
    let mut driver = driver(&disk);
    let (status, data) = fetch(&mut driver, IN, 0, 600 << 10);
    assert_eq!((status, data[512], data[(600 << 10) - 1]), (OK, 1, 0xaf));
    expect!["read 262144 at 0, read 262144 at 262144, read 90112 at 524288"]
        .assert_eq(&disk.calls());
}

#[test]
fn space_is_given_back_and_zeroes_are_written_where_it_does_no_better() {
    let disk = Memory::of(8);
    let mut driver = driver(&disk);
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(2, 4, 0)), OK);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(6, 1, 1)), OK);
    assert_eq!(send(&mut driver, WRITE_ZEROES, 0, &segment(7, 1, 0)), OK);
    expect!["discard 2048 at 1024, write 512 at 3072, write 512 at 3584"].assert_eq(&disk.calls());
    assert_eq!(fetch(&mut driver, IN, 6, 1024), (OK, vec![0; 1024]));
}

#[test]
fn what_is_beyond_it_never_gets_there() {
    let disk = Memory::of(8);
    let mut driver = driver(&disk);
    assert_eq!(fetch(&mut driver, IN, 8, 512).0, IOERR);
    assert_eq!(send(&mut driver, OUT, u64::MAX, &[1; 512]), IOERR);
    assert_eq!(send(&mut driver, OUT, 0, &[1; 100]), IOERR);
    assert_eq!(send(&mut driver, DISCARD, 0, &segment(7, 2, 0)), IOERR);
    assert_eq!(disk.calls(), "");
}

#[test]
fn its_errors_and_its_panics_are_errors_to_the_guest_and_the_disk_goes_on() {
    let disk = Memory::of(8);
    let mut driver = driver(&disk);
    assert_eq!(send(&mut driver, OUT, 0, &[FAILS; 512]), IOERR);
    assert_eq!(send(&mut driver, OUT, 0, &[PANICS; 512]), IOERR);
    assert_eq!(fetch(&mut driver, IN, 0, 512), (OK, vec![0; 512]));
    let told: Vec<_> = driver.mishaps().into_iter().map(|mishap| mishap.why).collect();
    expect![[r#"
        the host cannot write: the network is down
        the host cannot write: the disk's back end panicked"#]]
    .assert_eq(&told.join("\n"));
}

#[test]
fn it_moves_with_its_guest_and_goes_on_where_it_was() {
    let disk = Memory::of(8);
    let mut before = driver(&disk);
    assert_eq!(send(&mut before, OUT, 3, &[0x33; 512]), OK);
    let saved = before.save();
    let waiting = before.offer(0, &[&header(IN, 3)], &[512, 1]);
    let saved_disk = on(&disk).to_json();
    assert_eq!(saved_disk["path_on_host"], "a disk in memory");

    let again = on(&disk).with_json(saved_disk).unwrap();
    let mut after = before.moved(again.open().unwrap(), &saved).unwrap();
    after.transport.resume().unwrap();
    after.kick(0);
    assert_eq!(after.wait_used(0).unwrap().length, 513);
    assert_eq!(after.bytes(waiting.writable[0], 512), [0x33; 512]);
}

#[test]
fn a_saved_disk_whose_program_gives_no_back_end_says_what_to_do() {
    let saved = (KIND.from_json)(on(&Memory::of(8)).to_json()).unwrap();
    assert_eq!(saved.to_json(), on(&Memory::of(8)).to_json());
    expect![[r#"
        error: disk `root` is on a back end of a program, a disk in memory, and nobody gave one
          fix: restore it in the program that has it (`Restoration::replace`), or give a file with the same content: --disk id=root,path=FILE"#]]
    .assert_eq(&report(&saved.open().err().unwrap()));
}

#[test]
fn a_file_takes_its_place_where_one_is_named() {
    let image = image();
    let mut devices = vec![(KIND.from_json)(on(&Memory::of(8)).to_json()).unwrap()];
    let body = json!({"drive_id": "root", "path_on_host": image.path()});
    apply(&mut devices, &[Override::from_json(&KIND, body).unwrap()]).unwrap();
    let mut driver = Driver::running(devices[0].open().unwrap(), 0);
    assert_eq!(fetch(&mut driver, IN, 5, 512), (OK, vec![5; 512]));
    assert_eq!(devices[0].to_json().get("back_end"), None);
}

#[test]
fn a_back_end_without_a_sector_is_no_disk() {
    let error = on(&Memory::of(0)).open().err().unwrap();
    expect!["error: disk `root`: its back end has 0 bytes, and a disk at least 512"]
        .assert_eq(&report(&error));
}
