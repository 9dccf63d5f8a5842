//! Firecracker's interface, request by request and field by field, and what kedge makes of
//! it: `docs/firecracker-api.md` is written from this table and from what the requests'
//! readers say they take. With `UPDATE_GOLDEN=1` it is written anew.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod endpoints;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use endpoints::{ENDPOINTS, Endpoint, OWN};
use kedge_api::call::{OPENAPI, Parsed, routes};
use kedge_api::http::{Method, Request};
use serde_json::Value;

/// No field that there is.
const NONE_SUCH: &str = "qqqqqq";

/// What kedge says to a request with a field that nobody knows.
fn probe(method: Method, path: &str) -> Option<String> {
    let path = path.replace(['{', '}'], "");
    let body = match method {
        Method::Get | Method::Delete => Vec::new(),
        Method::Put | Method::Patch => format!("{{\"{NONE_SUCH}\": 1}}").into_bytes(),
    };
    let request = Request { method, path, body, last: false };
    Parsed::read(&request).err().map(|fault| fault.message())
}

/// The fields that kedge takes there: those that it says it expects.
fn fields(method: Method, path: &str) -> BTreeSet<String> {
    let told = probe(method, path).unwrap_or_default();
    let Some((_, expected)) = told.split_once("expected ") else { return BTreeSet::new() };
    expected
        .split(" at line")
        .next()
        .unwrap()
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Whether kedge has nothing of the kind.
fn absence(method: Method, path: &str) -> Option<String> {
    let told = probe(method, path)?;
    let (_, what) = told.split_once("kedge has no ")?;
    Some(format!("refused: kedge has no {}", what.split(';').next()?))
}

fn row(endpoint: &Endpoint) -> String {
    let Endpoint { method, path, fields: theirs, answer, shown } = *endpoint;
    let taken = fields(method, path);
    let (answer, has) = match absence(method, path) {
        Some(absence) => (absence, false),
        None => (answer.to_owned(), true),
    };
    let known: Vec<_> = match has {
        true => theirs.iter().map(|field| mark(field, &taken)).collect(),
        false => theirs.iter().map(|field| format!("~~`{field}`~~")).collect(),
    };
    let own = taken.iter().filter(|field| !theirs.contains(&field.as_str()));
    let own: Vec<_> = own.map(|field| format!("`{field}`")).collect();
    let shown = if has { shown } else { "what_kedge_has_not_is_named" };
    format!(
        "| `{method} {path}` | {} | {} | {answer} | `{shown}` |\n",
        known.join(" "),
        own.join(" ")
    )
}

/// A field of Firecracker's: struck out where kedge does not know it.
fn mark(field: &str, taken: &BTreeSet<String>) -> String {
    match taken.is_empty() || taken.contains(field) {
        true => format!("`{field}`"),
        false => format!("~~`{field}`~~"),
    }
}

fn page() -> String {
    let mut page = fs::read_to_string(root().join("crates/api/tests/endpoints/head.md")).unwrap();
    page.push_str(
        "\n| request | its fields | kedge's own | answer | shown by |\n|---|---|---|---|---|\n",
    );
    for endpoint in ENDPOINTS {
        page.push_str(&row(endpoint));
    }
    page.push_str("\n## kedge's own requests\n\n| request | fields | answer | shown by |\n|---|---|---|---|\n");
    for Endpoint { method, path, answer, shown, .. } in OWN {
        let fields: Vec<_> =
            fields(*method, path).iter().map(|field| format!("`{field}`")).collect();
        writeln!(page, "| `{method} {path}` | {} | {answer} | `{shown}` |", fields.join(" "))
            .unwrap();
    }
    page
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_page_says_what_requests_take() {
    let path = root().join("docs/firecracker-api.md");
    let page = page();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, page,
        "write it anew: UPDATE_GOLDEN=1 cargo test -p kedge-api --test table"
    );
}

#[test]
fn every_request_that_kedge_takes_is_in_the_table() {
    let listed: BTreeSet<_> =
        ENDPOINTS.iter().chain(OWN).map(|row| format!("{} {}", row.method, row.path)).collect();
    let taken: BTreeSet<_> =
        routes().map(|route| format!("{} {}", route.method, route.path)).collect();
    let missing: Vec<_> = taken.difference(&listed).collect();
    assert!(missing.is_empty(), "not in the table: {missing:?}");
    let nobodys: Vec<_> = listed.difference(&taken).collect();
    assert!(nobodys.is_empty(), "in the table, and kedge does not know them: {nobodys:?}");
}

#[test]
fn every_test_in_the_table_is_there() {
    let mut sources = String::new();
    for folder in ["crates/api", "crates/kedge", "tests/guest/src"] {
        collect(&root().join(folder), &mut sources);
    }
    for Endpoint { shown, path, .. } in ENDPOINTS.iter().chain(OWN) {
        let is_there =
            sources.contains(&format!("fn {shown}(")) || sources.contains(&format!("\"{shown}\""));
        assert!(is_there, "{path}: there is no test `{shown}`");
    }
}

/// The body that the document describes for an operation.
fn schema<'d>(document: &'d Value, operation: &'d Value) -> Option<&'d Value> {
    let schema = operation.pointer("/requestBody/content/application~1json/schema")?;
    document.pointer(schema["$ref"].as_str()?.trim_start_matches('#'))
}

#[test]
fn the_openapi_document_has_every_request_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let described: BTreeSet<_> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let taken: BTreeSet<_> = routes()
        .filter(|route| absence(route.method, &route.path).is_none())
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert_eq!(described, taken);
}

#[test]
fn the_openapi_document_has_every_field_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    for route in routes() {
        let method = route.method.name().to_lowercase();
        let operation = &document["paths"][&route.path][&method];
        let Some(schema) = schema(&document, operation) else { continue };
        let Some(properties) = schema["properties"].as_object() else { continue };
        let described: BTreeSet<_> = properties.keys().cloned().collect();
        let taken = fields(route.method, &route.path);
        // Of a document with a reader of its own, nothing is said in those words.
        if !taken.is_empty() {
            assert_eq!(described, taken, "{} {}", route.method, route.path);
        }
        let required = schema["required"].as_array().map_or(0, Vec::len);
        let request = Request {
            method: route.method,
            path: route.path.replace(['{', '}'], ""),
            body: b"{}".to_vec(),
            last: false,
        };
        let told = Parsed::read(&request).err().map(|fault| fault.message());
        let misses = told.is_some_and(|told| told.contains("missing field"));
        assert_eq!(misses, required > 0, "{} {}", route.method, route.path);
    }
}

/// The sources in `folder`, but for the table itself.
fn collect(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("endpoints") {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}
