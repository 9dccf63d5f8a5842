//! Damaged snapshots.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::state_file(data));
