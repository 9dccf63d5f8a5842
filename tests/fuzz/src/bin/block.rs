//! A driver of a disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::block(data));
