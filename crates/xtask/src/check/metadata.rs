//! What `cargo metadata` says about the workspace's packages, as far as the layer check asks.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::build::cargo;

/// A package of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub name: String,
    pub dependencies: Vec<Dependency>,
}

/// One entry of its dependency tables.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    /// The package's own name, whatever it is renamed to.
    pub name: String,
    pub kind: Kind,
    /// The `cfg(...)` or triple it stands under, if any.
    pub target: Option<String>,
    pub features: Vec<String>,
    /// A package of this workspace, not of a registry.
    pub ours: bool,
}

/// Which table a dependency stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Dev,
    Build,
}

/// The packages of this workspace.
pub(super) fn read() -> anyhow::Result<Vec<Package>> {
    let done = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .context("cannot run cargo")?;
    if !done.status.success() {
        bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&done.stderr));
    }
    parse(&done.stdout)
}

/// The packages in the output of `cargo metadata --no-deps`.
pub(super) fn parse(json: &[u8]) -> anyhow::Result<Vec<Package>> {
    let all: Value = serde_json::from_slice(json).context("cargo metadata is not JSON")?;
    list(&all, "packages")?.iter().map(package).collect()
}

fn package(value: &Value) -> anyhow::Result<Package> {
    Ok(Package {
        name: text(value, "name")?,
        dependencies: list(value, "dependencies")?
            .iter()
            .map(dependency)
            .collect::<anyhow::Result<_>>()?,
    })
}

fn dependency(value: &Value) -> anyhow::Result<Dependency> {
    let kind = match value["kind"].as_str() {
        None => Kind::Normal,
        Some("dev") => Kind::Dev,
        Some("build") => Kind::Build,
        Some(other) => bail!("cargo metadata has a dependency of kind `{other}`"),
    };
    let features = list(value, "features")?.iter().filter_map(Value::as_str);
    Ok(Dependency {
        name: text(value, "name")?,
        kind,
        target: value["target"].as_str().map(str::to_owned),
        features: features.map(str::to_owned).collect(),
        ours: value["source"].is_null(),
    })
}

fn text(value: &Value, key: &str) -> anyhow::Result<String> {
    let text = value[key].as_str().with_context(|| format!("cargo metadata has no `{key}`"))?;
    Ok(text.to_owned())
}

fn list<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a Vec<Value>> {
    value[key].as_array().with_context(|| format!("cargo metadata has no `{key}`"))
}
