//! Snapshots that are anything, or the golden one with some of its bytes changed.

use std::fs;

use arbitrary::Unstructured;
use kedge_saved_state::{Snapshot, open_state};
use tempfile::TempDir;

use crate::tamper;

const STATE: &[u8] = include_bytes!("../../../resources/snapshots/format-1.state");
const MEMORY: &[u8] = include_bytes!("../../../resources/snapshots/format-1.memory");

/// Where the length of the header stands, and its checksum and that of the preamble.
const LENGTH: usize = 12;
const CHECKSUMS: [usize; 2] = [16, 20];
/// Where the header begins.
const HEADER: usize = 24;

/// A state file. The first byte says of which kind: `data` itself; the golden one in which
/// each four bytes of `data` set a byte at an offset; the same within the header, with
/// checksums that agree; or with a header of which fields have other values.
pub fn state_file(data: &[u8]) {
    let [kind, data @ ..] = data else { return };
    let bytes = match kind % 4 {
        0 => data.to_vec(),
        1 => changed(STATE, data),
        2 => with_header(|header| changed(header, data)),
        _ => with_header(|header| with_fields(header, data)),
    };
    let folder = TempDir::new().expect("a folder");
    let (state, memory) = (folder.path().join("state"), folder.path().join("memory"));
    fs::write(&state, bytes).expect("a file");
    fs::write(&memory, MEMORY).expect("a file");
    match Snapshot::open(&state, &memory) {
        Ok(snapshot) => drop(snapshot.contents()),
        Err(error) => drop(kedge_diag::report(&error)),
    }
    if let Ok(file) = open_state(&state) {
        let _ = file.header().check_sections(|_| false);
    }
}

fn changed(whole: &[u8], changes: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for change in changes.chunks_exact(4) {
        let offset = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize;
        bytes[offset % whole.len()] = change[3];
    }
    bytes
}

/// The header with up to three of its fields changed.
fn with_fields(header: &[u8], changes: &[u8]) -> Vec<u8> {
    let from = &mut Unstructured::new(changes);
    let mut header = header.to_vec();
    for _ in 0..3 {
        match tamper::changed(&header, from) {
            Ok(changed) => header = changed,
            Err(_) => break,
        }
        if from.is_empty() {
            break;
        }
    }
    header
}

/// The golden one with another header.
fn with_header(change: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let length: [u8; 4] = STATE[LENGTH..LENGTH + 4].try_into().expect("it has four bytes");
    let behind = HEADER + u32::from_le_bytes(length) as usize;
    let header = change(&STATE[HEADER..behind]);
    let mut preamble = STATE[..HEADER].to_vec();
    let length = u32::try_from(header.len()).expect("it is short");
    preamble[LENGTH..LENGTH + 4].copy_from_slice(&length.to_le_bytes());
    let [own, all] = CHECKSUMS;
    preamble[own..own + 4].copy_from_slice(&crc32fast::hash(&header).to_le_bytes());
    let checksum = crc32fast::hash(&preamble[..all]);
    preamble[all..].copy_from_slice(&checksum.to_le_bytes());
    [&preamble, &header, &STATE[behind..]].concat()
}
