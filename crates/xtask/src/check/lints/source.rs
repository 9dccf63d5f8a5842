//! A file as the lints see it: its text, and for Rust its tokens with the lines they stand on.
//!
//! Tokens rather than a syntax tree, so that code inside macros is seen as well, and so that strings and comments are
//! never taken for code.

use std::str::FromStr as _;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A file of the repository.
pub(super) struct Source {
    /// From the repository's root.
    pub path: String,
    pub text: String,
    /// Rust only; doc comments are `#[doc = "..."]`, delimiters are tokens.
    pub tokens: Vec<Token>,
    /// The line on which the unit tests start; one past the last line without any.
    pub tests_start: usize,
}

/// A token and the line it starts on, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub text: String,
    pub line: usize,
}

impl Source {
    pub(super) fn new(path: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let tokens = if path.ends_with(".rs") { tokens(&text) } else { Vec::new() };
        let after_last = text.lines().count() + 1;
        let tests_start = unit_tests(&tokens).unwrap_or(after_last);
        Self { path: path.to_owned(), text, tokens, tests_start }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Part of tests: those of a crate, or a package that exists to test.
    pub(super) fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.is_tests_of_a_crate()
    }

    /// Nothing but tests: a crate's integration tests, or its unit tests in a file of their own.
    pub(super) fn is_tests_of_a_crate(&self) -> bool {
        let ends = ["/tests.rs", "_test.rs", "_tests.rs"];
        self.path.contains("/tests/") || ends.iter().any(|end| self.path.ends_with(end))
    }

    /// The indices at which these tokens stand one after the other.
    pub(super) fn find(&self, wanted: &[&str]) -> Vec<usize> {
        let windows = self.tokens.windows(wanted.len()).enumerate();
        let matches =
            |window: &[Token]| window.iter().zip(wanted).all(|(token, text)| token.text == *text);
        windows.filter(|(_, window)| matches(window)).map(|(at, _)| at).collect()
    }

    /// The text of a token; nothing past the end.
    pub(super) fn token(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }

    /// The token stands before the unit tests.
    pub(super) fn shipped(&self, at: usize) -> bool {
        !self.is_test() && self.tokens.get(at).is_some_and(|token| token.line < self.tests_start)
    }

    /// The block of comment lines and attributes that ends right above `line`.
    pub(super) fn comments_above(&self, line: usize) -> Vec<&str> {
        let above: Vec<_> = self.text.lines().take(line.saturating_sub(1)).map(str::trim).collect();
        let is_note = |text: &&&str| text.starts_with("//") || text.starts_with("#[");
        above.iter().rev().take_while(is_note).copied().collect()
    }
}

/// Text that is not Rust has no tokens: rustc will say so better.
fn tokens(text: &str) -> Vec<Token> {
    let mut flat = Vec::new();
    if let Ok(stream) = TokenStream::from_str(text) {
        flatten(stream, &mut flat);
    }
    flat
}

fn flatten(stream: TokenStream, flat: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                flat.push(Token { text: open.to_owned(), line });
                flatten(group.stream(), flat);
                let line = group.span_close().start().line;
                flat.push(Token { text: close.to_owned(), line });
            }
            other => flat.push(Token { text: other.to_string(), line }),
        }
    }
}

/// The line of the `#[cfg(test)]` over a module with a body.
fn unit_tests(tokens: &[Token]) -> Option<usize> {
    let cfg_test = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let at = tokens.windows(cfg_test.len() + 2).position(|window| {
        let matches = window.iter().zip(cfg_test).all(|(token, wanted)| token.text == wanted);
        matches && window.last().is_some_and(|token| token.text == "{")
    })?;
    tokens.get(at).map(|token| token.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(text: &str) -> Source {
        Source::new("devices/src/clock.rs", text)
    }

    #[test]
    fn strings_and_comments_are_not_code() {
        let source = rust("fn f() {\n    // static mut A\n    g(\"static mut B\");\n}\n");
        assert_eq!(source.find(&["static"]).len(), 0);
    }

    #[test]
    fn code_inside_macros_is_seen() {
        let source = rust("macro_rules! m { () => { static mut A: u8 = 0; } }\n");
        assert_eq!(source.find(&["static", "mut"]).len(), 1);
    }

    #[test]
    fn tokens_know_their_line() {
        let source = rust("const A: u8 = 1;\n\nconst B: u8 = 2;\n");
        let at = source.find(&["B"])[0];
        assert_eq!(source.tokens[at].line, 3);
    }

    #[test]
    fn unit_tests_start_at_their_attribute() {
        let source = rust("fn f() {}\n\n#[cfg(test)]\nmod tests {\n}\n");
        assert_eq!(source.tests_start, 3);
    }

    #[test]
    fn a_declaration_of_a_test_file_starts_nothing() {
        let source = rust("#[cfg(test)]\nmod tests;\n\nfn f() {}\n");
        assert_eq!(source.tests_start, 5);
    }

    #[test]
    fn comments_above_end_at_the_first_line_of_code() {
        let source = rust("fn f() {\n    // one\n    // two\n    g();\n}\n");
        assert_eq!(source.comments_above(4), ["// two", "// one"]);
    }

    #[test]
    fn a_file_that_is_no_rust_has_no_tokens() {
        assert_eq!(Source::new("README.md", "static mut").tokens, []);
    }
}
