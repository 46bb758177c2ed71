//! Tokenising shards once for many runs.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tritburn_quant::fs::{write_atomic, write_atomic_with};

use super::config::BadShards;
use super::document::{self, Document, Source};
use super::index::{Shard, ShardIndex};
use super::parquet_source::ParquetSource;
use super::prepared::{Manifest, PreparedShard, VERSION, file_sha256, modified};
use super::shards::expand_shards;
use crate::error::{DataError, Result};
use crate::tokenizer::Tokenizer;

/// Documents in memory at a time.
const WINDOW: u64 = 1024;

/// What to prepare.
#[derive(Debug, Clone)]
pub struct PrepareSetup<'a> {
    /// As [`expand_shards`] takes them.
    pub inputs: &'a [String],
    /// Split, where a folder is given.
    pub split: &'a str,
    /// Text column; `content` or `text` where none is named.
    pub column: Option<&'a str>,
    /// Tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Folder to write to.
    pub out: &'a Path,
}

/// What was done to a shard.
#[derive(Debug, Clone, PartialEq)]
pub struct PrepareReport {
    /// The parquet file.
    pub source: PathBuf,
    /// Rows.
    pub documents: u64,
    /// Tokens.
    pub tokens: u64,
    /// Bytes of text; 0 where the shard was kept.
    pub text_bytes: u64,
    /// Seconds of reading, tokenising and writing.
    pub seconds: f64,
    /// Whether it was there already and fits its source.
    pub kept: bool,
}

/// Tokenises shards into a folder on all cores. Shards that are there, whole, made with this
/// tokenizer and from the source as it is now are kept; the manifest is brought up to date behind
/// every shard, so a stopped preparation goes on where it was. `done` is told of each shard.
///
/// # Errors
/// As [`expand_shards`] and [`ShardIndex::read`]; if the folder was made with another tokenizer or
/// column; if a row cannot be read; and if a file cannot be written.
pub fn prepare_shards(
    setup: &PrepareSetup<'_>,
    done: &mut dyn FnMut(&PrepareReport),
) -> Result<Manifest> {
    let shards = expand_shards(setup.inputs, setup.split)?;
    let index = ShardIndex::read(&shards, setup.column, BadShards::Stop)?;
    std::fs::create_dir_all(setup.out).map_err(DataError::io(setup.out, "make the folder"))?;
    let mut manifest = Manifest {
        version: VERSION,
        tokenizer_sha256: setup.tokenizer.sha256()?,
        vocab_size: setup.tokenizer.vocab_size(),
        column: index.column.clone(),
        shards: Vec::new(),
    };
    let old = Manifest::read(setup.out)?;
    if let Some(old) = &old {
        for (what, was, is) in [
            (
                "tokenizer",
                &old.tokenizer_sha256,
                &manifest.tokenizer_sha256,
            ),
            ("column", &old.column, &manifest.column),
        ] {
            if was != is {
                return Err(DataError::Stale {
                    path: Manifest::path(setup.out),
                    message: format!("its {what} is {was}, not {is}; give another folder"),
                });
            }
        }
    }
    let mut old = old.map_or_else(Vec::new, |old| old.shards);
    for number in 0..index.shards.len() {
        let start = Instant::now();
        let shard = &index.shards[number];
        let place = old.iter().position(|entry| entry.source == shard.path);
        let kept = match place.map(|place| old.remove(place)) {
            Some(entry) if entry.rows == shard.rows && entry.fault(setup.out)?.is_none() => {
                Some(entry)
            }
            _ => None,
        };
        let mut report = PrepareReport {
            source: shard.path.clone(),
            documents: shard.rows.iter().sum(),
            tokens: 0,
            text_bytes: 0,
            seconds: 0.0,
            kept: kept.is_some(),
        };
        let entry = match kept {
            Some(entry) => entry,
            None => tokenise(setup, &index, number, &mut report)?,
        };
        report.tokens = entry.tokens;
        report.seconds = start.elapsed().as_secs_f64();
        manifest.shards.push(entry);
        // What is still to come stays listed, so that it is found again after a stop.
        let mut so_far = manifest.clone();
        so_far.shards.extend(old.iter().cloned());
        save(&so_far, setup.out)?;
        done(&report);
    }
    save(&manifest, setup.out)?;
    Ok(manifest)
}

