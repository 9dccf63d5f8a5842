//! Every command in the documentation, run.
//!
//! - The blocks of commands of a page (```` ```sh ````) are one bash script, in their order, which ends at the first command
//!   that fails. It has a folder of its own with the files of [`run::FILES`] and two hosts' descriptions, `a.json` and `b.json`,
//!   and processes and network interfaces of its own, `tap0` to `tap9` among them but for those that the page makes itself.
//! - A machine that is to go on has `&` behind it: the next command waits until it is up. One without is ended once it is, as by
//!   Ctrl-C, and so is one at whose socket another one is started. All of them have to be up at some time, and to end well.
//! - `kedge console`, `kedge events` and `curl --no-buffer` have a second in which they have to print something.
//! - An answer of an API that says no fails.
//! - `kedge abi diff` may find a difference.
//! - A line in [`elsewhere`] is run by the test that is named there, or by nobody, which is told.
//! - `cargo xtask` is there and has these flags; what it does is done by other tests. But for `cargo xtask guest`, whose files
//!   are then the page's.
//! - A block ```` ```json NAME ```` is the file of that name. One without a name has to be JSON, whole or line by line.
//! - A block ```` ```sh guest ```` is typed in a guest: by a test of `tests/guest` that includes the page.
//! - Commands and flags in the text, between backticks, are those of some program here.
//!
//! Whatever else is between fences is text or in a language of [`page::OTHER`].

mod elsewhere;
mod mentions;
mod page;
mod run;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{model, tally::Tally};
use crate::paths;
use mentions::Known;
use page::Page;
use run::Reader;

/// Runs the pages whose name contains `filter`.
pub(super) fn run(filter: Option<&str>, tally: &mut Tally) -> anyhow::Result<()> {
    let mut pages = pages(&paths::workspace())?;
    pages.retain(|page| filter.is_none_or(|part| test_name(page).contains(part)));
    if pages.is_empty() {
        return Ok(());
    }
    let kedge = model::program()?;
    let known = Known::of(&kedge)?;
    let reader = Reader::new(&kedge)?;
    for mut page in pages {
        let name = test_name(&page);
        let mut wrong = known.missing(&page);
        wrong.extend(elsewhere::leave_out(&mut page)?);
        wrong.extend(typed_nowhere(&page)?);
        match reader.obstacle(&page) {
            Some(why) => tally.skip("docs", &format!("{}: {why}", page.name)),
            None => wrong.extend(reader.read(&page)?),
        }
        println!("docs  | test {name} ... {}", if wrong.is_empty() { "ok" } else { "FAILED" });
        match wrong.is_empty() {
            true => tally.passed += 1,
            false => tally.fail("docs", &page.name, &wrong.join("\n")),
        }
    }
    Ok(())
}

fn test_name(page: &Page) -> String {
    let name = page.name.trim_end_matches(".md").trim_start_matches("docs/");
    format!("docs::{}", if page.name.contains('/') { name.to_owned() } else { name.to_lowercase() })
}

/// The README and all of `docs`.
fn pages(root: &Path) -> anyhow::Result<Vec<Page>> {
    let folder = root.join("docs");
    let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.insert(0, root.join("README.md"));
    let names = paths.iter().map(|path| path.strip_prefix(root).unwrap_or(path));
    let page = |(path, name): (&PathBuf, &Path)| {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        Page::read(&name.display().to_string(), &text)
    };
    paths.iter().zip(names).map(page).collect()
}

/// What is wrong with a page of commands for a guest that no guest's test includes.
fn typed_nowhere(page: &Page) -> anyhow::Result<Option<String>> {
    if !page.has_guest {
        return Ok(None);
    }
    let folder = paths::workspace().join("tests/guest/src");
    let mut found = false;
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let text = if path.is_file() { fs::read_to_string(&path)? } else { String::new() };
        found |= text.contains(&format!("include_str!(\"../../../{}\")", page.name));
    }
    Ok((!found).then(|| format!("{}: no test in tests/guest/src types it in a guest", page.name)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_page_can_be_read() {
        let pages = super::pages(&super::paths::workspace()).unwrap();
        assert!(pages.iter().any(|page| page.name == "docs/moving.md"));
    }
}
