//! Shards that are tokenised already.
//!
//! A folder with `manifest.json` and two files for each shard: `NAME.tokens`, all tokens as
//! little-endian u32 one document behind the other, and `NAME.documents`, for each row of the source
//! the end of its tokens and the hash of its text, both little-endian u64. Rows and row groups are
//! those of the source, so the order of documents is the same, and so is a saved position.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::document::{Document, Source};
use super::index::{Shard, ShardIndex, hex};
use super::plan::{Unit, units};
use crate::error::{DataError, Result};
use crate::tokenizer::Tokenizer;

/// Raised when the files' layout changes.
pub(super) const VERSION: u32 = 1;
/// Bytes of a row in `NAME.documents`.
pub(super) const ROW: u64 = 16;
/// Bytes of a token.
pub(super) const TOKEN: u64 = 4;

/// What a folder of prepared shards holds, and what it was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Layout of the files.
    pub version: u32,
    /// See [`Tokenizer::sha256`].
    pub tokenizer_sha256: String,
    /// Rows that an embedding needs.
    pub vocab_size: usize,
    /// Text column of the sources.
    pub column: String,
    /// The shards, in the order that they were named in.
    pub shards: Vec<PreparedShard>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparedShard {
    /// The parquet file that it was made from.
    pub source: PathBuf,
    /// Its size.
    pub source_bytes: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub source_modified: u64,
    /// SHA-256 of it, in hex.
    pub source_sha256: String,
    /// Rows of each of its row groups.
    pub rows: Vec<u64>,
    /// Name of both files, without the ending.
    pub name: String,
    /// Tokens.
    pub tokens: u64,
}

impl PreparedShard {
    pub(super) fn tokens_path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.tokens", self.name))
    }

    pub(super) fn documents_path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.documents", self.name))
    }

    /// Why the shard cannot be used, if it cannot. A source that is gone is not needed.
    pub(super) fn fault(&self, folder: &Path) -> Result<Option<String>> {
        let rows: u64 = self.rows.iter().sum();
        let files = [
            (self.tokens_path(folder), self.tokens.checked_mul(TOKEN)),
            (self.documents_path(folder), rows.checked_mul(ROW)),
        ];
        for (path, bytes) in files {
            let now = std::fs::metadata(&path).map(|m| m.len()).ok();
            if now.is_none() || now != bytes {
                return Ok(Some(format!("{} is not whole", path.display())));
            }
        }
        let Ok(metadata) = std::fs::metadata(&self.source) else {
            return Ok(None);
        };
        let same = metadata.len() == self.source_bytes
            && (modified(&metadata) == self.source_modified
                || file_sha256(&self.source)? == self.source_sha256);
        Ok((!same).then(|| format!("{} has changed since", self.source.display())))
    }
}

/// When a file was last changed, in nanoseconds since 1970; 0 where that is unknown.
pub(super) fn modified(metadata: &std::fs::Metadata) -> u64 {
    let since = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(0))
}

/// SHA-256 of a file, in hex.
pub(super) fn file_sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
    let mut hash = Sha256::new();
    io::copy(&mut file, &mut hash).map_err(DataError::io(path, "read"))?;
    Ok(hex(&hash.finalize()))
}

impl Manifest {
    /// Where the manifest of a folder is.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("manifest.json")
    }

    /// The manifest of a folder, if it has one.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or is of another version.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = Self::path(folder);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataError::io(path, "read")(error)),
        };
        let stale = |message: String| DataError::Stale {
            path: path.clone(),
            message,
        };
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|error| stale(error.to_string()))?;
        if manifest.version != VERSION {
            return Err(stale(format!(
                "layout {} is not {VERSION}, which this program writes",
                manifest.version
            )));
        }
        // Names come from a file: they must stay inside the folder.
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if let Some(shard) = manifest.shards.iter().find(|s| !plain(&s.name)) {
            return Err(stale(format!("{:?} is no shard's name", shard.name)));
        }
        Ok(Some(manifest))
    }

    /// The manifest of a folder that is to be read with `tokenizer`.
    ///
    /// # Errors
    /// As [`Manifest::read`]; if the folder was made with another tokenizer or from another column;
    /// and if a shard's files are not whole or its source has changed.
    pub fn open(folder: &Path, tokenizer: &Tokenizer, column: Option<&str>) -> Result<Self> {
        let stale = |message: String| DataError::Stale {
            path: Self::path(folder),
            message,
        };
        let Some(manifest) = Self::read(folder)? else {
            return Err(stale("there is no manifest".to_owned()));
        };
        let hash = tokenizer.sha256()?;
        if manifest.tokenizer_sha256 != hash {
            return Err(stale(format!(
                "made with the tokenizer {}, the run's is {hash}",
                manifest.tokenizer_sha256
            )));
        }
        if let Some(column) = column.filter(|column| *column != manifest.column) {
            return Err(stale(format!(
                "made from the column {}, not {column}",
                manifest.column
            )));
        }
        for shard in &manifest.shards {
            if let Some(fault) = shard.fault(folder)? {
                return Err(stale(fault));
            }
        }
        Ok(manifest)
    }

    /// The sources' row counts.
    pub fn index(&self) -> ShardIndex {
        let shards = self.shards.iter().map(|shard| Shard {
            path: shard.source.clone(),
            bytes: shard.source_bytes,
            rows: shard.rows.clone(),
        });
        ShardIndex {
            column: self.column.clone(),
            shards: shards.collect(),
        }
    }
}

