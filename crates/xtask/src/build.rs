//! `cargo xtask build`: the static arm64 release binary; and the programs that tests run in the emulated host.

use std::{
    env, fs,
    panic::resume_unwind,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    thread,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::{
    host::Overlay,
    paths, process,
    setup::{self, Toolchain},
};

/// `cargo xtask build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// A program of the workspace: its package, what it is there, its name, and what it is built for.
type Program = (&'static str, Kind, &'static str, Profile);

/// What a program is built for: a profile of Cargo.toml.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// To be shipped, or measured.
    Release,
    /// To test others: it is to be built soon.
    Trial,
}

impl Profile {
    const ALL: [Self; 2] = [Self::Release, Self::Trial];

    /// In cargo's command line.
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Trial => "trial",
        }
    }
}

/// What a program is in its package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Binary,
    Example,
}

impl Kind {
    /// In cargo's command line.
    const fn flag(self) -> &'static str {
        match self {
            Self::Binary => "--bin",
            Self::Example => "--example",
        }
    }

    /// In cargo's metadata.
    const fn name(self) -> &'static str {
        match self {
            Self::Binary => "bin",
            Self::Example => "example",
        }
    }
}

/// Flags for builds in which kedge can have the model as its hypervisor: those of tests that run natively.
pub(crate) const WITH_MODEL: [&str; 2] = ["--features", "kedge/model"];

const KEDGE: Program = ("kedge", Kind::Binary, "kedge", Profile::Release);
const BENCH: Program = ("kedge-bench", Kind::Binary, "bench", Profile::Release);
const CHECKER: Program = ("kedge-guest-tests", Kind::Binary, "disk_checker", Profile::Trial);
const TAP_MAKER: Program = ("kedge-guest-tests", Kind::Binary, "tap_maker", Profile::Trial);

/// Programs that commands in the emulated host find on their path.
const HOST_PROGRAMS: [Program; 14] = [
    KEDGE,
    ("kedge-guest-tests", Kind::Binary, "guest-tests", Profile::Trial),
    ("kedge-guest-tests", Kind::Binary, "vsock_peer", Profile::Trial),
    CHECKER,
    TAP_MAKER,
    ("kedge-guest-tests", Kind::Binary, "datagrams", Profile::Trial),
    ("kedge-conformance", Kind::Binary, "conformance", Profile::Trial),
    ("kedge-vmm", Kind::Example, "serial_output", Profile::Trial),
    ("kedge-vmm", Kind::Example, "firmware_service", Profile::Trial),
    ("kedge-vmm", Kind::Example, "own_device", Profile::Trial),
    ("kedge-vmm", Kind::Example, "own_disk", Profile::Trial),
    ("kedge-vmm", Kind::Example, "pause", Profile::Trial),
    ("kedge-vmm", Kind::Example, "snapshot", Profile::Trial),
    ("kedge-vmm", Kind::Example, "page_server", Profile::Trial),
];

/// Runs `cargo xtask build`: the binary's path is the last line printed.
///
/// # Errors
/// The tools are not there, or kedge does not build.
pub(crate) fn main(_args: &Args) -> anyhow::Result<ExitCode> {
    setup::ensure()?;
    println!("{}", kedge()?.display());
    Ok(ExitCode::SUCCESS)
}

/// Builds kedge; the path of its static arm64 release binary.
///
/// # Errors
/// It does not build, or is not static.
pub(crate) fn kedge() -> anyhow::Result<PathBuf> {
    let mut built = programs(&[KEDGE])?;
    built.pop().map(|(_, path)| path).context("package kedge has no binary")
}

/// What of our own lies in the emulated host: `/kedge/bin` and `/kedge/payloads`.
///
/// # Errors
/// Something does not build.
pub(crate) fn host_programs() -> anyhow::Result<Vec<Overlay>> {
    let targets = workspace_targets()?;
    let there: Vec<_> = HOST_PROGRAMS
        .into_iter()
        .filter(|&(_, kind, name, _)| targets.contains(&(kind.name().to_owned(), name.to_owned())))
        .collect();
    let mut files = overlays(programs(&there)?)?;
    files.extend(clients()?);
    Ok(files)
}

