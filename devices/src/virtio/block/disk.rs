//! The host's side of a block device, at work: what a request does to where its data is,
//! and what its guest is told of it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use kedge_ids::u64_from;
use kedge_metrics::Moment;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK,
    VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

use super::SECTOR;
use super::back_end::BlockBackEnd;
use super::config::{BlockConfig, Cache, Engine};
use super::free::{Span, Zeroes};
use super::lock::Locked;
use super::metrics::{self, Act, BlockMetrics};
use super::open::{Access, OpenError, Opened, SERIAL};
use super::promise::{DISCARD, Promise, WRITE_ZEROES};
use super::request::{Operation, Trim};
use super::store::Store;
use crate::virtio::buffers::Buffers;
use crate::virtio::mishap::{Mishap, MishapKind, MishapListener};

/// An open disk.
#[derive(Debug)]
pub(super) struct Disk {
    config: BlockConfig,
    store: Store,
    sectors: u64,
    promise: Promise,
    /// Whether the driver has turned its cache off (`writeback` is 0).
    through: AtomicBool,
    metrics: Arc<BlockMetrics>,
    /// Who hears of mishaps.
    listener: OnceLock<MishapListener>,
}

/// Whether what is written is to last before it is said to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// When the host gets to it, or at the next flush.
    Later,
    /// At once.
    AtOnce,
}

/// What came of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `VIRTIO_BLK_S_*`.
    pub(super) status: u8,
    /// Bytes written to the driver's buffers.
    pub(super) written: usize,
}

impl Disk {
    /// Opens the disk that `config` describes.
    ///
    /// # Errors
    /// It is missing, no disk, too small, in use, or this user may not do so.
    pub(super) fn open(config: &BlockConfig) -> Result<Self, OpenError> {
        Ok(Self::of(Opened::open(config)?, config))
    }

    /// The disk that `config` describes, whose data `back_end` has.
    ///
    /// # Errors
    /// It is too small.
    pub(super) fn on_back_end(
        config: &BlockConfig,
        back_end: Arc<dyn BlockBackEnd>,
    ) -> Result<Self, OpenError> {
        Ok(Self::of(Opened::on_back_end(config, back_end)?, config))
    }

    fn of(opened: Opened, config: &BlockConfig) -> Self {
        let promise = Promise::new(config, &opened);
        let Opened { store, sectors, .. } = opened;
        let (config, through) = (config.clone(), AtomicBool::new(false));
        let (metrics, listener) = Default::default();
        Self { config, store, sectors, promise, through, metrics, listener }
    }

    /// Another file behind the disk. What the guest goes by stays, but for the size
    /// and the serial number.
    ///
    /// # Errors
    /// As for [`Disk::open`].
    pub(super) fn on(&self, path: std::path::PathBuf) -> Result<Self, OpenError> {
        let config = BlockConfig { path, access: self.access(), ..self.config.clone() };
        let mut disk = Self::open(&config)?;
        disk.promise = Promise { serial: disk.promise.serial, ..self.promise };
        disk.through = AtomicBool::new(self.through.load(Ordering::Relaxed));
        disk.metrics = Arc::clone(&self.metrics);
        disk.listener = self.listener.clone();
        Ok(disk)
    }

    /// Has `listener` hear of mishaps, where nobody does yet.
    pub(super) fn heard_by(&self, listener: Option<&MishapListener>) {
        if let Some(listener) = listener {
            // Who hears already goes on to.
            let _ = self.listener.set(listener.clone());
        }
    }

    /// Takes the disk, which it has from when it is opened until it lets go of it.
    ///
    /// # Errors
    /// Somebody else has it by now.
    pub(super) fn take(&self) -> Result<(), OpenError> {
        let (id, path) = (self.config.id.clone(), self.config.path.clone());
        match self.store.lock(self.access()) {
            Ok(Locked::Yes) => Ok(()),
            Ok(Locked::InUse) => Err(OpenError::InUse { id, path }),
            Err(source) => Err(OpenError::Io { id, path, source }),
        }
    }

    /// Lets go of the disk: nothing is written to it or read from it until it is taken
    /// again.
    pub(super) fn let_go(&self) {
        self.store.unlock();
    }

    /// Keeps to `promise` from now on, which a guest was given of a disk like it.
    pub(super) fn keep(&mut self, promise: Promise) {
        self.promise = promise;
    }

