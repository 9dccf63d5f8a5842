//! Who may speak and who may give up: libraries report errors and leave the rest to the program.

use super::{Finding, Source};

/// Programs: these print.
const PROGRAMS: [&str; 3] = ["crates/kedge/", "crates/xtask/", "tests/"];
const MACROS: [&str; 4] = ["print", "println", "eprint", "eprintln"];

/// Whether the file is a program's.
pub(super) fn is_program(source: &Source) -> bool {
    PROGRAMS.iter().any(|folder| source.path.starts_with(folder))
        || source.path.contains("/examples/")
        || source.path.contains("/benches/")
        || source.path.ends_with("build.rs")
}

/// A library prints nothing and ends no process.
pub(super) fn silent_library(source: &Source) -> Vec<Finding> {
    if is_program(source) {
        return Vec::new();
    }
    let printed = MACROS.into_iter().flat_map(|name| lines(source, &[name, "!"]));
    let mut findings: Vec<_> =
        printed.map(|line| Finding::new(line, "a library prints nothing")).collect();
    let exits = lines(source, &["process", ":", ":", "exit"]);
    findings.extend(exits.into_iter().map(|line| Finding::new(line, "a library ends no process")));
    findings
}

/// Nothing a guest, a file or a client sends can panic; what cannot happen is an `assert!` or an `expect` with its
/// reason.
pub(super) fn panic(source: &Source) -> Vec<Finding> {
    let panics = lines(source, &["panic", "!"]);
    let what = "return an error, or `expect` with the reason why it cannot happen";
    panics.into_iter().map(|line| Finding::new(line, what)).collect()
}

/// The lines before the unit tests on which these tokens stand.
fn lines(source: &Source, wanted: &[&str]) -> Vec<usize> {
    source
        .find(wanted)
        .into_iter()
        .filter(|&at| source.shipped(at))
        .map(|at| source.tokens[at].line)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: &str = "fn f() {\n    println!(\"x\");\n    std::process::exit(1);\n}\n";

    #[test]
    fn a_library_that_prints_or_exits_is_found() {
        let source = Source::new("vmm/src/machine.rs", LOUD);
        let expected = [
            Finding::new(2, "a library prints nothing"),
            Finding::new(3, "a library ends no process"),
        ];
        assert_eq!(silent_library(&source), expected);
    }

    #[test]
    fn a_program_may() {
        assert_eq!(silent_library(&Source::new("crates/kedge/src/main.rs", LOUD)), []);
        assert_eq!(silent_library(&Source::new("vmm/examples/boot.rs", LOUD)), []);
    }

    #[test]
    fn a_panic_is_found() {
        let source = Source::new("vmm/src/machine.rs", "fn f() {\n    panic!(\"x\");\n}\n");
        assert_eq!(panic(&source).len(), 1);
    }

    #[test]
    fn tests_may_panic() {
        let text =
            "fn f() {}\n#[cfg(test)]\nmod tests {\n    fn t() {\n        panic!()\n    }\n}\n";
        assert_eq!(panic(&Source::new("vmm/src/machine.rs", text)), []);
        assert_eq!(panic(&Source::new("vmm/tests/boot.rs", "fn t() { panic!() }\n")), []);
    }
}
