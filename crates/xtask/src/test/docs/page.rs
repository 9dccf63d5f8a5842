//! A page: its fenced blocks, the script they are, and what is between backticks.

use anyhow::{Context, bail};
use serde_json::Value;

/// Languages of blocks that are not commands: what a program prints, and what other tests compile.
pub(super) const OTHER: [&str; 4] = ["text", "rust", "toml", "console"];
/// Ends a file that a block is.
const END: &str = "END-OF-FILE";

/// A page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Its path in the tree.
    pub(super) name: String,
    /// Its commands. A line of the script is the same line of the page.
    pub(super) script: String,
    /// It has commands.
    pub(super) has_commands: bool,
    /// Some are for a guest.
    pub(super) has_guest: bool,
    /// What is between backticks outside of blocks, and in which line.
    pub(super) spans: Vec<(usize, String)>,
}

/// What a block is.
enum Block {
    Commands,
    /// A file of a name.
    File,
    /// JSON of which nothing is made, and where it begins.
    Json(usize, String),
    Other,
}

impl Page {
    /// Reads the text of a page.
    ///
    /// # Errors
    /// A block is none of those that there may be.
    pub(super) fn read(name: &str, text: &str) -> anyhow::Result<Self> {
        let mut page = Self { name: name.to_owned(), ..Self::default() };
        let mut block = None;
        for (line, number) in text.lines().zip(1..) {
            let at = || format!("{name}:{number}");
            let script = match (&mut block, line.strip_prefix("```")) {
                (None, Some(language)) => {
                    let (begun, script) = page.begin(language, number).with_context(at)?;
                    block = Some(begun);
                    script
                }
                (None, None) => {
                    page.spans.extend(spans(line).map(|span| (number, span.to_owned())));
                    String::new()
                }
                (Some(begun), Some(_)) => {
                    let script = end(begun, name)?;
                    block = None;
                    script
                }
                (Some(Block::Commands | Block::File), None) => line.to_owned(),
                (Some(Block::Json(_, json)), None) => {
                    *json += &format!("{line}\n");
                    String::new()
                }
                (Some(Block::Other), None) => String::new(),
            };
            page.script += &format!("{script}\n");
        }
        if block.is_some() {
            bail!("{name}: its last block does not end");
        }
        Ok(page)
    }

    fn begin(&mut self, language: &str, line: usize) -> anyhow::Result<(Block, String)> {
        let words: Vec<_> = language.split_whitespace().collect();
        let block = match words[..] {
            ["sh"] => {
                self.has_commands = true;
                Block::Commands
            }
            ["sh", "guest"] => {
                self.has_guest = true;
                Block::Other
            }
            ["json", file] => {
                self.has_commands = true;
                return Ok((Block::File, format!("cat >{file} <<'{END}'")));
            }
            ["json"] => Block::Json(line, String::new()),
            [other] if OTHER.contains(&other) => Block::Other,
            _ => {
                bail!("a block of `{language}`: there are sh, sh guest, json, json FILE, {OTHER:?}")
            }
        };
        Ok((block, String::new()))
    }
}

fn end(block: &Block, page: &str) -> anyhow::Result<String> {
    match block {
        Block::File => Ok(END.to_owned()),
        Block::Json(line, text) if !is_json(text) => bail!("{page}:{line}: this is no JSON"),
        _ => Ok(String::new()),
    }
}

fn is_json(text: &str) -> bool {
    let is_value = |text: &str| serde_json::from_str::<Value>(text).is_ok();
    is_value(text) || text.lines().all(is_value)
}

/// What is between backticks in a line.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_script_are_lines_of_the_page() {
        let text = "# A\n```sh\nkedge ps\n```\n```json a.json\n{}\n```\n```sh guest\nreboot\n```\n";
        let page = Page::read("a.md", text).unwrap();
        let script = "\n\nkedge ps\n\ncat >a.json <<'END-OF-FILE'\n{}\nEND-OF-FILE\n\n\n\n";
        assert_eq!(page.script, script);
        assert!(page.has_commands && page.has_guest);
    }

    #[test]
    fn words_between_backticks_are_those_outside_of_blocks() {
        let page = Page::read("a.md", "`kedge ps` and `--id`\n```text\n`no`\n```\n").unwrap();
        assert_eq!(page.spans, [(1, "kedge ps".to_owned()), (1, "--id".to_owned())]);
    }

    #[test]
    fn a_block_that_nobody_would_run_is_refused() {
        let error = |text| format!("{:#}", Page::read("a.md", text).unwrap_err());
        assert!(error("```bash\nkedge ps\n```\n").starts_with("a.md:1: a block of `bash`"));
        assert_eq!(error("\n```json\n{,}\n```\n"), "a.md:2: this is no JSON");
        assert_eq!(error("```sh\nkedge ps\n"), "a.md: its last block does not end");
        assert!(Page::read("a.md", "```json\n{}\n{}\n```\n").is_ok());
    }
}
