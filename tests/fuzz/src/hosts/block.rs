//! A disk: a file that grows, shrinks, refuses to be written to, or is somebody else's.

use std::fs::{self, File, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use kedge_devices::virtio::block::{Access, BlockConfig, KIND};
use kedge_devices::virtio::catalog::DeviceConfig;
use kedge_devices::virtio::change::Change;
use kedge_devices::virtio::device::VirtioDevice;
use rustix::fs::{FlockOperation, MemfdFlags, SealFlags};
use serde_json::json;
use tempfile::TempDir;

use super::image;
use super::program::Program;
use crate::driver::{Request, Subject};
use crate::words::{Words, body};

/// Bytes of the disk.
const DISK: u64 = 1 << 20;

#[rustfmt::skip]
const WORDS: Words = Words {
    kind: &KIND,
    options: &[
        ("path", &["PATH", "PATH", "PATH", "/dev/null", "/dev/fd", "/nowhere", "", "a,,b"]),
        ("readonly", &["off", "", "on", "perhaps"]),
        ("id", &["d", "a-b"]),
        ("cache", &["writeback", "writethrough", "unsafe", "none"]),
        ("direct", &["off", "on"]),
        ("queues", &["1", "2", "8", "0", "65"]),
        ("format", &["raw", "qcow2", "vmdk"]),
        ("engine", &["sync", "io_uring", "threads"]),
        ("bandwidth", &["1G", "4K", "64K/100ms", "1M+1M", "x"]),
        ("ops", &["100000", "2/1ms", "1+3", "0"]),
    ],
    fields: &[
        ("drive_id", &["\"d\"", "\"d\"", "\"a-b\""]),
        ("is_root_device", &["false", "false", "true"]),
        ("partuuid", &["null", "null", "\"0eaa91a0-01\""]),
        ("cache_type", &["\"Writeback\"", "\"Unsafe\"", "\"Writethrough\"", "3"]),
        ("is_read_only", &["false", "true"]),
        ("path_on_host", &["\"PATH\"", "\"PATH\"", "\"/dev/null\"", "\"/dev/fd\"", "\"/nowhere\""]),
        ("rate_limiter", &[
            "null", "{}", "{\"ops\": {\"size\": 2, \"refill_time\": 1}}",
            "{\"bandwidth\": {\"size\": 4096, \"refill_time\": 1, \"one_time_burst\": 512}}",
        ]),
        ("io_engine", &["\"Sync\"", "\"Async\""]),
        ("socket", &["null", "null", "null", "\"s\""]),
        ("direct", &["false", "true"]),
        ("format", &["\"raw\"", "\"qcow2\""]),
        ("num_queues", &["1", "2", "8", "0"]),
    ],
};

/// What a change says.
const PATCH: &[(&str, &[&str])] = &[
    ("drive_id", &["\"d\"", "\"d\"", "\"d\"", "3"]),
    ("path_on_host", &["\"PATH\"", "null", "\"/nowhere\"", "\"/dev/fd\""]),
    (
        "rate_limiter",
        &[
            "null",
            "{\"ops\": {\"size\": 0, \"refill_time\": 0}}",
            "{\"bandwidth\": {\"size\": 1024, \"refill_time\": 1}}",
        ],
    ),
    ("colour", &["null", "null", "null", "1"]),
];

/// What the driver calls a request (Virtio 1.2, 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const TRIMS: [u32; 2] = [11, 13];
const GET_ID: u32 = 8;

pub(super) struct Disk {
    /// Where files are that direct access needs a file system for.
    folder: Option<TempDir>,
    file: File,
    path: String,
    config: Option<Box<dyn DeviceConfig>>,
    /// Who has its data, where that is not the file.
    program: Option<Arc<Program>>,
    /// Others that the disk is changed to.
    others: Vec<OwnedFd>,
}

impl Disk {
    pub(super) fn new(from: &mut Unstructured<'_>) -> Result<Self> {
        let (folder, file, path) = match from.int_in_range(0..=7)? {
            0..=1 => in_folder(),
            2 => return Self::of_image(from),
            3 => return Self::of_program(from),
            _ => {
                let (file, path) = in_memory(DISK);
                (None, file, path)
            }
        };
        let config = WORDS.say(&path, from)?;
        Ok(Self { folder, file, path, config, program: None, others: Vec::new() })
    }

    /// One that is an image.
    pub(super) fn of_image(from: &mut Unstructured<'_>) -> Result<Self> {
        let (file, path) = in_memory(0);
        image::write(&file, DISK, from)?;
        let body = json!({"drive_id": "d", "is_root_device": false, "path_on_host": path,
            "format": "qcow2", "is_read_only": true});
        let config = Some((KIND.from_json)(body).expect("it is well-formed"));
        Ok(Self { folder: None, file, path, config, program: None, others: Vec::new() })
    }

    /// One that is no file: a program has its data. Or none has, any more.
    pub(super) fn of_program(from: &mut Unstructured<'_>) -> Result<Self> {
        let (file, path) = in_memory(DISK);
        let sizes = [DISK, DISK, DISK, DISK - 1, 512, 511, 0];
        let program = Arc::new(Program::new(sizes[from.int_in_range(0..=6_usize)?]));
        let access = [Access::ReadWrite, Access::ReadWrite, Access::ReadOnly];
        let access = access[from.int_in_range(0..=2_usize)?];
        let config = BlockConfig { access, ..BlockConfig::new("d", &path) };
        let on: Box<dyn DeviceConfig> = Box::new(config.on(Arc::clone(&program) as Arc<_>));
        let (said, id) = (on.to_json(), on.id().to_owned());
        drop(format!("{on:?} {id} {:?} {}", on.cmdline(0), on.leads()));
        let elsewhere = match from.int_in_range(0..=15)? {
            0 => Some((KIND.from_json)(said)),
            1 => Some(on.with_json(said)),
            2 => {
                let mut other = said;
                other["path_on_host"] = json!("/nowhere");
                Some(on.with_json(other))
            }
            _ => None,
        };
        let config = elsewhere.map_or(on, |config| config.expect("it is well-formed"));
        let (config, program) = (Some(config), Some(program));
        Ok(Self { folder: None, file, path, config, program, others: Vec::new() })
    }

    /// The file is another from now on, for whoever opens it.
    fn begin_anew(&mut self) {
        let (file, path) = in_memory(DISK);
        (self.folder, self.file, self.path, self.config) = (None, file, path, None);
        self.program = None;
    }
}

/// A disk without a file system, at a path of this process.
fn in_memory(size: u64) -> (File, String) {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("disk", flags).expect("memory"));
    file.set_len(size).expect("a file that grows");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    (file, path)
}

