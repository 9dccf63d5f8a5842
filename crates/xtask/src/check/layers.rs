//! Who may import whom: the layers of the architecture, as a table, held against `cargo metadata`.
//!
//! Dev-dependencies are exempt, but for the crates that only one place may name at all.

use std::{fmt::Write as _, fs};

use anyhow::Context;

use super::{
    Outcome,
    metadata::{self, Dependency, Kind, Package},
};
use crate::paths;

/// What a crate may import of ours.
#[derive(Clone, Copy, Debug)]
enum May {
    /// Crates of lower layers, but never these.
    Below { never: &'static [&'static str] },
    /// Any crate: composition and tests.
    All,
    /// None.
    None,
}

/// A crate's place.
#[derive(Debug)]
struct Row {
    name: &'static str,
    layer: u8,
    may: May,
}

const fn row(name: &'static str, layer: u8, may: May) -> Row {
    Row { name, layer, may }
}

const BELOW: May = May::Below { never: &[] };
const NO_BACK_END: May = May::Below { never: &["kedge-hv-kvm", "kedge-hv-model"] };
const NO_KVM: May = May::Below { never: &["kedge-hv-kvm"] };
/// Above every layer: nothing imports these.
const TOP: u8 = u8::MAX;

#[rustfmt::skip]
const LAYERS: &[Row] = &[
    //   crate                layer  may import
    row("kedge-ids",          0,     BELOW),
    row("kedge-diag",         0,     BELOW),
    row("kedge-metrics",      0,     BELOW),
    row("kedge-saved-state",  1,     BELOW),
    row("kedge-guest-memory", 1,     BELOW),
    row("kedge-metadata",     1,     BELOW),
    row("kedge-hv",           2,     BELOW),
    row("kedge-bus",          2,     BELOW),
    row("kedge-sandbox",      2,     BELOW),
    row("kedge-firmware",     3,     BELOW),
    row("kedge-hv-kvm",       3,     BELOW),
    row("kedge-hv-model",     3,     BELOW),
    row("kedge-devices",      4,     NO_BACK_END),
    row("kedge-arch",         4,     NO_BACK_END),
    row("kedge-vmm",          5,     NO_KVM),
    row("kedge-api",          6,     BELOW),
    row("kedge",              7,     May::All),
    row("kedge-conformance",  TOP,   May::All),
    row("kedge-guest-tests",  TOP,   May::All),
    row("kedge-bench",        TOP,   May::None),
    row("kedge-instructions", TOP,   May::All),
    row("kedge-xtask",        TOP,   May::None),
];

/// A crate from a registry that one crate of ours answers for.
struct Owned {
    name: &'static str,
    /// Only with this feature; without it anybody may.
    feature: Option<&'static str>,
    owner: &'static str,
}

const OWNED: &[Owned] = &[
    Owned { name: "kvm-bindings", feature: None, owner: "kedge-hv-kvm" },
    Owned { name: "kvm-ioctls", feature: None, owner: "kedge-hv-kvm" },
    Owned { name: "vm-memory", feature: Some("backend-mmap"), owner: "kedge-guest-memory" },
];

/// The step of `cargo xtask check`.
pub(super) fn check() -> anyhow::Result<Outcome> {
    let packages = metadata::read()?;
    let readme =
        fs::read_to_string(paths::workspace().join("README.md")).context("no README.md")?;
    let mut wrongs = violations(&packages);
    wrongs.extend(unmapped(&packages, &readme));
    if wrongs.is_empty() {
        return Ok(Outcome::Clean);
    }
    let mut text = String::new();
    for wrong in wrongs {
        writeln!(text, "error: {wrong}")?;
    }
    writeln!(
        text,
        "\n  the table is LAYERS in crates/xtask/src/check/layers.rs; README.md has the map"
    )?;
    Ok(Outcome::Wrong(text))
}

/// Everything that is wrong with the dependencies of these packages.
fn violations(packages: &[Package]) -> Vec<String> {
    packages.iter().flat_map(of_package).collect()
}

