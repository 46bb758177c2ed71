//! What documents tell a reader to run is there.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Options of cargo that name a target, and the folder of a crate where such targets lie.
const TARGETS: [(&str, &str); 3] = [
    ("--example", "examples"),
    ("--bench", "benches"),
    ("--test", "tests"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).unwrap().map(|e| e.unwrap().path())
}

/// Path and text of each document.
fn documents() -> Vec<(PathBuf, String)> {
    let folders = [
        root().to_path_buf(),
        root().join("docs"),
        root().join("docs/adr"),
    ];
    let files = folders.iter().flat_map(|folder| children(folder));
    files
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// Whether a crate has target `name` in its folder `kind`.
fn exists(kind: &str, name: &str) -> bool {
    let crates = children(&root().join("crates")).chain([root().join("fuzz")]);
    crates.into_iter().any(|path| {
        let folder = path.join(kind);
        folder.join(name).join("main.rs").is_file() || folder.join(format!("{name}.rs")).is_file()
    })
}

/// The names that follow `option` in a text; a document may break lines between them.
fn named<'a>(text: &'a str, option: &'a str) -> impl Iterator<Item = &'a str> {
    let mut words = text.split_whitespace();
    std::iter::from_fn(move || {
        words.find(|word| word.trim_start_matches('`') == option)?;
        words.next()
    })
    .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
}

#[test]
fn targets_that_documents_name_exist() {
    let mut seen = 0;
    for (path, text) in documents() {
        for (option, folder) in TARGETS {
            for name in named(&text, option) {
                seen += 1;
                let path = path.display();
                assert!(exists(folder, name), "{path}: no `{name}` for `{option}`");
            }
        }
    }
    assert!(seen > 0, "documents name targets");
}

#[test]
fn recipes_that_documents_name_exist() {
    let mut seen = 0;
    for (path, text) in documents() {
        for (i, _) in text.match_indices("recipes/") {
            let end = text[i..].find(|c: char| !c.is_ascii_alphanumeric() && !"/-_.".contains(c));
            let name = text[i..].get(..end.unwrap_or(text.len() - i)).unwrap();
            let name = name.trim_end_matches('.');
            // Capitals stand for any recipe.
            if name.ends_with(".toml") && !name.contains("NAME") {
                seen += 1;
                assert!(root().join(name).is_file(), "{}: no {name}", path.display());
            }
        }
    }
    assert!(seen > 0, "documents name recipes");
}
