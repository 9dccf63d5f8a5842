//! The public items of a crate, in words: what a program that uses it can name, as what it is
//! written down, whichever crate of the workspace that is in.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{
    Attribute, Field, Fields, Generics, ImplItem, Item, ItemImpl, Meta, TraitItem, Type,
    TypeParamBound,
};

use super::resolve::{Meaning, Place, Used, Workspace, defines, is_public, uses};
use super::source::attributes;

/// Each item by its public path, in lines: the first says what it is, and each other one
/// something of it.
pub(crate) type Listing = BTreeMap<String, Vec<String>>;

/// What is found.
struct Lister<'w> {
    workspace: &'w Workspace,
    listing: Listing,
    /// The public path of what was listed, or whose listing has begun.
    known: BTreeMap<Place, String>,
    /// What was mentioned, and by what.
    mentioned: BTreeMap<Place, String>,
}

/// The public items of `krate`; and those of ours that they mention and nobody can name, each
/// by its place, with one that mentions it.
pub(crate) fn list(workspace: &Workspace, krate: &str) -> (Listing, BTreeMap<String, String>) {
    let (known, mentioned) = (BTreeMap::new(), BTreeMap::new());
    let mut lister = Lister { workspace, listing: Listing::new(), known, mentioned };
    lister.module(krate, &[], krate);
    let Lister { listing, known, mentioned, .. } = lister;
    let unnamed = mentioned.into_iter().filter(|(place, _)| !known.contains_key(place));
    let path = |Place { krate, module, name }: &Place| {
        [std::slice::from_ref(krate), module, std::slice::from_ref(name)].concat().join("::")
    };
    (listing, unnamed.map(|(place, by)| (path(&place), by)).collect())
}

impl Lister<'_> {
    /// Lists a module under the path `public`.
    fn module(&mut self, krate: &str, module: &[String], public: &str) {
        let Some(source) = self.workspace.get(krate) else { return };
        let Some(items) = source.modules.get(module) else { return };
        for item in items {
            if let Some(name) = defines(item).filter(|_| is_for_all(item)) {
                let (krate, module) = (krate.to_owned(), module.to_vec());
                let public = format!("{public}::{name}");
                self.item(&Place { krate, module, name }, public);
            }
            match item {
                Item::Mod(child) if is_public(&child.vis) => {
                    let name = child.ident.to_string();
                    let path = [module, std::slice::from_ref(&name)].concat();
                    self.module(krate, &path, &format!("{public}::{name}"));
                }
                Item::Use(used) if is_public(&used.vis) => {
                    for used in uses(item) {
                        self.used((krate, module), &used, public);
                    }
                }
                _ => {}
            }
        }
    }

    /// Lists what a module of `krate` uses for others, too.
    fn used(&mut self, (krate, module): (&str, &[String]), used: &Used, public: &str) {
        let name = used.name.as_deref();
        let path = match self.workspace.resolve(krate, module, &used.path) {
            Some(Meaning::Module(krate, module)) => {
                let public = name.map_or(public.to_owned(), |name| format!("{public}::{name}"));
                return self.module(&krate, &module, &public);
            }
            Some(Meaning::Item(place)) => {
                return self.item(&place, format!("{public}::{}", name.unwrap_or_default()));
            }
            Some(Meaning::Elsewhere(path)) => path,
            None => used.path.join("::"),
        };
        let public = format!("{public}::{}", name.unwrap_or("*"));
        self.listing.insert(public, vec![format!("is {path}")]);
    }

    /// Lists an item under the path `public`.
    fn item(&mut self, place: &Place, public: String) {
        if let Some(known) = self.known.get(place) {
            self.listing.insert(public, vec![format!("is {known}")]);
            return;
        }
        let Some(source) = self.workspace.get(&place.krate) else { return };
        self.known.insert(place.clone(), public.clone());
        let items = source.modules.get(&place.module).into_iter().flatten();
        let mut lines = Vec::new();
        for item in items.filter(|item| defines(item).as_ref() == Some(&place.name)) {
            lines.extend(definition(item));
        }
        self.mention(place, &place.module, &lines);
        let mut more = BTreeSet::new();
        for (module, items) in &source.modules {
            for item in items {
                if let Item::Impl(item) = item
                    && self.is_of(place, module, &item.self_ty)
                {
                    let lines = implementation(item);
                    self.mention(place, module, &lines);
                    more.extend(lines);
                }
            }
        }
        lines.extend(more);
        self.listing.insert(public, lines);
    }

    /// Takes note of what `lines`, written in `module`, mention.
    fn mention(&mut self, place: &Place, module: &[String], lines: &[String]) {
        // An error's causes are told, not named.
        if lines.iter().any(|line| line == "impl thiserror::Error") {
            return;
        }
        let shown = lines.iter().filter(|line| !line.starts_with("impl"));
        let shown = shown.map(|line| match line.strip_prefix("variant ") {
            Some(rest) => rest.split_once(' ').map_or("", |(_, fields)| fields),
            None => line,
        });
        let words = shown.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
        for word in words.filter(|word| word.starts_with(char::is_uppercase)) {
            let path = [word.to_owned()];
            if let Some(Meaning::Item(item)) = self.workspace.resolve(&place.krate, module, &path) {
                self.mentioned.entry(item).or_insert_with(|| self.known[place].clone());
            }
        }
    }

    /// Whether `ty`, written in `module`, is the item in `place`.
    fn is_of(&self, place: &Place, module: &[String], ty: &Type) -> bool {
        let Type::Path(path) = ty else { return false };
        let names: Vec<_> =
            path.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let meaning = self.workspace.resolve(&place.krate, module, &names);
        meaning == Some(Meaning::Item(place.clone()))
    }
}

