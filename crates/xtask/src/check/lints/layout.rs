//! Files: what they are called, how they begin, how long they are.

use super::{Finding, Source};

/// The most lines a file may have before its unit tests.
const MOST_LINES: usize = 500;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "common", "base", "misc", "helper", "helpers", "stuff"];

/// A Rust file begins by saying what it is.
pub(super) fn module_docs(source: &Source) -> Vec<Finding> {
    if !source.is_rust() || source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![Finding::new(1, "the first line is not `//! ` and what this file is")]
}

/// A Rust file is short enough to be read in one go.
pub(super) fn file_length(source: &Source) -> Vec<Finding> {
    let lines = source.tests_start - 1;
    if !source.is_rust() || source.is_tests_of_a_crate() || lines < MOST_LINES {
        return Vec::new();
    }
    vec![Finding::new(MOST_LINES, format!("{lines} lines before the tests; at most {MOST_LINES}"))]
}

/// A name says what its file or folder provides.
pub(super) fn file_name(source: &Source) -> Vec<Finding> {
    let stems = source.path.split('/').map(|part| part.split('.').next().unwrap_or(part));
    let empty = stems.filter(|stem| EMPTY_NAMES.contains(stem));
    empty
        .map(|stem| Finding::new(1, format!("`{stem}` says nothing about what is inside")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(count: usize, then: &str) -> Source {
        Source::new("arch/src/gic.rs", "//! x\n".repeat(count) + then)
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        assert_eq!(module_docs(&Source::new("arch/src/gic.rs", "//! The GIC.\n")), []);
        assert_eq!(module_docs(&Source::new("arch/src/gic.rs", "use std::fs;\n")).len(), 1);
        assert_eq!(module_docs(&Source::new("arch/src/gic.rs", "//!\n//! The GIC.\n")).len(), 1);
    }

    #[test]
    fn only_rust_begins_so() {
        assert_eq!(module_docs(&Source::new("README.md", "# kedge\n")), []);
    }

    #[test]
    fn five_hundred_lines_are_too_many() {
        assert_eq!(file_length(&lines(499, "")), []);
        assert_eq!(
            file_length(&lines(500, "")),
            [Finding::new(500, "500 lines before the tests; at most 500")]
        );
    }

    #[test]
    fn unit_tests_do_not_count() {
        let tests = "#[cfg(test)]\nmod tests {\n".to_owned() + &"// x\n".repeat(900) + "}\n";
        assert_eq!(file_length(&lines(400, &tests)), []);
    }

    #[test]
    fn nor_does_a_file_of_tests() {
        let text = "//! x\n".repeat(900);
        assert_eq!(file_length(&Source::new("arch/tests/boot.rs", text.as_str())), []);
        assert_eq!(file_length(&Source::new("arch/src/gic/tests.rs", text.as_str())), []);
        assert_eq!(file_length(&Source::new("tests/guest/src/boot.rs", text)).len(), 1);
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        assert_eq!(file_name(&Source::new("arch/src/gic.rs", "")), []);
        assert_eq!(file_name(&Source::new("arch/src/utils.rs", "")).len(), 1);
        assert_eq!(file_name(&Source::new("crates/common/src/lib.rs", "")).len(), 1);
    }
}
