//! The demands from which kedge was designed, each by the number of its row: shown on
//! register state that is moved between two machines of the model.
//!
//! Rows 13, 19, 42 and 44 ask for something that is not there, and are answered in
//! `docs/firmware-rows.md`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../watched/hand_on.rs"]
mod hand_on;
mod kernels;
mod machine;
mod mail_000;
mod mail_001;
mod mail_002;
mod mail_003;
mod mail_004;
mod matrix;
mod recorder;