fn is_for_all(item: &Item) -> bool {
    match item {
        Item::Const(item) => is_public(&item.vis),
        Item::Enum(item) => is_public(&item.vis),
        Item::Fn(item) => is_public(&item.vis),
        Item::Static(item) => is_public(&item.vis),
        Item::Struct(item) => is_public(&item.vis),
        Item::Trait(item) => is_public(&item.vis),
        Item::Type(item) => is_public(&item.vis),
        Item::Macro(item) => item.attrs.iter().any(|attr| attr.path().is_ident("macro_export")),
        _ => false,
    }
}

/// The lines of an item itself.
fn definition(item: &Item) -> Vec<String> {
    let mut lines = match item {
        Item::Const(item) => vec![format!("const: {}", text(item.ty.span()))],
        Item::Static(item) => vec![format!("static: {}", text(item.ty.span()))],
        Item::Fn(item) => vec![text(item.sig.span())],
        Item::Type(item) => {
            vec![format!("type{} = {}", generics(&item.generics), text(item.ty.span()))]
        }
        Item::Struct(item) => {
            let head = format!("struct{}", generics(&item.generics));
            [vec![head], fields(&item.fields, |field| is_public(&field.vis))].concat()
        }
        Item::Enum(item) => {
            let variants = item.variants.iter().map(|variant| {
                let fields = fields(&variant.fields, |_| true).join(", ");
                format!("variant {} {{ {fields} }}", variant.ident).replace(" {  }", "")
            });
            [format!("enum{}", generics(&item.generics))].into_iter().chain(variants).collect()
        }
        Item::Trait(item) => {
            let bounds: Vec<_> =
                item.supertraits.iter().map(|bound: &TypeParamBound| text(bound.span())).collect();
            let head = format!("trait{}: {}", generics(&item.generics), bounds.join(" + "));
            let head = head.trim_end_matches(": ").to_owned();
            [head].into_iter().chain(item.items.iter().map(trait_item)).collect()
        }
        _ => vec!["macro".to_owned()],
    };
    let attributes = attributes(item);
    if attributes.iter().any(|attribute| attribute.path().is_ident("non_exhaustive")) {
        lines.push(NON_EXHAUSTIVE.to_owned());
    }
    lines.extend(derived(attributes).into_iter().map(|name| format!("impl {name}")));
    lines
}

/// What says that there may be more of it.
pub(crate) const NON_EXHAUSTIVE: &str = "non_exhaustive";
/// What stands for fields that nobody else sees.
pub(crate) const HIDDEN: &str = "..";

/// The traits that are derived.
fn derived(attributes: &[Attribute]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
        let Meta::List(list) = &attribute.meta else { continue };
        let list = list.tokens.to_string().replace(' ', "");
        names.extend(list.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
    }
    names
}

/// A line for each field that is `seen` by others, and one for all others together.
fn fields(fields: &Fields, seen: impl Fn(&Field) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let name = field.ident.as_ref().map_or_else(|| index.to_string(), ToString::to_string);
        let from = field.attrs.iter().any(|attribute| attribute.path().is_ident("from"));
        let from = if from { " (from)" } else { "" };
        if seen(field) {
            lines.push(format!("field {name}: {}{from}", text(field.ty.span())));
        }
    }
    if lines.len() < fields.len() {
        lines.push(HIDDEN.to_owned());
    }
    lines
}

fn trait_item(item: &TraitItem) -> String {
    match item {
        TraitItem::Const(item) => {
            format!("required const {}: {}", item.ident, text(item.ty.span()))
        }
        TraitItem::Fn(item) if item.default.is_some() => {
            format!("provided {}", text(item.sig.span()))
        }
        TraitItem::Fn(item) => format!("required {}", text(item.sig.span())),
        TraitItem::Type(item) => format!("required type {}", item.ident),
        _ => "required something else".to_owned(),
    }
}

/// The lines of an implementation: what everybody may use of it, or that there is one.
fn implementation(item: &ItemImpl) -> Vec<String> {
    if let Some((path, _)) = &item.trait_ {
        return vec![format!("impl{} {}", generics(&item.generics), text(path.span()))];
    }
    let mut lines = Vec::new();
    for inner in &item.items {
        match inner {
            ImplItem::Fn(item) if is_public(&item.vis) => lines.push(text(item.sig.span())),
            ImplItem::Const(item) if is_public(&item.vis) => {
                lines.push(format!("const {}: {}", item.ident, text(item.ty.span())));
            }
            _ => {}
        }
    }
    lines
}

fn generics(generics: &Generics) -> String {
    if generics.params.is_empty() { String::new() } else { text(generics.span()) }
}

/// The source at `span`, on one line.
fn text(span: Span) -> String {
    let source = span.source_text().unwrap_or_default();
    let lines: Vec<_> = source.lines().map(|line| line.split("//").next().unwrap_or("")).collect();
    let words: Vec<_> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    // That an argument is changed is nobody else's business.
    let line = words.join(" ").replace("(mut ", "(").replace(", mut ", ", ");
    line.replace("( ", "(").replace(", )", ")").replace("< ", "<").replace(", >", ">")
}
