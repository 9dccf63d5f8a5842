//! HTTP/1.0 and 1.1 over a Unix socket (RFC 9112), as much of it as clients of
//! Firecracker's API use: requests with a length, answers in order, connections that stay.
//!
//! A server is one thread that waits for nobody: a request is handed to a [`Door`], whose
//! answer may come later and from anywhere. Meanwhile its connection is read no further,
//! and others are served.

mod client;
mod connection;
mod limits;
mod reply;
mod request;
mod response;
mod server;
mod stream;
mod turn;

pub use client::{CallError, call, listen, show};
pub use limits::Limits;
pub use reply::{Afterwards, Client, Reply};
pub use request::{BadRequest, Method, Request};
pub use response::Response;
pub use server::{Door, ListenError, Server};
pub use stream::{Sent, Stream};