    /// What it keeps to.
    pub(super) fn promise(&self) -> &Promise {
        &self.promise
    }

    /// What it has done.
    pub(super) fn metrics(&self) -> &Arc<BlockMetrics> {
        &self.metrics
    }

    /// Its name.
    pub(super) fn id(&self) -> &str {
        &self.config.id
    }

    /// The disk with another file behind it.
    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: std::fs::File) {
        self.store = Store::Raw { file, direct: None };
    }

    /// Its size in sectors of 512 bytes.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether the guest may write.
    pub(super) fn access(&self) -> Access {
        self.promise.access
    }

    /// Whether the driver has turned its cache off.
    pub(super) fn is_through(&self) -> bool {
        self.through.load(Ordering::Relaxed)
    }

    /// The driver turns its cache off or on, if it has one.
    pub(super) fn set_through(&self, through: bool) {
        let has_cache = self.promise.cache == Cache::Writeback;
        self.through.store(through && has_cache, Ordering::Relaxed);
    }

    /// When what is written lasts, for a driver that accepted `features`: one that
    /// knows nothing of flushes relies on every write (5.2.6.2).
    pub(super) fn lasting(&self, features: u64) -> Lasting {
        let accepted = |bit| features & 1_u64 << bit != 0;
        let at_once = match self.promise.cache {
            Cache::Unsafe => false,
            Cache::Writethrough => true,
            Cache::Writeback if accepted(VIRTIO_BLK_F_CONFIG_WCE) => self.is_through(),
            Cache::Writeback => !accepted(VIRTIO_BLK_F_FLUSH),
        };
        if at_once { Lasting::AtOnce } else { Lasting::Later }
    }

    /// Does what the driver wants. What the host cannot do is an error for the
    /// guest.
    pub(super) fn execute(&self, operation: Operation<'_>, lasting: Lasting) -> Outcome {
        let began = Moment::now();
        match operation {
            Operation::In { sector, into } => {
                let bytes = into.len();
                let done = self.offset(sector, &into).map(|at| self.store.read(into, at));
                self.outcome((Act::Read, began), done, bytes)
            }
            Operation::Out { .. } | Operation::Trim { .. } if self.access() == Access::ReadOnly => {
                self.refuse(VIRTIO_BLK_S_IOERR)
            }
            Operation::Out { sector, from } => {
                let bytes = from.len();
                let written = self.offset(sector, &from).map(|at| self.store.write(from, at));
                let done = written.map(|written| written.and_then(|()| self.settle(lasting)));
                self.outcome((Act::Write, began), done, bytes)
            }
            Operation::Trim { trim, from } => self.trim((trim, began), from, lasting),
            Operation::Flush if self.promise.cache == Cache::Writeback => {
                self.outcome((Act::Flush, began), Some(self.store.sync()), 0)
            }
            Operation::GetId { mut into } if into.len() >= SERIAL => {
                let written = into.copy_from(&self.promise.serial);
                Outcome { status: low_byte(VIRTIO_BLK_S_OK), written }
            }
            Operation::GetId { .. } => self.refuse(VIRTIO_BLK_S_IOERR),
            Operation::Flush | Operation::Unsupported => self.refuse(VIRTIO_BLK_S_UNSUPP),
        }
    }

    /// Where its data is.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// How requests reach the host.
    pub(super) fn engine(&self) -> Engine {
        if self.store.is_file() { self.config.engine } else { Engine::Sync }
    }

    fn settle(&self, lasting: Lasting) -> io::Result<()> {
        match lasting {
            Lasting::Later => Ok(()),
            Lasting::AtOnce => {
                self.metrics.done(Act::Flush, 0);
                self.store.sync()
            }
        }
    }

    /// Discards what `from` lists, or fills it with zeroes: all of it, or nothing
    /// where any of it is not for the driver to ask for (5.2.6.2).
    fn trim(
        &self,
        (trim, began): (Trim, Moment),
        mut from: Buffers<'_>,
        lasting: Lasting,
    ) -> Outcome {
        let most = match trim {
            Trim::Discard => DISCARD,
            Trim::WriteZeroes => WRITE_ZEROES,
        };
        let mut pieces = Vec::new();
        while !from.is_empty() {
            let mut segment = [0; 16];
            let is_whole = from.copy_to(&mut segment) == segment.len();
            let segment = Segment::parse(segment);
            if segment.is_strange(trim) {
                return self.refuse(VIRTIO_BLK_S_UNSUPP);
            }
            let span = self.span(segment.sector, segment.sectors);
            match span.filter(|_| is_whole && segment.sectors <= most.sectors) {
                Some(span) => pieces.push((span, segment.zeroes())),
                None => return self.refuse(VIRTIO_BLK_S_IOERR),
            }
            if u64_from(pieces.len()) > most.segments.into() {
                return self.refuse(VIRTIO_BLK_S_IOERR);
            }
        }
        let piece = |&(span, zeroes): &(Span, Zeroes)| match trim {
            Trim::Discard => self.store.discard(span),
            Trim::WriteZeroes => self.store.zero(span, zeroes),
        };
        let done = pieces.iter().try_for_each(piece).and_then(|()| self.settle(lasting));
        self.outcome((Act::Trim, began), Some(done), 0)
    }

    /// Where `sectors` from `sector` on are in the file. None where they are not all
    /// within the disk, or there are none.
    fn span(&self, sector: u64, sectors: u32) -> Option<Span> {
        let end = sector.checked_add(sectors.into())?;
        (sectors != 0 && end <= self.sectors).then(|| Span {
            offset: sector.saturating_mul(SECTOR),
            length: u64::from(sectors).saturating_mul(SECTOR),
        })
    }

    /// Where `data` from `sector` on starts in the file. None where it is not
    /// whole sectors, or not all of it within the disk.
    pub(super) fn offset(&self, sector: u64, data: &Buffers<'_>) -> Option<u64> {
        let length = u64_from(data.len());
        let end = sector.checked_add(length / SECTOR)?;
        (length.is_multiple_of(SECTOR) && end <= self.sectors)
            .then(|| sector.saturating_mul(SECTOR))
    }

    /// The outcome of an attempt at `act`, which `began` then, with `bytes` of data, none
    /// where the driver asked for what the disk does not have.
    pub(super) fn outcome(
        &self,
        (act, began): (Act, Moment),
        done: Option<io::Result<()>>,
        bytes: usize,
    ) -> Outcome {
        match done {
            Some(Ok(())) => {
                self.metrics.took(act, began);
                self.metrics.done(act, bytes);
                let written = if act == Act::Read { bytes } else { 0 };
                Outcome { status: low_byte(VIRTIO_BLK_S_OK), written }
            }
            Some(Err(error)) => {
                self.report(act, &error);
                failure(VIRTIO_BLK_S_IOERR)
            }
            None => self.refuse(VIRTIO_BLK_S_IOERR),
        }
    }

    /// The outcome of what the driver may not ask for.
    fn refuse(&self, status: u32) -> Outcome {
        metrics::count(&self.metrics.refusals);
        failure(status)
    }

    /// Says in the log what the host could not do: the first time, the second,
    /// the fourth, the eighth and so on, since a guest tries again and again.
    fn report(&self, act: Act, error: &io::Error) {
        let times = metrics::count(&self.metrics.failures);
        if times.is_power_of_two() {
            let (id, verb) = (self.id(), act.verb());
            tracing::warn!(times, "disk `{id}`: the host cannot {verb}: {error}");
            if let Some(listener) = self.listener.get() {
                let why = format!("the host cannot {verb}: {error}");
                let (kind, device) = (MishapKind::HostFails, format!("disk `{id}`"));
                listener.tell(Mishap { kind, device, why, times });
            }
        }
    }
}

/// `struct virtio_blk_discard_write_zeroes` (5.2.6).
#[derive(Clone, Copy)]
struct Segment {
    sector: u64,
    sectors: u32,
    flags: u32,
}

impl Segment {
    fn parse(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
        Self {
            sector: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            sectors: u32::from_le_bytes([n0, n1, n2, n3]),
            flags: u32::from_le_bytes([f0, f1, f2, f3]),
        }
    }

    /// Whether it has flags that are reserved, or that a discard cannot have.
    fn is_strange(self, trim: Trim) -> bool {
        let known = match trim {
            Trim::Discard => 0,
            Trim::WriteZeroes => VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
        };
        self.flags & !known != 0
    }

    fn zeroes(self) -> Zeroes {
        let may_unmap = self.flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0;
        if may_unmap { Zeroes::Freed } else { Zeroes::Kept }
    }
}

fn failure(status: u32) -> Outcome {
    Outcome { status: low_byte(status), written: 0 }
}

fn low_byte(status: u32) -> u8 {
    status.to_le_bytes()[0]
}