/// See [`Source`].
pub(super) struct PreparedSource {
    folder: PathBuf,
    shards: Vec<PreparedShard>,
    units: Vec<Unit>,
    vocab_size: usize,
    /// The shard that was read last.
    open: Option<(usize, File, File)>,
}

impl PreparedSource {
    pub(super) fn new(folder: &Path, manifest: &Manifest) -> Self {
        Self {
            folder: folder.to_owned(),
            shards: manifest.shards.clone(),
            units: units(&manifest.index()),
            vocab_size: manifest.vocab_size,
            open: None,
        }
    }
}

impl Source for PreparedSource {
    fn read(&mut self, unit: usize, rows: Range<u64>, into: &mut Vec<Document>) -> Result<()> {
        let Unit { shard, group, .. } = self.units[unit];
        let entry = &self.shards[shard];
        let (tokens_path, rows_path) = (
            entry.tokens_path(&self.folder),
            entry.documents_path(&self.folder),
        );
        let (_, tokens, documents) = match self.open.take() {
            Some(open) if open.0 == shard => self.open.insert(open),
            _ => {
                let open = |path: &Path| File::open(path).map_err(DataError::io(path, "open"));
                let files = (shard, open(&tokens_path)?, open(&rows_path)?);
                self.open.insert(files)
            }
        };
        let damaged = |message: String| DataError::Stale {
            path: rows_path.clone(),
            message,
        };
        let first = entry.rows[..group].iter().sum::<u64>() + rows.start;
        let count = rows.end - rows.start;
        // The row before tells where the first one begins.
        let before = u64::from(first > 0);
        let table = read_at(documents, (first - before) * ROW, (count + before) * ROW)
            .map_err(DataError::io(&rows_path, "read"))?;
        let mut table = table
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| u64::from_le_bytes(*b));
        let mut row = || table.next().zip(table.next()).unwrap_or_default();
        let start = if before == 1 { row().0 } else { 0 };
        let ends: Vec<(u64, u64)> = (0..count).map(|_| row()).collect();
        let last = ends.last().map_or(start, |end| end.0);
        let rising = ends.is_sorted_by_key(|end| end.0) && ends.iter().all(|end| end.0 >= start);
        if !rising || last > entry.tokens {
            return Err(damaged(format!("rows from {first} on point elsewhere")));
        }
        let bytes = read_at(tokens, start * TOKEN, (last - start) * TOKEN)
            .map_err(DataError::io(&tokens_path, "read"))?;
        let mut ids = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| u32::from_le_bytes(*b));
        let mut from = start;
        for (end, hash) in ends {
            let size = usize::try_from(end - from).unwrap_or(usize::MAX);
            let tokens: Vec<u32> = ids.by_ref().take(size).collect();
            if let Some(bad) = tokens.iter().find(|&&id| id as usize >= self.vocab_size) {
                return Err(damaged(format!(
                    "token {bad} is outside of the vocabulary of {}",
                    self.vocab_size
                )));
            }
            into.push(Document::Tokens { tokens, hash });
            from = end;
        }
        Ok(())
    }
}

/// Reads `size` bytes from `at`; the size was checked against that of the file before.
fn read_at(file: &mut File, at: u64, size: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == size {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
