//! Snapshots that are anything, or the golden one with some of its bytes changed.

use std::fs;

use kedge_saved_state::{Snapshot, open_state};
use tempfile::TempDir;

const STATE: &[u8] = include_bytes!("../../../resources/snapshots/format-1.state");
const MEMORY: &[u8] = include_bytes!("../../../resources/snapshots/format-1.memory");

/// Where the length of the header stands, and its checksum and that of the preamble.
const LENGTH: usize = 12;
const CHECKSUMS: [usize; 2] = [16, 20];
/// Where the header begins.
const HEADER: usize = 24;

/// A state file. The first byte says of which kind: `data` itself; the golden one in which
/// each four bytes of `data` set a byte at an offset; or the same within the header, with
/// checksums that agree.
pub fn state_file(data: &[u8]) {
    let [kind, data @ ..] = data else { return };
    let bytes = match kind % 3 {
        0 => data.to_vec(),
        1 => changed(STATE, data),
        _ => with_header(data),
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

fn with_header(changes: &[u8]) -> Vec<u8> {
    let length: [u8; 4] = STATE[LENGTH..LENGTH + 4].try_into().expect("it has four bytes");
    let behind = HEADER + u32::from_le_bytes(length) as usize;
    let header = changed(&STATE[HEADER..behind], changes);
    let mut preamble = STATE[..HEADER].to_vec();
    let [own, all] = CHECKSUMS;
    preamble[own..own + 4].copy_from_slice(&crc32fast::hash(&header).to_le_bytes());
    let checksum = crc32fast::hash(&preamble[..all]);
    preamble[all..].copy_from_slice(&checksum.to_le_bytes());
    [&preamble, &header, &STATE[behind..]].concat()
}
