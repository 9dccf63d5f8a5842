//! Guest memory comes from guest_memory: nobody else names vm-memory's mappings.

use super::{Finding, Source};

const OWNER: &str = "crates/guest_memory/";
/// What vm-memory offers with its `backend-mmap` feature, which cargo switches on for everybody at once.
const MAPPINGS: [&str; 6] = [
    "mmap",
    "GuestMemoryMmap",
    "GuestRegionMmap",
    "MmapRegion",
    "MmapRegionBuilder",
    "MmapRegionError",
];

/// A path that begins with `vm_memory` and leads to a mapping.
pub(super) fn owner(source: &Source) -> Vec<Finding> {
    if source.path.starts_with(OWNER) {
        return Vec::new();
    }
    let paths = source.find(&["vm_memory", ":", ":"]).into_iter();
    let mappings =
        paths.flat_map(|at| path(source, at)).filter(|&at| MAPPINGS.contains(&source.token(at)));
    let finding = |at: usize| {
        let what = format!("take `{}` from kedge_guest_memory", source.token(at));
        Finding::new(source.tokens[at].line, what)
    };
    mappings.map(finding).collect()
}

/// The tokens of the path, or of the tree of paths, that begins here.
fn path(source: &Source, start: usize) -> impl Iterator<Item = usize> {
    let mut depth = 0_u32;
    (start..source.tokens.len()).take_while(move |&at| {
        match source.token(at) {
            "{" => depth += 1,
            "}" if depth == 0 => return false,
            "}" => depth -= 1,
            "," | ":" | "*" => return depth > 0 || source.token(at) == ":",
            text => return text.chars().all(|c| c.is_alphanumeric() || c == '_'),
        }
        true
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        owner(&Source::new(path, text)).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn traits_are_anybodys() {
        assert_eq!(
            found("devices/src/queue.rs", "use vm_memory::{Bytes, GuestAddress};\n"),
            [0; 0]
        );
    }

    #[test]
    fn a_mapping_is_found_in_a_tree_of_imports() {
        let text = "use vm_memory::{\n    Bytes,\n    mmap::{MmapRegion},\n};\n";
        assert_eq!(found("devices/src/queue.rs", text), [3, 3]);
    }

    #[test]
    fn a_mapping_is_found_in_code() {
        let text = "fn f(m: &vm_memory::GuestMemoryMmap) {}\n";
        assert_eq!(found("devices/src/queue.rs", text), [1]);
    }

    #[test]
    fn the_owner_may() {
        assert_eq!(
            found("crates/guest_memory/src/lib.rs", "use vm_memory::GuestMemoryMmap;\n"),
            [0; 0]
        );
    }
}
