//! A driver of a network card.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::net(data));