/// Packages that the README's map of the tree does not show.
fn unmapped(packages: &[Package], readme: &str) -> Vec<String> {
    let missing =
        packages.iter().filter(|package| !readme.contains(&format!("| `{}` |", package.name)));
    missing
        .map(|package| format!("`{}` is not in README.md's map of the tree", package.name))
        .collect()
}

fn of_package(package: &Package) -> Vec<String> {
    let name = &package.name;
    let Some(row) = LAYERS.iter().find(|row| row.name == name) else {
        return vec![format!("`{name}` is in no layer; give it one")];
    };
    let wrongs =
        package.dependencies.iter().filter_map(|dependency| of_dependency(row, dependency));
    wrongs.map(|wrong| format!("`{name}`: {wrong}")).collect()
}

fn of_dependency(row: &Row, dependency: &Dependency) -> Option<String> {
    if !dependency.ours {
        return owner_violation(row, dependency);
    }
    let name = dependency.name.as_str();
    match dependency.kind {
        Kind::Dev => None,
        Kind::Normal | Kind::Build => layer_violation(row, name),
    }
}

fn layer_violation(row: &Row, name: &str) -> Option<String> {
    let never = match row.may {
        May::All => return None,
        May::None => return Some(format!("imports `{name}`; it imports none of ours")),
        May::Below { never } => never,
    };
    let layer = row.layer;
    match LAYERS.iter().find(|other| other.name == name) {
        None => Some(format!("imports `{name}`, which is in no layer")),
        Some(_) if never.contains(&name) => Some(format!("imports `{name}`; it never may")),
        Some(other) if other.layer < layer => None,
        Some(other) => Some(format!(
            "imports `{name}` of layer {}, but is itself of layer {layer}",
            other.layer
        )),
    }
}

