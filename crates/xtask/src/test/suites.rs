//! The programs that hold the tests which run in emulated hosts, and which tests they hold.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    build,
    host::{Content, Overlay},
    process,
    setup::Toolchain,
};

/// Integration tests of this name need KVM; each is a suite called after its package, with this behind it.
const ON_KVM: &str = "on_kvm";
const FOLDER: &str = "/kedge/bin/";

/// The suites there are in these files of a host: a host that dies under real guests has run the others by then.
pub(super) fn names(files: &[Overlay]) -> Vec<&str> {
    let programs = files.iter().filter_map(|file| file.path.strip_prefix(FOLDER));
    let mut names = vec!["conformance"];
    names.extend(programs.filter(|name| name.ends_with(".on_kvm")));
    names.push("guest-tests");
    names
}

/// Builds the integration tests that need KVM.
///
/// # Errors
/// One does not build.
pub(super) fn on_kvm() -> anyhow::Result<Vec<Overlay>> {
    let packages = packages(&metadata()?);
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let toolchain = Toolchain::installed()?;
    let mut test = build::cargo();
    test.args(["test", "--no-run", "--locked", "--target", toolchain.target(), "--test", ON_KVM]);
    test.args(["--message-format", "json-render-diagnostics"]).envs(toolchain.environment());
    for package in packages {
        test.args(["--package", &package]);
    }
    let built = test.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(built.status.success(), "the tests called `{ON_KVM}` do not build");
    Ok(programs(&String::from_utf8_lossy(&built.stdout)))
}

fn metadata() -> anyhow::Result<Value> {
    let mut metadata = build::cargo();
    metadata.args(["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    Ok(serde_json::from_str(&process::output(&mut metadata)?)?)
}

/// The packages with such a test.
fn packages(metadata: &Value) -> Vec<String> {
    let has_test = |package: &&Value| {
        let targets = package["targets"].as_array();
        targets.is_some_and(|targets| targets.iter().any(|target| target["name"] == ON_KVM))
    };
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = packages.iter().filter(has_test).filter_map(|package| package["name"].as_str());
    names.map(str::to_owned).collect()
}

/// The programs that cargo says it has built.
fn programs(messages: &str) -> Vec<Overlay> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| program(&message)).collect()
}

fn program(message: &Value) -> Option<Overlay> {
    let executable = PathBuf::from(message["executable"].as_str()?);
    let folder = PathBuf::from(message["manifest_path"].as_str()?);
    let name = folder.parent()?.file_name()?.to_string_lossy().into_owned();
    Some(Overlay::copy(&format!("{FOLDER}{name}.{ON_KVM}"), executable))
}

/// The names of a suite's tests; nothing if it cannot say.
pub(super) struct Tests(Option<Vec<String>>);

impl Tests {
    /// Some test has `filter` in its name and none of `skips`. A suite that cannot say counts as one that has.
    pub(super) fn runs(&self, filter: &str, skips: &[&str]) -> bool {
        let skipped = |name: &str| skips.iter().any(|part| name.contains(part));
        let Self(Some(names)) = self else { return true };
        names.iter().any(|name| name.contains(filter) && !skipped(name))
    }
}

/// The tests of each suite, as it lists them under user-mode emulation.
pub(super) fn tests(files: &[Overlay]) -> Vec<Tests> {
    names(files).into_iter().map(|suite| Tests(list(files, suite))).collect()
}

/// The names of a suite's tests; nothing if it cannot say.
pub(super) fn list(files: &[Overlay], suite: &str) -> Option<Vec<String>> {
    let path = format!("{FOLDER}{suite}");
    let Content::Copy(program) = &files.iter().find(|file| file.path == path)?.content else {
        return None;
    };
    let emulator = if env::consts::ARCH == "aarch64" { "env" } else { "qemu-aarch64" };
    let list = process::output(Command::new(emulator).arg(program).arg("--list")).ok()?;
    Some(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_is_looked_for_in_the_names_of_tests_that_are_not_skipped() {
        let tests = Tests(Some(vec!["once::errors::no_disk".to_owned()]));
        assert!(tests.runs("disk", &[]));
        assert!(!tests.runs("disk", &["once::"]));
        assert!(!tests.runs("boot", &[]));
    }

    #[test]
    fn a_suite_that_cannot_say_is_run() {
        assert!(Tests(None).runs("disk", &["once::"]));
    }

    #[test]
    fn packages_with_a_test_on_kvm_are_found() {
        let metadata = json!({"packages": [
            {"name": "a", "targets": [{"name": "a"}, {"name": "on_kvm"}]},
            {"name": "b", "targets": [{"name": "b"}]},
        ]});
        assert_eq!(packages(&metadata), ["a"]);
    }

    #[test]
    fn tests_on_kvm_run_before_real_guests() {
        let message =
            r#"{"executable": "target/on_kvm-1", "manifest_path": "crates/hv_kvm/Cargo.toml"}"#;
        let files = programs(&format!("not JSON\n{{\"executable\": null}}\n{message}\n"));
        assert_eq!(names(&files), ["conformance", "hv_kvm.on_kvm", "guest-tests"]);
    }
}
