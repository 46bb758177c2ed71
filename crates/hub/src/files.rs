//! Which files of a repository are the model.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{HubError, Result};
use crate::name::{ModelName, is_path};

/// The configuration.
pub(crate) const CONFIG: &str = "config.json";
/// Weights in one file.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// List of the shards of others.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Taken along where they are.
const BESIDE: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
];
/// Largest index that is read.
const MAX_INDEX_BYTES: u64 = 1 << 28;
/// Most files that a message names.
const SHOWN: usize = 20;

/// What to bring.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// One file.
    Gguf(String),
    /// A folder: `config.json`, `files`, and the shards that `index` lists.
    Folder {
        files: Vec<String>,
        index: Option<String>,
    },
}

pub(crate) fn is_gguf(file: &str) -> bool {
    file.to_ascii_lowercase().ends_with(".gguf")
}

/// Chooses among the files of the repository.
pub(crate) fn wanted(name: &ModelName, listed: &[String]) -> Result<Wanted> {
    let no_model = |message: String| HubError::NoModel {
        name: name.to_string(),
        message,
    };
    let has = |file: &str| listed.iter().any(|f| f == file);
    let ggufs: Vec<&String> = listed.iter().filter(|f| is_gguf(f) && is_path(f)).collect();
    let names = || {
        let some: Vec<&str> = ggufs.iter().take(SHOWN).map(|f| f.as_str()).collect();
        let more = if ggufs.len() > SHOWN { ", …" } else { "" };
        some.join(", ") + more
    };
    if let Some(file) = &name.file {
        if has(file) {
            return Ok(Wanted::Gguf(file.clone()));
        }
        return Err(no_model(match ggufs.as_slice() {
            [] => "the repository has no GGUF files".to_owned(),
            _ => format!("the repository has no such file; it has {}", names()),
        }));
    }
    if has(CONFIG) && (has(INDEX) || has(WEIGHTS)) {
        let index = has(INDEX).then(|| INDEX.to_owned());
        let mut files: Vec<String> = BESIDE
            .iter()
            .filter(|f| has(f))
            .map(|f| (*f).to_owned())
            .collect();
        if index.is_none() {
            files.push(WEIGHTS.to_owned());
        }
        return Ok(Wanted::Folder { files, index });
    }
    match ggufs.as_slice() {
        [only] => Ok(Wanted::Gguf((*only).clone())),
        [] => Err(no_model(
            "the repository has neither config.json with safetensors weights nor a GGUF file; \
             choose one that has been converted to either"
                .to_owned(),
        )),
        several => Err(no_model(format!(
            "the repository has {} GGUF files; name one, as in {}:{}. It has {}",
            several.len(),
            name.repo,
            several[0],
            names()
        ))),
    }
}

/// The files that an index lists.
pub(crate) fn shard_names(index: &Path) -> Result<Vec<String>> {
    let bad = |message: &str| HubError::Damaged {
        path: index.to_path_buf(),
        message: message.to_owned(),
    };
    let len = std::fs::metadata(index).map_err(HubError::io(index))?.len();
    if len > MAX_INDEX_BYTES {
        return Err(bad("larger than any index of shards"));
    }
    let text = std::fs::read_to_string(index).map_err(HubError::io(index))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(&e.to_string()))?;
    let map = json["weight_map"].as_object();
    let map = map.ok_or_else(|| bad("`weight_map` is missing or no object"))?;
    let names: Option<BTreeSet<&str>> = map.values().map(|v| v.as_str()).collect();
    let names = names.filter(|names| names.iter().all(|n| !n.contains('/') && is_path(n)));
    let names = names.ok_or_else(|| bad("`weight_map` has a value that is no file name"))?;
    Ok(names.into_iter().map(str::to_owned).collect())
}

/// As [`shard_names`], where the repository has all of them.
pub(crate) fn shards(index: &Path, listed: &[String]) -> Result<Vec<String>> {
    let names = shard_names(index)?;
    match names.iter().find(|name| !listed.contains(name)) {
        None => Ok(names),
        Some(missing) => Err(HubError::NoModel {
            name: index.display().to_string(),
            message: format!("lists {missing}, which the repository does not have"),
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn choose(name: &str, listed: &[&str]) -> Result<Wanted> {
        let listed: Vec<String> = listed.iter().map(|f| (*f).to_owned()).collect();
        wanted(&ModelName::parse(name).unwrap(), &listed)
    }

    #[test]
    fn folders_before_files_and_nothing_superfluous() {
        let listed = [
            "README.md",
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "a.gguf",
        ];
        let Wanted::Folder { files, index } = choose("a/b", &listed).unwrap() else {
            panic!("no folder");
        };
        assert_eq!(
            (files, index),
            (vec!["tokenizer.json".into(), WEIGHTS.into()], None)
        );
        assert_eq!(
            choose("a/b:a.gguf", &listed).unwrap(),
            Wanted::Gguf("a.gguf".into())
        );
        assert_eq!(
            choose("a/b", &["x/y.gguf"]).unwrap(),
            Wanted::Gguf("x/y.gguf".into())
        );
        for (name, listed, words) in [
            ("a/b", &["a.gguf", "b.gguf"][..], ["2 GGUF", "a/b:a.gguf"]),
            (
                "a/b",
                &["config.json", "pytorch_model.bin"],
                ["neither", "converted"],
            ),
            ("a/b:c.gguf", &["a.gguf"], ["no such file", "a.gguf"]),
            ("a/b:c.gguf", &["config.json"], ["no GGUF", "a/b:c.gguf"]),
            ("a/b", &["../x.gguf"], ["neither", "a/b"]),
        ] {
            let error = choose(name, listed).unwrap_err().to_string();
            assert!(words.iter().all(|w| error.contains(w)), "{error}");
        }
    }
}
