//! The state file: a preamble of 24 bytes, the header, the sections.
//!
//! | offset | bytes | what, little-endian |
//! |---|---|---|
//! | 0 | 8 | `89 4b 45 44 47 45 0d 0a`: a file that is no text, and that was not mangled as one |
//! | 8 | 4 | format: 1 |
//! | 12 | 4 | length of the header |
//! | 16 | 4 | CRC-32 (IEEE 802.3) of the header |
//! | 20 | 4 | CRC-32 of the 20 bytes before |
//! | 24 | | the header, CBOR (RFC 8949) |
//! | | | the sections, CBOR, one after the other to the end of the file |
//!
//! The preamble is the same in every format, and so is where the header says which
//! release wrote it. All of it is input: no length in it is believed before the file was
//! found to be that long, so a reader takes memory in proportion to the file, whatever
//! the file says.

use std::io::{self, Read, Seek, SeekFrom, Write};

use kedge_diag::Fix;
use kedge_ids::{u64_from, usize_from};
use serde::Deserialize;

use crate::part::decode;
use crate::{
    About, Entry, Header, MemoryIdentity, Need, Part, Section, StateError, Versioned, image,
};

const MAGIC: [u8; 8] = *b"\x89KEDGE\r\n";
/// The format of state files that this release writes and reads.
pub const FORMAT: u32 = 1;
const PREAMBLE: usize = 24;
/// Longer than any state file: what is large in a machine is its memory, which has a
/// file of its own.
const MOST: u64 = 1 << 30;

/// Why a state file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It does not begin as one.
    #[error("it is no state file of kedge: it begins otherwise")]
    Foreign,
    /// A later release wrote it in a format that this one does not know.
    #[error("it has format {format}, written by {release}; this release reads format {FORMAT}")]
    Format {
        /// The file's format.
        format: u32,
        /// Who wrote it, as far as the file tells: "kedge 2.0.0".
        release: String,
    },
    /// It is shorter than it says.
    #[error("it ends after {length} bytes, before the end of its {what}")]
    Truncated {
        /// Its length in bytes.
        length: u64,
        /// What does not end: "preamble", "header".
        what: &'static str,
    },
    /// It is longer than any state file.
    #[error("it has {length} bytes, and a state file never has more than {MOST}")]
    TooLong {
        /// Its length in bytes.
        length: u64,
    },
    /// A checksum does not match.
    #[error("its {what} is damaged: the checksum does not match")]
    Damaged {
        /// What is damaged: "header", "section `gic`".
        what: String,
    },
    /// The header contradicts itself or the file.
    #[error("its header is not plausible: {problem}")]
    Header {
        /// What is wrong, beginning with the field.
        problem: String,
    },
    /// It has required sections that this release does not know.
    #[error("it needs {sections}, which this release does not know; kedge {release} wrote it")]
    Unknown {
        /// The sections, with their versions.
        sections: String,
        /// The release that wrote it.
        release: String,
    },
    /// A section that has to be there is not.
    #[error("it has no section `{kind}`{}", named(instance))]
    Missing {
        /// The section's kind.
        kind: &'static str,
        /// Which one, if there can be several.
        instance: String,
    },
    /// A section does not hold what it should.
    #[error(transparent)]
    Section(#[from] StateError),
    /// The host cannot read it.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

fn named(instance: &str) -> String {
    if instance.is_empty() { String::new() } else { format!(" ({instance})") }
}

impl Fix for FileError {
    fn fix(&self) -> Option<String> {
        let text = match self {
            Self::Section(source) => return source.fix(),
            Self::Read(_) => return None,
            Self::Foreign => "name the state file of a snapshot, not its memory file",
            Self::Format { .. } | Self::Unknown { .. } => {
                "load it with the release that wrote it, or a later one"
            }
            Self::Truncated { .. }
            | Self::TooLong { .. }
            | Self::Damaged { .. }
            | Self::Header { .. }
            | Self::Missing { .. } => "copy the snapshot anew, or take another: it is damaged",
        };
        Some(text.to_owned())
    }
}

/// A saved machine but for its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    header: Header,
    sections: Vec<Section>,
}

impl StateFile {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The sections, in the order of the file.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The part of `kind`, if there is one; `instance` is empty for what there is one of.
    pub fn find(&self, kind: &str, instance: &str) -> Option<&Part> {
        let is_it = |section: &&Section| section.part.kind == kind && section.instance == instance;
        self.sections.iter().find(is_it).map(|section| &section.part)
    }

    /// The one section of `T`'s kind.
    ///
    /// # Errors
    /// There is none, or it holds no `T`.
    pub fn read_part<T: Versioned>(&self) -> Result<T, FileError> {
        let missing = || FileError::Missing { kind: T::KIND, instance: String::new() };
        Ok(self.find(T::KIND, "").ok_or_else(missing)?.read()?)
    }

    /// Writes a state file to `to`.
    ///
    /// # Errors
    /// What `to` says.
    pub fn write(
        to: &mut impl Write,
        about: &About,
        memory: &MemoryIdentity,
        sections: &[Section],
    ) -> io::Result<()> {
        let header =
            Header { about: about.clone(), memory: memory.clone(), sections: entries(sections) };
        let mut encoded = Vec::new();
        ciborium::into_writer(&header, &mut encoded)
            .expect("a header is plain data, and a vector takes all that is written");
        to.write_all(&preamble(&encoded)?)?;
        to.write_all(&encoded)?;
        sections.iter().try_for_each(|section| to.write_all(&section.part.body))
    }

