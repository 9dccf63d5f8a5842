//! Debian's arm64 kernels by label: fetched once, kept as an `Image` and the modules that hosts and guests load.

use std::{
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::{apt::Apt, extract_alone, release};
use crate::{
    host::PageSize,
    images::modules::{self, Module},
    paths, progress,
};

/// Which suites hold a label's kernels, in the order of preference.
struct Source {
    label: &'static str,
    suites: &'static [&'static str],
    /// Whether a later kernel may stand in where the label's own is gone.
    moves_on: bool,
}

#[rustfmt::skip]
const SOURCES: [Source; 4] = [
    Source { label: "5.10", suites: &["bullseye"],                moves_on: false },
    Source { label: "6.1",  suites: &["bookworm"],                moves_on: false },
    Source { label: "6.12", suites: &["trixie"],                  moves_on: false },
    Source { label: "7.2",  suites: &["sid", "trixie-backports"], moves_on: true },
];

/// Grows whenever [`modules::KEPT`] or the layout of a kernel's folder changes: kernels are then fetched again.
const LAYOUT: u32 = 1;

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Its label and page size, as one word: `6.12`, `6.12-16k`.
    pub name: String,
    folder: PathBuf,
}

impl Kernel {
    /// The uncompressed boot image.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join("Image")
    }

    /// The modules kept of it, by name.
    ///
    /// # Errors
    /// The cache cannot be read.
    pub(crate) fn modules(&self) -> anyhow::Result<Vec<Module>> {
        modules::in_folder(&self.folder.join("modules"))
    }
}

/// A kernel that no suite of Debian holds any more: what needs it is to be counted as skipped.
#[derive(Debug)]
pub(crate) struct KernelGone {
    name: String,
    suites: &'static [&'static str],
}

impl std::fmt::Display for KernelGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, suites } = self;
        write!(f, "the mirror has no kernel {name} any more (looked in {})", suites.join(", "))
    }
}

impl std::error::Error for KernelGone {}

/// The label and the page size as one word.
pub(crate) fn name(label: &str, page_size: PageSize) -> String {
    match page_size {
        PageSize::K4 => label.to_owned(),
        PageSize::K16 => format!("{label}-16k"),
    }
}

/// The kernel of this label, fetched if it is not in the cache.
///
/// # Errors
/// An unknown label, no network, or [`KernelGone`] (found with `downcast_ref`).
pub(crate) fn kernel(label: &str, page_size: PageSize) -> anyhow::Result<Kernel> {
    let Some(source) = SOURCES.iter().find(|source| source.label == label) else {
        let known: Vec<_> = SOURCES.iter().map(|source| source.label).collect();
        bail!("there is no kernel {label}; known are {}", known.join(", "))
    };
    let name = name(label, page_size);
    let folder = paths::cache()?.join("kernels").join(format!("{name}.v{LAYOUT}"));
    let folder = paths::item(folder, |made| fetch(source, page_size, made))?;
    Ok(Kernel { name, folder })
}

fn fetch(source: &Source, page_size: PageSize, made: &Path) -> anyhow::Result<()> {
    let name = name(source.label, page_size);
    let mut last_error = None;
    for (suite, release, packages) in candidates(source, page_size)? {
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        let fetched = progress::step(format_args!("fetch kernel {name} ({release})"), || {
            let unpacked =
                tempfile::tempdir_in(made.parent().context("an item lies in a folder")?)?;
            extract_alone(&packages, suite, unpacked.path())?;
            keep(unpacked.path(), made)
        });
        match fetched {
            Ok(()) => return Ok(()),
            // The lists can be ahead of the pool, or name a release of which half is missing.
            Err(error) => {
                last_error = Some(error.context(format!("cannot fetch kernel {release}")));
            }
        }
        if made.exists() {
            fs::remove_dir_all(made)?;
        }
    }
    Err(last_error.unwrap_or_else(|| KernelGone { name, suites: source.suites }.into()))
}

/// Suite, release and packages of each kernel worth trying, the best first.
fn candidates(
    source: &Source,
    page_size: PageSize,
) -> anyhow::Result<Vec<(&'static str, String, Vec<String>)>> {
    let mut own = Vec::new();
    let mut later = Vec::new();
    for suite in source.suites {
        let names = Apt::open(suite)?.names("linux-")?;
        let with_packages = |release: String| {
            let packages = ["image", "binary", "modules"]
                .map(|part| format!("linux-{part}-{release}"))
                .into_iter()
                .filter(|package| names.contains(package))
                .collect();
            (*suite, release, packages)
        };
        own.extend(
            release::of_label(&names, source.label, page_size).into_iter().map(with_packages),
        );
        if source.moves_on {
            let releases = release::after_label(&names, source.label, page_size);
            later.extend(releases.into_iter().map(with_packages));
        }
    }
    own.extend(later);
    Ok(own)
}

/// Makes a kernel's folder out of its unpacked packages.
fn keep(unpacked: &Path, made: &Path) -> anyhow::Result<()> {
    let files = files_below(unpacked)?;
    let image = files
        .iter()
        .find(|path| file_name(path).starts_with("vmlinuz"))
        .context("there is no vmlinuz in the packages")?;
    fs::create_dir_all(made.join("modules"))?;
    fs::copy(image, made.join("Image"))?;
    let by_name = |wanted: &str| {
        files.iter().find(|path| modules::name_of(path).is_some_and(|name| name == wanted))
    };
    let mut wanted: Vec<String> = modules::KEPT.iter().map(|&name| name.to_owned()).collect();
    let mut next = 0;
    while let Some(name) = wanted.get(next).cloned() {
        next += 1;
        // What is not there is built in, or of another kernel version.
        let Some(path) = by_name(&name) else { continue };
        let data = decompressed(path)?;
        let needs = modules::needs(&data);
        fs::write(made.join("modules").join(format!("{name}.ko")), data)?;
        wanted.extend(needs.into_iter().filter(|need| !wanted.contains(need)).collect::<Vec<_>>());
    }
    Ok(())
}

fn decompressed(module: &Path) -> anyhow::Result<Vec<u8>> {
    if module.extension().is_none_or(|end| end != "xz") {
        return Ok(fs::read(module)?);
    }
    let mut data = Vec::new();
    lzma_rs::xz_decompress(&mut BufReader::new(File::open(module)?), &mut data)
        .map_err(|error| anyhow::anyhow!("cannot decompress {}: {error:?}", module.display()))?;
    Ok(data)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// All regular files below `folder`; links are not followed.
fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}
