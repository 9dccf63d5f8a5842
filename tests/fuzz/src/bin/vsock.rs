//! A driver of a vsock device, and programs of the host.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::vsock(data));
