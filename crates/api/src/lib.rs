//! HTTP over a Unix socket, as Firecracker's clients speak it, and what they ask for. It owns
//! no machine: what becomes of a request is its [`http::Door`]'s business.
#![forbid(unsafe_code)]

pub mod call;
pub mod http;
