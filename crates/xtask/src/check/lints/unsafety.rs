//! Unsafe code is argued for: why a module needs it, and why each use of it is sound.
//!
//! Clippy asks for the second in what it compiles; this lint also sees code for targets nobody checks.

use super::{Finding, Source};

/// Each `unsafe` block and `unsafe impl` says why it is sound.
pub(super) fn safety_comment(source: &Source) -> Vec<Finding> {
    let uses = ["{", "impl"].into_iter().flat_map(|next| source.find(&["unsafe", next]));
    let unargued = uses.filter(|&at| !argued(source, at, " SAFETY: "));
    let mut lines: Vec<_> = unargued.map(|at| source.tokens[at].line).collect();
    lines.sort_unstable();
    lines.into_iter().map(|line| Finding::new(line, "no `// SAFETY: ` right above")).collect()
}

/// A module that opts in to unsafe code says why it must.
pub(super) fn opt_in(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for at in source.find(&["allow", "(", "unsafe_code"]) {
        let what = "`allow(unsafe_code)` outlives its need; write `expect`";
        findings.push(Finding::new(source.tokens[at].line, what));
    }
    for at in source.find(&["expect", "(", "unsafe_code"]) {
        if !argued(source, at, " UNSAFETY: ") {
            findings.push(Finding::new(
                source.tokens[at].line,
                "no `// UNSAFETY: ` and a reason right above",
            ));
        }
    }
    findings
}

/// A comment with this mark stands over the token or over the statement that it is part of.
fn argued(source: &Source, at: usize, mark: &str) -> bool {
    let lines = [source.tokens[at].line, source.tokens[statement_start(source, at)].line];
    let says = |note: &&str| {
        let text = note.strip_prefix("//!").or_else(|| note.strip_prefix("//"));
        text.is_some_and(|text| text.starts_with(mark))
    };
    lines.into_iter().any(|line| source.comments_above(line).iter().any(says))
}

/// The index of the first token after the last `;`, `{`, `}` or `=>`.
fn statement_start(source: &Source, at: usize) -> usize {
    let ends = |i: &usize| {
        matches!(source.token(*i), ";" | "{" | "}")
            || (source.token(*i) == ">" && source.token(i - 1) == "=")
    };
    (1..at).rev().find(ends).map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: &str) -> Source {
        Source::new("crates/hv_kvm/src/vm.rs", text)
    }

    #[test]
    fn a_block_with_its_argument_above_passes() {
        let text = "fn f() {\n    // SAFETY: nobody else has it.\n    unsafe { g() }\n}\n";
        assert_eq!(safety_comment(&rust(text)), []);
    }

    #[test]
    fn the_argument_may_stand_over_the_statement() {
        let text = "fn f() {\n    // SAFETY: nobody else has it.\n    let x =\n        unsafe { g() };\n}\n";
        assert_eq!(safety_comment(&rust(text)), []);
    }

    #[test]
    fn the_argument_may_stand_over_a_match_arm() {
        let text = "fn f() {\n    match x {\n        // SAFETY: nobody else has it.\n        1 => unsafe { g() },\n        _ => 0,\n    }\n}\n";
        assert_eq!(safety_comment(&rust(text)), []);
    }

    #[test]
    fn a_block_without_an_argument_is_found() {
        let text = "fn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(safety_comment(&rust(text)), [Finding::new(2, "no `// SAFETY: ` right above")]);
    }

    #[test]
    fn so_is_an_impl() {
        let text = "// Fine.\nunsafe impl Send for Vm {}\n";
        assert_eq!(safety_comment(&rust(text)).len(), 1);
    }

    #[test]
    fn an_argument_further_up_does_not_count() {
        let text = "fn f() {\n    // SAFETY: yes.\n    h();\n    unsafe { g() }\n}\n";
        assert_eq!(safety_comment(&rust(text)).len(), 1);
    }

    #[test]
    fn an_opt_in_with_its_reason_passes() {
        let text =
            "//! Slots.\n// UNSAFETY: KVM maps memory by address.\n#![expect(unsafe_code)]\n";
        assert_eq!(opt_in(&rust(text)), []);
    }

    #[test]
    fn the_reason_may_stand_in_the_files_own_words() {
        let text =
            "//! Slots.\n//!\n//! UNSAFETY: KVM maps memory by address.\n#![expect(unsafe_code)]\n";
        assert_eq!(opt_in(&rust(text)), []);
    }

    #[test]
    fn an_opt_in_without_a_reason_is_found() {
        let text = "//! Slots.\n#![expect(unsafe_code)]\n";
        assert_eq!(
            opt_in(&rust(text)),
            [Finding::new(2, "no `// UNSAFETY: ` and a reason right above")]
        );
    }

    #[test]
    fn an_allow_is_found_whatever_its_reason() {
        let text = "//! Slots.\n// UNSAFETY: yes.\n#![allow(unsafe_code)]\n";
        assert_eq!(opt_in(&rust(text)).len(), 1);
    }
}
