//! The sources of a crate of the workspace: which modules it has, and what is in each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item};

/// A crate.
pub(crate) struct Crate {
    /// The items of each module, by its path; the root's is empty.
    pub(crate) modules: BTreeMap<Vec<String>, Vec<Item>>,
}

impl Crate {
    /// Reads the crate in `folder`.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut modules = BTreeMap::new();
        let root = folder.join("src/lib.rs");
        let items = parse(&root);
        take(&mut modules, Vec::new(), items, &folder.join("src"));
        Self { modules }
    }

    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        let mut modules = BTreeMap::new();
        take(&mut modules, Vec::new(), syn::parse_file(text).unwrap().items, Path::new("/nowhere"));
        Self { modules }
    }
}

/// The folder of each crate of the workspace, by the name that `use` knows it by.
pub(crate) fn folders(workspace: &Path) -> BTreeMap<String, PathBuf> {
    let manifest = fs::read_to_string(workspace.join("Cargo.toml")).unwrap();
    let mut folders = BTreeMap::new();
    for line in manifest.lines().filter(|line| line.starts_with("kedge-")) {
        let Some((name, rest)) = line.split_once(" = { path = \"") else { continue };
        let path = rest.split('"').next().unwrap_or_default();
        folders.insert(name.replace('-', "_"), workspace.join(path));
    }
    folders
}

fn parse(path: &Path) -> Vec<Item> {
    let text = fs::read_to_string(path).unwrap_or_else(|_| panic!("{} is there", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())).items
}

/// Takes up the items of a module whose children are in `folder`, and those of its children.
fn take(
    modules: &mut BTreeMap<Vec<String>, Vec<Item>>,
    path: Vec<String>,
    items: Vec<Item>,
    folder: &Path,
) {
    let items: Vec<Item> =
        items.into_iter().filter(|item| !is_for_tests(attributes(item))).collect();
    for item in &items {
        let Item::Mod(module) = item else { continue };
        let name = module.ident.to_string();
        let below = folder.join(&name);
        let items = match &module.content {
            Some((_, items)) => items.clone(),
            None => {
                let file = folder.join(format!("{name}.rs"));
                parse(&if file.exists() { file } else { below.join("mod.rs") })
            }
        };
        take(modules, [path.as_slice(), &[name]].concat(), items, &below);
    }
    modules.insert(path, items);
}

/// Whether what has these attributes is in test builds only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_test = |list: &syn::MetaList| list.tokens.to_string() == "test";
        attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(is_test)
    })
}

/// The attributes of `item`.
pub(crate) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
