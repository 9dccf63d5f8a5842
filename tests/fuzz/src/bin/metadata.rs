//! A guest that talks to the metadata service.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::metadata(data));