/// What `cargo xtask bench` needs of them.
///
/// # Errors
/// Something does not build.
pub(crate) fn measured_programs() -> anyhow::Result<Vec<Overlay>> {
    overlays(programs(&[KEDGE, BENCH, CHECKER, TAP_MAKER])?)
}

/// These programs and the payloads, where the emulated host has them.
fn overlays(programs: Vec<(String, PathBuf)>) -> anyhow::Result<Vec<Overlay>> {
    let overlay = |(name, path)| Overlay::copy(&format!("/kedge/bin/{name}"), path);
    let mut files: Vec<Overlay> = programs.into_iter().map(overlay).collect();
    files.extend(payloads()?);
    Ok(files)
}

/// Kind and name of all targets of the workspace.
fn workspace_targets() -> anyhow::Result<Vec<(String, String)>> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&process::output(&mut metadata)?)?;
    let list = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let targets =
        list(&metadata, "packages").into_iter().flat_map(|package| list(&package, "targets"));
    let kind_and_name = |target: Value| {
        let kind = list(&target, "kind").first()?.as_str()?.to_owned();
        Some((kind, target.get("name")?.as_str()?.to_owned()))
    };
    Ok(targets.filter_map(kind_and_name).collect())
}

/// Builds binaries for arm64; name and path of each.
fn programs(wanted: &[Program]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let toolchain = Toolchain::installed()?;
    // At once: what is shipped ends with minutes of work for one processor.
    let built = thread::scope(|scope| {
        let builds = Profile::ALL
            .map(|profile| scope.spawn(move || programs_of(profile, wanted, toolchain)));
        builds.map(|build| build.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let built: Vec<_> = built.into_iter().collect::<anyhow::Result<Vec<_>>>()?.concat();
    for (_, path) in &built {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        check_static(&bytes)
            .with_context(|| format!("{} is of no use in a bare host", path.display()))?;
    }
    Ok(built)
}

/// Builds those of `wanted` that have this profile.
fn programs_of(
    profile: Profile,
    wanted: &[Program],
    toolchain: Toolchain,
) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let of_it: Vec<_> = wanted.iter().filter(|program| program.3 == profile).collect();
    if of_it.is_empty() {
        return Ok(Vec::new());
    }
    let mut build = cargo();
    build.args(["build", "--locked"]).envs(toolchain.environment());
    if profile == Profile::Release {
        // Nothing is unwound that aborts when it panics.
        let script = paths::workspace().join("crates/kedge/no_unwind.ld");
        let flags =
            format!("[\"-Cforce-unwind-tables=no\", \"-Clink-arg=-T{}\"]", script.display());
        build.args(["--config", &format!("target.{}.rustflags={flags}", toolchain.target())]);
    }
    for (package, kind, name, _) in of_it {
        build.args(["--package", package, kind.flag(), name]);
    }
    executables(build, toolchain, profile)
}

/// The bare-metal guests of `tests/payloads`: a workspace of its own, whose linker writes memory images.
fn payloads() -> anyhow::Result<Vec<Overlay>> {
    let folder = paths::workspace().join("tests/payloads");
    if !folder.join("Cargo.toml").is_file() {
        return Ok(Vec::new());
    }
    let toolchain = Toolchain::installed()?;
    let mut build = cargo();
    // Its `.cargo/config.toml` counts only there.
    build.current_dir(&folder).args(["build", "--locked", "--target-dir"]);
    build.arg(paths::work().join("payloads")).envs(toolchain.bare_metal_environment());
    let built = executables(build, toolchain, Profile::Release)?;
    let overlay = |(name, path)| Overlay::copy(&format!("/kedge/payloads/{name}.img"), path);
    Ok(built.into_iter().map(overlay).collect())
}

/// Clients that others wrote, of `tests/clients`: a workspace of its own, since nothing else needs what they need.
fn clients() -> anyhow::Result<Vec<Overlay>> {
    let toolchain = Toolchain::installed()?;
    let mut build = cargo();
    build.current_dir(paths::workspace().join("tests/clients"));
    build.args(["build", "--locked", "--bins", "--target-dir"]).arg(paths::work().join("clients"));
    build.envs(toolchain.environment());
    let built = executables(build, toolchain, Profile::Trial)?;
    let overlay = |(name, path)| Overlay::copy(&format!("/kedge/bin/{name}"), path);
    Ok(built.into_iter().map(overlay).collect())
}

/// Runs `build` as a build for arm64; name and path of each program it has made or found made.
fn executables(
    mut build: Command,
    toolchain: Toolchain,
    profile: Profile,
) -> anyhow::Result<Vec<(String, PathBuf)>> {
    build.args(["--profile", profile.name(), "--target", toolchain.target()]);
    build.args(["--message-format", "json-render-diagnostics"]);
    let built = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(built.status.success(), "the arm64 build failed");
    let messages = String::from_utf8_lossy(&built.stdout);
    let message = |line| serde_json::from_str::<Value>(line).ok();
    let executable = |message: Value| Some(PathBuf::from(message.get("executable")?.as_str()?));
    let named =
        |path: PathBuf| (path.file_name().unwrap_or_default().to_string_lossy().into(), path);
    Ok(messages.lines().filter_map(message).filter_map(executable).map(named).collect())
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::workspace()).stdin(Stdio::null());
    cargo
}

/// Rust's name for this machine.
///
/// # Errors
/// There is no rustc, or it does not say.
pub(crate) fn native_target() -> anyhow::Result<String> {
    let said = process::output(Command::new("rustc").current_dir(paths::workspace()).arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say which machine it is for")
}

/// That these bytes are a program for 64-bit Arm which needs no dynamic linker (ELF, System V ABI, chapters 4 and 5).
fn check_static(elf: &[u8]) -> anyhow::Result<()> {
    const AARCH64: u64 = 183;
    const PT_INTERP: u64 = 3;
    let field = |at: u64, size: usize| -> anyhow::Result<u64> {
        let at = usize::try_from(at)?;
        let bytes = elf.get(at..at + size).context("it is cut short")?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    };
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "it is no 64-bit little-endian ELF file");
    ensure!(field(18, 2)? == AARCH64, "it is not for arm64");
    let (table, size, count) = (field(32, 8)?, field(54, 2)?, field(56, 2)?);
    for number in 0..count {
        if field(table + number * size, 4)? == PT_INTERP {
            bail!("it is not static: it asks for a dynamic linker");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file for `machine` with one program header of this type.
    fn elf(machine: u8, segment: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18] = machine;
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = 1;
        bytes[64] = segment;
        bytes
    }

    #[test]
    fn every_example_of_the_library_is_run_by_a_test_in_guests_and_has_its_place_in_the_guide() {
        let tests = paths::workspace().join("tests/guest/src");
        let tests = fs::read_dir(tests).unwrap().map(|entry| entry.unwrap().path());
        let tests: String = tests.filter_map(|path| fs::read_to_string(path).ok()).collect();
        let guide = fs::read_to_string(paths::workspace().join("docs/embedding.md")).unwrap();
        let is_there = |name: &str| {
            HOST_PROGRAMS.iter().any(|program| program.0 == "kedge-vmm" && program.2 == name)
        };
        for entry in fs::read_dir(paths::workspace().join("vmm/examples")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(is_there(name), "{name} is not among HOST_PROGRAMS");
            assert!(tests.contains(&format!("embedded(\"{name}\")")), "no test runs {name}");
            assert!(guide.contains(&format!("| `{name}` |")), "docs/embedding.md has no {name}");
        }
    }

    #[test]
    fn a_program_without_an_interpreter_is_static() {
        check_static(&elf(183, 1)).unwrap();
    }

    #[test]
    fn a_program_that_asks_for_a_dynamic_linker_is_refused() {
        let error = check_static(&elf(183, 3)).unwrap_err();
        assert_eq!(error.to_string(), "it is not static: it asks for a dynamic linker");
    }

    #[test]
    fn a_program_for_another_machine_or_cut_short_is_refused() {
        assert_eq!(check_static(&elf(62, 1)).unwrap_err().to_string(), "it is not for arm64");
        assert_eq!(check_static(&elf(183, 1)[..60]).unwrap_err().to_string(), "it is cut short");
    }
}
