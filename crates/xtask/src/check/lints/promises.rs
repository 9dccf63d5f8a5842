//! Work left for later has an issue.

use super::{Finding, Source};

/// Split, so that this file does not break its own rule.
const MARKS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// A mark for later names its issue: `(#12)` follows it.
pub(super) fn without_issue(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().zip(1..);
    let open = lines.filter(|(text, _)| MARKS.iter().any(|mark| is_open(text, mark)));
    open.map(|(_, line)| {
        Finding::new(line, "left for later without an issue's number: write `(#12)` after it")
    })
    .collect()
}

/// The mark stands in the text as a word, without a number.
fn is_open(text: &str, mark: &str) -> bool {
    text.match_indices(mark).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + mark.len()..]);
        let in_a_word = before.ends_with(is_word) || after.starts_with(is_word);
        !in_a_word && !has_number(after)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn has_number(after: &str) -> bool {
    let inside = after.strip_prefix("(#").and_then(|rest| rest.split_once(')'));
    inside
        .is_some_and(|(number, _)| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        without_issue(&Source::new("README.md", text)).len()
    }

    #[test]
    fn a_mark_with_its_issue_passes() {
        assert_eq!(found(&format!("// {}(#12): packed rings", MARKS[0])), 0);
    }

    #[test]
    fn a_mark_without_one_is_found() {
        assert_eq!(found(&format!("// {}: packed rings", MARKS[0])), 1);
        assert_eq!(found(&format!("// {}(later)", MARKS[1])), 1);
        assert_eq!(found(&format!("// {}(#)", MARKS[1])), 1);
    }

    #[test]
    fn a_longer_word_passes() {
        assert_eq!(found(&format!("{}S_PER_DAY", MARKS[0])), 0);
    }
}
