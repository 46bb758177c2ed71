//! Streaming rows of text and label out of parquet files, with bounded memory.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::errors::ParquetError;

use crate::error::{DataError, Result};
use crate::shard_file::{Builder, open_parquet};

/// Rows decoded at a time. Web documents reach 60 kB, so this keeps a batch near 16 MB at most.
const BATCH_ROWS: usize = 256;

/// A label as stored, before it is matched with the classes of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// Class number; -1 in unlabelled GLUE splits.
    Int(i64),
    /// Class name.
    Text(String),
}

/// One row: the asked-for text columns in the order asked for, and the label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// File that holds the row.
    pub file: Arc<Path>,
    /// Row in the file, from 0.
    pub row: u64,
    /// One text per column asked for.
    pub texts: Vec<String>,
    /// The label, if a label column was asked for.
    pub label: Option<Label>,
}

/// Streams rows of one or more parquet files, row group by row group.
#[derive(Debug)]
pub struct RowReader {
    files: VecDeque<PathBuf>,
    columns: Vec<String>,
    label_column: Option<String>,
    open: Option<OpenFile>,
    pending: std::vec::IntoIter<Row>,
    failed: bool,
}

#[derive(Debug)]
struct OpenFile {
    path: Arc<Path>,
    reader: ParquetRecordBatchReader,
    next_row: u64,
}

impl RowReader {
    /// Opens `files` and checks the schema and row count of every one.
    ///
    /// Text columns may be parquet strings however Arrow writers spelled them (`Utf8`,
    /// `LargeUtf8`, `Utf8View`, dictionaries); the label an integer or a string.
    ///
    /// # Errors
    /// If a file is missing, truncated or not parquet, if a column is missing or of the wrong
    /// type, or if all files together have no rows.
    pub fn open(files: &[PathBuf], columns: &[&str], label_column: Option<&str>) -> Result<Self> {
        let mut rows = 0;
        for path in files {
            let builder = open_parquet(path)?;
            rows += builder.metadata().file_metadata().num_rows();
            for column in columns {
                check_column(path, builder.schema(), column, false)?;
            }
            if let Some(column) = label_column {
                check_column(path, builder.schema(), column, true)?;
            }
        }
        if rows == 0 {
            return Err(DataError::Empty {
                path: files.first().cloned().unwrap_or_default(),
            });
        }
        Ok(Self {
            files: files.iter().cloned().collect(),
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            label_column: label_column.map(str::to_owned),
            open: None,
            pending: Vec::new().into_iter(),
            failed: false,
        })
    }

    fn advance(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some(row) = self.pending.next() {
                return Ok(Some(row));
            }
            let Some(open) = &mut self.open else {
                let Some(path) = self.files.pop_front() else {
                    return Ok(None);
                };
                let names = self.columns.iter().chain(&self.label_column);
                let reader = build(open_parquet(&path)?, &path, names, BATCH_ROWS)?;
                self.open = Some(OpenFile {
                    path: path.into(),
                    reader,
                    next_row: 0,
                });
                continue;
            };
            match next_batch(&mut open.reader) {
                None => self.open = None,
                Some(Ok(batch)) => {
                    let rows = unpack(
                        &open.path,
                        open.next_row,
                        &batch,
                        &self.columns,
                        self.label_column.as_deref(),
                    )?;
                    open.next_row += rows.len() as u64;
                    self.pending = rows.into_iter();
                }
                Some(Err(message)) => {
                    let names: Vec<&String> =
                        self.columns.iter().chain(&self.label_column).collect();
                    return Err(locate(&open.path, open.next_row, &names, message));
                }
            }
        }
    }
}

impl Iterator for RowReader {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let row = self.advance().transpose();
        self.failed = matches!(row, Some(Err(_)));
        row
    }
}

/// Names of the columns of a parquet file.
///
/// # Errors
/// If the file cannot be opened or is not parquet.
pub fn column_names(path: &Path) -> Result<Vec<String>> {
    Ok(present(open_parquet(path)?.schema()))
}

/// Number of rows that the files declare together.
///
/// # Errors
/// If a file cannot be opened or is not parquet.
pub fn count_rows(files: &[PathBuf]) -> Result<u64> {
    let mut rows = 0;
    for path in files {
        rows += open_parquet(path)?
            .metadata()
            .file_metadata()
            .num_rows()
            .max(0) as u64;
    }
    Ok(rows)
}

fn build<'a>(
    builder: Builder,
    path: &Path,
    names: impl Iterator<Item = &'a String>,
    batch_rows: usize,
) -> Result<ParquetRecordBatchReader> {
    let schema = builder.schema().clone();
    let roots = names.filter_map(|name| schema.index_of(name).ok());
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    guarded(|| {
        builder
            .with_projection(mask)
            .with_batch_size(batch_rows)
            .build()
    })
    .map_err(|message| DataError::NotParquet {
        path: path.to_owned(),
        message,
    })
}

