//! The address of a Debian mirror: the one the user's own apt uses.

use std::{env, fs, process::Command};

use anyhow::Context;

use super::apt_program;
use crate::{paths, process};

const VARIABLE: &str = "KEDGE_DEBIAN_MIRROR";

/// The mirror's address, ending in a slash: `dists/` and `pool/` lie below it.
///
/// # Errors
/// The user's apt knows no mirror of Debian and `KEDGE_DEBIAN_MIRROR` names none.
pub(super) fn address() -> anyhow::Result<String> {
    let named = env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    let address = match named {
        Some(address) => address,
        None => configured()?,
    };
    Ok(format!("{}/", address.trim_end_matches('/')))
}

fn configured() -> anyhow::Result<String> {
    let query = |command: &mut Command| {
        let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
        process::output(command.args(["indextargets", "--format", format, "Created-By: Packages"]))
    };
    if let Some(mirror) = debian_of(&query(&mut apt_program("apt-get"))?) {
        return Ok(mirror);
    }
    // apt tells only of lists it has: on a system that never updated them, read them into a folder of ours.
    let lists = paths::cache()?.join("apt/system");
    fs::create_dir_all(lists.join("partial"))?;
    let with_lists = || {
        let mut apt = apt_program("apt-get");
        apt.arg("-o").arg(format!("Dir::State::Lists={}", lists.display()));
        apt.args(["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]);
        apt
    };
    process::quiet(with_lists().arg("update")).context("cannot ask apt for its mirror")?;
    debian_of(&query(&mut with_lists())?).with_context(|| {
        format!(
            "apt is set up with no mirror of Debian; set {VARIABLE} to the address of one \
             (the folder that has dists/ and pool/)"
        )
    })
}

/// The first mirror of Debian itself in lines of `origin|label|address`.
fn debian_of(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_debians_own_and_not_its_security_archive_or_another_distribution() {
        let targets = "Ubuntu|Ubuntu|http://u.example/ubuntu/\n\
                       Debian|Debian-Security|http://s.example/security/\n\
                       Debian|Debian|http://d.example/debian/\n";
        assert_eq!(debian_of(targets).unwrap(), "http://d.example/debian/");
    }

    #[test]
    fn a_system_without_debian_has_no_mirror() {
        assert_eq!(debian_of("Ubuntu|Ubuntu|http://u.example/ubuntu/\n"), None);
    }
}
