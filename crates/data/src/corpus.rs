//! Plain-text corpora for (continual) pre-training.

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result};
use crate::rows::{RowReader, column_names};
use crate::split::SplitFiles;
use crate::stream::expand_shards;
use crate::tokenizer::Tokenizer;

/// Text columns tried when none is named: FALCON RefinedWeb's, then that of most other corpora.
pub(crate) const TEXT_COLUMNS: [&str; 2] = ["content", "text"];

/// Reads documents of a corpus split, in file order, until `limit_bytes` of text are reached.
///
/// `path` is what [`SplitFiles::find`] takes, or a pattern such as `web/*.parquet`.
/// `text_column` defaults to `content` or `text`, whichever the file has. Empty documents are left
/// out. The document that reaches the limit is the last one and is kept whole.
///
/// # Errors
/// As [`SplitFiles::find`] and [`RowReader::open`]; if there is no text column; and if every
/// document is empty.
pub fn read_corpus(
    path: &Path,
    split: &str,
    text_column: Option<&str>,
    limit_bytes: Option<usize>,
) -> Result<Vec<String>> {
    let files = corpus_files(path, split)?;
    let first = files.first().cloned().unwrap_or_default();
    let column = match text_column {
        Some(column) => column,
        None => {
            let present = column_names(&first)?;
            TEXT_COLUMNS
                .into_iter()
                .find(|name| present.iter().any(|column| column == name))
                .ok_or_else(|| DataError::MissingColumn {
                    path: first.clone(),
                    column: TEXT_COLUMNS.join("\" or \""),
                    present,
                })?
        }
    };
    let limit = limit_bytes.unwrap_or(usize::MAX);
    let mut documents = Vec::new();
    let mut bytes = 0;
    for row in RowReader::open(&files, &[column], None)? {
        if bytes >= limit {
            break;
        }
        let text = row?.texts.swap_remove(0);
        if !text.trim().is_empty() {
            bytes += text.len();
            documents.push(text);
        }
    }
    if documents.is_empty() {
        return Err(DataError::Empty { path: first });
    }
    Ok(documents)
}

fn corpus_files(path: &Path, split: &str) -> Result<Vec<PathBuf>> {
    match path.to_str() {
        Some(text) if !path.exists() => expand_shards(&[text.to_owned()], split),
        _ => Ok(SplitFiles::find(path, split)?.files),
    }
}

/// Tokens of documents, each with the tokenizer's start token in front if it has one.
///
/// # Errors
/// If the tokenizer fails.
pub fn encode_corpus(tokenizer: &Tokenizer, documents: &[String]) -> Result<Vec<Vec<u32>>> {
    let encoded = tokenizer.encode_batch(documents, false)?;
    Ok(encoded
        .into_iter()
        .map(|ids| tokenizer.bos().into_iter().chain(ids).collect())
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn embedded(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../data")
            .join(name)
    }

    #[test]
    fn reads_content_up_to_a_limit() {
        let dir = embedded("refinedweb");
        let all = read_corpus(&dir, "train", None, None).unwrap();
        assert_eq!(all.len(), crate::synth::CORPUS_TRAIN_DOCUMENTS);
        let some = read_corpus(&dir, "train", Some("content"), Some(10_000)).unwrap();
        let bytes: usize = some.iter().map(String::len).sum();
        assert!((10_000..12_000).contains(&bytes));
        assert_eq!(some, all[..some.len()]);
        let by_pattern = read_corpus(&dir.join("train*.parquet"), "", None, None).unwrap();
        assert_eq!(by_pattern, all);
    }

    #[test]
    fn a_file_without_text_says_so() {
        let message = read_corpus(&embedded("sst2"), "train", None, None)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("no column \"content\" or \"text\""),
            "{message}"
        );
        assert!(message.contains("sentence, label, idx"), "{message}");
    }

    #[test]
    fn refinedweb_stand_in_golden() {
        let root = std::env::var("TRITBURN_DATA_DIR").map_or_else(
            |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
            PathBuf::from,
        );
        let dir = root.join("refinedweb_standin");
        if !dir.exists() {
            eprintln!("skipped: {} is absent", dir.display());
            return;
        }
        let documents = read_corpus(&dir, "train", None, Some(500_000)).unwrap();
        assert!(documents.len() > 10);
        assert_eq!(
            read_corpus(&dir, "validation", None, None).unwrap().len(),
            457
        );
    }
}
