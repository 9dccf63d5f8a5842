//! What a name means in a module: an item of a crate of the workspace, wherever it comes from.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use syn::{Item, UseTree, Visibility};

use super::source::{Crate, folders};

/// An item, by where it is written down.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) krate: String,
    pub(crate) module: Vec<String>,
    pub(crate) name: String,
}

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Item(Place),
    Module(String, Vec<String>),
    /// Something of a crate that is not ours.
    Elsewhere(String),
}

/// A leaf of a `use`: the path, and the name it is given; none for a glob.
pub(crate) struct Used {
    pub(crate) path: Vec<String>,
    pub(crate) name: Option<String>,
}

/// The crates, read as they are asked for.
pub(crate) struct Workspace {
    folders: BTreeMap<String, PathBuf>,
    crates: RefCell<BTreeMap<String, Rc<Crate>>>,
}

/// Re-exports go through no more modules than this.
const DEPTH: u32 = 24;

impl Workspace {
    pub(crate) fn at(folder: &std::path::Path) -> Self {
        Self { folders: folders(folder), crates: RefCell::default() }
    }

    /// One with these crates alone.
    #[cfg(test)]
    pub(crate) fn of(crates: &[(&str, &str)]) -> Self {
        let read = |(name, text): &(&str, &str)| ((*name).to_owned(), Rc::new(Crate::of(text)));
        let crates: BTreeMap<_, _> = crates.iter().map(read).collect();
        let folders = crates.keys().map(|name| (name.clone(), PathBuf::new())).collect();
        Self { folders, crates: RefCell::new(crates) }
    }

    /// The crate of this name, if it is ours.
    pub(crate) fn get(&self, name: &str) -> Option<Rc<Crate>> {
        let folder = self.folders.get(name)?;
        let known = self.crates.borrow().get(name).cloned();
        Some(known.unwrap_or_else(|| {
            let read = Rc::new(Crate::read(folder));
            self.crates.borrow_mut().insert(name.to_owned(), Rc::clone(&read));
            read
        }))
    }

    /// What `path` means in a module.
    pub(crate) fn resolve(
        &self,
        krate: &str,
        module: &[String],
        path: &[String],
    ) -> Option<Meaning> {
        self.follow(krate, module, path, DEPTH)
    }

    fn follow(
        &self,
        krate: &str,
        module: &[String],
        path: &[String],
        depth: u32,
    ) -> Option<Meaning> {
        let depth = depth.checked_sub(1)?;
        let [first, rest @ ..] = path else {
            return Some(Meaning::Module(krate.to_owned(), module.to_vec()));
        };
        let start = match first.as_str() {
            "crate" => Meaning::Module(krate.to_owned(), Vec::new()),
            "self" => Meaning::Module(krate.to_owned(), module.to_vec()),
            "super" => Meaning::Module(krate.to_owned(), module.split_last()?.1.to_vec()),
            name => match self.name(krate, module, name, depth) {
                Some(meaning) => meaning,
                None if self.get(name).is_some() => Meaning::Module(name.to_owned(), Vec::new()),
                None => Meaning::Elsewhere(first.clone()),
            },
        };
        match (start, rest) {
            (meaning, []) => Some(meaning),
            (Meaning::Module(krate, module), rest) => self.follow(&krate, &module, rest, depth),
            (Meaning::Elsewhere(path), rest) => {
                Some(Meaning::Elsewhere([&[path], rest].concat().join("::")))
            }
            // An associated type or a variant: the item is meant.
            (item @ Meaning::Item(_), _) => Some(item),
        }
    }

    /// What `name` means in a module, besides crates.
    fn name(&self, krate: &str, module: &[String], name: &str, depth: u32) -> Option<Meaning> {
        let depth = depth.checked_sub(1)?;
        let source = self.get(krate)?;
        let items = source.modules.get(module)?;
        if items.iter().any(|item| defines(item) == Some(name.to_owned())) {
            let (krate, module, name) = (krate.to_owned(), module.to_vec(), name.to_owned());
            return Some(Meaning::Item(Place { krate, module, name }));
        }
        let child = [module, &[name.to_owned()]].concat();
        if source.modules.contains_key(&child) {
            return Some(Meaning::Module(krate.to_owned(), child));
        }
        let used: Vec<Used> = items.iter().flat_map(uses).collect();
        let named = used.iter().find(|used| used.name.as_deref() == Some(name));
        if let Some(used) = named {
            // `use a::b as b` in the root: a crate of that name is meant.
            let is_itself = used.path.first().is_some_and(|first| first == name);
            if is_itself && self.get(name).is_some() {
                return self.follow(name, &[], &used.path[1..], depth);
            }
            if is_itself {
                return Some(Meaning::Elsewhere(used.path.join("::")));
            }
            return self.follow(krate, module, &used.path, depth);
        }
        used.iter().filter(|used| used.name.is_none()).find_map(|used| {
            match self.follow(krate, module, &used.path, depth)? {
                Meaning::Module(krate, module) => self.name(&krate, &module, name, depth),
                Meaning::Item(_) | Meaning::Elsewhere(_) => None,
            }
        })
    }
}

/// The name that `item` defines; modules and what is used have theirs elsewhere.
pub(crate) fn defines(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Whether everybody may use it.
pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// What `item` uses, if it is a `use`.
pub(crate) fn uses(item: &Item) -> Vec<Used> {
    let mut leaves = Vec::new();
    if let Item::Use(item) = item {
        split(&item.tree, &mut Vec::new(), &mut leaves);
    }
    leaves
}

fn split(tree: &UseTree, before: &mut Vec<String>, leaves: &mut Vec<Used>) {
    let mut leaf = |last: Option<String>, name: Option<String>| {
        // `use a::{self}` is `use a`.
        let last = last.filter(|last| last != "self");
        let path: Vec<String> = before.iter().cloned().chain(last).collect();
        let name =
            name.map(|name| if name == "self" { path[path.len() - 1].clone() } else { name });
        leaves.push(Used { path, name });
    };
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            split(&path.tree, before, leaves);
            before.pop();
        }
        UseTree::Name(name) => leaf(Some(name.ident.to_string()), Some(name.ident.to_string())),
        UseTree::Rename(name) => leaf(Some(name.ident.to_string()), Some(name.rename.to_string())),
        UseTree::Glob(_) => leaf(None, None),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| split(tree, before, leaves));
        }
    }
}
