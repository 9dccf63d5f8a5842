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

#[cfg(test)]
mod tests {
    use super::*;

    const L1: &[(&str, &str)] = &[
        ("size", "64K\n"),
        ("level", "1\n"),
        ("coherency_line_size", "64\n"),
        ("number_of_sets", "256\n"),
        ("shared_cpu_list", "0\n"),
    ];

    /// A sysfs with these files for each cache of CPU 0.
    fn sysfs(caches: &[&[&[(&str, &str)]]]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (index, files) in caches.iter().enumerate() {
            let folder = root.path().join(format!("devices/system/cpu/cpu0/cache/index{index}"));
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in files.iter().copied().flatten() {
                fs::write(folder.join(name), text).unwrap();
            }
        }
        root
    }

    #[test]
    fn the_caches_of_a_server_are_read() {
        let l2: &[_] = &[
            ("size", "1024K\n"),
            ("level", "2\n"),
            ("type", "Unified\n"),
            ("shared_cpu_list", "0-1\n"),
        ];
        let l3: &[_] = &[
            ("size", "32M\n"),
            ("level", "3\n"),
            ("type", "Unified\n"),
            ("shared_cpu_list", "0-31,64-95\n"),
        ];
        let data: &[_] = &[L1, &[("type", "Data\n")]];
        let instruction: &[_] = &[L1, &[("type", "Instruction\n")]];
        let l1 = Geometry { size: 64 << 10, line: Some(64), sets: Some(256) };
        let sized = |size| Geometry { size, line: None, sets: None };
        let caches = Caches {
            data: Some(l1),
            instruction: Some(l1),
            outer: vec![
                Outer { level: 2, geometry: sized(1 << 20), shared_by: 2 },
                Outer { level: 3, geometry: sized(32 << 20), shared_by: 64 },
            ],
        };
        let root = sysfs(&[data, instruction, &[l2], &[l3]]);
        assert_eq!(read(root.path()), caches);
    }

    #[test]
    fn a_host_that_tells_no_sizes_has_no_caches_to_show() {
        let root = sysfs(&[&[&[("level", "1\n"), ("type", "Data\n")]]]);
        assert_eq!(read(root.path()), Caches::default());
        assert_eq!(read(Path::new("/nowhere")), Caches::default());
    }

    #[test]
    fn sizes_and_lists_that_make_no_sense_are_left_out() {
        assert_eq!(bytes("64"), None);
        assert_eq!(bytes("0K"), None);
        assert_eq!(bytes("4194304K"), None);
        assert_eq!(count("3-1"), None);
        assert_eq!(count(""), None);
        assert_eq!(count("0-4294967295"), None);
        assert_eq!(count("0-3,8"), Some(5));
    }
}
