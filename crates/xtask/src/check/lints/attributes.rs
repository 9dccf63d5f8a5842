//! Attributes that switch something off.

use super::{Finding, Source};

/// Integration tests of this name need KVM: they are ignored wherever cargo runs them, and `cargo xtask test` runs them
/// in its emulated hosts all the same.
const ON_KVM: &str = "/tests/on_kvm";

/// No test is switched off, nor an example in the documentation.
pub(super) fn ignored_test(source: &Source) -> Vec<Finding> {
    if source.path.contains(ON_KVM) {
        return Vec::new();
    }
    let attributes =
        source.find(&["#", "[", "ignore"]).into_iter().map(|at| source.tokens[at].line);
    let mut findings: Vec<_> = attributes
        .map(|line| Finding::new(line, "an ignored test shows nothing; repair or remove it"))
        .collect();
    for (line, text) in source.text.lines().zip(1..).map(|(text, line)| (line, text.trim_start())) {
        if is_ignored_example(text) {
            findings.push(Finding::new(
                line,
                "an ignored example may be wrong; let it compile (`no_run`)",
            ));
        }
    }
    findings
}

/// A fence in a doc comment whose words include `ignore`.
fn is_ignored_example(line: &str) -> bool {
    let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
    let fence = comment.and_then(|comment| comment.trim_start().strip_prefix("```"));
    fence.is_some_and(|words| words.split([',', ' ']).any(|word| word == "ignore"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let source = Source::new("vmm/src/machine.rs", text);
        ignored_test(&source).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn tests_and_examples_that_run_pass() {
        assert_eq!(found("/// ```no_run\n/// f();\n/// ```\n#[test]\nfn t() {}\n"), [0; 0]);
    }

    #[test]
    fn an_ignored_test_is_found() {
        assert_eq!(found("#[test]\n#[ignore = \"slow\"]\nfn t() {}\n"), [2]);
    }

    #[test]
    fn a_test_that_waits_for_kvm_passes() {
        let text = "#[test]\n#[ignore = \"needs /dev/kvm\"]\nfn t() {}\n";
        assert_eq!(ignored_test(&Source::new("crates/hv_kvm/tests/on_kvm.rs", text)), []);
        assert_eq!(ignored_test(&Source::new("crates/hv_kvm/tests/on_kvm/gic.rs", text)), []);
    }

    #[test]
    fn an_ignored_example_is_found() {
        assert_eq!(found("/// ```rust,ignore\n/// f();\n/// ```\nfn t() {}\n"), [1]);
    }
}
