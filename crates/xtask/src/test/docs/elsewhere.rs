//! Commands of pages that take more than there is here, and the tests that show them: real guests, a day's work.

use std::fs;

use anyhow::Context;

use super::page::Page;
use crate::paths;

/// A command that is left out.
struct Elsewhere {
    page: &'static str,
    /// Its line in the page.
    line: &'static str,
    /// What shows it, and the file in `tests/guest/src` where it is.
    test: (&'static str, &'static str),
}

#[rustfmt::skip]
const ELSEWHERE: &[Elsewhere] = &[
    // The model's guest lets go of nothing.
    Elsewhere { page: "docs/pci.md", line: "ask DELETE /drives/data",
                test: ("plug::a_disk_and_a_card_come_and_go_in_use_also_after_a_move", "plug.rs") },
    // The host of the documentation has no vhost-net.
    Elsewhere { page: "docs/network.md", line: "kedge run --kernel Image --net tap=tap0,vhost=on",
                test: ("vhost::cards_work_and_differences_hold_what_the_kernel_wrote", "vhost.rs") },
    // Debian 12 has no passt that knows vhost-user.
    Elsewhere { page: "docs/network.md", line: "passt --vhost-user --socket net.sock",
                test: ("programs::a_card_of_passt_on_", "programs/user_net.rs") },
    Elsewhere { page: "docs/network.md", line: "kedge run --kernel Image --net socket=net.sock,mac=06:00:ac:10:00:02",
                test: ("programs::a_card_of_passt_on_", "programs/user_net.rs") },
];

/// Leaves them out of the script of a page: what is wrong with the table.
///
/// # Errors
/// The tests cannot be read.
pub(super) fn leave_out(page: &mut Page) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for Elsewhere { line, test: (test, file), .. } in
        ELSEWHERE.iter().filter(|row| row.page == page.name)
    {
        let lines: Vec<_> = page.script.lines().collect();
        if !lines.contains(line) {
            wrong.push(format!("{}: it has no line `{line}` any more", page.name));
        }
        let kept = lines.into_iter().map(|one| if one == *line { "" } else { one });
        page.script = kept.collect::<Vec<_>>().join("\n") + "\n";
        let path = paths::workspace().join("tests/guest/src").join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        if !text.contains(test) {
            wrong.push(format!("{}: `{line}` is shown by no test {test}", page.name));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_shown_elsewhere_is_left_out_and_keeps_its_place() {
        let text = "```sh\nfirst\nask DELETE /drives/data\nlast\n```\n";
        let mut page = Page::read("docs/pci.md", text).unwrap();
        assert_eq!(leave_out(&mut page).unwrap(), [""; 0]);
        assert_eq!(page.script, "\nfirst\n\nlast\n\n");
    }

    #[test]
    fn a_line_that_is_not_there_any_more_is_named() {
        let mut page = Page::read("docs/pci.md", "").unwrap();
        let wrong = ["docs/pci.md: it has no line `ask DELETE /drives/data` any more"];
        assert_eq!(leave_out(&mut page).unwrap(), wrong);
    }
}
