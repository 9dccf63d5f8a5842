//! Errors that say how to mend what they report.
//!
//! An error type says what is wrong in its `Display` text (lower case, no full
//! stop, never its source) and, through [`Fix`], what the reader can do about
//! it. [`report`] prints both, with the chain of sources between.
#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::fmt::Write as _;

/// An error that knows its cure.
///
/// An error that wraps another passes its cure on, unless it knows better:
/// `Self::Kernel(source) => source.fix()`.
pub trait Fix: Error {
    /// What the reader can do, as an imperative without a full stop.
    fn fix(&self) -> Option<String>;
}

/// Any error that knows its cure, where callers differ in what can go wrong.
#[derive(Debug)]
pub struct Trouble(Box<dyn Fix + Send + Sync>);

impl Trouble {
    /// `error`, with its type forgotten.
    pub fn new(error: impl Fix + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Trouble {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl Fix for Trouble {
    fn fix(&self) -> Option<String> {
        self.0.fix()
    }
}

/// The error, its causes and its cure, each on a line of its own, without a
/// newline at the end.
pub fn report(error: &dyn Fix) -> String {
    let mut text = format!("error: {error}");
    let mut last = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let line = cause.to_string();
        // A transparent error repeats its source; a reader needs it once.
        if line != last {
            write!(text, "\n  because: {line}").expect("writing to a string cannot fail");
        }
        last = line;
        source = cause.source();
    }
    if let Some(fix) = error.fix() {
        write!(text, "\n  fix: {fix}").expect("writing to a string cannot fail");
    }
    text
}

/// The same on one line, for a reader that takes a single string.
pub fn one_line(error: &dyn Fix) -> String {
    let report = report(error);
    report.strip_prefix("error: ").unwrap_or(&report).replace("\n  ", "; ")
}

/// Below this, two words are not alike (Jaro similarity, 0 to 1).
const ALIKE: f64 = 0.7;

/// The one of `words` that is probably meant by `word`, if any is like it; of several, the
/// first.
pub fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |other: &str| strsim::jaro(word, other);
    words
        .into_iter()
        .filter(|other| likeness(other) > ALIKE)
        .reduce(|best, other| if likeness(other) > likeness(best) { other } else { best })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("no such door")]
    struct NoDoor;

    #[derive(Debug, thiserror::Error)]
    enum Enter {
        #[error("cannot enter `{name}`")]
        Door { name: &'static str, source: NoDoor },
        #[error(transparent)]
        Plain(NoDoor),
    }

    impl Fix for Enter {
        fn fix(&self) -> Option<String> {
            matches!(self, Self::Door { .. }).then(|| "build one".to_owned())
        }
    }

    #[test]
    fn a_report_names_the_causes_and_the_cure() {
        let error = Enter::Door { name: "house", source: NoDoor };
        expect![[r#"
            error: cannot enter `house`
              because: no such door
              fix: build one"#]]
        .assert_eq(&report(&error));
        expect!["cannot enter `house`; because: no such door; fix: build one"]
            .assert_eq(&one_line(&error));
    }

    #[test]
    fn a_misspelt_word_is_near_the_one_meant_and_gibberish_is_near_none() {
        let words = ["firmware", "levels", "machine"];
        assert_eq!(nearest("fimrware", words), Some("firmware"));
        assert_eq!(nearest("xyzzy", words), None);
    }

    #[test]
    fn a_transparent_error_is_said_once() {
        expect!["error: no such door"].assert_eq(&report(&Enter::Plain(NoDoor)));
    }
}
