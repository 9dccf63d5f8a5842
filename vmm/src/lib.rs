//! The machine: built from a specification, run, reset. A library that other
//! programs embed: it prints nothing, exits never and installs no global state.
#![deny(unsafe_code)]

pub mod spec;
