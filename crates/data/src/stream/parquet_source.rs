//! Documents out of parquet shards, one row group at a time.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use super::document::{Document, Source};
use super::index::{Shard, ShardIndex};
use super::plan::{Unit, units};
use crate::corpus::TEXT_COLUMNS;
use crate::error::{DataError, Result};
use crate::rows::{check_column, guarded, next_batch, present};
use crate::shard_file::{open_parquet, size};

/// Rows decoded at a time, as for other readers.
const BATCH_ROWS: usize = 256;

fn bad(path: &Path, message: String) -> DataError {
    DataError::NotParquet {
        path: path.to_owned(),
        message,
    }
}

/// Whether a shard is there and as large as it was.
pub(super) fn check_size(path: &Path, bytes: u64) -> Result<()> {
    let now = size(path)?;
    if now == bytes {
        return Ok(());
    }
    Err(bad(
        path,
        format!("it had {bytes} bytes when the run began and has {now} now"),
    ))
}

/// Row counts of a shard, and its text column: the one asked for, else the first usual one.
pub(super) fn describe(path: &Path, column: Option<&str>) -> Result<(Shard, String)> {
    let builder = open_parquet(path)?;
    let columns = present(builder.schema());
    let column = match column {
        Some(column) => column.to_owned(),
        None => TEXT_COLUMNS
            .into_iter()
            .find(|name| columns.iter().any(|column| column == name))
            .ok_or_else(|| DataError::MissingColumn {
                path: path.to_owned(),
                column: TEXT_COLUMNS.join("\" or \""),
                present: columns.clone(),
            })?
            .to_owned(),
    };
    check_column(path, builder.schema(), &column, false)?;
    let groups = builder.metadata().row_groups().iter();
    let rows = groups
        .map(|group| {
            u64::try_from(group.num_rows())
                .map_err(|_| bad(path, "a row group has a negative number of rows".to_owned()))
        })
        .collect::<Result<_>>()?;
    let shard = Shard {
        path: path.to_owned(),
        bytes: size(path)?,
        rows,
    };
    Ok((shard, column))
}

/// Where the last call ended.
struct Open {
    unit: usize,
    next: u64,
    reader: ParquetRecordBatchReader,
    pending: VecDeque<String>,
}

/// See [`Source`].
pub(super) struct ParquetSource {
    paths: Vec<PathBuf>,
    units: Vec<Unit>,
    column: String,
    open: Option<Open>,
}

impl ParquetSource {
    pub(super) fn new(index: &ShardIndex) -> Self {
        Self {
            paths: index.shards.iter().map(|s| s.path.clone()).collect(),
            units: units(index),
            column: index.column.clone(),
            open: None,
        }
    }

    fn open_at(&self, number: usize, row: u64) -> Result<Open> {
        let unit = self.units[number];
        let path = &self.paths[unit.shard];
        let builder = open_parquet(path)?;
        check_column(path, builder.schema(), &self.column, false)?;
        let groups = builder.metadata().row_groups();
        let found = groups.get(unit.group).map(|group| group.num_rows());
        if found.and_then(|rows| u64::try_from(rows).ok()) != Some(unit.rows) {
            return Err(bad(
                path,
                format!(
                    "row group {} had {} rows when the run began and has another number now",
                    unit.group, unit.rows
                ),
            ));
        }
        let root = builder.schema().index_of(&self.column);
        let mask = ProjectionMask::roots(builder.parquet_schema(), root);
        // Batches begin at the same rows wherever reading begins, so that a bad one takes the same
        // rows with it in a run that was resumed.
        let row = row - row % BATCH_ROWS as u64;
        let skip = usize::try_from(row).unwrap_or(usize::MAX);
        let reader = guarded(|| {
            builder
                .with_row_groups(vec![unit.group])
                .with_projection(mask)
                .with_offset(skip)
                .with_batch_size(BATCH_ROWS)
                .build()
        })
        .map_err(|message| bad(path, message))?;
        Ok(Open {
            unit: number,
            next: row,
            reader,
            pending: VecDeque::new(),
        })
    }

    fn fill(&self, open: &mut Open) -> Result<()> {
        let unit = self.units[open.unit];
        let path = &self.paths[unit.shard];
        let at = |message: String| {
            bad(
                path,
                format!(
                    "row group {}, after row {}: {message}",
                    unit.group, open.next
                ),
            )
        };
        let batch = match next_batch(&mut open.reader) {
            Some(Ok(batch)) => batch,
            Some(Err(message)) => return Err(at(message)),
            None => return Err(at("rows are missing".to_owned())),
        };
        let Some(texts) = batch.column_by_name(&self.column) else {
            return Err(at(format!("no column {}", self.column)));
        };
        for (index, text) in texts.as_string::<i32>().iter().enumerate() {
            let Some(text) = text else {
                let before: u64 = (self.units.iter())
                    .filter(|u| u.shard == unit.shard && u.group < unit.group)
                    .map(|u| u.rows)
                    .sum();
                return Err(DataError::Null {
                    path: path.clone(),
                    column: self.column.clone(),
                    row: before + open.next + index as u64,
                });
            };
            open.pending.push_back(text.to_owned());
        }
        if texts.is_empty() {
            return Err(at("rows are missing".to_owned()));
        }
        Ok(())
    }
}

impl Source for ParquetSource {
    fn read(&mut self, unit: usize, rows: Range<u64>, into: &mut Vec<Document>) -> Result<()> {
        let mut open = match self.open.take() {
            Some(open) if open.unit == unit && open.next == rows.start => open,
            _ => self.open_at(unit, rows.start)?,
        };
        while open.next < rows.end {
            if let Some(text) = open.pending.pop_front() {
                if open.next >= rows.start {
                    into.push(Document::Text(text));
                }
                open.next += 1;
            } else {
                self.fill(&mut open)?;
            }
        }
        self.open = Some(open);
        Ok(())
    }
}
