//! JSON documents that know where each of their parts stands, so that what is wrong in
//! one can be shown to its author.
//!
//! [`node`] reads a text into a tree with places, [`shape`] holds the tree against the
//! form that documents of a kind have; a JSON schema is written from the same form.
//! [`mod@quick`] reads what is probably right in one pass: only what is not needs places.

mod fault;
mod node;
mod quick;
mod schema;
mod shape;

pub(crate) use fault::At;
pub use fault::{BadDocument, Fault, Place};
pub(crate) use node::{Json, Node, Path};
pub(crate) use quick::quick;
pub(crate) use schema::schema;
pub(crate) use shape::{Key, Presence, Shape, Text, Trail, Which};

/// Reads the text of a document into a tree.
///
/// # Errors
/// It is no text, or no JSON, or an object has a key twice.
pub(crate) fn tree(bytes: &[u8]) -> Result<(&str, Node), BadDocument> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let (before, _) = bytes.split_at(error.valid_up_to());
        BadDocument::at(&String::from_utf8_lossy(before), before.len(), Fault::NoText)
    })?;
    let node = node::parse(text).map_err(|at| at.place(text))?;
    Ok((text, node))
}
