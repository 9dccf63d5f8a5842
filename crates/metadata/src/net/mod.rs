//! The service on a network card: Ethernet frames in and out.

mod connection;
mod frame;
mod stack;
mod wire;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

pub use stack::{MAC, Stack};
