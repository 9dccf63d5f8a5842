//! How errors read: lower case, no full stop, the source left to the report.

use super::{Finding, Source};

/// Names that begin a text with a capital.
const PROPER: [&str; 7] = ["Linux", "Firecracker", "Debian", "Landlock", "Image", "Arm", "Unix"];

/// The texts of `#[error("...")]`.
pub(super) fn text(source: &Source) -> Vec<Finding> {
    let texts = source.find(&["#", "[", "error", "("]).into_iter().map(|at| at + 4);
    texts.flat_map(|at| wrongs(source, at)).collect()
}

fn wrongs(source: &Source, at: usize) -> Vec<Finding> {
    let text = source.token(at).trim_matches('"');
    let whats = [
        (text.ends_with('.') && !text.ends_with("..."), "an error's text ends without a full stop"),
        (text.contains("{source"), "an error's text leaves its source to the report"),
        (is_sentence(text), "an error's text begins in lower case"),
    ];
    let wrong = whats.into_iter().filter(|(is_so, _)| *is_so);
    wrong.map(|(_, what)| Finding::new(source.tokens[at].line, what)).collect()
}

/// The first word has one capital letter, its first, and is no name.
fn is_sentence(text: &str) -> bool {
    let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("");
    let mut letters = word.chars();
    letters.next().is_some_and(char::is_uppercase)
        && letters.clone().next().is_some()
        && letters.all(char::is_lowercase)
        && !PROPER.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<Finding> {
        let source = format!("#[derive(Error)]\n#[error(\"{text}\")]\nstruct E;\n");
        super::text(&Source::new("vmm/src/machine.rs", source))
    }

    #[test]
    fn a_text_in_the_house_style_passes() {
        assert_eq!(found("`{name}` cannot be {value:#x}"), []);
        assert_eq!(found("KVM has no GIC"), []);
        assert_eq!(found("Linux 6.12 has no GIC"), []);
    }

    #[test]
    fn a_full_stop_is_found() {
        assert_eq!(found("no GIC."), [Finding::new(2, "an error's text ends without a full stop")]);
    }

    #[test]
    fn a_capital_is_found() {
        assert_eq!(
            found("Failed to run"),
            [Finding::new(2, "an error's text begins in lower case")]
        );
    }

    #[test]
    fn a_repeated_source_is_found() {
        let expected = [Finding::new(2, "an error's text leaves its source to the report")];
        assert_eq!(found("cannot run: {source}"), expected);
    }
}
