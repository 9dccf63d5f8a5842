//! What the difference between two listings asks of the version (Semantic Versioning 2.0.0, as
//! Cargo reads it: before 1.0.0 the second number stands for the first).

use super::list::{HIDDEN, Listing, NON_EXHAUSTIVE};

/// What a change is to programs that were written before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    None,
    /// They build as they did.
    Addition,
    /// One of them may not build.
    Break,
}

/// A version: three numbers.
pub(crate) type Version = [u64; 3];

/// What was recorded: the public items of a version, and whether that was released.
pub(crate) struct Golden {
    pub(crate) version: Version,
    pub(crate) is_released: bool,
    pub(crate) listing: Listing,
}

/// What changed, with a line for each item.
pub(crate) fn difference(before: &Listing, now: &Listing) -> (Change, Vec<String>) {
    let (mut change, mut lines) = (Change::None, Vec::new());
    let mut note = |kind: Change, line: String| {
        change = change.max(kind);
        lines.push(line);
    };
    for (path, before) in before {
        let Some(now) = now.get(path) else {
            note(Change::Break, format!("{path} is gone"));
            continue;
        };
        for line in before.iter().filter(|line| !now.contains(line)) {
            // Less was promised: there may be more.
            let kind = if line == HIDDEN { Change::Addition } else { Change::Break };
            note(kind, format!("{path} has no more: {line}"));
        }
        for line in now.iter().filter(|line| !before.contains(line)) {
            note(added(before, line), format!("{path} has more: {line}"));
        }
    }
    for path in now.keys().filter(|path| !before.contains_key(*path)) {
        note(Change::Addition, format!("{path} is new"));
    }
    (change, lines)
}

/// What one line more is of an item that was as `before`.
fn added(before: &[String], line: &str) -> Change {
    let is_open = before.iter().any(|line| line == NON_EXHAUSTIVE);
    let hides = before.iter().any(|line| line == HIDDEN);
    let breaks = match line.split(' ').next().unwrap_or_default() {
        // Who matches or implements it has one less.
        "variant" => !is_open,
        "required" => true,
        // Who makes one does not give it.
        "field" => !is_open && !hides,
        NON_EXHAUSTIVE => true,
        HIDDEN => !is_open && before.iter().any(|line| line.starts_with("field ")),
        _ => false,
    };
    if breaks { Change::Break } else { Change::Addition }
}

/// Whether the version `now` may have this `change` since the recorded one; why not.
pub(crate) fn judge(golden: &Golden, now: Version, change: Change) -> Result<(), String> {
    let [major, minor, patch] = golden.version;
    let enough = match change {
        Change::None => return Ok(()),
        _ if !golden.is_released => return Ok(()),
        Change::Addition if major == 0 => [0, minor, patch + 1],
        Change::Addition => [major, minor + 1, 0],
        Change::Break if major == 0 => [0, minor + 1, 0],
        Change::Break => [major + 1, 0, 0],
    };
    if now >= enough {
        return Ok(());
    }
    let what = if change == Change::Break { "break programs" } else { "add something" };
    let [was, wanted, is] = [golden.version, enough, now].map(written);
    Err(format!("these changes {what}: {was} was released, and {is} is not {wanted} or later"))
}

/// A version as it is written.
pub(crate) fn written([major, minor, patch]: Version) -> String {
    format!("{major}.{minor}.{patch}")
}

/// A version as it was written.
pub(crate) fn version(text: &str) -> Version {
    let mut numbers = text.split('.').map(|number| number.parse().unwrap());
    [(); 3].map(|()| numbers.next().unwrap())
}

const RELEASED: &str = "released";
const UNRELEASED: &str = "not released yet";

/// The record as a file.
pub(crate) fn write(golden: &Golden) -> String {
    let state = if golden.is_released { RELEASED } else { UNRELEASED };
    let mut text = format!("{}, {state}\n", written(golden.version));
    for (path, lines) in &golden.listing {
        text.push_str(&format!("\n{path}\n"));
        lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
    }
    text
}

/// The record in a file.
pub(crate) fn read(text: &str) -> Golden {
    let (head, items) = text.split_once("\n").unwrap();
    let (number, state) = head.split_once(", ").unwrap();
    assert!([RELEASED, UNRELEASED].contains(&state), "`{state}`: say {RELEASED} or {UNRELEASED}");
    let mut listing = Listing::new();
    let mut item = String::new();
    for line in items.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("    ") {
            Some(line) => listing.get_mut(&item).unwrap().push(line.to_owned()),
            None => {
                item = line.to_owned();
                listing.insert(item.clone(), Vec::new());
            }
        }
    }
    Golden { version: version(number), is_released: state == RELEASED, listing }
}
