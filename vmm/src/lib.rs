//! The machine: build, run, reset; event loop; a library other programs embed.
#![forbid(unsafe_code)]
