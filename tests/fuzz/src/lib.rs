//! What fuzz targets do with the bytes they are given: a driver that does whatever they say
//! to a device, and clients and files that are made of them.
//!
//! A finding is a panic, an overflow, a loop without end or memory without bound: whatever
//! a guest, a client or a file may not cause.
#![forbid(unsafe_code)]

mod config;
mod driver;
mod event_loop;
mod front;
mod hosts;
mod http;
mod log;
mod metadata;
mod requests;
mod state_file;
mod tamper;
mod words;

pub use config::config;
pub use hosts::{block, image, net, rng, transport, vhost_user, vsock};
pub use http::http;
pub use metadata::metadata;
pub use requests::requests;
pub use state_file::state_file;