pub(crate) fn next_batch(
    reader: &mut ParquetRecordBatchReader,
) -> Option<std::result::Result<RecordBatch, String>> {
    guarded(|| reader.next().transpose().map_err(ParquetError::from)).transpose()
}

/// Runs a call into the parquet reader. Corrupt pages can trip its internal assertions, and bad
/// input must not end the process, so a panic becomes an error like any other.
pub(crate) fn guarded<T>(
    call: impl FnOnce() -> std::result::Result<T, ParquetError>,
) -> std::result::Result<T, String> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("a page is corrupt".to_owned()),
    }
}

pub(crate) fn present(schema: &SchemaRef) -> Vec<String> {
    schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}

pub(crate) fn check_column(
    path: &Path,
    schema: &SchemaRef,
    column: &str,
    is_label: bool,
) -> Result<()> {
    let Ok(field) = schema.field_with_name(column) else {
        return Err(DataError::MissingColumn {
            path: path.to_owned(),
            column: column.to_owned(),
            present: present(schema),
        });
    };
    let is_text = *field.data_type() == DataType::Utf8;
    let is_class = field.data_type().is_integer() && *field.data_type() != DataType::UInt64;
    if is_text || (is_label && is_class) {
        return Ok(());
    }
    Err(DataError::WrongType {
        path: path.to_owned(),
        column: column.to_owned(),
        found: field.data_type().to_string(),
        expected: if is_label {
            "an integer or a string"
        } else {
            "a string"
        },
    })
}

fn unpack(
    path: &Arc<Path>,
    first_row: u64,
    batch: &RecordBatch,
    columns: &[String],
    label_column: Option<&str>,
) -> Result<Vec<Row>> {
    let array = |name: &str| {
        batch
            .column_by_name(name)
            .cloned()
            .ok_or_else(|| DataError::MissingColumn {
                path: path.to_path_buf(),
                column: name.to_owned(),
                present: present(&batch.schema()),
            })
    };
    let null = |column: &str, index: usize| DataError::Null {
        path: path.to_path_buf(),
        column: column.to_owned(),
        row: first_row + index as u64,
    };
    let texts = columns
        .iter()
        .map(|name| array(name))
        .collect::<Result<Vec<_>>>()?;
    let labels = match label_column {
        Some(name) => Some((name, array(name)?)),
        None => None,
    };
    let integers = match &labels {
        Some((_, array)) if array.data_type().is_integer() => {
            let cast = arrow::compute::cast(array, &DataType::Int64).map_err(|error| {
                DataError::NotParquet {
                    path: path.to_path_buf(),
                    message: error.to_string(),
                }
            })?;
            Some(cast)
        }
        _ => None,
    };
    (0..batch.num_rows())
        .map(|index| {
            let texts = columns
                .iter()
                .zip(&texts)
                .map(|(name, array)| {
                    if array.is_null(index) {
                        return Err(null(name, index));
                    }
                    Ok(array.as_string::<i32>().value(index).to_owned())
                })
                .collect::<Result<Vec<_>>>()?;
            let label = match &labels {
                None => None,
                Some((name, array)) if array.is_null(index) => return Err(null(name, index)),
                Some((_, array)) => Some(match &integers {
                    Some(cast) => Label::Int(cast.as_primitive::<Int64Type>().value(index)),
                    None => Label::Text(array.as_string::<i32>().value(index).to_owned()),
                }),
            };
            Ok(Row {
                file: path.clone(),
                row: first_row + index as u64,
                texts,
                label,
            })
        })
        .collect()
}

/// Names the column and row of a decoding error by reading the failed batch again, one column and
/// one row at a time.
fn locate(path: &Path, first_row: u64, columns: &[&String], message: String) -> DataError {
    if message.to_lowercase().contains("utf") {
        for column in columns {
            let Ok(builder) = open_parquet(path) else {
                break;
            };
            let builder = builder.with_offset(first_row as usize);
            let Ok(mut reader) = build(builder, path, std::iter::once(*column), 1) else {
                break;
            };
            for index in 0..BATCH_ROWS as u64 {
                match next_batch(&mut reader) {
                    None => break,
                    Some(Ok(_)) => {}
                    Some(Err(_)) => {
                        return DataError::NotUtf8 {
                            path: path.to_owned(),
                            column: (*column).clone(),
                            row: first_row + index,
                        };
                    }
                }
            }
        }
    }
    DataError::NotParquet {
        path: path.to_owned(),
        message: format!("after row {first_row}: {message}"),
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
