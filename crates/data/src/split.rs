//! Finding the parquet files of a split in a folder laid out as on the Hugging Face hub.

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};

/// The files of one split, in shard order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitFiles {
    /// Parquet files; at least one.
    pub files: Vec<PathBuf>,
}

/// One file name `SPLIT-0000N-of-0000M[-HASH].parquet`, taken apart.
struct Shard {
    index: usize,
    count: usize,
    path: PathBuf,
}

impl SplitFiles {
    /// Finds the files of `split` under `path`.
    ///
    /// `path` is a parquet file (`split` is then ignored), a folder holding
    /// `SPLIT-0000N-of-0000M.parquet` or `SPLIT.parquet`, or a folder with one configuration
    /// sub-folder (`default`, `plain_text`, `3.0.0`, `data`) that holds them.
    ///
    /// # Errors
    /// If the path or the split does not exist, or if several sub-folders hold the split.
    pub fn find(path: &Path, split: &str) -> Result<Self> {
        if path.is_file() {
            return Ok(Self {
                files: vec![path.to_owned()],
            });
        }
        if !path.is_dir() {
            return Err(DataError::MissingPath {
                path: path.to_owned(),
            });
        }
        if let Some(found) = find_in(path, split)? {
            return Ok(found);
        }
        let mut hits = Vec::new();
        for folder in sorted_entries(path)?
            .into_iter()
            .filter(|entry| entry.is_dir())
        {
            if let Some(found) = find_in(&folder, split)? {
                hits.push((file_name(&folder), found));
            }
        }
        match hits.len() {
            0 => Err(DataError::SplitNotFound {
                dir: path.to_owned(),
                split: split.to_owned(),
                looked_for: format!("{split}-0000N-of-0000M.parquet or {split}.parquet"),
                found: parquet_below(path)?,
            }),
            1 => Ok(hits.remove(0).1),
            _ => Err(DataError::AmbiguousSplit {
                dir: path.to_owned(),
                split: split.to_owned(),
                candidates: hits.into_iter().map(|(name, _)| name).collect(),
            }),
        }
    }
}

fn find_in(dir: &Path, split: &str) -> Result<Option<SplitFiles>> {
    let mut shards: Vec<Shard> = Vec::new();
    let mut whole = None;
    for path in sorted_entries(dir)?
        .into_iter()
        .filter(|path| path.is_file())
    {
        let name = file_name(&path);
        let Some(stem) = name.strip_suffix(".parquet") else {
            continue;
        };
        if stem == split {
            whole = Some(path);
        } else if let Some((index, count)) = stem.strip_prefix(split).and_then(parse_shard) {
            shards.push(Shard { index, count, path });
        }
    }
    let Some(count) = shards.first().map(|shard| shard.count) else {
        return Ok(whole.map(|path| SplitFiles { files: vec![path] }));
    };
    if let Some(other) = shards.iter().find(|shard| shard.count != count) {
        return Err(DataError::AmbiguousSplit {
            dir: dir.to_owned(),
            split: split.to_owned(),
            candidates: vec![format!("{count} shards"), format!("{} shards", other.count)],
        });
    }
    shards.sort_by_key(|shard| shard.index);
    if shards.len() < count {
        // A part of a large corpus is a usual thing to download, so this is no error.
        tracing::warn!(dir = %dir.display(), split, present = shards.len(), of = count, "some shards are absent");
    }
    Ok(Some(SplitFiles {
        files: shards.into_iter().map(|shard| shard.path).collect(),
    }))
}

/// Parses `-00000-of-00002` with an optional `-HASH` behind it.
fn parse_shard(rest: &str) -> Option<(usize, usize)> {
    let (index, rest) = rest.strip_prefix('-')?.split_once("-of-")?;
    let count = rest.split('-').next()?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(index) || !digits(count) {
        return None;
    }
    Some((index.parse().ok()?, count.parse().ok()?))
}

fn sorted_entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = std::fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|e| e.path()))
                .collect::<std::io::Result<Vec<_>>>()
        })
        .map_err(DataError::io(dir, "list the folder"))?;
    entries.sort();
    Ok(entries)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Parquet files of `dir` and its direct sub-folders, for error messages.
fn parquet_below(dir: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in sorted_entries(dir)? {
        let inner = if entry.is_dir() {
            sorted_entries(&entry)?
        } else {
            vec![entry]
        };
        found.extend(
            inner
                .iter()
                .filter(|path| path.extension().is_some_and(|ext| ext == "parquet"))
                .filter_map(|path| path.strip_prefix(dir).ok())
                .map(|path| path.display().to_string()),
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn touch(dir: &Path, names: &[&str]) {
        for name in names {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
    }

    fn names(found: &SplitFiles) -> Vec<String> {
        found.files.iter().map(|path| file_name(path)).collect()
    }

    #[test]
    fn shards_come_in_order_and_other_splits_stay_out() {
        let dir = tempfile::tempdir().unwrap();
        touch(
            dir.path(),
            &[
                "validation_matched-00000-of-00001.parquet",
                "train-00001-of-00002.parquet",
                "train-00000-of-00002-1a2b.parquet",
                "train_extra-00000-of-00001.parquet",
            ],
        );
        let found = SplitFiles::find(dir.path(), "train").unwrap();
        assert_eq!(
            names(&found),
            [
                "train-00000-of-00002-1a2b.parquet",
                "train-00001-of-00002.parquet"
            ]
        );
    }

    #[test]
    fn sub_folder_and_single_file() {
        let dir = tempfile::tempdir().unwrap();
        touch(
            dir.path(),
            &["3.0.0/test-00000-of-00001.parquet", "alone.parquet"],
        );
        assert_eq!(SplitFiles::find(dir.path(), "test").unwrap().files.len(), 1);
        let file = dir.path().join("alone.parquet");
        assert_eq!(SplitFiles::find(&file, "whatever").unwrap().files, [file]);
        assert_eq!(
            names(&SplitFiles::find(dir.path(), "alone").unwrap()),
            ["alone.parquet"]
        );
    }

    #[test]
    fn missing_split_says_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), &["default/test-00000-of-00001.parquet"]);
        let message = SplitFiles::find(dir.path(), "train")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("train-0000N-of-0000M.parquet"),
            "{message}"
        );
        assert!(
            message.contains("default/test-00000-of-00001.parquet"),
            "{message}"
        );
        let message = SplitFiles::find(&dir.path().join("gone"), "train")
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("gone: no such file or folder"),
            "{message}"
        );
    }

    #[test]
    fn two_configurations_are_ambiguous() {
        let dir = tempfile::tempdir().unwrap();
        touch(
            dir.path(),
            &[
                "a/train-00000-of-00001.parquet",
                "b/train-00000-of-00001.parquet",
            ],
        );
        let message = SplitFiles::find(dir.path(), "train")
            .unwrap_err()
            .to_string();
        assert!(message.contains("(a, b)"), "{message}");
        touch(
            dir.path(),
            &[
                "train-00000-of-00002.parquet",
                "train-00000-of-00003.parquet",
            ],
        );
        let message = SplitFiles::find(dir.path(), "train")
            .unwrap_err()
            .to_string();
        assert!(message.contains("2 shards, 3 shards"), "{message}");
    }
}