fn in_folder() -> (Option<TempDir>, File, String) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("disk");
    let file = File::create_new(&path).expect("a file");
    file.set_len(DISK).expect("a file that grows");
    let path = path.to_str().expect("a plain path").to_owned();
    (Some(folder), file, path)
}

impl Subject for Disk {
    /// Others may have it by then.
    const WORKS: bool = false;

    fn device(&mut self) -> Box<dyn VirtioDevice> {
        if let Some(config) = &self.config {
            match config.open() {
                Ok(device) => return device,
                Err(error) => drop(kedge_diag::report(&error)),
            }
        }
        let open = |path: &str| {
            let body = json!({"drive_id": "d", "is_root_device": false, "path_on_host": path,
                "cache_type": "Writeback"});
            (KIND.from_json)(body).expect("it is well-formed").open()
        };
        open(&self.path).unwrap_or_else(|error| {
            drop(kedge_diag::report(&error));
            self.begin_anew();
            open(&self.path).expect("nothing was done to it")
        })
    }

    fn happen(&mut self, from: &mut Unstructured<'_>) -> Result<()> {
        if let Some(program) = &self.program {
            program.turn();
            return Ok(());
        }
        match from.int_in_range(0..=7)? {
            0..=1 => {
                let length = from.int_in_range(0..=DISK)?;
                // It may be sealed.
                let _ = self.file.set_len(length);
            }
            2 => {
                // As on a host that is full, or whose disk fails.
                let seals = [SealFlags::WRITE, SealFlags::GROW, SealFlags::SHRINK];
                let _ = rustix::fs::fcntl_add_seals(&self.file, seals[from.int_in_range(0..=2)?]);
            }
            3 => drop(rustix::fs::fcntl_lock(&self.file, FlockOperation::NonBlockingLockExclusive)),
            4 => drop(rustix::fs::fcntl_lock(&self.file, FlockOperation::Unlock)),
            5 => {
                let mode = if from.arbitrary()? { 0o444 } else { 0o644 };
                let _ = fs::set_permissions(&self.path, Permissions::from_mode(mode));
            }
            _ => {
                if let Some(folder) = &self.folder {
                    let _ = fs::remove_file(folder.path().join("disk"));
                }
            }
        }
        Ok(())
    }

