//! Disks in qcow2 images that `qemu-img` has made, and in such as nobody would make.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use expect_test::{Expect, expect};
use kedge_diag::report;
use proptest::prelude::*;
use tempfile::TempDir;

use super::config::Format;
use super::tests::{IN, IOERR, OK, OUT, config, drive, fetch, send};
use super::{Access, BlockConfig};
use crate::virtio::catalog::DeviceConfig;

/// The size of a raw disk in bytes, and of what is read at once.
const SIZE: usize = 1 << 20;
const PIECE: usize = 64 << 10;

struct Place(TempDir);

impl Place {
    /// With a raw disk of a few different pages between holes.
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        let raw = File::create(place.path("raw")).unwrap();
        raw.set_len(SIZE.try_into().unwrap()).unwrap();
        for (page, byte) in [(0, 1), (1, 2), (77, 3), (130, 4), (255, 5)] {
            raw.write_all_at(&[byte; 4096], page * 4096).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `qemu-img` with `words`, split at spaces.
    fn qemu_img(&self, words: &str) {
        let mut command = Command::new("qemu-img");
        let output = command.args(words.split(' ')).current_dir(self.0.path()).output();
        let output = output.expect("qemu-img is there: `cargo xtask setup` installs it");
        assert!(output.status.success(), "qemu-img {words}: {output:?}");
    }

    /// The raw disk as an image made with `words`.
    fn image(&self, words: &str) -> BlockConfig {
        self.qemu_img(&format!("convert -f raw -O qcow2 {words} raw image").replace("  ", " "));
        qcow2(&self.path("image"))
    }
}

fn qcow2(path: &Path) -> BlockConfig {
    BlockConfig { format: Format::Qcow2, access: Access::ReadOnly, ..config(path) }
}

/// All that a guest reads of the disk.
fn content(config: &BlockConfig) -> Vec<u8> {
    let mut driver = drive(config);
    let pieces = (0..SIZE).step_by(PIECE).map(|at| {
        let (status, data) = fetch(&mut driver, IN, u64::try_from(at / 512).unwrap(), PIECE);
        assert_eq!(status, OK);
        data
    });
    pieces.collect::<Vec<_>>().concat()
}

fn check(config: &BlockConfig, place: &Place, text: &Expect) {
    let said = report(&config.open().err().expect("it is refused"));
    text.assert_eq(&said.replace(place.0.path().to_str().unwrap(), "PLACE"));
}

#[test]
fn what_qemu_img_makes_is_read() {
    let place = Place::new();
    let raw = fs::read(place.path("raw")).unwrap();
    let ways = [
        "",
        "-c",
        "-o cluster_size=4096",
        "-o cluster_size=2M",
        "-o compat=0.10",
        "-o lazy_refcounts=on",
    ];
    for words in ways {
        assert!(content(&place.image(words)) == raw, "made with `{words}`");
    }
}

#[test]
fn an_image_has_the_size_that_it_says_and_takes_no_writes() {
    let place = Place::new();
    let mut driver = drive(&place.image(""));
    assert_eq!(driver.read(crate::virtio::transport::reg::CONFIG), 2048);
    assert_eq!(send(&mut driver, OUT, 0, &[7; 512]), IOERR);
    assert_eq!(fetch(&mut driver, IN, 2048, 512).0, IOERR);
}

#[test]
fn an_image_is_to_be_read_only() {
    let place = Place::new();
    let writable = BlockConfig { access: Access::ReadWrite, ..place.image("") };
    check(
        &writable,
        &place,
        &expect![[r#"
            error: disk `root`: PLACE/image is to be a qcow2 image, which guests can only read
              fix: add `readonly` to --disk (`is_read_only` in a configuration file), or make a raw image of it: qemu-img convert -O raw PLACE/image disk.raw"#]],
    );
}

#[test]
fn an_image_that_continues_in_another_file_opens_none() {
    let place = Place::new();
    place.qemu_img("create -f qcow2 -b /etc/passwd -F raw image 1M");
    check(
        &qcow2(&place.path("image")),
        &place,
        &expect![[r#"
        error: disk `root`: PLACE/image is no qcow2 image that can be read
          because: Backing file "/etc/passwd": Opening implicitly referenced storage object "/etc/passwd" denied
          fix: make a raw image of it, which continues in no other file: qemu-img convert -O raw PLACE/image disk.raw; leave `format` out for one that is raw already"#]],
    );
    place.qemu_img("create -f qcow2 -o data_file=data image 1M");
    check(
        &qcow2(&place.path("image")),
        &place,
        &expect![[r#"
        error: disk `root`: PLACE/image is no qcow2 image that can be read
          because: External data file "PLACE/data": Opening implicitly referenced storage object "PLACE/data" denied
          fix: make a raw image of it, which continues in no other file: qemu-img convert -O raw PLACE/image disk.raw; leave `format` out for one that is raw already"#]],
    );
}

#[test]
fn what_is_no_image_is_refused() {
    let place = Place::new();
    check(
        &qcow2(&place.path("raw")),
        &place,
        &expect![[r#"
        error: disk `root`: PLACE/raw is no qcow2 image that can be read
          because: Not a qcow2 file
          fix: make a raw image of it, which continues in no other file: qemu-img convert -O raw PLACE/raw disk.raw; leave `format` out for one that is raw already"#]],
    );
}

#[test]
fn the_format_goes_with_the_disk() {
    let place = Place::new();
    let image = place.image("");
    let parsed = (super::KIND.from_json)(image.to_json()).unwrap();
    assert_eq!(parsed.to_json()["format"], "qcow2");
    parsed.open().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is in an image, it is an error or some data.
    #[test]
    fn a_damaged_image_is_read_or_refused(
        damage in prop::collection::vec((0_u64..0x30000, any::<[u8; 8]>()), 1..8),
        header in prop::collection::vec((4_u64..112, any::<u8>()), 0..3),
    ) {
        let place = Place::new();
        let config = place.image("-o cluster_size=4096");
        let file = File::options().write(true).open(&config.path).unwrap();
        for (offset, bytes) in damage {
            file.write_all_at(&bytes, offset & !7).unwrap();
        }
        for (offset, byte) in header {
            file.write_all_at(&[byte], offset).unwrap();
        }
        if config.open().is_ok() {
            let mut driver = drive(&config);
            for sector in (0..2048).step_by(64) {
                let (status, _) = fetch(&mut driver, IN, sector, 64 * 512);
                prop_assert!([OK, IOERR].contains(&status));
            }
        }
    }
}
