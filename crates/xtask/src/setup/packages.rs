//! Packages of Debian and Ubuntu that the developer commands need: found by their files, installed through apt.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::{Context, bail};

use super::rust::Wanted;
use crate::{process, progress};

/// A package, by the file that shows it is installed.
struct Package {
    name: &'static str,
    reason: &'static str,
    present: fn() -> bool,
}

#[rustfmt::skip]
const PACKAGES: [Package; 13] = [
    Package { name: "qemu-system-arm", reason: "emulates the arm64 host",
              present: || process::find("qemu-system-aarch64").is_some() },
    Package { name: "qemu-utils", reason: "makes disk images for unit tests",
              present: || process::find("qemu-img").is_some() },
    Package { name: "qemu-user", reason: "runs arm64 unit tests",
              present: || process::find("qemu-aarch64").is_some() },
    Package { name: "device-tree-compiler", reason: "checks the device trees that kedge makes",
              present: || process::find("dtc").is_some() },
    Package { name: "e2fsprogs", reason: "makes disks for guests",
              present: || process::find("mke2fs").is_some() },
    Package { name: "debian-archive-keyring", reason: "checks the signatures of Debian's kernels",
              present: || ["gpg", "pgp"].iter().any(|end| {
                  Path::new("/usr/share/keyrings/debian-archive-keyring").with_extension(end).is_file()
              }) },
    Package { name: "python3-venv", reason: "runs schemathesis",
              present: || process::quiet(Command::new("python3").args(["-c", "import ensurepip"])).is_ok() },
    Package { name: "curl", reason: "follows the documentation",
              present: || process::find("curl").is_some() },
    Package { name: "iproute2", reason: "follows the documentation",
              present: || process::find("ip").is_some() },
    Package { name: "man-db", reason: "follows the documentation",
              present: || process::find("man").is_some() },
    Package { name: "socat", reason: "follows the documentation",
              present: || process::find("socat").is_some() },
    Package { name: "valgrind", reason: "counts instructions",
              present: || process::find("valgrind").is_some() },
    Package { name: "gpgv", reason: "checks them with it",
              present: || ["gpgv", "gpgv-sq", "sqv"].iter().any(|name| process::find(name).is_some()) },
];

/// Whether this is an arm64 machine that can run guests itself.
pub(crate) fn can_run_arm64_guests() -> bool {
    let kvm = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    cfg!(target_arch = "aarch64") && kvm()
}

/// Installs the packages that are missing, after saying which and why.
pub(super) fn install(toolchain: &Wanted) -> anyhow::Result<()> {
    let mut missing: Vec<(&str, &str)> = PACKAGES
        .iter()
        .filter(|package| !(package.present)())
        .map(|package| (package.name, package.reason))
        .collect();
    missing.extend(toolchain.packages());
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    eprintln!("To be installed with apt:\n{}", listed(&missing));
    let as_root = as_root(&names)?;
    if toolchain.is_foreign() {
        progress::step("add the architecture arm64 to dpkg", || {
            process::quiet(as_root("dpkg").args(["--add-architecture", "arm64"]))
        })?;
    }
    progress::step("apt-get update", || process::quiet(as_root("apt-get").arg("update")))?;
    progress::step(format_args!("apt-get install {}", names.join(" ")), || {
        let mut apt = as_root("apt-get");
        apt.args(["install", "--yes", "--no-install-recommends"]).args(&names);
        process::quiet(&mut apt)
    })
    .context("apt could not install the packages above")
}

fn listed(missing: &[(&str, &str)]) -> String {
    let width = missing.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, reason) in missing {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:width$}  {reason}");
    }
    text
}

/// Starts a program as root: directly, or through sudo.
fn as_root(names: &[&str]) -> anyhow::Result<impl Fn(&str) -> Command + use<>> {
    if process::find("apt-get").is_none() {
        bail!(
            "this system has no apt; install with its own tools what Debian's packages {} hold",
            names.join(", ")
        );
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root && process::find("sudo").is_none() {
        bail!(
            "installing needs root, and there is no sudo; run as root:\n  apt-get update && \
             apt-get install --no-install-recommends {}",
            names.join(" ")
        );
    }
    Ok(move |program: &str| {
        // The variable keeps apt from asking questions; sudo would drop it from our own environment.
        let mut command = if is_root { Command::new("env") } else { Command::new("sudo") };
        command.args(["DEBIAN_FRONTEND=noninteractive", program]);
        command
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_why_each_package_is_needed() {
        let text = listed(&[("dtc", "checks trees"), ("qemu-user", "runs tests")]);
        assert_eq!(text, "  dtc        checks trees\n  qemu-user  runs tests\n");
    }
}