    fn request(
        &mut self,
        _queue: usize,
        _queues: usize,
        from: &mut Unstructured<'_>,
    ) -> Result<Request> {
        // `struct virtio_blk_req`: type, reserved, sector.
        let kind: u32 = match from.ratio(3, 4)? {
            true => {
                [IN, OUT, OUT, TRIMS[0], TRIMS[1], GET_ID, 4][from.int_in_range(0..=6_usize)?]
            }
            false => from.int_in_range(0..=14)?,
        };
        let sector: u64 = match from.ratio(7, 8)? {
            true => from.int_in_range(0..=DISK / 512)?,
            false => from.arbitrary()?,
        };
        let sectors = from.int_in_range(0..=80_u32)?;
        let odd = if from.ratio(1, 8)? { from.arbitrary::<u8>()?.into() } else { 0 };
        let mut readable = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        let mut writable = 1;
        match kind {
            IN => writable += sectors * 512 + odd,
            GET_ID => writable += 20 + odd,
            OUT => readable.resize(16 + (sectors * 512 + odd) as usize, 7),
            kind if TRIMS.contains(&kind) => {
                for _ in 0..=from.int_in_range(0..=2)? + odd / 10 {
                    // `struct virtio_blk_discard_write_zeroes`.
                    let sector = from.int_in_range(0..=DISK / 512)?;
                    let sectors = from.int_in_range(0..=200_u32)?;
                    let flags = u32::from(from.arbitrary::<u8>()? % 3);
                    readable.extend(sector.to_le_bytes());
                    readable.extend(sectors.to_le_bytes());
                    readable.extend(flags.to_le_bytes());
                }
            }
            _ => {}
        }
        if from.ratio(1, 32)? {
            readable.truncate(odd as usize);
            writable = odd % 2;
        }
        Ok(Request { readable, writable })
    }

    fn change(&mut self, from: &mut Unstructured<'_>) -> Result<Option<Change>> {
        let path = match from.arbitrary()? {
            true => self.path.clone(),
            false => {
                let (other, path) = in_memory(from.int_in_range(0..=DISK)?);
                self.others.push(other.into());
                path
            }
        };
        let body = body(PATCH, &path, from)?;
        let change = Change::from_json(&KIND, body);
        change.iter().for_each(|change| drop(format!("{change:?} {}", change.id())));
        let refused = change.as_ref().err();
        refused.into_iter().for_each(|error| drop(kedge_diag::report(error)));
        if let (Ok(change), Some(config)) = (&change, &self.config) {
            match change.applied(config.as_ref()) {
                Ok(applied) => drop(applied.to_json()),
                Err(error) => drop(kedge_diag::report(&error)),
            }
        }
        Ok(change.ok())
    }
}