fn owner_violation(row: &Row, dependency: &Dependency) -> Option<String> {
    let owned =
        OWNED.iter().find(|owned| owned.name == dependency.name && owned.owner != row.name)?;
    let Owned { name, feature, owner } = owned;
    match feature {
        None => Some(format!("names `{name}`; only `{owner}` does")),
        Some(feature) if dependency.features.iter().any(|f| f == feature) => {
            Some(format!("asks `{name}` for `{feature}`; only `{owner}` does"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `cargo metadata` says of `package` with this one dependency.
    fn wrongs(package: &str, dependency: &str) -> Vec<String> {
        let json =
            format!(r#"{{"packages": [{{"name": "{package}", "dependencies": [{dependency}]}}]}}"#);
        violations(&metadata::parse(json.as_bytes()).unwrap())
    }

    fn ours(name: &str) -> String {
        format!(
            r#"{{"name": "{name}", "source": null, "kind": null, "target": null, "features": []}}"#
        )
    }

    fn from_registry(name: &str, feature: &str) -> String {
        format!(
            r#"{{"name": "{name}", "source": "registry+x", "kind": null, "target": null, "features": ["{feature}"]}}"#
        )
    }

    fn dev(name: &str, target: &str) -> String {
        format!(
            r#"{{"name": "{name}", "source": null, "kind": "dev", "target": {target}, "features": []}}"#
        )
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_crate_that_is_not_on_the_map_is_an_error() {
        let json = r#"{"packages": [{"name": "kedge-ids", "dependencies": []}]}"#;
        let packages = metadata::parse(json.as_bytes()).unwrap();
        assert_eq!(unmapped(&packages, "| `crates/ids/` | `kedge-ids` | 0 |"), NOTHING);
        let expected = ["`kedge-ids` is not in README.md's map of the tree"];
        assert_eq!(unmapped(&packages, "| `crates/ids/` | - | 0 |"), expected);
    }

    #[test]
    fn a_crate_may_import_from_every_layer_below() {
        assert_eq!(wrongs("kedge-vmm", &ours("kedge-ids")), NOTHING);
        assert_eq!(wrongs("kedge-vmm", &ours("kedge-arch")), NOTHING);
        assert_eq!(wrongs("kedge-vmm", &ours("kedge-hv-model")), NOTHING);
    }

    #[test]
    fn a_crate_of_the_same_layer_is_refused() {
        let expected =
            ["`kedge-arch`: imports `kedge-devices` of layer 4, but is itself of layer 4"];
        assert_eq!(wrongs("kedge-arch", &ours("kedge-devices")), expected);
    }

    #[test]
    fn a_crate_of_a_higher_layer_is_refused() {
        let expected = ["`kedge-bus`: imports `kedge-vmm` of layer 5, but is itself of layer 2"];
        assert_eq!(wrongs("kedge-bus", &ours("kedge-vmm")), expected);
    }

    #[test]
    fn a_build_dependency_obeys_the_layers_too() {
        let build = ours("kedge-vmm").replace(r#""kind": null"#, r#""kind": "build""#);
        assert_eq!(wrongs("kedge-bus", &build).len(), 1);
    }

    #[test]
    fn the_back_ends_are_refused_where_they_are_lower_but_forbidden() {
        assert_eq!(
            wrongs("kedge-devices", &ours("kedge-hv-model")),
            ["`kedge-devices`: imports `kedge-hv-model`; it never may"]
        );
        assert_eq!(
            wrongs("kedge-vmm", &ours("kedge-hv-kvm")),
            ["`kedge-vmm`: imports `kedge-hv-kvm`; it never may"]
        );
    }

    #[test]
    fn composition_and_tests_may_import_everything() {
        assert_eq!(wrongs("kedge", &ours("kedge-hv-kvm")), NOTHING);
        assert_eq!(wrongs("kedge-conformance", &ours("kedge-hv-kvm")), NOTHING);
    }

    #[test]
    fn the_developer_commands_import_none_of_ours() {
        let expected = ["`kedge-xtask`: imports `kedge-ids`; it imports none of ours"];
        assert_eq!(wrongs("kedge-xtask", &ours("kedge-ids")), expected);
    }

    #[test]
    fn a_crate_without_a_row_is_an_error_on_either_side() {
        assert_eq!(wrongs("kedge-new", ""), ["`kedge-new` is in no layer; give it one"]);
        assert_eq!(
            wrongs("kedge-bus", &ours("kedge-new")),
            ["`kedge-bus`: imports `kedge-new`, which is in no layer"]
        );
    }

    #[test]
    fn dev_dependencies_are_exempt() {
        assert_eq!(wrongs("kedge-bus", &dev("kedge-vmm", "null")), NOTHING);
    }

    #[test]
    fn kvm_is_named_by_its_back_end_only() {
        assert_eq!(wrongs("kedge-hv-kvm", &from_registry("kvm-ioctls", "default")), NOTHING);
        let expected = ["`kedge-vmm`: names `kvm-ioctls`; only `kedge-hv-kvm` does"];
        assert_eq!(wrongs("kedge-vmm", &from_registry("kvm-ioctls", "default")), expected);
        assert_eq!(wrongs("kedge", &from_registry("kvm-bindings", "default")).len(), 1);
    }

    #[test]
    fn the_owner_rule_holds_for_dev_dependencies_too() {
        let dev = from_registry("kvm-ioctls", "x").replace(r#""kind": null"#, r#""kind": "dev""#);
        assert_eq!(wrongs("kedge-vmm", &dev).len(), 1);
    }

    #[test]
    fn mmap_comes_through_guest_memory_only() {
        assert_eq!(
            wrongs("kedge-guest-memory", &from_registry("vm-memory", "backend-mmap")),
            NOTHING
        );
        assert_eq!(wrongs("kedge-devices", &from_registry("vm-memory", "rawfd")), NOTHING);
        let expected = [
            "`kedge-devices`: asks `vm-memory` for `backend-mmap`; only `kedge-guest-memory` does",
        ];
        assert_eq!(wrongs("kedge-devices", &from_registry("vm-memory", "backend-mmap")), expected);
    }
}
