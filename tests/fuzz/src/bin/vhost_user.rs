//! A driver of a disk or a card whose vhost-user back end says what it likes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kedge_fuzz::vhost_user(data));
