//! What belongs to a process belongs to its program: a library that is embedded leaves it alone.

use super::{Finding, Source, output};

/// Calls that change it: handlers of signals, the panic hook, who hears of the log, the environment, the working folder.
const CALLS: [&str; 13] = [
    "set_hook",
    "take_hook",
    "set_global_default",
    "set_logger",
    "set_var",
    "remove_var",
    "set_current_dir",
    "chdir",
    "umask",
    "sigaction",
    "register_signal_handler",
    "signal_hook",
    "signal_hook_registry",
];

/// Who may: vCPUs are brought out of the guest by a signal, whose handler does nothing.
const KICK: &str = "crates/hv_kvm/src/kick.rs";

/// A library changes nothing of its process.
pub(super) fn untouched(source: &Source) -> Vec<Finding> {
    if output::is_program(source) || source.path == KICK {
        return Vec::new();
    }
    let calls = CALLS.into_iter().flat_map(|name| source.find(&[name]));
    let mut lines: Vec<_> =
        calls.filter(|&at| source.shipped(at)).map(|at| source.tokens[at].line).collect();
    lines.sort_unstable();
    let what = "this is the process's own; leave it to the program";
    lines.into_iter().map(|line| Finding::new(line, what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: &str = "fn f() {\n    std::panic::set_hook(Box::new(|_| {}));\n}\n";

    #[test]
    fn a_library_that_sets_the_panic_hook_is_found() {
        let found = untouched(&Source::new("vmm/src/machine.rs", HOOK));
        assert_eq!(found, [Finding::new(2, "this is the process's own; leave it to the program")]);
    }

    #[test]
    fn a_program_may_and_so_may_tests() {
        assert_eq!(untouched(&Source::new("crates/kedge/src/main.rs", HOOK)), []);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{HOOK}}}\n");
        assert_eq!(untouched(&Source::new("vmm/src/machine.rs", &tests)), []);
    }
}
