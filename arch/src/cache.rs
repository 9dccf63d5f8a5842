//! The caches of the host's first CPU as sysfs describes them (Linux,
//! Documentation/ABI/testing/sysfs-devices-system-cpu): what a guest's device
//! tree says of its own.

use std::fs;
use std::path::Path;

/// The shape of a cache. Hosts whose firmware does not tell it have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes.
    pub size: u32,
    /// Bytes of a line.
    pub line: Option<u32>,
    /// Sets.
    pub sets: Option<u32>,
}

/// A cache behind the first level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Its level, from 2.
    pub level: u32,
    /// Its shape.
    pub geometry: Geometry,
    /// How many CPUs share one.
    pub shared_by: u32,
}

/// The caches of a CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caches {
    /// The first level's data cache.
    pub data: Option<Geometry>,
    /// The first level's instruction cache.
    pub instruction: Option<Geometry>,
    /// The levels behind it, nearest first.
    pub outer: Vec<Outer>,
}

/// More caches than any CPU has.
const MOST: u32 = 8;

/// Reads the caches of CPU 0 from the file system at `sysfs` (`/sys`). What is
/// missing or makes no sense there is missing here.
#[must_use]
pub fn read(sysfs: &Path) -> Caches {
    let root = sysfs.join("devices/system/cpu/cpu0/cache");
    let mut caches = Caches::default();
    // Where the host does not know sizes, the first file is missing, and so is
    // the use of the others.
    let described = |index: u32| Description::read(&root.join(format!("index{index}")));
    for cache in (0..MOST).map_while(described) {
        let Description { level, kind, geometry, shared_by } = cache;
        match (level, kind.as_str()) {
            (1, "Data") => caches.data = Some(geometry),
            (1, "Instruction") => caches.instruction = Some(geometry),
            (2.., "Unified") => caches.outer.push(Outer { level, geometry, shared_by }),
            _ => {}
        }
    }
    caches.outer.sort_by_key(|outer| outer.level);
    caches.outer.dedup_by_key(|outer| outer.level);
    caches
}

/// A folder `index<n>`.
struct Description {
    level: u32,
    kind: String,
    geometry: Geometry,
    shared_by: u32,
}

impl Description {
    fn read(folder: &Path) -> Option<Self> {
        let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let number = |name: &str| text(name)?.trim().parse().ok();
        let size = bytes(text("size")?.trim())?;
        Some(Self {
            level: number("level")?,
            kind: text("type")?.trim().to_owned(),
            geometry: Geometry {
                size,
                line: number("coherency_line_size"),
                sets: number("number_of_sets"),
            },
            shared_by: text("shared_cpu_list").and_then(|list| count(list.trim())).unwrap_or(1),
        })
    }
}

/// `64K` in bytes.
fn bytes(text: &str) -> Option<u32> {
    let (number, unit) = match text.strip_suffix('K') {
        Some(number) => (number, 1 << 10),
        None => (text.strip_suffix('M')?, 1 << 20),
    };
    number.parse::<u32>().ok()?.checked_mul(unit).filter(|size| *size > 0)
}

/// How many CPUs a list such as `0-3,8` names.
fn count(list: &str) -> Option<u32> {
    let span = |span: &str| {
        let (first, last) = span.split_once('-').unwrap_or((span, span));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').map(span).try_fold(0_u32, |sum, n| sum.checked_add(n?)).filter(|n| *n > 0)
}
