//! The crate cut of docs/adr/0001-crate-cut.md, held to.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

const PREFIX: &str = "tritburn-";

/// Each crate and the workspace crates that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("quant", &[]),
    ("kernels", &["quant"]),
    ("engine", &["quant", "kernels"]),
    ("nn", &["quant", "kernels"]),
    ("data", &["quant"]),
    ("eval", &["data", "engine", "quant"]),
    ("train", &["quant", "nn", "data", "eval", "engine"]),
    ("server", &["engine", "quant"]),
    ("hub", &[]),
    (
        "cli",
        &[
            "quant", "kernels", "engine", "nn", "data", "eval", "train", "server", "hub",
        ],
    ),
];

/// Crates that must build without the training framework.
const WITHOUT_BURN: &[&str] = &["quant", "kernels", "engine", "server", "hub"];

/// The only places where `unsafe` may stand, relative to the workspace root.
const UNSAFE: &[&str] = &["crates/kernels/", "crates/quant/src/mmap"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// For this platform alone: what other platforms need may not have been downloaded.
fn metadata() -> Metadata {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(rustc).arg("-vV").output().unwrap().stdout;
    let version = String::from_utf8(version).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(["--locked", "--filter-platform", host.unwrap()].map(String::from))
        .exec()
        .unwrap()
}

/// The crate's folder under `crates/`, whatever its package is called.
fn short_name(metadata: &Metadata, id: &PackageId) -> Option<String> {
    let package = &metadata[id];
    let directory = package.manifest_path.parent()?;
    let inside = directory.parent() == Some(&metadata.workspace_root.join("crates"));
    inside.then(|| directory.file_name().unwrap().to_owned())
}

#[test]
fn arrows_point_one_way() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for package in metadata.workspace_packages() {
        let Some(name) = short_name(&metadata, &package.id) else {
            continue;
        };
        let may_use = allowed.get(name.as_str());
        let may_use = may_use.unwrap_or_else(|| panic!("crate `{name}` is not in the crate cut"));
        for dependency in &package.dependencies {
            let Some(path) = &dependency.path else {
                continue;
            };
            let used = path.file_name().unwrap();
            assert!(
                may_use.contains(&used),
                "`{name}` uses `{used}` ({}), which docs/adr/0001-crate-cut.md does not allow",
                dependency.kind,
            );
        }
        seen.insert(name);
    }
    let listed: BTreeSet<String> = allowed.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        seen, listed,
        "the crate cut lists crates that are not there"
    );
}

#[test]
fn the_engine_side_is_free_of_burn() {
    let metadata = metadata();
    let nodes = &metadata.resolve.as_ref().unwrap().nodes;
    let by_id: BTreeMap<&PackageId, _> = nodes.iter().map(|node| (&node.id, node)).collect();
    let normal = |id: &PackageId| -> Vec<PackageId> {
        let edges = by_id[id].deps.iter();
        let normal = edges.filter(|edge| {
            edge.dep_kinds
                .iter()
                .any(|kind| kind.kind == DependencyKind::Normal)
        });
        normal.map(|edge| edge.pkg.clone()).collect()
    };
    // The walk finds burn where it is known to be, so that an empty answer means something.
    for (name, expected) in WITHOUT_BURN
        .iter()
        .map(|name| (*name, false))
        .chain([("nn", true)])
    {
        let full = format!("{PREFIX}{name}");
        let start = metadata
            .workspace_packages()
            .into_iter()
            .find(|p| p.name.as_str() == full);
        let mut queue = vec![start.unwrap().id.clone()];
        let mut reached = BTreeSet::new();
        while let Some(id) = queue.pop() {
            if reached.insert(id.clone()) {
                queue.extend(normal(&id));
            }
        }
        let burn: Vec<&str> = reached
            .iter()
            .map(|id| metadata[id].name.as_str())
            .filter(|name| *name == "burn" || name.starts_with("burn-"))
            .collect();
        assert_eq!(!burn.is_empty(), expected, "`{name}` depends on {burn:?}");
    }
}

#[test]
fn unsafe_code_stays_in_its_places() {
    let root = root();
    let mut files = Vec::new();
    for folder in ["crates", "tests"] {
        rust_files(&root.join(folder), &mut files);
    }
    let (mut allowed, mut wrong) = (0, Vec::new());
    for file in files {
        let path = file
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .replace('\\', "/");
        if !has_unsafe(&fs::read_to_string(&file).unwrap()) {
            continue;
        }
        if UNSAFE.iter().any(|place| path.starts_with(place)) {
            allowed += 1;
        } else {
            wrong.push(path);
        }
    }
    assert!(
        wrong.is_empty(),
        "`unsafe` outside of {UNSAFE:?}: {wrong:?}"
    );
    assert!(
        allowed > 0,
        "no `unsafe` found where some is known to be: the search is broken"
    );
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Whether the keyword `unsafe` stands in the code, comments and strings left aside.
fn has_unsafe(source: &str) -> bool {
    let code = without_comments_and_strings(source);
    let word = |c: char| c.is_alphanumeric() || c == '_';
    code.split(|c| !word(c)).any(|token| token == "unsafe")
}

fn without_comments_and_strings(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(raw) = raw_string(rest) {
            raw
        } else if first == '"' {
            string(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            0
        };
        if skipped > 0 {
            code.push(' ');
            rest = &rest[skipped..];
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    code
}

/// Length of the string literal at the start of `text`.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string literal at the start of `text`, if there is one.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    let body = hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let opened = 2 + count;
    Some(
        body.find(&end)
            .map_or(text.len(), |at| opened + at + end.len()),
    )
}

#[test]
fn the_search_for_unsafe_reads_rust() {
    for (source, expected) in [
        ("fn f() { unsafe { g() } }", true),
        ("unsafe impl Send for X {}", true),
        ("let s = \"a \\\" b\"; unsafe {}", true),
        ("let q = '\"'; unsafe {}", true),
        ("#![forbid(unsafe_code)]", false),
        ("// unsafe", false),
        ("/* unsafe { } */", false),
        ("let s = \"unsafe\";", false),
        ("let s = r#\"an \"unsafe\" word\"#;", false),
        ("let s = \"\\\" unsafe\";", false),
    ] {
        assert_eq!(has_unsafe(source), expected, "{source}");
    }
}
