//! The Rust toolchain for arm64: rustup's musl target, or Debian's cross packages where there is no rustup.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

use crate::{build, process, progress};

const MUSL: &str = "aarch64-unknown-linux-musl";
const GNU: &str = "aarch64-unknown-linux-gnu";
const CROSS_LINKER: &str = "aarch64-linux-gnu-gcc";
/// GNU's linker writes no plain memory images for arm64.
const BARE_METAL_LINKER: &str = "ld.lld";
/// Where a cross compiler and arm64 itself have the static C library.
const LIBC: [&str; 2] = ["/usr/aarch64-linux-gnu/lib/libc.a", "/usr/lib/aarch64-linux-gnu/libc.a"];
/// Debian's names; its plain `rustc` is too old for the project.
const DEBIAN: [(&str, &str); 6] = [
    ("rustc-web", "builds kedge: there is no rustup here"),
    ("cargo-web", "goes with rustc-web"),
    ("rust-web-clippy", "checks the code"),
    ("rustfmt-web", "formats it"),
    ("libstd-rust-web-dev:arm64", "Rust's library for arm64"),
    ("lld", "links test guests that have no operating system"),
];
/// What links arm64 programs there: the machine's own compiler, or a cross one.
#[cfg(target_arch = "aarch64")]
const DEBIAN_LINKER: [(&str, &str); 2] =
    [("gcc", "links arm64 programs"), ("libc6-dev", "the C library that goes into them")];
#[cfg(not(target_arch = "aarch64"))]
const DEBIAN_LINKER: [(&str, &str); 2] = [
    ("gcc-aarch64-linux-gnu", "links arm64 programs"),
    ("libc6-dev-arm64-cross", "the C library that goes into them"),
];

/// A way to build static arm64 programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// rustup's musl target; `.cargo/config.toml` sets its linker.
    Musl,
    /// Debian's library for arm64 and its cross linker.
    DebianCross,
}

impl Toolchain {
    /// The one that is installed.
    ///
    /// # Errors
    /// None is.
    pub(crate) fn installed() -> anyhow::Result<Self> {
        if has_library(MUSL) {
            return Ok(Self::Musl);
        }
        let linkers = [CROSS_LINKER, BARE_METAL_LINKER];
        let can_link = linkers.iter().all(|linker| process::find(linker).is_some())
            && LIBC.iter().any(|library| Path::new(library).is_file());
        if has_library(GNU) && can_link {
            return Ok(Self::DebianCross);
        }
        bail!("Rust cannot build for arm64 here: run `cargo xtask setup`")
    }

    /// Rust's name of the target.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Musl => MUSL,
            Self::DebianCross => GNU,
        }
    }

    /// Variables that cargo needs to link static programs for it.
    pub(crate) fn environment(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Musl => Vec::new(),
            Self::DebianCross => vec![
                ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", CROSS_LINKER),
                (
                    "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
                    "-C target-feature=+crt-static",
                ),
                ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", "qemu-aarch64"),
            ],
        }
    }

    /// Variables that cargo needs to link programs that are no Linux programs, with flags of their own.
    pub(crate) fn bare_metal_environment(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Musl => Vec::new(),
            Self::DebianCross => vec![
                ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", BARE_METAL_LINKER),
                ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C linker-flavor=ld.lld"),
            ],
        }
    }
}

/// What is to be installed for arm64.
pub(super) enum Wanted {
    /// Nothing.
    Nothing,
    /// This target and these components, by rustup.
    Rustup { target: bool, components: Vec<&'static str> },
    /// Debian's packages.
    Debian,
}

impl Wanted {
    /// The apt packages it takes, each with its reason.
    pub(super) fn packages(&self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Nothing | Self::Rustup { .. } => Vec::new(),
            Self::Debian => {
                let all = DEBIAN.into_iter().chain(DEBIAN_LINKER);
                all.filter(|(name, _)| !is_installed(name)).collect()
            }
        }
    }

    /// Whether dpkg must know packages of arm64.
    pub(super) fn is_foreign(&self) -> bool {
        matches!(self, Self::Debian) && !cfg!(target_arch = "aarch64")
    }
}

/// What is missing here.
pub(super) fn wanted() -> Wanted {
    let target = Toolchain::installed().is_err();
    if process::find("rustup").is_none() {
        return if target { Wanted::Debian } else { Wanted::Nothing };
    }
    let bin = sysroot().map(|sysroot| sysroot.join("bin")).unwrap_or_default();
    let parts = [("clippy", "cargo-clippy"), ("rustfmt", "rustfmt")];
    let components: Vec<_> = parts
        .into_iter()
        .filter(|(_, file)| !bin.join(file).is_file())
        .map(|(name, _)| name)
        .collect();
    if !target && components.is_empty() {
        return Wanted::Nothing;
    }
    Wanted::Rustup { target, components }
}

/// Installs what rustup is to install; apt's part is done by then.
pub(super) fn install(wanted: &Wanted) -> anyhow::Result<()> {
    match wanted {
        Wanted::Nothing => Ok(()),
        Wanted::Debian => Toolchain::installed().map(drop),
        Wanted::Rustup { target, components } => {
            if *target {
                rustup(&["target", "add", MUSL])?;
            }
            for component in components {
                rustup(&["component", "add", component])?;
            }
            Ok(())
        }
    }
}

/// The folder with LLVM's tools, those of rustc's own version, which rustup installs where they are missing.
///
/// # Errors
/// They cannot be had.
pub(crate) fn llvm_tools() -> anyhow::Result<PathBuf> {
    let folder = sysroot()?.join("lib/rustlib").join(build::native_target()?).join("bin");
    if !folder.join("llvm-cov").is_file() {
        rustup(&["component", "add", "llvm-tools"])?;
    }
    Ok(folder)
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    process::output(query.args(["--show", "--showformat", "${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

fn rustup(words: &[&str]) -> anyhow::Result<()> {
    let line = format!("rustup {}", words.join(" "));
    progress::step(&line, || process::quiet(Command::new("rustup").args(words)))
        .with_context(|| format!("Rust's arm64 target or a tool is missing; try `{line}` by hand"))
}

/// Whether rustc has the standard library for `target`.
fn has_library(target: &str) -> bool {
    sysroot().is_ok_and(|sysroot| sysroot.join("lib/rustlib").join(target).join("lib").is_dir())
}

fn sysroot() -> anyhow::Result<PathBuf> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = process::output(Command::new(rustc).args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(printed.trim()))
}
