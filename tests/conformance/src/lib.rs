//! The cases every hypervisor back end must pass, run over the model and over KVM.
//!
//! A [`Case`] states one thing about `kedge-hv`'s traits, as the kernel's
//! documentation and source have it. What differs between kernels a case finds
//! out by asking, as kedge itself must. [`facts`] writes down what a back end
//! answers where kernels differ, so that a kernel can be compared with the model
//! of its release: the model is proven, not believed.
#![forbid(unsafe_code)]

pub mod backend;
pub mod case;
pub mod cases;
pub mod code;
pub mod ctx;
pub mod facts;
pub mod fixes;
pub mod known;
pub mod mutations;
pub mod record;
pub mod suite;

pub use backend::{Backend, Model};
pub use case::{Abilities, Case, Need};
pub use ctx::Ctx;
pub use known::Known;
