//! Recipes of user spaces: folders of `resources/guests` with a file `recipe` and the script that follows it.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};

use crate::paths;

/// The name of the script in a recipe's folder.
const SCRIPT: &str = "install.sh";

/// What to install where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    /// Of Debian.
    pub suite: String,
    /// Of the image, as `mke2fs` takes it: `512M`.
    pub size: String,
    /// As `apt-get install` takes them.
    pub packages: Vec<String>,
}

impl Recipe {
    /// Reads a recipe: lines of a word and its value; `#` starts a line that is not read.
    ///
    /// # Errors
    /// A line that says nothing known, or something that is not said, or said twice.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (mut suite, mut size, mut packages) = (None, None, Vec::new());
        for (line, number) in text.lines().map(str::trim).zip(1..) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let before = match words[..] {
                ["suite", value] => suite.replace(value.to_owned()),
                ["size", value] => size.replace(value.to_owned()),
                ["package", value] => {
                    packages.push(value.to_owned());
                    None
                }
                _ => bail!("line {number} is no `suite`, `size` or `package` with one value"),
            };
            if let Some(before) = before {
                bail!("line {number} says again what was said: {before}");
            }
        }
        if packages.is_empty() {
            bail!("it names no package");
        }
        let suite = suite.context("it names no suite")?;
        Ok(Self { suite, size: size.context("it names no size")?, packages })
    }
}

/// A recipe's folder.
pub(super) struct Folder {
    pub recipe: Recipe,
    /// The script that installs it, in the emulated host.
    pub script: PathBuf,
    /// Everything that the outcome depends on, as text.
    pub text: String,
}

/// Reads the folder `name` of `resources/guests`.
///
/// # Errors
/// It is not there, or the recipe is malformed.
pub(super) fn read(name: &str) -> anyhow::Result<Folder> {
    let folder = paths::workspace().join("resources/guests").join(name);
    let file = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let text = file("recipe")?;
    let recipe =
        Recipe::parse(&text).with_context(|| format!("bad recipe in {}", folder.display()))?;
    Ok(Folder { recipe, text: text + &file(SCRIPT)?, script: folder.join(SCRIPT) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Recipe::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_recipe_names_a_suite_a_size_and_packages() {
        let recipe =
            Recipe::parse("# Small.\nsuite bookworm\nsize 1G\n\npackage ?essential\npackage apt\n");
        let expected = Recipe {
            suite: "bookworm".into(),
            size: "1G".into(),
            packages: vec!["?essential".into(), "apt".into()],
        };
        assert_eq!(recipe.unwrap(), expected);
    }

    #[test]
    fn a_line_that_says_nothing_known_is_refused_by_number() {
        let text = "suite sid\nsize 1G\npackages apt dpkg\n";
        assert_eq!(error(text), "line 3 is no `suite`, `size` or `package` with one value");
    }

    #[test]
    fn what_is_said_twice_or_not_at_all_is_refused() {
        assert_eq!(error("suite a\nsuite b\n"), "line 2 says again what was said: a");
        assert_eq!(error("suite a\nsize 1G\n"), "it names no package");
        assert_eq!(error("suite a\npackage b\n"), "it names no size");
    }

    #[test]
    fn the_recipe_with_systemd_is_well_formed() {
        let folder = read("debian-systemd").unwrap();
        assert!(folder.recipe.packages.contains(&"systemd-sysv".to_owned()));
        assert!(folder.script.is_file());
    }
}
