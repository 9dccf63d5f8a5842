//! Profiles and host probes by name or from files.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kedge_diag::{Fix, nearest};
use kedge_firmware::{BadDocument, CpuConfig, GuestAbi, HostAbi, builtin, builtin_names};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// No document is nearly as long, and a device is endless.
const LONGEST: u64 = 16 << 20;

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadFile {
    /// Neither a name nor a file.
    #[error("there is no profile `{name}` in this release, and no file of that name")]
    Nowhere {
        /// The name.
        name: String,
    },
    /// It cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("cannot use `{}` as {what}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What is wrong in it.
        source: Box<BadDocument>,
    },
    /// A probe where a profile should be.
    #[error("`{}` is what a probe found on a host, not a profile", path.display())]
    IsHost {
        /// The file.
        path: PathBuf,
    },
    /// A profile where a probe should be.
    #[error("`{name}` is a profile, not what a probe found on a host")]
    IsProfile {
        /// The file or the name.
        name: String,
    },
}

impl Fix for BadFile {
    fn fix(&self) -> Option<String> {
        Some(match self {
            Self::Nowhere { name } => match nearest(name, builtin_names()) {
                Some(near) => format!("write `{near}`, or name a file that exists"),
                None => format!("write one of: {}; or name a file", builtin_names().join(", ")),
            },
            Self::Read { .. } => "name a file that exists and can be read".to_owned(),
            Self::Bad { source, .. } => return source.fix(),
            Self::IsHost { .. } => {
                "make a profile of it with `kedge abi baseline`, or name another file".to_owned()
            }
            Self::IsProfile { .. } => {
                "name a file that `kedge abi probe --output FILE` has written".to_owned()
            }
        })
    }
}

/// A profile or what a probe found.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    /// What a guest is promised.
    Profile(GuestAbi),
    /// What a host offers.
    Host(HostAbi),
}

/// The profile with this name, or else the one in the file with this name.
///
/// # Errors
/// There is none, or the file is no profile.
pub(crate) fn profile(name: &str) -> Result<GuestAbi, BadFile> {
    match document(name)? {
        Document::Profile(abi) => Ok(abi),
        Document::Host(_) => Err(BadFile::IsHost { path: name.into() }),
    }
}

/// What a probe wrote to the file with this name.
///
/// # Errors
/// It cannot be read, or is no such document.
pub(crate) fn host(name: &str) -> Result<HostAbi, BadFile> {
    match document(name)? {
        Document::Host(host) => Ok(host),
        Document::Profile(_) => Err(BadFile::IsProfile { name: name.to_owned() }),
    }
}

/// The CPU configuration in the file at `path`.
///
/// # Errors
/// It cannot be read, or is no such document.
pub(crate) fn cpu_config(path: &Path) -> Result<CpuConfig, BadFile> {
    let bytes = read(path).map_err(|source| BadFile::Read { path: path.to_owned(), source })?;
    CpuConfig::read(&bytes).map_err(|source| BadFile::Bad {
        path: path.to_owned(),
        what: "a CPU configuration",
        source: Box::new(source),
    })
}

/// The profile with this name, or else what is in the file with this name.
///
/// # Errors
/// There is none, or it is neither profile nor probe.
pub(crate) fn document(name: &str) -> Result<Document, BadFile> {
    if let Some(abi) = builtin(name) {
        return Ok(Document::Profile(abi));
    }
    let path = Path::new(name);
    let bytes = match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !name.contains('/') => {
            return Err(BadFile::Nowhere { name: name.to_owned() });
        }
        result => result.map_err(|source| BadFile::Read { path: path.to_owned(), source })?,
    };
    // Every machine begins with a profile that is right.
    if let Some(abi) = GuestAbi::read_quickly(&bytes) {
        return Ok(Document::Profile(abi));
    }
    let (what, read) = if is_host(&bytes) {
        ("a probed host", HostAbi::read(&bytes).map(Document::Host))
    } else {
        ("a profile", GuestAbi::read(&bytes).map(Document::Profile))
    };
    read.map_err(|source| BadFile::Bad { path: path.to_owned(), what, source: Box::new(source) })
}

/// The bytes of a file of a sensible length.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    /// Of what is longer, more is read where it is there.
    const USUAL: usize = 32 << 10;
    let mut bytes = Vec::with_capacity(USUAL);
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether it is what a probe writes, good or bad: no profile has limits.
fn is_host(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Sniff {
        limits: Option<IgnoredAny>,
    }

    serde_json::from_slice::<Sniff>(bytes).is_ok_and(|sniff| sniff.limits.is_some())
}