    /// Reads a state file, from its beginning, and checks every checksum.
    ///
    /// # Errors
    /// It is damaged, of another format, or cannot be read.
    pub fn read(from: &mut (impl Read + Seek)) -> Result<Self, FileError> {
        let header = Header::read(from)?;
        // They are all that follows: that was checked.
        let length = header.sections.iter().map(|entry| entry.length).sum();
        let bodies = read_exact(from, length)?;
        let mut rest = bodies.as_slice();
        let mut sections = Vec::with_capacity(header.sections.len());
        for entry in &header.sections {
            let (body, behind) = rest.split_at(usize_from(entry.length));
            sections.push(section(body, entry)?);
            rest = behind;
        }
        Ok(Self { header, sections })
    }
}

impl Header {
    /// Reads the header alone; it vouches for the file's length, and for nothing of what
    /// its sections hold.
    ///
    /// # Errors
    /// It is damaged, of another format, or cannot be read.
    pub fn read(from: &mut (impl Read + Seek)) -> Result<Self, FileError> {
        let length = from.seek(SeekFrom::End(0)).map_err(FileError::Read)?;
        from.rewind().map_err(FileError::Read)?;
        let preamble = read_preamble(from, length)?;
        let behind = length - u64_from(PREAMBLE);
        if u64::from(preamble.header) > behind {
            return Err(FileError::Truncated { length, what: "header" });
        }
        let encoded = read_exact(from, u64::from(preamble.header))?;
        if preamble.format != FORMAT {
            let release = release(&encoded);
            return Err(FileError::Format { format: preamble.format, release });
        }
        if crc32fast::hash(&encoded) != preamble.checksum {
            return Err(FileError::Damaged { what: "header".to_owned() });
        }
        let implausible = |problem| FileError::Header { problem };
        let header: Self = decode(&encoded).map_err(implausible)?;
        header.check(behind - u64::from(preamble.header)).map_err(implausible)?;
        Ok(header)
    }

    /// Refuses a file with a required section that `knows` knows nothing of, but for those
    /// that describe its memory. Optional ones are for who knows them.
    ///
    /// # Errors
    /// [`FileError::Unknown`], with all of them.
    pub fn check_sections(&self, knows: impl Fn(&Entry) -> bool) -> Result<(), FileError> {
        let knows = |entry: &Entry| knows(entry) || image::knows(entry);
        let unknown = self.sections.iter().filter(|e| e.need == Need::Required && !knows(e));
        let names: Vec<_> =
            unknown.map(|entry| format!("{} version {}", entry.name(), entry.version)).collect();
        if names.is_empty() {
            return Ok(());
        }
        let release = self.about.release.clone();
        Err(FileError::Unknown { sections: names.join(", "), release })
    }
}

fn entries(sections: &[Section]) -> Vec<Entry> {
    let mut offset = 0;
    let mut entry = |section: &Section| {
        let Section { instance, need, part } = section;
        let length = u64_from(part.body.len());
        let entry = Entry {
            kind: part.kind.clone(),
            instance: instance.clone(),
            version: part.version,
            need: *need,
            offset,
            length,
            checksum: crc32fast::hash(&part.body),
        };
        offset += length;
        entry
    };
    sections.iter().map(&mut entry).collect()
}

fn preamble(header: &[u8]) -> io::Result<[u8; PREAMBLE]> {
    let length = u32::try_from(header.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = [0; PREAMBLE];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    bytes[16..20].copy_from_slice(&crc32fast::hash(header).to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..20]);
    bytes[20..].copy_from_slice(&checksum.to_le_bytes());
    Ok(bytes)
}

struct Preamble {
    format: u32,
    /// The header's length in bytes.
    header: u32,
    /// The header's.
    checksum: u32,
}

fn read_preamble(from: &mut impl Read, length: u64) -> Result<Preamble, FileError> {
    let mut bytes = [0; PREAMBLE];
    let there = usize_from(length.min(u64_from(PREAMBLE)));
    from.read_exact(&mut bytes[..there]).map_err(FileError::Read)?;
    let begun = there.min(MAGIC.len());
    if bytes[..begun] != MAGIC[..begun] {
        return Err(FileError::Foreign);
    }
    if there < PREAMBLE {
        return Err(FileError::Truncated { length, what: "preamble" });
    }
    if length > MOST {
        return Err(FileError::TooLong { length });
    }
    let word = |at: usize| {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        u32::from_le_bytes(bytes)
    };
    if crc32fast::hash(&bytes[..20]) != word(20) {
        return Err(FileError::Damaged { what: "preamble".to_owned() });
    }
    Ok(Preamble { format: word(8), header: word(12), checksum: word(16) })
}

/// Who wrote a header of any format.
fn release(encoded: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Written {
        about: By,
    }
    #[derive(Deserialize)]
    struct By {
        release: String,
    }
    match decode::<Written>(encoded) {
        Ok(written) => format!("kedge {}", written.about.release),
        Err(_) => "a release that it does not name".to_owned(),
    }
}

fn section(body: &[u8], entry: &Entry) -> Result<Section, FileError> {
    if crc32fast::hash(body) != entry.checksum {
        return Err(FileError::Damaged { what: format!("section {}", entry.name()) });
    }
    let Entry { kind, instance, version, need, .. } = entry.clone();
    Ok(Section { instance, need, part: Part { kind, version, body: body.to_vec() } })
}

/// `length` bytes, which the file has: that was checked.
fn read_exact(from: &mut impl Read, length: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = vec![0; usize_from(length)];
    from.read_exact(&mut bytes).map_err(FileError::Read)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
