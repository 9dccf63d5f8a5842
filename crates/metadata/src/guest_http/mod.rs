//! HTTP as guests speak it with the service (FIRECRACKER_API.md, 15; RFC 9112): requests of
//! one piece, answers in order.

mod answer;
mod request;
mod response;

pub(crate) use answer::{Rules, answer};
pub(crate) use request::read;
pub(crate) use response::Response;
