//! A driver of a disk behind either transport, and its machine's PCI.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::transport(data));