fn save(manifest: &Manifest, folder: &Path) -> Result<()> {
    let text = serde_json::to_string_pretty(manifest).unwrap_or_default();
    Ok(write_atomic(&Manifest::path(folder), text.as_bytes())?)
}

/// Name of a shard's files: its number, and what keeps it apart from others of other runs.
fn name_of(shard: &Shard, sha256: &str) -> String {
    let stem = shard.path.file_stem().unwrap_or_default().to_string_lossy();
    let plain: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(100)
        .collect();
    format!("{plain}-{}", sha256.get(..16).unwrap_or(sha256))
}

fn tokenise(
    setup: &PrepareSetup<'_>,
    index: &ShardIndex,
    number: usize,
    report: &mut PrepareReport,
) -> Result<PreparedShard> {
    let shard = &index.shards[number];
    let source_modified = std::fs::metadata(&shard.path)
        .map(|metadata| modified(&metadata))
        .map_err(DataError::io(&shard.path, "open"))?;
    let source_sha256 = file_sha256(&shard.path)?;
    let mut entry = PreparedShard {
        source: shard.path.clone(),
        source_bytes: shard.bytes,
        source_modified,
        name: name_of(shard, &source_sha256),
        source_sha256,
        rows: shard.rows.clone(),
        tokens: 0,
    };
    let mut rows = Vec::new();
    let mut failure = None;
    let path = entry.tokens_path(setup.out);
    let written = write_atomic_with(&path, |file| {
        let mut file = BufWriter::new(file);
        let first = index.shards[..number].iter().map(|s| s.rows.len()).sum();
        let mut source = ParquetSource::new(index);
        for (unit, &count) in (first..).zip(&shard.rows) {
            for from in (0..count).step_by(WINDOW as usize) {
                let window = from..count.min(from + WINDOW);
                let encoded = read(&mut source, unit, window).and_then(|texts| {
                    report.text_bytes += texts.iter().map(|t| t.len() as u64).sum::<u64>();
                    encode(setup.tokenizer, &texts)
                });
                match encoded {
                    Err(error) => {
                        failure = Some(error);
                        return Err(std::io::Error::other("the shard could not be read"));
                    }
                    Ok(documents) => {
                        for (tokens, hash) in documents {
                            entry.tokens += tokens.len() as u64;
                            rows.extend(entry.tokens.to_le_bytes());
                            rows.extend(hash.to_le_bytes());
                            let bytes: Vec<u8> =
                                tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
                            file.write_all(&bytes)?;
                        }
                    }
                }
            }
        }
        file.flush()
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    written?;
    write_atomic(&entry.documents_path(setup.out), &rows)?;
    Ok(entry)
}

fn read(
    source: &mut ParquetSource,
    unit: usize,
    rows: std::ops::Range<u64>,
) -> Result<Vec<String>> {
    let mut documents = Vec::new();
    source.read(unit, rows, &mut documents)?;
    let texts = documents.into_iter().filter_map(|document| match document {
        Document::Text(text) => Some(text),
        Document::Tokens { .. } => None,
    });
    Ok(texts.collect())
}

/// Tokens and hash of each text; blank ones have no tokens.
fn encode(tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<(Vec<u32>, u64)>> {
    let encoded = tokenizer.encode_batch(texts, false)?;
    let documents = encoded.into_iter().zip(texts).map(|(ids, text)| {
        let hash = document::hash_of(text);
        if document::is_blank(text) {
            return (Vec::new(), hash);
        }
        (document::complete(tokenizer, ids), hash)
    });
    Ok(documents.collect())
}
