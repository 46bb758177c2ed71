//! How many rows each row group of each shard has: what the order of a corpus is made from.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tritburn_quant::fs::write_atomic;

use super::config::BadShards;
use super::parquet_source;
use crate::error::{DataError, Result};

/// A shard as it was when it was first opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Rows of each row group.
    pub rows: Vec<u64>,
}

/// All shards of a corpus, in the order that they were named in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardIndex {
    /// Text column of all shards.
    pub column: String,
    /// The shards.
    pub shards: Vec<Shard>,
}

impl ShardIndex {
    /// Opens every shard and reads its row counts. `column` defaults to `content` or `text`,
    /// whichever the first shard has.
    ///
    /// # Errors
    /// If a shard cannot be opened, lacks the column, or if no shard has rows. With
    /// [`BadShards::Skip`] shards that cannot be opened are named in the log and left out.
    pub fn read(shards: &[PathBuf], column: Option<&str>, bad: BadShards) -> Result<Self> {
        let mut column = column.map(str::to_owned);
        let mut index = Vec::new();
        for path in shards {
            match parquet_source::describe(path, column.as_deref()) {
                Ok((shard, found)) => {
                    column.get_or_insert(found);
                    index.push(shard);
                }
                Err(error) if bad == BadShards::Skip => {
                    tracing::warn!(%error, "shard left out");
                }
                Err(error) => return Err(error),
            }
        }
        let rows: u64 = index.iter().flat_map(|shard| &shard.rows).sum();
        match column {
            Some(column) if rows > 0 => Ok(Self {
                column,
                shards: index,
            }),
            _ => Err(DataError::Empty {
                path: shards.first().cloned().unwrap_or_default(),
            }),
        }
    }

    /// The index kept in `file`, or a new one that is written there.
    ///
    /// A run keeps its index so that its order survives the loss of a shard.
    ///
    /// # Errors
    /// As [`ShardIndex::read`]; if the file is damaged; if it is of other shards; and, with
    /// [`BadShards::Stop`], if a shard is gone or has another size.
    pub fn keep(
        file: &Path,
        shards: &[PathBuf],
        column: Option<&str>,
        bad: BadShards,
    ) -> Result<Self> {
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let index = Self::read(shards, column, bad)?;
                let text = serde_json::to_string_pretty(&index).unwrap_or_default();
                write_atomic(file, text.as_bytes())?;
                return Ok(index);
            }
            Err(error) => return Err(DataError::io(file, "read")(error)),
        };
        let damaged = |message: String| DataError::Stale {
            path: file.to_owned(),
            message,
        };
        let index: Self =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if column.is_some_and(|column| column != index.column) {
            return Err(damaged(format!("its text column is {}", index.column)));
        }
        if let Some(new) = shards
            .iter()
            .find(|p| index.shards.iter().all(|s| s.path != **p))
        {
            return Err(damaged(format!(
                "{} was not among the shards of this run",
                new.display()
            )));
        }
        for shard in &index.shards {
            match (parquet_source::check_size(&shard.path, shard.bytes), bad) {
                (Ok(()), _) => {}
                (Err(error), BadShards::Skip) => tracing::warn!(%error, "shard will be left out"),
                (Err(error), BadShards::Stop) => return Err(error),
            }
        }
        Ok(index)
    }

    /// Rows of all shards.
    pub fn rows(&self) -> u64 {
        self.shards.iter().flat_map(|shard| &shard.rows).sum()
    }

    /// Names the shards' contents as far as the order of documents depends on them: file names and
    /// row counts. Folders are left out, so that a corpus may be moved.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for shard in &self.shards {
            let name = shard.path.file_name().unwrap_or_default();
            hash.update(name.to_string_lossy().as_bytes());
            hash.update([0]);
            for rows in &shard.rows {
                hash.update(rows.to_le_bytes());
            }
            hash.update([0xff]);
        }
        hex(&hash.finalize()[..16])
    }
}

/// Small letters.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
