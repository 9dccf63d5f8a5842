//! What users say of devices.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::config(data));
