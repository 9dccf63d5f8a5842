//! What public functions take.

use super::{Finding, Source};

/// A public function takes no `bool`: at the call nobody knows what `true` means.
pub(super) fn boolean_parameter(source: &Source) -> Vec<Finding> {
    let public = source.find(&["pub"]).into_iter().filter(|&at| source.shipped(at));
    let named = public.filter_map(|at| function_name(source, at));
    let with_bool = named.filter(|&name| takes_bool(source, name));
    let finding = |name: usize| {
        let what =
            format!("`{}` takes a `bool`; make it an enum or two functions", source.token(name));
        Finding::new(source.tokens[name].line, what)
    };
    with_bool.map(finding).collect()
}

/// The index of the name if the `pub` at this token begins a function.
fn function_name(source: &Source, public: usize) -> Option<usize> {
    let mut at = public + 1;
    while ["const", "async", "unsafe", "extern", "\"C\""].contains(&source.token(at)) {
        at += 1;
    }
    (source.token(at) == "fn").then_some(at + 1)
}

/// The parameter list after this name has a parameter of type `bool`.
fn takes_bool(source: &Source, name: usize) -> bool {
    let mut depth = 0;
    let mut at = name + 1;
    while at < source.tokens.len() {
        match source.token(at) {
            "(" => depth += 1,
            ")" if depth == 1 => return false,
            ")" => depth -= 1,
            "{" | ";" if depth == 0 => return false,
            "bool" if depth == 1 && source.token(at - 1) == ":" => return true,
            _ => {}
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<usize> {
        let source = Source::new("vmm/src/machine.rs", text);
        boolean_parameter(&source).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_public_function_of_numbers_passes() {
        assert_eq!(found("pub fn f(a: u8) -> bool { true }\nfn g(a: bool) {}\n"), [0; 0]);
    }

    #[test]
    fn a_public_boolean_is_found() {
        assert_eq!(found("impl A {\n    pub const fn f<T>(\n        self, on: bool) {}\n}\n"), [2]);
    }

    #[test]
    fn a_closure_of_booleans_passes() {
        assert_eq!(found("pub fn f(on: impl Fn(bool) -> bool) {}\n"), [0; 0]);
    }

    #[test]
    fn a_field_passes() {
        assert_eq!(found("pub struct A { pub on: bool }\n"), [0; 0]);
    }
}
