//! A metadata service: a JSON document that a guest reads by HTTP from a link-local address,
//! as from Firecracker's MMDS (FIRECRACKER_API.md, 3.4 and 15) and like a cloud's.
//!
//! [`Service`] has the document and answers requests; whoever runs the machine writes to it,
//! from any thread. A [`Stack`] is the service on one network card: ARP, TCP and HTTP over
//! Ethernet frames. It has no thread, no socket and no clock of its own: frames and the time
//! are handed to it, and frames are taken from it.
#![forbid(unsafe_code)]

mod config;
mod counters;
mod guest_http;
mod merge;
mod net;
mod service;
mod store;
mod token;
mod view;

pub use config::{BadConfig, Config, Version};
pub use net::{MAC, Stack};
pub use service::{Random, Service};
pub use store::StoreError;
