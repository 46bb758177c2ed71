//! From what the user names to a list of shards.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};
use crate::shard_file::is_remote;
use crate::split::SplitFiles;

/// Characters that make a path a pattern.
const PATTERN: [char; 3] = ['*', '?', '['];

/// The shards that `inputs` name, in their order; those of a pattern or folder sorted.
///
/// An input is a parquet file, a folder as [`SplitFiles::find`] takes it, a pattern such as
/// `web/**/*.parquet`, or any of them as an address (`https://…`, `s3://…`, `gs://…`, `az://…`).
///
/// # Errors
/// If an input names nothing, if a pattern is malformed, or if a shard is named twice.
pub fn expand_shards(inputs: &[String], split: &str) -> Result<Vec<PathBuf>> {
    let mut shards = Vec::new();
    for input in inputs {
        if is_remote(Path::new(input)) {
            shards.extend(remote(input)?);
        } else if input.contains(PATTERN) && !Path::new(input).exists() {
            shards.extend(matches(input)?);
        } else {
            shards.extend(SplitFiles::find(Path::new(input), split)?.files);
        }
    }
    if shards.is_empty() {
        return Err(DataError::Loader {
            message: "no shards are named; give files, folders or patterns".to_owned(),
        });
    }
    let mut seen = HashSet::new();
    if let Some(twice) = shards.iter().find(|shard| !seen.insert(*shard)) {
        return Err(DataError::Loader {
            message: format!("{} is named twice among the shards", twice.display()),
        });
    }
    Ok(shards)
}

#[cfg(feature = "remote")]
fn remote(input: &str) -> Result<Vec<PathBuf>> {
    crate::remote::expand(input)
}

#[cfg(not(feature = "remote"))]
fn remote(input: &str) -> Result<Vec<PathBuf>> {
    Err(crate::shard_file::not_built(Path::new(input)))
}

fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let fault = |message: String| DataError::Loader {
        message: format!("shards {pattern:?}: {message}"),
    };
    let mut found = Vec::new();
    for path in glob::glob(pattern).map_err(|error| fault(error.to_string()))? {
        let path = path.map_err(|error| fault(error.to_string()))?;
        if path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(fault(
            "no file matches; patterns know *, ** and ?".to_owned(),
        ));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_folders_and_patterns_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.parquet", "a.parquet", "train-00000-of-00001.parquet"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let names = |inputs: &[String]| -> Vec<String> {
            let shards = expand_shards(inputs, "train").unwrap();
            let name = |p: &PathBuf| p.file_name().unwrap().to_str().unwrap().to_owned();
            shards.iter().map(name).collect()
        };
        assert_eq!(names(&[at("?.parquet")]), ["a.parquet", "b.parquet"]);
        assert_eq!(
            names(&[at("b.parquet"), at("")]),
            ["b.parquet", "train-00000-of-00001.parquet"]
        );
        let message = |inputs: &[String]| expand_shards(inputs, "train").unwrap_err().to_string();
        assert!(message(&[at("c*.parquet")]).contains("no file matches"));
        assert!(message(&[at("a.parquet"), at("[a].parquet")]).contains("named twice"));
        assert!(message(&[at("***")]).contains("shards"));
        assert!(message(&[]).contains("no shards"));
    }
}
