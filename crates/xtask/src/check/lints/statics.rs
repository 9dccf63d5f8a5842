//! No global mutable state: statics are constant tables.

use super::{Finding, Source};

/// Types whose value changes behind a shared reference.
const INTERIOR: [&str; 13] = [
    "Cell",
    "RefCell",
    "UnsafeCell",
    "OnceCell",
    "LazyCell",
    "OnceLock",
    "LazyLock",
    "Lazy",
    "Mutex",
    "RwLock",
    "Condvar",
    "Once",
    "SyncUnsafeCell",
];

/// No `static mut`, no static that changes inside, none per thread.
pub(super) fn mutable(source: &Source) -> Vec<Finding> {
    let macros = ["thread_local", "lazy_static"];
    let per_thread = macros.into_iter().flat_map(|name| source.find(&[name, "!"]));
    let statics = source.find(&["static"]).into_iter().filter(|&at| changes(source, at));
    let mut lines: Vec<_> = per_thread.chain(statics).map(|at| source.tokens[at].line).collect();
    lines.sort_unstable();
    lines
        .into_iter()
        .map(|line| Finding::new(line, "global mutable state; hand the value around"))
        .collect()
}

/// The `static` at this token is not a constant.
fn changes(source: &Source, at: usize) -> bool {
    let lifetime = at > 0 && source.token(at - 1) == "'";
    if lifetime {
        return false;
    }
    let declared = source.tokens[at + 1..]
        .iter()
        .take_while(|token| !["=", ";"].contains(&token.text.as_str()));
    source.token(at + 1) == "mut"
        || declared.skip_while(|token| token.text != ":").any(|token| {
            INTERIOR.contains(&token.text.as_str()) || token.text.starts_with("Atomic")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let source = Source::new("vmm/src/machine.rs", text);
        mutable(&source).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn constant_tables_are_welcome() {
        assert_eq!(found("static NAMES: &[&str] = &[\"a\"];\nconst N: usize = 1;\n"), [0; 0]);
    }

    #[test]
    fn a_static_lifetime_is_no_static() {
        assert_eq!(found("fn f(x: &'static Mutex<u8>) {}\n"), [0; 0]);
    }

    #[test]
    fn static_mut_is_found() {
        assert_eq!(found("\nstatic mut TICKS: u32 = 0;\n"), [2]);
    }

    #[test]
    fn interior_mutability_is_found() {
        assert_eq!(found("static A: std::sync::Mutex<u8> = Mutex::new(0);\n"), [1]);
        assert_eq!(found("pub static B: AtomicU64 = AtomicU64::new(0);\n"), [1]);
        assert_eq!(found("static C: LazyLock<Vec<u8>> = LazyLock::new(Vec::new);\n"), [1]);
    }

    #[test]
    fn state_per_thread_is_found() {
        assert_eq!(found("thread_local! { static A: u8 = 0; }\n"), [1]);
    }
}
