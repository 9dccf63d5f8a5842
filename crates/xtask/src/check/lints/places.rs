//! The tree names no package registry's host and no folder of one machine: both differ where it is built next.

use super::{Finding, Source};

/// Registries and mirrors, split so that this file does not break its own rule.
const HOSTS: [(&str, &str); 10] = [
    ("crates", ".io"),
    ("deb.debian", ".org"),
    ("ftp.debian", ".org"),
    ("snapshot.debian", ".org"),
    ("archive.ubuntu", ".com"),
    ("ports.ubuntu", ".com"),
    ("static.rust-lang", ".org"),
    ("pypi", ".org"),
    ("registry.npmjs", ".org"),
    ("proxy.golang", ".org"),
];

/// A folder that exists on one machine.
struct Folder {
    path: &'static str,
    /// Whether a path that goes on with this is somebody's.
    goes_on: fn(char) -> bool,
}

const FOLDERS: [Folder; 4] = [
    Folder { path: concat!("/ho", "me/"), goes_on: is_name },
    Folder { path: concat!("/Us", "ers/"), goes_on: is_name },
    Folder { path: concat!("/wo", "rk/"), goes_on: is_name },
    Folder { path: concat!("/ro", "ot/"), goes_on: is_hidden },
];

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '.' || c == '_'
}

/// A superuser's folder is in every guest; one with settings in it is somebody's.
fn is_hidden(c: char) -> bool {
    c == '.'
}

/// No registry's host: apt, cargo and rustup know theirs.
pub(super) fn registry_host(source: &Source) -> Vec<Finding> {
    // Written by cargo.
    if source.path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    let hosts = HOSTS.map(|(name, domain)| format!("{name}{domain}"));
    let named = |text: &str| hosts.iter().find(|host| text.contains(host.as_str())).cloned();
    let lines = source.text.lines().zip(1..);
    let found = lines.filter_map(|(text, line)| Some((line, named(text)?)));
    found
        .map(|(line, host)| {
            Finding::new(line, format!("names `{host}`; ask the tool for its registry"))
        })
        .collect()
}

/// No absolute path into somebody's files.
pub(super) fn machine_path(source: &Source) -> Vec<Finding> {
    let lines = source.text.lines().zip(1..);
    let found = lines.filter(|(text, _)| FOLDERS.iter().any(|folder| is_in(text, folder)));
    found.map(|(_, line)| Finding::new(line, "a path of one machine; derive it")).collect()
}

fn is_in(text: &str, folder: &Folder) -> bool {
    let Folder { path, goes_on } = folder;
    text.match_indices(path).any(|(at, _)| {
        let begins = !text[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}*$/".contains(c));
        begins && text[at + path.len()..].starts_with(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Source {
        Source::new("crates/xtask/src/debian.rs", text)
    }

    #[test]
    fn a_registry_is_found_anywhere_but_in_the_lock_file() {
        let (name, domain) = HOSTS[0];
        let text = format!("# x\nurl = \"https://{name}{domain}/x\"\n");
        assert_eq!(registry_host(&of(&text))[0].line, 2);
        assert_eq!(registry_host(&Source::new("Cargo.lock", text)), []);
    }

    #[test]
    fn documentation_may_be_linked() {
        assert_eq!(registry_host(&of("https://docs.rs/vm-memory, https://www.kernel.org")), []);
    }

    #[test]
    fn a_path_into_somebodys_files_is_found() {
        for (folder, next) in
            [(FOLDERS[0].path, "me/x"), (FOLDERS[2].path, "main"), (FOLDERS[3].path, ".cache")]
        {
            assert_eq!(machine_path(&of(&format!("cd \"{folder}{next}\""))).len(), 1);
        }
    }

    #[test]
    fn a_folder_of_the_same_name_further_down_passes() {
        let folder = FOLDERS[2].path;
        assert_eq!(
            machine_path(&of(&format!("target{folder}main {{dir}}{folder}x $A{folder}x"))),
            []
        );
    }

    #[test]
    fn the_superusers_folder_in_a_guest_passes() {
        assert_eq!(machine_path(&of(&format!("mkdir {}x", FOLDERS[3].path))), []);
    }
}
