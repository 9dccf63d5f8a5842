//! HTTP over a Unix socket, as Firecracker's clients speak it. It owns no machine: what
//! a request means is its [`http::Door`]'s business.
#![forbid(unsafe_code)]

pub mod http;
